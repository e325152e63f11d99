"""Caption metrics against other libraries and by hand; nouns; CHAIR; the metrics that have a model of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronwise.errors import DataError, MethodError
from neuronwise.measure.captions import caption_scores, corpus_scores, words_of
from neuronwise.measure.nouns import hallucination, nouns_of, retained, suppressed
from neuronwise.measure.semantic import ClipScorer, Embedder, bert_score, mover_score

SAID = ["A cat sits on the mat.", "Two dogs run over the green grass!", "a red bus"]
MEANT = [
    ["a cat is sitting on the mat", "the cat sits there"],
    ["two dogs are running over grass", "Dogs run over the green grass"],
    ["a red double-decker bus on a street"],
]


def test_words() -> None:
    assert words_of("A man's cat, twice: on_a-mat!") == "a man's cat twice on a mat"


def test_bleu_is_another_librarys() -> None:
    import sacrebleu

    ready = [[words_of(reference) for reference in those] for those in MEANT]
    columns = [[those[k] if k < len(those) else None for those in ready] for k in range(2)]
    other = sacrebleu.corpus_bleu(
        [words_of(caption) for caption in SAID],
        columns,  # type: ignore[arg-type]
        tokenize="none",
        smooth_method="none",
        force=True,
    )
    ours = corpus_scores(SAID, MEANT, ["bleu-1", "bleu-2", "bleu-3", "bleu-4"])
    for n in (1, 2, 3, 4):
        expected = other.bp * math.exp(sum(math.log(p / 100) for p in other.precisions[:n]) / n)
        assert ours[f"bleu-{n}"] == pytest.approx(expected, abs=1e-6)


def test_rouge_is_the_longest_common_subsequence() -> None:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"])
    each = caption_scores(SAID, MEANT, ["rouge-l"])["rouge-l"]
    for said, meant, score in zip(SAID, MEANT, each, strict=True):
        found = [scorer.score(words_of(one), words_of(said))["rougeL"] for one in meant]
        precision, recall = max(s.precision for s in found), max(s.recall for s in found)
        assert score == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision), abs=1e-6)


def test_cider_by_hand() -> None:
    """Two photos of one reference each, one word each: only unigrams that are not in both count."""
    scores = caption_scores(["cat", "dog"], [["cat"], ["dog"]], ["cider"])["cider"]
    assert scores == pytest.approx([2.5, 2.5])  # 10 · (1 + 0 + 0 + 0) / 4
    assert caption_scores(["dog", "dog"], [["cat"], ["dog"]], ["cider"])["cider"][0] == 0.0


def test_what_can_run_is_run() -> None:
    each = caption_scores(SAID, MEANT, None) if not _java() else caption_scores(SAID, MEANT, ["bleu-1", "cider"])
    assert all(len(scores) == len(SAID) for scores in each.values())
    assert caption_scores(SAID[:1], [SAID[:1]], ["rouge-l"])["rouge-l"] == [pytest.approx(1.0)]
    assert corpus_scores([], [], ["bleu-1"]) == {}


def _java() -> bool:
    import shutil

    return shutil.which("java") is not None


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="no metric 'spice'"):
        caption_scores(SAID, MEANT, ["spice"])
    with pytest.raises(DataError, match="3 captions and references for 2"):
        caption_scores(SAID, MEANT[:2])
    with pytest.raises(DataError, match="Caption 1 has no reference"):
        caption_scores(SAID, [["a"], [], ["b"]])
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MethodError, match="the program java"):
        caption_scores(SAID, MEANT, ["meteor"])
    assert "meteor" not in caption_scores(SAID, MEANT)
    with pytest.raises(DataError, match="not a model's folder"):
        Embedder(tmp_path)


@pytest.mark.skipif(not _java(), reason="METEOR is a Java program")
def test_meteor_prefers_the_same_words() -> None:
    same, other = caption_scores(
        ["a cat sits on a mat", "dogs run"], [["a cat sits on a mat"], ["a red bus"]], ["meteor"]
    )["meteor"]
    assert same > 0.9
    assert other < 0.2


def test_nouns() -> None:
    assert nouns_of("Two dogs sit on a bench.") == {"dog", "bench"}


def test_suppression_and_retention() -> None:
    before = "A dog sits on a bench in the park."
    assert suppressed(before, "A cat sits on a bench.", "dog") is True
    assert suppressed(before, "The puppy is happy.", "dog") is False
    assert suppressed("A cat.", "A cat.", "dog") is None
    assert retained(before, "A cat sits on a bench.", "dog") == 0.5
    assert retained("A dog.", "A cat.", "dog") is None
    assert retained("Two traffic lights on a pole.", "A pole in the street.", "traffic light") == 1.0
    assert retained("A hot dog.", "A plate.", "hot dog") is None


def test_mentions_without_support() -> None:
    found = hallucination(["A dog and a cat.", "A bus.", "Nothing."], [{"dog"}, {"bus", "car"}, set()])
    assert (found.mentions, found.unsupported, found.captions, found.captions_with) == (3, 1, 3, 1)
    assert found.instance == pytest.approx(1 / 3)
    assert found.sentence == pytest.approx(1 / 3)
    assert hallucination([], []).instance is None


@pytest.fixture(scope="module")
def embedder(tiny_bert: Path) -> Embedder:
    return Embedder(tiny_bert)


def test_bert_score_by_loops(embedder: Embedder) -> None:
    said, meant = "the cat sits", "a dog sits on the mat"
    a, b = embedder(said)[0], embedder(meant)[0]
    assert torch.allclose(a.norm(dim=1), torch.ones(3))
    precision = sum(max(float(x @ y) for y in b) for x in a) / len(a)
    recall = sum(max(float(x @ y) for x in a) for y in b) / len(b)
    assert bert_score(embedder, said, [meant]) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)
    assert bert_score(embedder, said, [meant, said]) == pytest.approx(1.0, abs=1e-5)
    assert embedder.layer == 3


def test_the_mover_moves_as_little_as_it_can(embedder: Embedder) -> None:
    """With as many tokens on both sides the best flow is a matching: every one is tried."""
    import itertools

    said, meant = "the cat sits", "dog on mat"
    a, b = embedder(said)[0], embedder(meant)[0]
    assert len(a) == len(b) == 3
    cost = (1 - a @ b.T) / 2
    least = min(sum(float(cost[i, j]) for i, j in enumerate(order)) / 3 for order in itertools.permutations(range(3)))
    assert mover_score(embedder, said, [meant]) == pytest.approx(1 - least, abs=1e-5)
    assert mover_score(embedder, said, [said]) == pytest.approx(1.0, abs=1e-5)


def test_clip_score_by_its_formula(tiny_clip: Path, tiny_tokenizer: Any, chelsea: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    model, pixels = CLIPModel.from_pretrained(tiny_clip), CLIPProcessor.from_pretrained(tiny_clip).image_processor
    captions = ["the cat", "a dog runs on mat"]
    scores = ClipScorer(tiny_clip)(chelsea, captions)
    from neuronwise.images import open_image

    seen = pixels(open_image(chelsea), return_tensors="pt")
    for caption, score in zip(captions, scores, strict=True):
        with torch.no_grad():
            output = model(**tiny_tokenizer(caption, return_tensors="pt"), **seen)
        cosine = torch.cosine_similarity(output.text_embeds, output.image_embeds)
        assert score == pytest.approx(2.5 * max(float(cosine), 0.0), abs=1e-4)
