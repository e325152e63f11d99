"""Who is let in, and what is refused: every answer is a sentence."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.fixture
def running(start: Any, shelf: Path) -> Any:
    return start([shelf])


@pytest.fixture
def client(running: Any) -> Any:
    with httpx.Client(base_url=running.base, headers={"authorization": f"Bearer {running.viewer.token}"}) as one:
        yield one


def test_the_token_is_wanted_everywhere_and_leaves_the_address(running: Any) -> None:
    with httpx.Client(base_url=running.base) as stranger:
        for path in ("/", "/n/L1.U2", "/static/x/page.css", "/api/photos/x", "/nothing"):
            refused = stranger.get(path)
            assert refused.status_code == 403
            assert "token" in refused.text
        assert stranger.get("/?token=wrong").status_code == 403
        opened = stranger.get(f"/search?q=a&token={running.viewer.token}")
        assert (opened.status_code, opened.headers["location"]) == (303, "/search?q=a")
        assert "HttpOnly" in opened.headers["set-cookie"]
        assert stranger.get("/").status_code == 200  # by the cookie


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil.example"]
)
def test_another_host_is_refused_whatever_it_brings(client: Any, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code in (400, 403)


def test_a_forwarded_port_is_let_in(client: Any) -> None:
    assert client.get("/", headers={"host": "localhost:9999"}).status_code == 200


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://127.0.0.1:1", "http://localhost"])
def test_what_changes_something_needs_our_origin(client: Any, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    for path in ("/api/notes/L0.U1", "/api/photos", "/api/scale", "/api/edit/apply"):
        assert client.post(path, json={}, headers=headers).status_code == 403


def test_nothing_changes_by_get(client: Any, running: Any, shelf: Path) -> None:
    for path in ("/api/notes/L0.U1", "/api/photos", "/api/scale", "/api/edit/apply", "/api/make-edit"):
        assert client.get(path).status_code in (404, 405)
    assert not list(shelf.glob("neuronwise-notes*"))


def test_pages_allow_no_inline_script_and_no_other_host(client: Any) -> None:
    for path in ("/", "/n/L1.U2", "/finding/0/found/dog", "/circuit/0/circuit", "/edit/0/edit", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/finding/0/../../etc", "/finding/0/%2e%2e/%2e%2e", "/finding/1", "/finding/0/found", "/finding/-1",
        "/edit/0/found/dog", "/finding//etc", "/figure/0/found/dog?name=x", "/n/L1", "/n/L99999999999999999999.U1",
        "/static/x/passwd", "/found/7", "/finding/0/%00", "/finding/0/..%2f..%2fetc", "/finding/0/%252e%252e",
        "/finding/%c2%b2/found", f"/finding/0/{'x' * 5000}", "/thumbnail/0/%00", "/photo/0?item=0",
        "/index/0/found/dog", "/edit/0/..%5c..%5cetc", "/finding/0//etc/passwd", "/finding/0/found/dog/",
        "/finding/0/loop", f"/finding/{'9' * 5000}/found",
    ],
)  # fmt: skip
def test_what_is_not_an_item_is_not_served(client: Any, shelf: Path, path: str) -> None:
    (shelf / "loop").symlink_to("loop")
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text


def test_a_link_out_of_the_folder_is_not_followed(client: Any, shelf: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (shelf / "found" / "dog").rename(outside)
    (shelf / "found" / "dog").symlink_to(outside)
    assert client.get("/finding/0/found/dog").status_code == 404
    (shelf / "found" / "dog").unlink()
    (shelf / "found" / "dog").mkdir()
    (shelf / "found" / "dog" / "finding.json").symlink_to(outside / "finding.json")
    assert client.get("/finding/0/found/dog").status_code == 404


def test_an_edit_whose_files_lead_out_of_the_folder_is_not_read(client: Any, shelf: Path, tmp_path: Path) -> None:
    deltas = shelf / "edit" / "deltas.safetensors"
    deltas.rename(tmp_path / "outside")
    deltas.symlink_to(tmp_path / "outside")
    answer = client.get("/edit/0/edit")
    assert answer.status_code in (400, 404)
    assert "deltas.safetensors" in client.get("/").text
    deltas.unlink()
    (tmp_path / "outside").rename(shelf / "elsewhere")
    deltas.symlink_to(shelf / "elsewhere")
    assert client.get("/edit/0/edit").status_code == 200


def test_uploads_are_bounded_and_photos_alone(client: Any, running: Any, photo_file: Path) -> None:
    def sent(content: bytes, **headers: str) -> Any:
        return client.post("/api/photos", content=content, headers={"origin": running.base, **headers})

    assert sent(photo_file.read_bytes()).json()["width"] == 28
    assert "photo" in sent(b"%!PS-Adobe-3.0 EPSF").json()["message"]
    assert sent(photo_file.read_bytes()[:60]).status_code == 400
    assert sent(b"").status_code == 400
    assert sent(bytes(25_000_001)).status_code == 413
    chunked = client.post("/api/photos", content=iter([b"x"]), headers={"origin": running.base})
    assert chunked.status_code == 411


def test_a_length_that_the_body_need_not_keep_is_refused(running: Any) -> None:
    """Sent in chunks, a body may be longer than the length that is named beside."""
    head = (
        f"POST /api/photos HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nOrigin: {running.base}\r\n"
        f"Authorization: Bearer {running.viewer.token}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as raw:
        raw.sendall(head.encode() + b"5\r\nhello\r\n0\r\n\r\n")
        assert raw.recv(4096).split()[1] in (b"400", b"411")


def test_without_a_model_every_question_is_answered_by_a_sentence(client: Any, running: Any) -> None:
    asked = client.post("/api/search", json={"token": "dog"}, headers={"origin": running.base})
    assert asked.status_code == 404
    assert "--model" in asked.json()["message"]


def test_notes_are_kept_in_the_folder_unless_it_is_read_only(
    client: Any, running: Any, shelf: Path, start: Any
) -> None:
    note = {"note": "</script><b>dogs</b>", "star": True}
    origin = {"origin": running.base}
    assert client.post("/api/notes/L1.U2", json=note, headers=origin).status_code == 200
    assert "</script><b>" not in client.get("/").text
    assert client.post("/api/notes/L1", json=note, headers=origin).status_code == 400
    assert client.post("/api/notes/L1.U2", json={"noted": 1}, headers=origin).status_code == 422
    assert client.post("/api/notes/L1.U2", json={}, headers=origin).status_code == 200
    assert "L1.U2" not in (shelf / "neuronwise-notes.json").read_text()
    closed = start([shelf], read_only=True)
    headers = {"authorization": f"Bearer {closed.viewer.token}", "origin": closed.base}
    refused = httpx.post(f"{closed.base}/api/notes/L1.U2", json=note, headers=headers)
    assert "--read-only" in refused.json()["message"]


def test_damaged_notes_are_said_and_kept_as_they_are(client: Any, running: Any, shelf: Path) -> None:
    (shelf / "neuronwise-notes.json").write_text("{")
    for path in ("/", "/n/L1.U2"):
        page = client.get(path)
        assert page.status_code == 200
        assert "neuronwise-notes.json" in page.text
    assert client.post("/api/notes/L1.U2", json={"star": True}, headers={"origin": running.base}).status_code == 404
    assert (shelf / "neuronwise-notes.json").read_text() == "{"


def test_no_edit_is_written_through_a_link(start: Any, shelf: Path, speaker: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (shelf / "edits").symlink_to(tmp_path / "outside")
    live = start([shelf], speaker)
    headers = {"authorization": f"Bearer {live.viewer.token}", "origin": live.base}
    asked = {"neuron": "L1.U2", "factor": 0.0, "name": "off"}
    answer = httpx.post(f"{live.base}/api/make-edit", json=asked, headers=headers, timeout=120)
    assert "a link" in answer.text
    assert list((tmp_path / "outside").iterdir()) == []
