"""A study's page: its tables sort, its figures load, its cases open; hostile names stay text, damage is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from neuronwise.data.photos import load_photos
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study
from wired_study import PLACES, RECIPE, write_photos

pytestmark = pytest.mark.browser
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def studied(speaker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studied")
    photos = load_photos(write_photos(folder / "photos"))
    recipe = make_recipe({**RECIPE, "concepts": ["dog"], "title": HOSTILE})
    run_study(speaker, recipe, photos, folder / "study")
    return folder / "study"


def test_tables_sort_and_the_address_keeps_how(start: Any, studied: Path, visit: Any) -> None:
    page = visit(start([studied]))
    page.locator("a.item-title").click()
    page.wait_for_url("**/study/0")
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("main img[src=x]").count() == 0
    page.wait_for_function("() => [...document.querySelectorAll('figure img')].every((one) => one.naturalWidth)")
    table = page.locator("table", has=page.locator("tbody tr:nth-child(3)")).first
    heading = table.locator("thead th").last
    heading.locator("button").click()

    def column() -> list[str]:
        return table.locator("tbody tr td:last-child").all_text_contents()

    down = column()
    assert heading.get_attribute("aria-sort") == "descending"
    page.wait_for_url("**?sort=*down")
    page.reload()
    assert column() == down
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert sorted(column()) == sorted(down)
    page.locator("[data-part=filter]").fill("dog1")
    cases = page.locator("[data-part=cases] details")
    assert 0 < cases.count() < len(PLACES)
    cases.locator("summary").first.click()
    page.wait_for_selector("[data-part=cases] details[open] dl")
    assert "dog1" in cases.first.text_content()


def test_a_damaged_study_is_a_sentence(start: Any, studied: Path, visit: Any) -> None:
    rows = next(path for path in studied.iterdir() if path.suffix == ".jsonl")
    kept = rows.read_text()
    rows.write_text("{\n" * 3)
    try:
        running = start([studied])
        headers = {"authorization": f"Bearer {running.viewer.token}"}
        answer = httpx.get(f"{running.base}/study/0", headers=headers, timeout=60)
        assert answer.status_code == 404
        assert "unexpectedly" not in answer.text
    finally:
        rows.write_text(kept)
