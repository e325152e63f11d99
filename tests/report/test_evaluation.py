"""The summary of an evaluation: every figure with protocol, number, interval, and nothing that a string smuggles in."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from neuronwise.errors import NeuronwiseError
from neuronwise.report.evaluation import page, summary, write_summary
from neuronwise.study import Evaluation
from neuronwise.study.evaluation.figure_names import described, ordered
from neuronwise.study.evaluation.tables import figure_rows

EVIL = '<script>alert("x")</script> | **bold** `code`\nnew line'
RECIPE: dict[str, Any] = {
    "model": "tiny <b>", "editor": "fine", "cases": 3, "known": True, "settings": None, "changes": {"n": 5}, "seed": 0,
    "dtype": "torch.float32", "sequential": 1, "batch": 1,
}  # fmt: skip


def row(identity: str, success: float) -> dict[str, Any]:
    return {
        "id": identity, "status": "done", "reason": None, "prompt": "p",
        "figures": {"locality_forced": 1.0, "success_forced": success, "success_free": 0.0,
                    "neighborhood_success": 1.0},
        "before": {"success_forced": 0.25}, "cost": {"seconds": 2.0, "peak_memory": 3_000_000},
    }  # fmt: skip


FAILED = {"id": "c", "status": "failed", "reason": EVIL, "prompt": EVIL, "figures": {}, "before": {}, "cost": {}}
EVALUATION = Evaluation(RECIPE, [row("a", 1.0), row("b", 0.5), FAILED])


def test_figures_come_with_protocol_number_and_interval() -> None:
    assert figure_rows(EVALUATION) == [
        ("Edit success", "teacher-forced", "2", "0.250", "0.750", "0.500 to 1.000"),
        ("Edit success", "free generation", "2", "–", "0.000", "0.000 to 0.000"),
        ("Locality, mean of kinds", "teacher-forced", "2", "–", "1.000", "1.000 to 1.000"),
        ("CounterFact neighborhood success", "p(true) > p(new)", "2", "–", "1.000", "1.000 to 1.000"),
    ]


def test_the_summary_tells_costs_and_failures() -> None:
    text = summary(EVALUATION)
    assert "2 cases measured, 1 failed, of 3 read, those whose true answer the model gives by itself." in text
    assert "| Seconds an edit | 2 | 2.00 |" in text
    assert "| Peak memory beyond the start, MB | 2 | 3.0 |" in text
    failed = next(line for line in text.splitlines() if line.startswith("| c |"))
    assert failed.replace("\\|", "").count("|") == 4
    assert "<script>" not in text


def test_the_page_holds_no_tag_of_a_string() -> None:
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)
            assert not any(name == "src" or name.startswith("on") for name, _ in attrs)
            assert all(value.startswith(("#", "data:,")) for name, value in attrs if name == "href")

    text = page(EVALUATION)
    Reader().feed(text)
    assert "script" not in tags
    assert "b" not in tags
    assert "alert(&quot;x&quot;)" in text
    assert "default-src 'none'" in text


def test_files_are_written_into_the_folder(tmp_path: Path) -> None:
    written = write_summary(Evaluation(RECIPE, EVALUATION.rows, tmp_path))
    assert written.read_text() == summary(EVALUATION)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.html", "summary.md"]
    with pytest.raises(NeuronwiseError, match="no folder"):
        write_summary(EVALUATION)


def test_every_figure_has_a_name_for_readers() -> None:
    assert described("portability_subject_aliasing_free") == ("Portability: subject aliasing", "free generation")
    assert described("others_unchanged_forced") == ("Other facts unchanged", "teacher-forced")
    assert described("efficacy_magnitude") == ("CounterFact efficacy magnitude", "p(new) − p(true)")
    assert described("fluency")[0].startswith("Fluency")
    names = [
        "fluency",
        "locality_neighborhood_free",
        "locality_free",
        "unheard_of",
        "success_text_free",
        "success_free",
    ]
    assert ordered(names) == [
        "success_free", "success_text_free", "locality_free", "locality_neighborhood_free", "fluency", "unheard_of",
    ]  # fmt: skip
