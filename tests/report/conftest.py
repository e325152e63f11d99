"""Pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens a page as file://; at the end the page must have said, asked and fetched nothing."""
    contexts, complaints = [], []

    def open_it(path: Path, fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: outside(request.url, path) and complaints.append(request.url))
        page.goto(path.as_uri() + fragment)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def outside(url: str, path: Path) -> bool:
    return not url.startswith(("data:", "blob:")) and url.split("#")[0] != path.as_uri()
