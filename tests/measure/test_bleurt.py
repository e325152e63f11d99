"""BLEURT: what its checkpoint gives for (reference, candidate), and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from neuronwise.errors import DataError, ModelError
from neuronwise.measure.bleurt import Bleurt
from neuronwise.measure.metrics import MODEL_METRICS


def checkpoint(folder: Path, tokenizer: Any, outputs: int) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, num_labels=outputs,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_score_is_the_classifiers_output_and_the_best_reference_counts(tmp_path: Path, tiny_tokenizer: Any) -> None:
    from transformers import BertForSequenceClassification

    folder = checkpoint(tmp_path / "bleurt", tiny_tokenizer, 1)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    meant, said = ["a cat on the mat", "the dog"], "the cat sat"

    def score(reference: str, candidate: str) -> float:
        with torch.no_grad():
            return float(model(**tiny_tokenizer([reference], [candidate], return_tensors="pt")).logits)

    singles = [score(one, said) for one in meant]
    assert singles[0] != pytest.approx(singles[1], abs=1e-6)
    scores = MODEL_METRICS["bleurt"].score(str(folder), None, [said, "the dog"], [meant, meant[:1]])  # type: ignore[arg-type]
    assert scores[0] == pytest.approx(max(singles), abs=1e-5)
    assert Bleurt(str(folder))(said, meant[:1]) != pytest.approx(
        score(said, meant[0]), abs=1e-6
    )  # the reference comes first


def test_what_is_no_checkpoint_of_it_is_refused_with_what_to_give(tmp_path: Path, tiny_tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"gives 3 outputs, BLEURT one; name a folder with a BLEURT checkpoint"):
        Bleurt(str(checkpoint(tmp_path / "three", tiny_tokenizer, 3)))
    with pytest.raises(DataError, match="not a model's folder"):
        Bleurt(str(tmp_path / "none"))
