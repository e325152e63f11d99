"""Photos from COCO's layout, from a list, and from SBU's addresses; what is missing is said."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from neuronwise.cli import app
from neuronwise.data.photos import load_photos
from neuronwise.data.photos.sbu import fetch_sbu
from neuronwise.errors import DataError


def write_coco(folder: Path) -> None:
    """Two photos and a missing one; the second is only captioned."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 20, "height": 10} for n in (1, 2, 3)]
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(folder / f"val2017/{number}.jpg")
    square = {"id": 7, "image_id": 1, "category_id": 18, "segmentation": [[1, 1, 5, 1, 5, 5]], "iscrowd": 0, "area": 8}
    instances = {
        "images": [images[0], images[2]],
        "annotations": [square],
        "categories": [{"id": 18, "name": "dog"}],
    }
    said = [{"id": n, "image_id": n, "caption": f"A dog, number {n}.\n"} for n in (1, 2, 3)]
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(instances))
    (folder / "annotations/captions_val2017.json").write_text(json.dumps({"images": images, "annotations": said}))


def test_coco(tmp_path: Path) -> None:
    write_coco(tmp_path)
    photos = load_photos(tmp_path)
    assert [photo.id for photo in photos] == ["1", "2"]
    first, second = photos
    assert first.captions == ("A dog, number 1.",)
    assert first.objects is not None
    assert [(o.category, o.crowd) for o in first.objects] == [("dog", False)]
    assert second.objects is None
    assert photos.problems == ("val2017: there is no photo '3.jpg'.",)
    assert "2 photos (1 with annotated objects)" in str(photos)
    with pytest.raises(DataError, match="it has val2017"):
        load_photos(tmp_path, "test2014")
    with pytest.raises(DataError, match="no form of photos 'album'; the forms of photos are listed, coco"):
        load_photos(tmp_path, form="album")
    digest = photos.digest
    assert load_photos(tmp_path).digest == digest
    content = json.loads((tmp_path / "annotations/captions_val2017.json").read_text())
    content["annotations"][0]["caption"] = "A cat."
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(content))
    assert load_photos(tmp_path).digest != digest
    del content["annotations"][0]["caption"]
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(content))
    assert "val2017: the record of photo 1 is incomplete (KeyError('caption'))." in load_photos(tmp_path).problems


def test_the_real_ones(data: Path) -> None:
    folder = data / "coco-mini"
    photos = load_photos(folder, "val2017")
    captions = json.loads((folder / "annotations/captions_val2017.json").read_text())
    instances = json.loads((folder / "annotations/instances_val2017.json").read_text())
    there = {p.name for p in (folder / "val2017").iterdir()}
    listed = {row["file_name"] for part in (captions, instances) for row in part["images"]}
    assert {photo.path.name for photo in photos} == there & listed
    assert len(photos.problems) == len(listed - there)
    assert sum(photo.objects is not None for photo in photos) == len(
        {row["file_name"] for row in instances["images"]} & there
    )
    assert sum(len(photo.objects or ()) for photo in photos) == len(instances["annotations"])


def test_a_listed_folder(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    rows: list[Any] = [
        {"file_name": "a.png", "caption": "Nothing.", "objects": ["dog", {"category": "cat", "crowd": True}]},
        {"file_name": "gone.png", "caption": "x"},
        {"caption": "no file"},
        {"file_name": "a.png", "captions": "not a list"},
        {"file_name": "a.png", "objects": [{"crowd": True}]},
        {"file_name": "a.png", "objects": [3]},
        {"file_name": ["a.png"]},
        ["a.png"],
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n{broken\n")
    photos = load_photos(tmp_path)
    assert [photo.captions for photo in photos] == [("Nothing.",)]
    assert photos.photos[0].categories() == {"dog", "cat"}
    assert photos.problems[0] == "metadata.jsonl line 2: there is no photo 'gone.png'."
    broken = [problem.partition(" is not a record of a photo (")[0] for problem in photos.problems[1:]]
    assert broken == [f"metadata.jsonl line {number}" for number in (3, 4, 5, 6, 7, 8, 10)]
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"metadata\.jsonl' cannot be read"):
        load_photos(tmp_path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_photos(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no known form of photos .listed: photos with a metadata\.jsonl.*; coco"):
        load_photos(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png"}\n')
    with pytest.raises(DataError, match=r"no photo .* that can be used.*gone\.png"):
        load_photos(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions_val2017.json").write_text("{")
    with pytest.raises(DataError, match="not a COCO annotation file"):
        load_photos(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Photos served on this machine alone, and the paths that were asked for."""
    served = tmp_path / "served"
    served.mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (80, 70), (number, 0, 0)).save(served / f"{number}.jpg")
    Image.new("RGB", (20, 20)).save(served / "tiny.gif")
    (served / "text.jpg").write_text("gone")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    httpd.server_close()


def test_addresses_are_fetched_once_and_dead_ones_counted(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, asked = server
    names = ["1.jpg", "gone.jpg", "tiny.gif", "text.jpg", "2.jpg", "3.jpg"]
    urls = [f"{address}/{name}" for name in names] + ["file:///etc/passwd"]
    listing = tmp_path / "sbu.json"
    listing.write_text(json.dumps({"image_urls": urls, "captions": [f"number {n}" for n in range(len(urls))]}))
    folder = tmp_path / "photos"
    first = fetch_sbu(listing, folder, limit=3)
    assert (first.there, first.dead, first.left) == (1, 2, 0)
    with (folder / "metadata.jsonl").open("a") as stream:
        stream.write('{"file_name": "torn')  # a run that was killed while it wrote
    reports = []
    done = fetch_sbu(listing, folder, progress=reports.append)
    assert (done.there, done.dead, done.left) == (3, 4, 0)
    assert [report.left for report in reports] == [3, 2, 1, 0]
    assert len(asked) == len(set(asked)) == 6
    photos = load_photos(folder)
    assert sorted(photo.captions[0] for photo in photos) == ["number 0", "number 4", "number 5"]
    assert not photos.problems
    reasons = [json.loads(line)["reason"] for line in (folder / "dead.jsonl").read_text().splitlines()]
    assert any("404" in reason for reason in reasons)
    assert any("20 × 20" in reason for reason in reasons)
    assert any("not a web address" in reason for reason in reasons)
    shown = CliRunner().invoke(app, ["photos", "sbu", str(listing), str(folder), "--json"])
    assert json.loads(shown.stdout) == {
        "schema": "neuronwise.photos/1", "folder": str(folder), "there": 3, "dead": 4, "left": 0,
    }  # fmt: skip
    assert len(asked) == 6
    with pytest.raises(DataError, match="not a list of SBU"):
        fetch_sbu(folder / "metadata.jsonl", folder)
