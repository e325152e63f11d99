"""Who may ask the viewer: this machine's browser, with the token, from the viewer's own pages."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 25_000_000  # bytes of a photo that is sent here
LARGEST_TEXT = 200_000  # bytes of anything else
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the opened address holds the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware in front of every route.

    ``hosts``: names that may stand in the header Host, with any port (it may be forwarded), so that a name which an
    attacker points at this machine is refused.
    A request that changes anything needs our own Origin. Every request needs ``token``: in the address that is opened
    first (then it becomes a cookie, and the address loses it), in that cookie, or in ``Authorization: Bearer``.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str, cookie: str) -> None:
        self.app, self.hosts, self.token, self.cookie = app, hosts, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request here, pass others on, and put the headers of safety on every answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self.refusal(scope) or self.welcome(scope) or self.app
        await answer(scope, receive, sent)

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not to be served; None for all others."""
        headers, method = Headers(scope=scope), scope["method"]
        host = headers.get("host", "")
        if re.sub(r":\d+$", "", host) not in self.hosts:
            return _no(403, "This viewer answers at its own address alone; open the one that it printed.")
        if method not in SAFE:
            if headers.get("origin") != f"http://{host}":
                return _no(403, "What changes something must come from the viewer's own pages.")
            length = headers.get("content-length", "")
            if not re.fullmatch(r"[0-9]{1,18}", length) or "transfer-encoding" in headers:  # which overrides the length
                return _no(411, "The request does not say how long it is.")
            most = LARGEST if scope["path"] == "/api/photos" else LARGEST_TEXT
            if int(length) > most:
                return _no(413, f"That is too large: {int(length) / 1e6:.0f} MB; the most is {most / 1e6:g} MB.")
        if not self.known(headers, _query(scope)):
            return _no(
                403, "Open the viewer by the address that it printed, with its token; tokens end with the viewer."
            )
        return None

    def known(self, headers: Headers, query: Mapping[str, str]) -> bool:
        """Whether the request brings the token."""
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        given = (bearer, cookie, query.get("token", ""))
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given)

    def welcome(self, scope: Scope) -> Response | None:
        """For an address with the token: the same address without it, and the token as a cookie."""
        query = _query(scope)
        if "token" not in query or scope["method"] not in SAFE:
            return None
        left = urlencode([(name, value) for name, value in _pairs(scope) if name != "token"])
        answer = RedirectResponse(scope["path"].replace("//", "/") + (f"?{left}" if left else ""), 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
        return answer


def _pairs(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _query(scope: Scope) -> dict[str, str]:
    return dict(_pairs(scope))


def _no(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, status)
