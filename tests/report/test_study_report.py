"""The report of a study: numbers by hand, every form of the tables, figures that open, no tag from a string."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuronwise.drawing.style import COLORS, MARKERS, rendered, styles
from neuronwise.drawing.tables import Estimate, Table, csv_text, html_table, latex, markdown
from neuronwise.errors import StudyError
from neuronwise.report.study import write_report
from neuronwise.study.cases import CasesInMemory
from neuronwise.study.kind import SCHEMA, Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.localization import LOCALIZATION
from neuronwise.study.notes import Notes
from neuronwise.study.properties import PROPERTIES
from neuronwise.study.properties.tables import by_word, specificity, subsets
from neuronwise.study.results import assembled, read_study
from neuronwise.study.suppression import SUPPRESSION
from neuronwise.study.suppression.tables import score_interval

EVIL = '<script>alert("x")</script> | $\\frac{a_b}$ & 5 % #1 {{recipe}}'
PLAIN: dict[str, Any] = {"model": EVIL, "seed": 0, "weights_dtype": "torch.float32", "title": "", "methods": []}


def case(identity: str, rows: list[dict[str, Any]], **inputs: Any) -> dict[str, Any]:
    return {"id": identity, "status": "done", "reason": None, "inputs": inputs, "rows": rows, "seconds": 1.0}


def failed(identity: str) -> dict[str, Any]:
    return {"id": identity, "status": "failed", "reason": EVIL, "inputs": {}, "rows": [], "seconds": 1.0}


def localization() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def row(method: str, number: int) -> dict[str, Any]:
        lost = {"random": 0.1, EVIL: 1.0}[method]
        return {
            "method": method, "fill": "zero", "positions": "predicting", "found": 100, "before": -1.0, "none": -9.0,
            "counts": [1, 10, 100], "deletion": [-1 - lost, -1 - 2 * lost, -1 - (3 + number) * lost],
            "insertion": [-9.0, -8.0, -7.0], "deletion_area": lost * (2 + number), "insertion_area": 1.0,
            "seconds_finding": 0.5,
        }  # fmt: skip

    cases = [
        case(f"word/{n}", [row(EVIL, n), row("random", n)], what="word", concept="dog", photo=str(n), word="dog")
        for n in range(3)
    ]
    cases += [case("fact/0", [row(EVIL, 0), row("random", 0)], what="fact", prompt=EVIL, answer="Paris")]
    return {"kind": "localization", **PLAIN}, [*cases, failed("fact/1")]


def properties(photo: str = "there.png") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    neurons = {"dog": [["L0.U1", "L0.U2"], ["L0.U1", "L1.U3"]], "cat": [["L0.U2", "L1.U4"], ["L1.U4", "L1.U5"]]}

    def rows(word: str, number: int) -> list[dict[str, Any]]:
        found = []
        for method in ("contribution", "random"):
            found.append(
                {
                    "part": "neurons", "method": method, "K": 2, "neurons": neurons[word][number], "layers": [1, 1],
                    "shuffled_overlap": 0.5, "says_word": 0.25 * number, "best_tokens": EVIL,
                    "heat_iou": 0.2, "heat_chance": 0.05, "heat_pointing": True, "object_share": 0.3,
                    "grid": [0.0, 1.0, 2.0, 3.0], "grid_rows": 2, "box": [0.0, 0.0, 20.0, 20.0],
                    "seconds_finding": 0.1,
                }
            )  # fmt: skip
            for sweep, sigma, count in (("sigma", 0.5, 2), ("sigma", 1.0, 2), ("K", 0.5, 1), ("K", 0.5, 2)):
                found.append(
                    {
                        "part": "noise", "method": method, "sweep": sweep, "sigma": sigma, "unit": 0.2, "K": count,
                        "drop": sigma * count + number, "first": number == 0, "said": None, "text": None,
                    }
                )  # fmt: skip
        return found

    cases = [
        case(f"{word}/{n}", rows(word, n), concept=word, photo=f"{word}{n}", file=photo, word=word.upper())
        for word in neurons
        for n in range(2)
    ]
    return {"kind": "properties", **PLAIN, "K": 2, "images": 2, "kappas": [0.1, 0.45]}, cases


def suppression() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def rows(gone: float, number: int) -> list[dict[str, Any]]:
        found = []
        for role in ("found_on", "held_out", "held_out", "without"):
            found.append(
                {
                    "neurons": 5, "photo": f"{role}{len(found)}", "role": role, "before": "a dog", "after": EVIL,
                    "unchanged": role == "without", "named": False, "retained": 0.5,
                    "suppressed": None if role == "without" else len(found) <= gone, "mentions": 2, "unsupported": 1,
                    "mentions_before": 2, "unsupported_before": 0, "to_before.bleu-1": 0.5,
                    "to_references.bleu-1": None, "to_references_before.bleu-1": 0.25, "length": 4, "repeated": 0.0,
                }
            )  # fmt: skip
        return found

    def add(method: str, count: int | None, gone: float) -> dict[str, Any]:
        inputs = {"concept": "dog", "method": method, "intervention": "suppress", "K": count}
        return case(f"dog/{method}/{count}", rows(gone, 0), **inputs)

    cases = [add("two_stage", 10, 1), add("two_stage", None, 2), add("random", 10, -1), add("by hand a=1", None, 1)]
    recipe = {"kind": "suppression", **PLAIN}
    recipe["methods"] = [
        {"method": "two_stage", "name": None, "sweep": {}, "options": {}},
        {"method": "two_stage", "name": "by hand", "sweep": {"a": [1]}},
    ]
    return recipe, cases


MAKE = {"localization": localization, "properties": properties, "suppression": suppression}


def study(kind: str, data: Path | None = None) -> Study:
    recipe, cases = MAKE[kind]()
    manifest = {"recipe": recipe, "versions": {"neuronwise": EVIL}, "data": {"folder": str(data), "photos": 3}}
    funnel = {"photos": [{"neurons": 96, "after_difference": 9, "after_both": 4}], "after_vote": 3, "vote": 0.7}
    notes = [
        {"part": "study", "key": "cases", "value": {"ids": [one["id"] for one in cases], "skipped": {EVIL: EVIL}}},
        {"part": "found", "key": "dog/two_stage", "value": {"neurons": [[0, 1]], "funnel": funnel}},
    ]
    return assembled(manifest, CasesInMemory(cases), Notes(notes))


def folder_of(kind: str, where: Path, data: Path | None = None) -> Path:
    recipe, cases = MAKE[kind]()
    where.mkdir()
    manifest = {"schema": SCHEMA, "recipe": recipe, "versions": {"neuronwise": EVIL},
                "data": {"folder": str(data), "photos": 3}}  # fmt: skip
    (where / "manifest.json").write_text(json.dumps(manifest))
    (where / "cases.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cases))
    (where / "before.jsonl").write_text("")
    return where


def test_curves_are_means_of_drops_and_gains() -> None:
    areas, points = LOCALIZATION.tables(study("localization"))[:2]
    assert (areas.name, points.name) == ("areas-word-zero", "points-word-zero")
    evil, random = areas.rows
    assert evil[0] == EVIL
    assert isinstance(evil[1], Estimate)
    assert (evil[1].mean, evil[1].low, evil[1].high) == (3.0, 2.0, 4.0)
    assert random[1].mean == pytest.approx(0.3)  # type: ignore[union-attr]
    assert [points.columns[1], points.columns[-1]] == ["drop, K = 1", "gain, K = 100"]
    drops = [cell.mean for cell in points.rows[0][1:4]]  # type: ignore[union-attr]
    gains = [cell.mean for cell in points.rows[0][4:]]  # type: ignore[union-attr]
    assert drops == [1, 2, 4]
    assert gains == [0, 1, 2]
    assert [table.name for table in LOCALIZATION.tables(study("localization"))[2:]] == [
        "areas-fact-zero", "points-fact-zero",
    ]  # fmt: skip


def test_what_photos_and_words_share_by_hand() -> None:
    found = study("properties")
    rows = [row for row in found.rows if row["part"] == "neurons"]
    assert sorted(by_word(rows, "contribution", 2)) == ["cat", "dog"]
    assert by_word(rows, "contribution", 3) == {}
    tables = {table.name: table for table in PROPERTIES.tables(found)}
    common, paired, words = tables["invariance"].rows[0][2:]
    assert isinstance(common, Estimate)
    assert (common.mean, words) == (0.5, 2)
    assert isinstance(paired, Estimate)
    share = specificity(rows, "contribution", 2, [0.1, 0.45, 0.6])
    assert share is not None
    assert sorted(share.exclusive) == pytest.approx([2 / 3, 2 / 3])  # only L0.U2 is in both
    assert share.below[0.1] == pytest.approx([2 / 3, 2 / 3])
    assert share.below[0.6] == [1, 1]  # it is crucial for the other word with probability 1/2
    heat = tables["heat"].rows[0]
    assert [str(cell) for cell in heat[1:5]] == ["0.200 [0.200, 0.200]", "0.050", "0.150 [0.150, 0.150]",
                                                 "1.00 [1.00, 1.00]"]  # fmt: skip
    noise = tables["noise-sigma"].rows
    assert [row[:2] for row in noise] == [
        ["contribution", "0.5"], ["contribution", "1"], ["random", "0.5"], ["random", "1"],
    ]  # fmt: skip
    assert noise[0][2].mean == 1.5  # type: ignore[union-attr]
    assert noise[0][3].mean == 0.5  # type: ignore[union-attr]
    assert noise[0][4] is None


def test_choices_of_photos() -> None:
    assert subsets("abc", 2, 0) == [("a", "b"), ("a", "c"), ("b", "c")]
    many = subsets(range(30), 10, 0)
    assert len(many) == 100
    assert all(len(set(one)) == 10 for one in many)
    assert many == subsets(range(30), 10, 0)


def test_suppression_by_hand() -> None:
    tables = {table.name: table for table in SUPPRESSION.tables(study("suppression"))}
    held = {tuple(row[:2]): row for row in tables["suppression-suppress-held_out"].rows}
    assert list(held) == [("two_stage", "10"), ("two_stage", "found"), ("random", "10"), ("by hand a=1", "found")]
    ten = held["two_stage", "10"]
    assert [ten[3].mean, ten[4].mean, ten[5].mean] == [0.5, 0.5, 0.5]  # type: ignore[union-attr]
    assert held["two_stage", "found"][5].mean == pytest.approx(2 / 3)  # type: ignore[union-attr]
    assert held["random", "10"][5].mean == 0  # type: ignore[union-attr]
    assert tables["side-effects-suppress"].rows[0][2].mean == 1  # type: ignore[union-attr]
    captions = tables["captions-suppress"]
    assert captions.columns == ("method", "K", "bleu-1", "CHAIR-i before", "CHAIR-i after")
    assert [str(cell) for cell in captions.rows[0][3:]] == ["0.00", "0.50"]
    assert [str(cell) for cell in tables["funnel"].rows[0]] == ["dog", "two_stage", "1", "96", "9", "4", "3"]


def test_the_score_has_an_interval_over_photos() -> None:
    rows = [{"suppressed": float(n < 8), "retained": None if n == 9 else 0.5} for n in range(10)]
    found = score_interval(rows)
    assert found is not None
    assert found.mean == pytest.approx(2 * 0.8 * 0.5 / 1.3)
    assert found.low == pytest.approx(0.5)  # 5 of 10 is where the binomial with p = 0.8 reaches 2.5 %
    assert found.high == pytest.approx(2 / 3)  # and 10 of 10 where it reaches 97.5 %
    assert score_interval([{"suppressed": None, "retained": 1.0}]) is None
    table = {one.name: one for one in SUPPRESSION.tables(study("suppression"))}["thresholds"]
    assert [[str(cell) for cell in (row[0], row[4])] for row in table.rows] == [
        ["two_stage", "1.33"], ["by hand a=1", "1.00"],
    ]  # fmt: skip


TABLE = Table("t", EVIL, (EVIL, "b_c"), [[EVIL, Estimate(1.0, 0.5, 1.5, 7)], ["=1+1", None]], EVIL)


def test_every_form_of_a_table() -> None:
    text = markdown(TABLE)
    assert "<script>" not in text
    row = next(line for line in text.splitlines() if line.endswith("| 1.00 \\[0.50, 1.50\\] |"))
    assert row.replace("\\|", "").count("|") == 3
    read = list(csv.reader(io.StringIO(csv_text(TABLE))))
    assert read[0][1:] == ["b_c", "b_c (low)", "b_c (high)", "b_c (n)"]
    assert read[1] == [EVIL, "1.0", "0.5", "1.5", "7"]
    assert read[2] == ["'=1+1", "", "", "", ""]
    tex = latex(TABLE)
    assert r"\textbackslash{}frac\{a\_b\}\$ \& 5 \% \#1" in tex
    assert tex.count(r" \\") == 3
    assert "<script>" not in html_table(TABLE)
    assert [str(Estimate(value)) for value in (-0.001, -0.5, 0.0)] == ["0.00", "−0.50", "0.00"]


def test_methods_look_different_and_controls_are_broken() -> None:
    names = [f"m{n}" for n in range(len(COLORS))]
    looks = styles([*names, "random", "random_same_layers"])
    assert len({look["color"] for name, look in looks.items() if name in names}) == len(COLORS) == len(set(MARKERS))
    assert {looks["random"]["linestyle"], looks["random_same_layers"]["linestyle"]} == {":", "--"}


@pytest.mark.parametrize("kind", list(MAKE))
def test_a_report_is_whole_and_holds_no_tag_of_a_string(kind: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "there.png")
    where = folder_of(kind, tmp_path / "study", tmp_path)
    page = write_report(where)
    assert page == where / "report" / "index.html"
    found = read_study(where)
    tables, figures = KINDS[kind].tables(found), KINDS[kind].figures(found)
    names = {path.name for path in (where / "report" / "tables").iterdir()}
    assert names == {f"{table.name}.{end}" for table in tables for end in ("md", "csv", "tex")}
    for figure in figures:
        png = Image.open(where / "report" / "figures" / f"{figure.name}.png")
        assert png.width > 600
        assert b"prefers-color-scheme: dark" in (where / "report" / "figures" / f"{figure.name}.svg").read_bytes()
    assert not list(where.rglob(".*"))
    tags: list[tuple[str, Any]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append((tag, dict(attrs)))

    text = page.read_text()
    Reader().feed(text)
    assert "script" not in {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
        assert source is None or source.startswith("data:")
    assert "default-src 'none'" in text
    assert "alert(&quot;x&quot;)" in text
    assert sum(tag == "img" for tag, _ in tags) == len(figures)
    if kind == "localization":
        again = {path: path.read_bytes() for path in (where / "report").rglob("*") if path.is_file()}
        write_report(where)
        assert all(path.read_bytes() == content for path, content in again.items())


def test_photos_elsewhere_and_files_outside_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "outside.png")
    data = tmp_path / "data"
    data.mkdir()
    recipe, cases = properties("../outside.png")
    manifest = {"recipe": recipe, "data": {"folder": str(data)}}
    assert "heat" not in [
        figure.name for figure in PROPERTIES.figures(assembled(manifest, CasesInMemory(cases), Notes()))
    ]
    recipe, cases = properties("outside.png")
    manifest = {"recipe": recipe, "data": {"folder": str(tmp_path)}}
    figures = PROPERTIES.figures(assembled(manifest, CasesInMemory(cases), Notes()))
    assert "heat" in [figure.name for figure in figures]
    svg, png = rendered(figures[0])
    assert svg.startswith(b"<?xml")
    assert png[:4] == b"\x89PNG"


def test_what_is_refused(tmp_path: Path) -> None:
    where = folder_of("localization", tmp_path / "study")
    (where / "cases.jsonl").write_text(json.dumps(failed("fact/1")) + "\n")
    with pytest.raises(StudyError, match="no finished case"):
        write_report(where)
    assert not (where / "report").exists()
    with pytest.raises(StudyError, match="holds no study and no evaluation"):
        write_report(tmp_path)


def test_the_page_fits_a_phone_and_fetches_nothing(tmp_path: Path, open_page: Any) -> None:
    page = write_report(folder_of("localization", tmp_path / "study"))
    opened = open_page(page, viewport={"width": 360, "height": 700}, color_scheme="dark")
    assert opened.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
