"""Many runs in batches: each is the run that its prompt gives alone, whatever the architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import families
import neuronwise as nw
from conformed import words
from neuronwise.errors import ImageError, ModelError, NeuronwiseError, PromptError
from neuronwise.intervene import scale
from neuronwise.model.activations import Activations
from neuronwise.model.many import Asked, Said, Saying, say, say_all
from neuronwise.model.prompt import Prompted
from neuronwise.model.recorded import record_together
from neuronwise.model.run import Run
from placing import placing

PROMPTS = ("the cat", "the capital of France is", "a red dog runs", "the", "a dog sits on the red mat near the cat")
OPENINGS = ("Water boils at", "Once upon a time", "The capital of France", "My name is John and I live in the city of")
ENCODED = ("t5", "flan_t5", "bart", "switch_transformers")
WINDOWED = ("mistral", "gemma2", "gemma3_text", "cohere2", "gpt_oss", "phimoe")


def assert_same(one: Activations | None, other: Activations | None) -> None:
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert one.dense.keys() == other.dense.keys()
    assert one.routed.keys() == other.routed.keys()
    for layer, rows in one.dense.items():
        torch.testing.assert_close(rows, other.dense[layer], atol=1e-4, rtol=1e-4)
    for layer, routed in one.routed.items():
        for mine, theirs in zip(routed, other.routed[layer], strict=True):
            assert mine.keys() == theirs.keys()
            for expert, fired in mine.items():
                torch.testing.assert_close(fired.written, theirs[expert].written, atol=1e-4, rtol=1e-4)


def assert_equal(one: Run | Said, other: Run | Said) -> None:
    ids = [found.ids if isinstance(found, Said) else found.output_ids for found in (one, other)]
    assert ids[0] == ids[1]
    assert len(one.steps) == len(other.steps)
    for mine, theirs in zip(one.steps, other.steps, strict=True):
        assert_same(mine, theirs)
    assert_same(one.seen, other.seen)


def alone(model: nw.Model, prompts: Sequence[str], **options: Any) -> list[Run]:
    return [model.run(prompt=prompt, **options) for prompt in prompts]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Callable[[nw.Model], list[int]]:
    """How many sequences each generation of a model had from now on."""

    def watch(model: nw.Model) -> list[int]:
        sizes: list[int] = []
        generate = model.generate

        def counted(inputs: Any, *args: Any, **options: Any) -> Any:
            sizes.append(len(inputs["input_ids"]))
            return generate(inputs, *args, **options)

        monkeypatch.setattr(model, "generate", counted)
        return sizes

    return watch


@pytest.mark.parametrize("name", families.TEXT)
def test_texts_are_as_they_are_alone(name: str, make: Any, passed: Any) -> None:
    model = make(name)
    first = model.run_many(prompts=PROMPTS[:2], max_new_tokens=2, chat=False)  # what can be together is known now
    assert len(first) == 2
    sizes = passed(model)
    many = model.run_many(prompts=PROMPTS, max_new_tokens=4, chat=False)
    assert sizes == ([1] * 5 if name in ENCODED else [5])
    for run, single in zip(many, alone(model, PROMPTS, max_new_tokens=4, chat=False), strict=True):
        assert_equal(run, single)
        assert run.text == single.text
        assert run.prompt == single.prompt


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_that_slide_over_padding(name: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.TEXT, name, {**families.TEXT[name], "sliding_window": 3, "use_sliding_window": True})
    model = make(name)
    many = model.run_many(prompts=PROMPTS, max_new_tokens=6, chat=False)
    for run, single in zip(many, alone(model, PROMPTS, max_new_tokens=6, chat=False), strict=True):
        assert_equal(run, single)


def others(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The same prompt about other photos, some with longer texts behind."""
    made, length = [], inputs["input_ids"].shape[1]
    for number, extra in enumerate([0, 3, 0, 1, 5]):
        one, generator = {}, torch.Generator().manual_seed(number)
        for key, value in inputs.items():
            if key == "input_ids":
                tail = torch.randint(3, 50, (1, extra), generator=generator)
                one[key] = torch.cat([value, tail], 1)
            elif value.shape[:2] == (1, length):
                one[key] = torch.cat([value, value[:, -1:].expand(1, extra, *value.shape[2:])], 1)
            else:
                drawn = torch.randn(value.shape, generator=generator)
                one[key] = drawn if value.is_floating_point() else value
        made.append(one)
    return made


@pytest.mark.parametrize("name", families.IMAGE_TEXT)
def test_photos_are_as_they_are_alone(name: str, passed: Any) -> None:
    module, inputs = families.tiny(name)
    model, photo = nw.Model(module, words(), name=name), Image.new("RGB", (16, 16))
    asked: list[Asked] = [(Prompted("", False, one), photo) for one in others(inputs)]
    how = Saying(3, heat=True)
    found = dict(say_all(model, asked, how))
    sizes = passed(model)
    assert sorted(dict(say_all(model, asked, how))) == list(range(5))
    assert sizes == [5]
    for number, one in enumerate(asked):
        said = found[number]
        assert isinstance(said, Said)
        assert_equal(said, say(model, [one], how)[0])


def photo_of(number: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8))


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl", "internvl", "gemma3, pan and scan", "mllama"])
def test_photos_of_many_sizes_through_their_processor(name: str) -> None:
    """Different counts of image tokens; in some architectures tensors that cannot be put together."""
    model, prompt = placing(name)
    shapes = [(48, 32), (32, 48), (64, 64), (48, 32), (90, 30), (64, 64), (48, 32), (48, 32)]
    photos = [photo_of(number, *shape) for number, shape in enumerate(shapes)]
    many = model.run_many(photos, prompt, max_new_tokens=3, heat=True)
    for photo, run in zip(photos, many, strict=True):
        single = model.run(photo, prompt, max_new_tokens=3, heat=True)
        assert_equal(run, single)
        assert run.photo.tobytes() == single.photo.tobytes()
        assert nw.locate(model, run, target=5, top=20).neurons == nw.locate(model, single, target=5, top=20).neurons
    again = [Run.of(model, run.prompted, run.output_ids, run.image) for run in many]
    record_together([(run, [0, 1]) for run in again])
    for run, single in zip(again, many, strict=True):
        assert not run.missing([0, 1])
        assert_same(run.activations(0), single.activations(0))
        assert_same(run.activations(1), single.activations(1))


def test_a_sequence_that_ends_early_has_the_steps_that_it_has_alone(make: Any) -> None:
    model = make("llama")
    longest = max(alone(model, PROMPTS, max_new_tokens=8, chat=False), key=lambda run: len(run.output_ids))
    model.module.generation_config.eos_token_id = longest.output_ids[2]
    singly = alone(model, PROMPTS, max_new_tokens=8, chat=False)
    assert len({len(run.steps) for run in singly}) > 1
    for run, single in zip(model.run_many(prompts=PROMPTS, max_new_tokens=8, chat=False), singly, strict=True):
        assert_equal(run, single)


@pytest.mark.builtin
def test_a_stopping_text_ends_each_sequence_by_itself(builtin_text: nw.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_text.module.generation_config, "stop_strings", ["is", "in"])
    singly = alone(builtin_text, OPENINGS, max_new_tokens=20, chat=False)
    assert len({len(run.steps) for run in singly}) > 1
    for run, single in zip(builtin_text.run_many(prompts=OPENINGS, max_new_tokens=20, chat=False), singly, strict=True):
        assert_equal(run, single)


def test_no_new_tokens_is_one_pass_for_a_batch(make: Any) -> None:
    model = make("qwen3_moe")
    many = model.run_many(prompts=PROMPTS, max_new_tokens=0, chat=False)
    for run, single in zip(many, alone(model, PROMPTS, max_new_tokens=0, chat=False), strict=True):
        assert_equal(run, single)
        assert len(run.steps) == 1


def test_prompts_near_the_last_position_end_where_they_do_alone(make: Any, passed: Any) -> None:
    model = make("llama")
    prompts = ["the cat " * 30, "the cat", "a dog sits", "the red mat"]
    with pytest.warns(UserWarning, match="64 positions: it ends after 3"):
        singly = alone(model, prompts, max_new_tokens=7, chat=False)
    sizes = passed(model)
    with pytest.warns(UserWarning, match="64 positions"):
        many = model.run_many(prompts=prompts, max_new_tokens=7, chat=False)
    assert sizes[-2:] == [3, 1]
    for run, single in zip(many, singly, strict=True):
        assert_equal(run, single)


def test_forced_texts_are_recorded_together(make: Any) -> None:
    model = make("qwen2_moe")
    texts = [" a dog sits on the mat", " a cat", " the red dog"]
    many = model.run_many(prompts=PROMPTS[:3], texts=texts, chat=False)
    for prompt, text, run in zip(PROMPTS, texts, many, strict=False):
        single = model.run(prompt=prompt, text=text, chat=False)
        assert run.output_ids == single.output_ids
        for position in run.word_positions:
            assert not run.missing([position])
            assert_same(run.activations(position), single.activations(position))
    generated = model.run_many(prompts=PROMPTS[:2], texts=[None, " a cat"], max_new_tokens=3, chat=False)
    assert_equal(generated[0], model.run(prompt=PROMPTS[0], max_new_tokens=3, chat=False))
    assert generated[1].text == "a cat"


def test_several_runs_and_several_words_are_recorded_in_one_pass(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    texts = [" a dog sits on the red mat", " a cat is near the mat", " the mat is red"]
    model.run_many(prompts=PROMPTS[:2], max_new_tokens=0, chat=False)
    record, passes = model.record, []
    monkeypatch.setattr(model, "record", lambda *what, **how: passes.append(what) or record(*what, **how))
    forced = [model.run(prompt=prompt, text=text, chat=False) for prompt, text in zip(PROMPTS, texts, strict=False)]
    words = [{one.neuron: one.score for one in nw.locate(model, run, "mat", top=None)} for run in forced]
    assert len(passes) == 3
    again = [model.run(prompt=prompt, text=text, chat=False) for prompt, text in zip(PROMPTS, texts, strict=False)]
    found = nw.locate(model, again, "mat", top=None)
    assert len(passes) == 4
    for member in found[:50]:
        mean = sum(own[member.neuron] for own in words) / 3
        assert member.score == pytest.approx(mean, abs=1e-4)
    nw.find(model, model.run(prompt="the cat", text=texts[0], chat=False), method="contribution", heat=False)
    assert len(passes) == 5


def test_without_recording_the_text_is_the_same(make: Any) -> None:
    model = make("llama")
    seen: list[tuple[int, int]] = []
    bare = model.run_many(
        prompts=PROMPTS, max_new_tokens=4, chat=False, record=False, progress=lambda *done: seen.append(done)
    )
    for run, single in zip(bare, alone(model, PROMPTS, max_new_tokens=4, chat=False), strict=True):
        assert run.output_ids == single.output_ids
        assert not run.steps
        assert_same(run.activations(0), single.activations(0))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_where_padding_moves_positions_prompts_of_one_length_are_together(make: Any, passed: Any) -> None:
    model = make("gpt2")
    forward = model.module.forward
    model.module.forward = lambda *args, **options: forward(*args, **{**options, "position_ids": None})
    prompts = ["the cat", "a dog", "the red mat near the cat", "the mat", "the red dog runs"]
    sizes = passed(model)
    many = model.run_many(prompts=prompts, max_new_tokens=3, chat=False)
    assert sizes[-3:] == [3, 1, 1]
    for run, single in zip(many, alone(model, prompts, max_new_tokens=3, chat=False), strict=True):
        assert_equal(run, single)


def test_an_intervention_at_counted_rows_holds_in_batches(make: Any, passed: Any) -> None:
    model = make("llama")
    model.run_many(prompts=PROMPTS, max_new_tokens=2, chat=False)
    prompts = [*PROMPTS, "a dog"]
    neurons = [nw.Neuron(layer, unit) for layer in range(3) for unit in range(48)]
    with scale(model, neurons, 3.0, positions=[1]):
        singly = alone(model, prompts, max_new_tokens=3, chat=False)
        sizes = passed(model)
        many = model.run_many(prompts=prompts, max_new_tokens=3, chat=False)
    assert 2 in sizes
    for run, single in zip(many, singly, strict=True):
        assert_equal(run, single)


def test_order_is_kept_and_lengths_must_agree(make: Any) -> None:
    model = make("llama")
    prompts = [*PROMPTS, *reversed(PROMPTS)]
    assert [run.prompt for run in model.run_many(prompts=prompts, max_new_tokens=1, batch_size=3)] == prompts
    assert model.run_many(prompts=[]) == []
    with pytest.raises(PromptError, match="2 prompts and 1 texts"):
        model.run_many(prompts=["the", "a"], texts=[" cat"])
    with pytest.raises(PromptError, match="no list"):
        model.run_many(prompts="the cat")
    with pytest.raises(ModelError, match="batch_size is 0"):
        model.run_many(prompts=PROMPTS, batch_size=0)


def test_one_bad_member_fails_alone() -> None:
    model, prompt = placing("llava")
    photos: list[Any] = [photo_of(0, 48, 32), "missing.jpg", photo_of(1, 30, 30), photo_of(2, 64, 20)]
    found = model.run_many(photos, prompt, max_new_tokens=2, errors="return")
    assert isinstance(found[1], ImageError)
    for place in (0, 2, 3):
        run = found[place]
        assert isinstance(run, Run)
        assert_equal(run, model.run(photos[place], prompt, max_new_tokens=2))
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        model.run_many(photos, prompt, max_new_tokens=2)
    bad = model.run_many(prompts=["the", " "], max_new_tokens=1, errors="return")
    assert [type(one) for one in bad] == [Run, PromptError]


def test_a_member_at_which_the_pass_fails_is_found(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    bad = model.tokenizer(" red")["input_ids"][-1]
    model.run_many(prompts=PROMPTS[:2], max_new_tokens=2, chat=False)
    generate = model.generate

    def failing(inputs: Any, *args: Any, **options: Any) -> Any:
        if (inputs["input_ids"] == bad).any():
            raise ValueError("no red")
        return generate(inputs, *args, **options)

    monkeypatch.setattr(model, "generate", failing)
    found = model.run_many(prompts=PROMPTS, max_new_tokens=2, chat=False, errors="return")
    assert [isinstance(one, NeuronwiseError) for one in found] == ["red" in prompt for prompt in PROMPTS]
    with pytest.raises(ModelError, match="cannot read this prompt: no red"):
        model.run_many(prompts=PROMPTS, max_new_tokens=2, chat=False)


def test_a_batch_that_does_not_fit_is_halved_and_remembered(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    prompts = [f"the {word} dog" for word in ("red", "big", "cat", "mat", "dog")]
    singly = alone(model, prompts, max_new_tokens=2, chat=False)
    model.run_many(prompts=prompts[:2], max_new_tokens=2, chat=False)
    generate, sizes = model.generate, []

    def limited(inputs: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(inputs, *args, **options)

    monkeypatch.setattr(model, "generate", limited)
    for run, single in zip(model.run_many(prompts=prompts, max_new_tokens=2, chat=False), singly, strict=True):
        assert_equal(run, single)
    assert sizes == [5, 2, 3, 1, 2]
    sizes.clear()
    model.run_many(prompts=prompts, max_new_tokens=2, chat=False)
    assert max(sizes) <= 2
    with pytest.raises(ModelError, match="do not fit into memory"):
        model.run_many(prompts=prompts, max_new_tokens=2, chat=False, batch_size=4)


@pytest.mark.long
@pytest.mark.builtin
def test_captions_of_the_builtin_model(builtin: Any, data: Any) -> None:
    photos = sorted((data / "coco-mini").rglob("*.jpg"))[:5]
    many = builtin.run_many(photos, max_new_tokens=12)
    for photo, run in zip(photos, many, strict=True):
        single = builtin.run(photo, max_new_tokens=12)
        assert_equal(run, single)
        for concept in single.concepts[:1]:
            found = [nw.locate(builtin, one, concept.word, top=50).neurons for one in (run, single)]
            assert found[0] == found[1]
