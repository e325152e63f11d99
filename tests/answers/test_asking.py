"""Teacher forcing and free generation: batches against one prompt at a time, and against plain forward passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import neuronwise as nw
from families import tiny
from neuronwise.answers.answers import BEYOND, Answered, ask
from neuronwise.answers.forced import read_forced
from neuronwise.answers.free import begins_with, continued, sampled
from neuronwise.answers.questions import Question
from neuronwise.model.batches import batching, text_inputs
from neuronwise.model.stacking import grouped, padded

TOGETHER = ("gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "bloom", "llama", "mistral", "qwen2", "mixtral")
ALONE = ("t5", "bart")  # an encoder reads the prompt
PROMPTS = ("the cat", "the capital of France is", "a red dog runs", "the", "the capital of France is in")
ANSWERS = ([9], [11, 23, 12], [4, 5], [7, 8, 9, 10], [9, 23])


def model_of(name: str, tokenizer: Any) -> nw.Model:
    module, _ = tiny(name)
    return nw.Model(module, tokenizer, name=name)


def plain(model: nw.Model, ids: list[int], answer: list[int]) -> tuple[tuple[int, ...], float]:
    """Argmax tokens and mean log probability, written out for one decoder and one sequence."""
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([ids + answer])).logits[0]
    said = logits[len(ids) - 1 : -1].log_softmax(-1)
    mean = sum(float(row[token]) for row, token in zip(said, answer, strict=True)) / len(answer)
    return tuple(said.argmax(-1).tolist()), mean


@pytest.mark.parametrize("name", TOGETHER)
def test_many_prompts_in_a_batch_read_as_each_alone(name: str, tiny_tokenizer: Any) -> None:
    model = model_of(name, tiny_tokenizer)
    assert batching(model).right
    inputs = [text_inputs(model, prompt) for prompt in PROMPTS]
    readings = read_forced(model, list(zip(inputs, ANSWERS, strict=True)))
    for row, answer, reading in zip(inputs, ANSWERS, readings, strict=True):
        best, mean = plain(model, row["input_ids"][0].tolist(), answer)
        assert reading.best == best
        assert reading.log_prob == pytest.approx(mean, abs=1e-4)
        assert reading.share == sum(a == b for a, b in zip(best, answer, strict=True)) / len(answer)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_many_photos_in_a_batch_read_as_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, one = tiny(name)
    model = nw.Model(module)
    rows = [{k: v * (1 + 0.1 * n) if v.is_floating_point() else v for k, v in one.items()} for n in range(5)]
    passes: list[int] = []
    forward = nw.Model.forward

    def counted(self: nw.Model, inputs: dict[str, Any], rows: Any = None) -> torch.Tensor:
        passes.append(len(inputs["input_ids"]))
        return forward(self, inputs, rows)

    answers = [*ANSWERS[:4], ANSWERS[1]]
    alone = [read_forced(model, [(row, ids)])[0] for row, ids in zip(rows, answers, strict=True)]
    monkeypatch.setattr(nw.Model, "forward", counted)
    together = read_forced(model, list(zip(rows, answers, strict=True)))
    assert max(passes) == 5
    assert [reading.best for reading in together] == [reading.best for reading in alone]
    assert [one.log_prob for one in together] == pytest.approx([one.log_prob for one in alone], abs=1e-4)
    assert len({reading.log_prob for reading in together}) == 5


@pytest.mark.parametrize("name", TOGETHER)
def test_many_prompts_in_a_batch_go_on_as_each_alone(name: str, tiny_tokenizer: Any) -> None:
    model = model_of(name, tiny_tokenizer)
    assert batching(model).left
    inputs = [text_inputs(model, prompt) for prompt in PROMPTS]
    lengths = [3, 6, 4, 5, 1]
    for row, length, found in zip(inputs, lengths, continued(model, inputs, lengths), strict=True):
        ids = row["input_ids"]
        for _ in range(length):
            with torch.no_grad():
                ids = torch.cat([ids, model.module(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        said = ids[0, row["input_ids"].shape[1] :].tolist()
        assert found == (said[: said.index(2)] if 2 in said else said)


@pytest.mark.parametrize("name", ALONE)
def test_a_model_that_cannot_be_padded_is_asked_one_prompt_at_a_time(name: str, tiny_tokenizer: Any) -> None:
    model = model_of(name, tiny_tokenizer)
    assert not batching(model).right
    assert not batching(model).left
    inputs = [text_inputs(model, prompt) for prompt in PROMPTS[:2]]
    readings = read_forced(model, list(zip(inputs, ANSWERS, strict=False)))
    for row, answer, reading in zip(inputs, ANSWERS, readings, strict=False):
        start = torch.tensor([[model._decoder_start(), *answer[:-1]]])
        with torch.no_grad():
            said = model.module(**row, decoder_input_ids=start).logits[0].log_softmax(-1)
        assert reading.best == tuple(said.argmax(-1).tolist())
    run = model.run(prompt=PROMPTS[0], max_new_tokens=4, chat=False)
    assert continued(model, inputs[:1], [4]) == [run.output_ids]


def test_a_batch_that_tells_other_numbers_is_not_used(tiny_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nw.load(tiny_folder)
    true_forward = nw.Model.forward

    def mixed(self: nw.Model, inputs: dict[str, Any], rows: Any = None) -> torch.Tensor:
        logits = true_forward(self, inputs, rows)
        return logits + 0.01 * inputs["input_ids"].shape[0] * torch.arange(logits.shape[-1])

    monkeypatch.setattr(nw.Model, "forward", mixed)
    assert not batching(model).right
    assert batching(model).left


def test_a_continuation_has_the_length_that_fluency_needs(tiny_folder: Any) -> None:
    model = nw.load(tiny_folder)
    with torch.no_grad():  # the end token is always the most probable
        model.module.lm_head.weight[2] = 0
        model.module.lm_head.weight *= 1e-3
    ends = torch.nn.Linear(32, model.vocabulary_size)
    with torch.no_grad():
        ends.weight.copy_(model.module.lm_head.weight)
        ends.bias.zero_()
        ends.bias[2] = 10
    model.module.lm_head = ends
    model.head = ends
    inputs = [text_inputs(model, "the cat")]
    assert continued(model, inputs, [12]) == [[]]
    assert len(continued(model, inputs, [12], least=True)[0]) == 12


def test_texts_are_drawn_among_the_likeliest_and_go_on_past_the_end_token(tiny_folder: Any) -> None:
    model = nw.load(tiny_folder)
    prompts = [text_inputs(model, text) for text in ("the cat", "the dog sat on the mat", "the cat")]
    said = sampled(model, prompts, 30, 2, seed=1)
    assert said == sampled(model, prompts, 30, 2, seed=1)
    assert said != sampled(model, prompts, 30, 2, seed=2)
    assert said[0] != said[2]  # each is drawn by itself
    for inputs, ids in zip(prompts, said, strict=True):
        read = inputs["input_ids"][0].tolist()
        assert len(ids) == 30
        assert ids[: len(read)] == read
        logits = model.forward({"input_ids": torch.tensor([ids])}, rows=list(range(len(read) - 1, 29)))[0]
        likeliest = logits.topk(2).indices.tolist()
        assert all(token in two for token, two in zip(ids[len(read) :], likeliest, strict=True))
    assert sampled(model, prompts[1:2], 3, 2, seed=0) == [prompts[1]["input_ids"][0].tolist()]
    likeliest_only = sampled(model, prompts[:1], 12, 1, seed=0)[0]
    end = likeliest_only[5]
    model.module.generation_config.eos_token_id = end
    assert sampled(model, prompts[:1], 12, 1, seed=0)[0] == likeliest_only
    assert len(continued(model, prompts[:1], [12])[0]) < 12


def test_questions_without_answers_are_asked_for_the_models_own_words(tiny_folder: Any) -> None:
    model = nw.load(tiny_folder)
    questions = [Question("locality_forgetfulness", "the cat sits on"), Question("success", "the dog", ("mat",))]
    before = ask(model, questions, free=False)
    assert before[0].readings[""].share == 1  # what it says greedily is argmax
    assert before[0].text is None
    assert Answered.from_dict(before[0].to_dict()) == before[0]
    saved = before[1].to_dict()
    assert Answered.from_dict(json.loads(json.dumps(saved))) == before[1]
    for wrong in (
        {"text": 3}, {"question": {**saved["question"], "prompt": 3}}, {"readings": []},
        {"readings": [["mat", [1, 2], [1], -1.0]]}, {"readings": [["mat", [], [], -1.0]]},
        {"readings": [["mat", [1], [1], "high"]]}, {"readings": [["mat", 1, 1, -1.0]]},
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"answer|tokens"):
            Answered.from_dict({**saved, **wrong})
    with torch.no_grad():
        model.blocks[1].value_vectors.mul_(-3)
    after = ask(model, questions, before, free=True)
    assert after[0].readings[""].ids == before[0].readings[""].ids
    run = model.run(prompt="the dog", max_new_tokens=1 + BEYOND + 1, chat=False)
    assert after[1].text == model.decode_ids(run.output_ids)


def test_answers_are_told_from_longer_words() -> None:
    assert begins_with(" Rome. It is", "Rome")
    assert begins_with("Rome", " Rome")
    assert begins_with("\n New York, the", "New York")
    assert not begins_with(" Romeo and", "Rome")
    assert not begins_with(" rome", "Rome")
    assert not begins_with(" the Rome", "Rome")
    assert begins_with(" U.S.A", "U.S.")
    assert not begins_with(" Rome-based firms", "Rome")
    assert begins_with("罗马是意大利的首都", "罗马")
    assert not begins_with("रामायण", "राम")
    assert not begins_with("", "Rome")


def test_batches_keep_their_size() -> None:
    lengths = [5, 1, 9, 3, 3, 40]
    groups = grouped(lengths, 20)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 20 for group in groups)
    assert len(groups) < 6


def test_padding_is_masked_out() -> None:
    rows = [{"input_ids": torch.tensor([[5, 6]])}, {"input_ids": torch.tensor([[7, 8, 9]])}]
    assert padded(rows, "left", 3)["input_ids"].tolist() == [[3, 5, 6], [7, 8, 9]]
    assert padded(rows, "left", 3)["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert padded(rows, "right")["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_numbers_that_are_not_finite_are_refused(tiny_folder: Any) -> None:
    model = nw.load(tiny_folder)
    with torch.no_grad():
        model.module.lm_head.weight[9] = float("nan")
    with pytest.raises(nw.NeuronwiseError, match="finite"):
        ask(model, [Question("success", "the cat", ("dog",))], free=False)
