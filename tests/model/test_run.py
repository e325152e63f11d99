"""Runs: prompts, targets, concepts, positions, recorded activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from neuronwise.errors import MethodError, NeuronError, PromptError, TargetError
from neuronwise.model.concepts import concept_of, concepts_in, token_spans
from neuronwise.model.prompt import target_tokens
from neuronwise.model.taggers import TAGGERS, nouns


def test_generation_is_greedy_and_recorded_at_the_last_position(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat sits on", max_new_tokens=6)
    ids = tiny_model.tokenizer("the cat sits on", return_tensors="pt")["input_ids"]
    expected = tiny_model.module.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
    expected = expected[: expected.index(2)] if 2 in expected else expected
    assert run.output_ids == expected
    for position in range(len(run.output_ids)):
        forced = tiny_model.record(run.forced_inputs(), rows=[run.row(position)])
        for layer in range(tiny_model.num_layers):
            recorded = run.activations(position).dense[layer]
            assert torch.allclose(recorded, forced.dense[layer], atol=1e-5)


def test_no_new_tokens_is_one_pass_that_predicts(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat", max_new_tokens=0)
    assert run.text == ""
    assert len(run.steps) == 1
    target = run.target(target=" dog")
    assert (target.position, run.row(0)) == (0, -1)


def test_a_given_text_is_forced_instead_of_generated(tiny_model: Any) -> None:
    said = tiny_model.run(prompt="the cat sits on", max_new_tokens=4)
    given = tiny_model.run(prompt="the cat sits on", text=" " + said.text)
    assert given.text == said.text
    assert given.output_ids == said.output_ids
    for layer in range(tiny_model.num_layers):
        assert torch.allclose(given.activations(2).dense[layer], said.activations(2).dense[layer], atol=1e-5)
    other = tiny_model.run(prompt="the cat sits on", text=" a dog")
    assert other.text == "a dog"
    assert [concept.word for concept in other.concepts] == ["dog"]
    with pytest.raises(TargetError, match="text is empty"):
        tiny_model.run(prompt="the cat", text=" ")


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(tiny_model: Any, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        tiny_model.run(prompt=prompt)
    with pytest.raises(PromptError, match="prompt is needed"):
        tiny_model.run()


def test_an_image_for_a_text_model_is_refused(tiny_model: Any, chelsea: Any) -> None:
    with pytest.raises(PromptError, match="no image processor"):
        tiny_model.run(image=chelsea, prompt="the")


def test_a_template_that_is_not_there_is_refused(tiny_model: Any) -> None:
    with pytest.raises(PromptError, match="chat template"):
        tiny_model.run(prompt="the cat", chat=True)


def test_targets(tiny_model: Any) -> None:
    tokenizer, size = tiny_model.tokenizer, tiny_model.vocabulary_size
    paris = target_tokens(tokenizer, size, " Paris")
    assert tokenizer.convert_ids_to_tokens(paris.token_id) == "▁Paris"
    assert paris.note is None
    assert target_tokens(tokenizer, size, paris.token_id).token_ids == paris.token_ids
    with pytest.warns(UserWarning, match="3 tokens; scored is the first"):
        assert len(target_tokens(tokenizer, size, " graffezi").token_ids) == 3
    for wrong in ("", "  ", "日本"):
        with pytest.raises(TargetError):
            target_tokens(tokenizer, size, wrong)
    for wrong_id in (-1, size):
        with pytest.raises(TargetError, match="vocabulary"):
            target_tokens(tokenizer, size, wrong_id)


def test_one_thing_is_scored(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat", max_new_tokens=3)
    with pytest.raises(TargetError, match="either"):
        run.target()
    with pytest.raises(TargetError, match="either"):
        run.target("cat", " cat")
    with pytest.raises(TargetError, match="Position 9"):
        run.target(target=" cat", position=9)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_concepts_have_all_their_occurrences_and_exact_positions(tiny_tokenizer: Any) -> None:
    ids = ids_of(tiny_tokenizer, " the dog sits on the dog . a cat runs")
    found = {concept.word: concept for concept in concepts_in(tiny_tokenizer, ids)}
    text, spans = token_spans(tiny_tokenizer, ids)
    assert [o.positions for o in found["dog"].occurrences] == [(1,), (5,)]
    for occurrence in found["dog"].occurrences:
        assert text[occurrence.start : occurrence.end] == "dog"
        start, end = spans[occurrence.positions[0]]
        assert start <= occurrence.start < occurrence.end <= end
    assert "cat" in found
    assert "the" not in found


def test_a_word_of_several_tokens_keeps_them_all(tiny_tokenizer: Any) -> None:
    ids = ids_of(tiny_tokenizer, " a graffe runs")
    concept = concept_of(tiny_tokenizer, ids, "graffe", ())
    assert concept.occurrences[0].positions == (1, 2)
    assert concept.occurrences[0].tokens == (" gra", "ffe")


def test_two_words_and_other_numbers_of_a_word(tiny_tokenizer: Any) -> None:
    ids = ids_of(tiny_tokenizer, " a teddy bear on the mat")
    assert concept_of(tiny_tokenizer, ids, "teddy bear", ()).positions == (1, 2)
    bear = ids_of(tiny_tokenizer, " a bear on the mat")
    assert concept_of(tiny_tokenizer, bear, "Bears", ()).word == "bear"
    with pytest.raises(TargetError, match="nouns are: mat"):
        concept_of(tiny_tokenizer, ids, "giraffe", [concept_of(tiny_tokenizer, ids, "mat", ())])
    with pytest.raises(TargetError):
        concept_of(tiny_tokenizer, ids, "ma", ())


def test_nouns_of_a_caption() -> None:
    assert nouns("A cat is on a bed with a computer.") == ["cat", "bed", "computer"]
    assert nouns("") == []


class ByteTokenizer:
    """One token for each UTF-8 byte: characters of several tokens."""

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_characters_of_several_tokens() -> None:
    ids = list("Ein Bär läuft".encode())
    tokenizer: Any = ByteTokenizer()
    text, spans = token_spans(tokenizer, ids)
    assert text == "Ein Bär läuft"
    assert len(spans) == len(ids)
    assert [text[s:e] for s, e in spans] == [letter for letter in text for _ in letter.encode()]


@pytest.mark.parametrize(
    ("text", "word", "first"),
    [
        ("一只猫坐在长椅上。", "猫", 6),
        ("🐶 on a bench", "🐶", 0),
        ("a 🐱🐶", "🐶", 6),
        ("قطة على مقعد", "قطة", 0),
        ("Ein Bär läuft", "Bär", 4),
        ("ein cafe\u0301", "café", 4),
        ("ein café", "cafe\u0301", 4),
    ],
)
def test_a_word_is_scored_at_its_first_byte(text: str, word: str, first: int) -> None:
    tokenizer: Any = ByteTokenizer()
    concept = concept_of(tokenizer, list(text.encode()), word, ())
    assert concept.positions[0] == first
    assert concept.token_ids[0] == text.encode()[first]
    assert bytes(concept.token_ids).decode() == concept.word


@pytest.mark.parametrize(
    ("text", "word", "named"),
    [
        ("A man eats a hot dog.", "dog", None),
        ("A hot dog beside a dog.", "dog", 19),
        ("A dog-like creature.", "dog", None),
        ("A puppy on a couch.", "dog", 2),
        ("A teddy bear.", "bear", None),
        ("Two dogs.", "dog", 4),
        ("A dog and two dogs.", "dogs", 14),
        ("A cafe\u0301.", "cafe", None),
    ],
)
def test_a_concept_is_what_the_text_names(text: str, word: str, named: int | None) -> None:
    tokenizer: Any = ByteTokenizer()
    ids = list(text.encode())
    if named is None:
        with pytest.raises(TargetError, match="does not name"):
            concept_of(tokenizer, ids, word, ())
    else:
        assert concept_of(tokenizer, ids, word, ()).positions[0] == named


def test_a_noun_within_a_name_stands_for_the_whole_name() -> None:
    tokenizer: Any = ByteTokenizer()
    found = {concept.word for concept in concepts_in(tokenizer, list(b"A man eats a hot dog."))}
    assert "hot dog" in found
    assert "dog" not in found


def test_neurons_out_of_range(tiny_model: Any) -> None:
    import neuronwise as nw

    with pytest.raises(NeuronError, match="layers 0 to 2"):
        nw.decode(tiny_model, "L3.U0")
    with pytest.raises(NeuronError, match="units 0 to 47"):
        nw.decode(tiny_model, "L0.U48")
    with pytest.raises(NeuronError, match="0 routed experts"):
        nw.decode(tiny_model, "L0.E1.U3")
    with pytest.raises(NeuronError), nw.suppress(tiny_model, ["L9.U0"]):
        pass


def test_unknown_positions_and_no_neurons(tiny_model: Any) -> None:
    import neuronwise as nw

    run = tiny_model.run(prompt="the cat", max_new_tokens=0)
    with pytest.raises(MethodError, match="1 neuron or more"):
        nw.locate(tiny_model, run, target=" dog", top=0)
    with pytest.raises(MethodError, match="positions"):
        nw.locate(tiny_model, run, target=" dog", method="gradient", positions="nowhere")


def test_scores_not_finite_are_refused(tiny_folder: Any) -> None:
    import neuronwise as nw
    from neuronwise.errors import NonFiniteError

    model = nw.load(tiny_folder)
    run = model.run(prompt="the cat", max_new_tokens=0)
    run.steps[0].dense[1][0, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="1 of 144 scores"):
        nw.locate(model, run, target=" dog")


def test_another_tagger_names_the_nouns(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat", max_new_tokens=3, chat=False)
    words = run.text.split()
    TAGGERS.add("first", lambda text: text.split()[:1])
    try:
        tiny_model.tagger = "first"
        assert [concept.word for concept in run.concepts] == words[:1]
    finally:
        TAGGERS.remove("first")
        tiny_model.tagger = "pattern"
    with pytest.raises(TargetError, match="no noun tagger 'second'; the noun taggers are pattern"):
        nouns("a cat", "second")
