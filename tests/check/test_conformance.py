"""Conformance of tiny models of many architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import conformed
import families
from neuronwise import check as conformance
from neuronwise.check import (
    FAILED,
    NAMES,
    NOT_APPLICABLE,
    PASSED,
)

# What need not apply, and why it says so.
EXPLAINED = {
    "span": ("without a photo", "read by cross-attention"),
    "heat": ("without a photo", "only the model's own processor knows"),
    "adapter": ("peft does not address",),
    "relevance": ("no rule for",),
    "heads": ("no attention heads that can be told apart", "another branch", "writes more than its heads"),
    "generation": ("generates nothing",),
}


@pytest.mark.parametrize("name", [*families.NAMES, *(f"{name}, own processor" for name in conformed.PROCESSED)])
def test_every_architecture_conforms(name: str) -> None:
    name, _, processed = name.partition(", ")
    report = conformed.processed(name) if processed else conformed.conformed(name)
    assert [one.name for one in report.results] == list(NAMES)
    for one in report.results:
        assert one.outcome != FAILED, f"{one.name}: {one.detail}"
        if one.outcome == NOT_APPLICABLE:
            assert any(words in one.detail for words in EXPLAINED[one.name]), f"{one.name}: {one.detail}"
    if processed:
        assert report["heat"].outcome == PASSED
    elif name in families.IMAGE_TEXT and name != "mllama":
        assert report["span"].outcome == report["heat"].outcome == PASSED


def test_enough_architectures() -> None:
    assert len(families.NAMES) >= 40
    assert len(families.IMAGE_TEXT) >= 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_oss", "t5", "qwen2_vl"])
def test_other_precisions_conform(name: str, dtype: torch.dtype) -> None:
    report = conformed.conformed(name, dtype)
    assert report.passed, [one for one in report.results if one.outcome == FAILED]
    assert report.record["dtype"] == str(dtype).removeprefix("torch.")


def test_the_report_as_json() -> None:
    content = json.loads(json.dumps(conformed.conformed("llama").to_dict(), allow_nan=False))
    assert content["schema"] == "neuronwise.check/1"
    assert content["passed"] is True
    assert content["architecture"] == "LlamaForCausalLM"
    assert [row["name"] for row in content["checks"]] == list(NAMES)
    assert set(content["checks"][0]) == {"name", "title", "outcome", "detail", "numbers", "seconds"}
    assert content["checks"][3]["numbers"]["total"] == pytest.approx(content["checks"][3]["numbers"]["logit"], rel=1e-3)


def test_the_table_of_the_documentation(tmp_path: Path) -> None:
    text = conformed.table([conformed.conformed("llama")])
    assert text.startswith("| architecture | logits | activations |")
    assert "| llama | ✓ | ✓ |" in text
    assert "1 architectures: 15 passed, 0 failed, 2 not applicable." in text


@pytest.mark.long
@pytest.mark.builtin
def test_the_builtin_model_conforms(builtin: Any, chelsea: Path) -> None:
    report = conformance.conform(builtin, *builtin.prepare(chelsea))
    assert report.passed, [one for one in report.results if one.outcome == FAILED]
    assert report["span"].outcome == report["heat"].outcome == PASSED
