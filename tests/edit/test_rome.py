"""ROME, and the keys and values that it shares with its followers: the papers' formulas written out again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import neuronwise as nw
from edits import Moments
from neuronwise.data.facts import Fact
from neuronwise.edit.memory.contexts import contexts
from neuronwise.edit.memory.keys import critical_layers, fact_keys, look, on_prompts
from neuronwise.edit.memory.passages import Passage, fact_passage, side_by_side, token_of
from neuronwise.edit.memory.tails import from_subject
from neuronwise.edit.memory.value import search
from neuronwise.edit.rome import PRESETS, RomeSettings, rome
from neuronwise.edit.rome_published import rome_published
from neuronwise.errors import MethodError, NeuronwiseError, NonFiniteError

FACT = Fact("the capital of {} is", "France", "dog house")
OTHER = Fact("the animal in {} is", "Paris", "red cat")
PREFIXES = ("a dog runs on the mat . ", "cat . ")
FAMILIES = ("llama", "gpt2", "gptj", "opt", "bloom", "gpt_neox", "gemma2", "qwen2", "falcon", "mistral")
QUICK: dict[str, Any] = {"layers": (1,), "v_num_grad_steps": 4, "context_templates": PREFIXES}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_published_form_maps_the_bare_prompts_key_to_the_value_exactly(make: Any, name: str) -> None:
    model = make(name)
    edit = rome_published(model, FACT, **QUICK)
    (value,), _ = search(model, FACT, 1, [model.blocks[1].dense[0].module], RomeSettings(**QUICK))
    assert value.delta.norm() > 0.1
    with edit.applied(model):
        now = on_prompts(model, [FACT], 1).written[1][0]
    assert torch.allclose(now, value.target, atol=1e-4)
    assert edit.record["covariance"] == "identity"
    assert edit.deltas[0].rank == 1
    assert torch.equal(edit.deltas[0].left, rome(model, FACT, exact_for="prompt", **QUICK).deltas[0].left)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_over_prefixes_is_mapped_to_the_value_exactly(make: Any, name: str) -> None:
    """R-ROME: what W_down gives, averaged over the prefixes, is v* afterwards; by whole passes in the edited model."""
    model = make(name)
    edit = rome(model, FACT, **QUICK)
    (value,), _ = search(model, FACT, 1, [model.blocks[1].dense[0].module], RomeSettings(**QUICK))
    passages = [fact_passage(model, FACT, prefix) for prefix in ("", *PREFIXES)]
    with edit.applied(model):
        now = torch.stack([look(model, side_by_side(model, [one]), [1]).written[1][0] for one in passages])
    assert torch.allclose(now.mean(0), value.target, atol=1e-4)
    assert float((now[0] - value.target).norm()) > 0.01
    assert edit.record["settings"]["exact_for"] == "mean"


def test_with_statistics_it_is_the_least_change_under_c(model: nw.Model) -> None:
    """The paper's constrained least squares, solved as one linear system of its KKT conditions in float64."""
    width = model.blocks[1].width
    statistics = Moments(width, width)
    edit = rome(model, FACT, statistics=statistics, **QUICK)
    assert edit.record["covariance"] == {"text": "by hand"}
    key = fact_keys(model, [FACT], 1, ("", *PREFIXES))[0].double()
    (value,), _ = search(model, FACT, 1, [model.blocks[1].dense[0].module], RomeSettings(**QUICK))
    weight = model.blocks[1].value_vectors.double()
    residual = value.target.double() - weight @ key
    # min tr(D C Dᵀ) with D k = r: rows of D solve [2C k; kᵀ 0] [d; μ] = [0; r].
    system = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    system[:width, :width] = 2 * statistics.second_moment(1)
    system[:width, width] = system[width, :width] = key
    right = torch.zeros(width + 1, len(residual), dtype=torch.float64)
    right[width] = residual
    expected = torch.linalg.solve(system, right)[:width].T
    (delta,) = edit.deltas
    assert delta.right is not None
    assert torch.allclose((delta.left @ delta.right).double(), expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose((weight + (delta.left @ delta.right).double()) @ key, value.target.double(), atol=1e-4)


def test_the_mean_key_is_that_of_single_passes(model: nw.Model) -> None:
    seen: list[torch.Tensor] = []
    writer: Any = model.blocks[1].dense[0].module
    handle = writer.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    for prefix in ("", *PREFIXES):
        ids = model.tokenizer(prefix + "the capital of France", return_tensors="pt")["input_ids"]
        model.module(input_ids=ids)
    handle.remove()
    expected = torch.stack([rows[0, -1] for rows in seen])
    assert torch.allclose(fact_keys(model, [FACT], 1, ("", *PREFIXES))[0], expected.mean(0), atol=1e-5)
    halves = fact_keys(model, [FACT], 1, ("", *PREFIXES), halves=True)[0]
    assert torch.allclose(halves, (expected[0] + expected[1:].mean(0)) / 2, atol=1e-5)


def literal(model: nw.Model, steps: int, rate: float, decay: float, kl: float, clamp: float, position: int) -> Any:
    """The search with whole passes, one passage at a time, no padding, no cache."""
    tokenizer: Any = model.tokenizer
    target = tokenizer(" dog house", add_special_tokens=False)["input_ids"]
    texts = [tokenizer(prefix + FACT.text)["input_ids"] for prefix in ("", *PREFIXES)]
    rows = [len(tokenizer(prefix + "the capital of France")["input_ids"]) - 1 for prefix in ("", *PREFIXES)]
    essence, held = tokenizer("France is a")["input_ids"], len(tokenizer("France")["input_ids"]) - 1
    delta = torch.zeros(model.hidden_size, requires_grad=True)
    writer: Any = model.blocks[1].dense[0].module
    start: list[torch.Tensor] = []

    def logs(ids: list[int], row: int) -> torch.Tensor:
        def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            start.append(output[0, row].detach().clone())
            mask = torch.zeros(len(ids), 1)
            mask[row] = 1
            return output + mask * delta

        handle = writer.register_forward_hook(hook)
        try:
            return model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        finally:
            handle.remove()

    optimizer, before, loss = torch.optim.Adam([delta], lr=rate), None, torch.zeros(())
    for step in range(steps):
        losses = []
        for ids, row in zip(texts, rows, strict=True):
            found = logs(ids + target[:-1], row)
            losses.append(-torch.stack([found[len(ids) - 1 + k, token] for k, token in enumerate(target)]).mean())
        now = logs(essence, held)[position if position < 0 else held]
        before = now.detach() if before is None else before
        loss = torch.stack(losses).mean() + kl * nn.functional.kl_div(now, before, log_target=True, reduction="sum")
        loss = loss + decay * delta.norm() / start[0].norm() ** 2
        if step == steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.mul_(min(1.0, float(clamp * start[0].norm() / delta.norm())))
    return start[0], delta.detach(), float(loss.detach())


@pytest.mark.parametrize(("where", "position"), [("subject", 0), ("last", -1)])
def test_the_search_is_the_literal_procedure(model: nw.Model, where: str, position: int) -> None:
    settings = RomeSettings(
        v_num_grad_steps=5, v_lr=0.3, v_weight_decay=0.4, kl_factor=0.7, clamp_norm_factor=0.6, kl_position=where,
        context_templates=PREFIXES,
    )  # fmt: skip
    (value,), end = search(model, FACT, 1, [model.blocks[1].dense[0].module], settings)
    initial, delta, loss = literal(model, 5, 0.3, 0.4, 0.7, 0.6, position)
    assert end["steps"] == 5
    assert end["loss"] == pytest.approx(loss, rel=1e-4)
    assert torch.allclose(value.initial, initial, atol=1e-5)
    assert torch.allclose(value.delta, delta, atol=1e-4)
    assert value.delta.norm() <= 0.6001 * initial.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_and_cached_beginnings_change_nothing(make: Any, name: str) -> None:
    """Passages of many lengths side by side, whole or from the subject on, against each by itself."""
    model = make(name)
    passages = [fact_passage(model, fact, prefix, (5, 9)) for fact in (FACT, OTHER) for prefix in ("", *PREFIXES)]
    alone = [look(model, side_by_side(model, [passage]), [0, 1]) for passage in passages]
    together = look(model, side_by_side(model, passages), [0, 1])
    for layer in (0, 1):
        expected = torch.cat([one.keys[layer] for one in alone])
        assert torch.allclose(together.keys[layer], expected, atol=1e-5)
        assert torch.allclose(together.stream[layer], torch.cat([one.stream[layer] for one in alone]), atol=1e-4)
    with torch.no_grad():
        whole = [model.forward({"input_ids": torch.tensor([passage.ids])})[0] for passage in passages]
        with from_subject(model, passages) as batch:
            logits = model.forward(batch.inputs)
    for row, expected in enumerate(whole):
        tail = expected[len(expected) - batch.lengths[row] :]
        assert torch.allclose(logits[row, : batch.lengths[row]], tail, atol=1e-4)
    assert batch.inputs["input_ids"].shape[1] == max(len(p.ids) - p.subject for p in passages)
    assert not model.module._forward_pre_hooks


def test_a_model_whose_cache_is_wrong_reads_whole_passages(model: nw.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.edit.memory.tails._copied", lambda cache: None)
    passages = [fact_passage(model, FACT, prefix) for prefix in ("", *PREFIXES)]
    with from_subject(model, passages) as batch:
        assert batch.lengths == tuple(len(passage.ids) for passage in passages)


def test_several_facts_are_written_one_upon_the_other(model: nw.Model) -> None:
    both = rome(model, [FACT, OTHER], **QUICK)
    first = rome(model, FACT, **QUICK)
    first.apply(model)
    second = rome(model, OTHER, **QUICK)
    first.revert(model)
    assert both.deltas[0].rank == 2
    assert both.deltas[0].right is not None
    single = [edit.deltas[0] for edit in (first, second)]
    assert torch.allclose(both.deltas[0].left, torch.cat([d.left for d in single], 1), atol=1e-4)
    assert torch.allclose(both.deltas[0].right, torch.cat([d.right for d in single]), atol=1e-5)  # type: ignore[arg-type]
    assert [request["subject"] for request in both.record["request"]] == ["France", "Paris"]


def test_half_precision_is_solved_in_float32(make: Any) -> None:
    model = make("gpt2", torch.bfloat16)
    edit = rome_published(model, FACT, **QUICK)
    assert edit.deltas[0].left.dtype == torch.float32
    (value,), _ = search(model, FACT, 1, [model.blocks[1].dense[0].module], RomeSettings(**QUICK))
    before = on_prompts(model, [FACT], 1).written[1][0]
    with edit.applied(model):
        now = on_prompts(model, [FACT], 1).written[1][0]
    assert (now - value.target).norm() < 0.05 * (before - value.target).norm()


def test_the_subject_ends_where_it_stands_in_the_prompt(model: nw.Model) -> None:
    tokenizer: Any = model.tokenizer
    twice = Fact("France the capital of {} is", "France", "dog")
    found = fact_passage(model, twice)
    assert tokenizer.convert_ids_to_tokens(found.ids).count("▁France") <= 2
    assert found.subject == len(tokenizer("France the capital of France")["input_ids"]) - 1
    last = fact_passage(model, Fact("the France capital of France is", "France", "dog"))
    assert last.subject == len(tokenizer("the France capital of France")["input_ids"]) - 1
    ids = tokenizer("the teddy bear is")["input_ids"]
    assert token_of(tokenizer, "the teddy bear is", ids, len("the teddy bear") - 1) == len(ids) - 2


def test_a_tokenizer_without_offsets_is_read_by_what_comes_before() -> None:
    """Tokens by the longest piece: "house" at the end of the subject is glued to the "s" behind it."""

    def pieces(text: str, **options: Any) -> dict[str, Any]:
        if options:
            raise NotImplementedError
        ids, vocabulary = [0], {" houses": 3, " house": 2, "the": 1, " red": 4, "Paris": 5}
        while text:
            best = max((piece for piece in vocabulary if text.startswith(piece)), key=len)
            ids.append(vocabulary[best])
            text = text[len(best) :]
        return {"input_ids": ids}

    text = "the houses red"
    assert token_of(pieces, text, pieces(text)["input_ids"], len("the house") - 1) == 2
    text = "the house red"
    assert token_of(pieces, text, pieces(text)["input_ids"], len("the house") - 1) == 2
    assert token_of(pieces, "Paris red", [0, 5, 4], len("Paris") - 1) == 1


def test_contexts_are_written_once_and_by_seed(model: nw.Model) -> None:
    found = contexts(model, ((4, 3), (6, 2)), 1)
    assert found[0] == ""
    assert len(found) == 6
    assert all(text.endswith(". ") and "{" not in text for text in found[1:])
    assert contexts(model, ((4, 3), (6, 2)), 1) is found
    assert contexts(model, ((4, 3), (6, 2)), 2) != found
    again = nw.Model(model.module, model.tokenizer)
    assert contexts(again, ((4, 3), (6, 2)), 1) == found


def test_what_it_refuses(model: nw.Model, make: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"layers": (7,)}, "layers 0 to 2"),
        ({"layers": ()}, "No layer"),
        ({"exact_for": "all"}, "exact_for"),
        ({"kl_position": "first"}, "kl_position"),
        ({"v_num_grad_steps": 0}, "v_num_grad_steps"),
        ({"depth": 1}, "no setting"),
    ]
    for changes, message in cases:
        with pytest.raises(MethodError, match=message):
            rome(model, FACT, **changes)
    with pytest.raises(MethodError, match="by text"):
        rome(model, Fact("the capital of {} is", "France", "dog", image="photo.jpg"))
    with pytest.raises(MethodError, match="in an encoder"):
        rome(make("t5"), FACT)
    with pytest.raises(MethodError, match="only routed experts"):
        rome(make("olmoe"), FACT, **QUICK)
    with pytest.raises(NeuronwiseError, match="no fact"):
        rome(model, [])


def test_what_is_not_finite_is_refused(model: nw.Model) -> None:
    with torch.no_grad():
        model.module.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        rome(model, FACT, **QUICK)


def test_unknown_architectures_get_the_layer_at_the_published_depth(model: nw.Model) -> None:
    assert critical_layers(model, None, (1 / 6, 1 / 6)) == [0]
    assert round(32 / 6) == 5  # LLaMA's published layer
    assert all(isinstance(preset.settings, RomeSettings) for preset in PRESETS.values())
    assert {"default", "small", "gpt2-xl", "gptj", "llama-2", "llama-3", "qwen2", "mistral"} <= set(PRESETS)


def test_the_language_model_of_an_image_text_model_is_edited_by_text(make: Any) -> None:
    model = make("llava")
    edit = rome_published(model, FACT, **QUICK)
    (value,), _ = search(model, FACT, 1, [model.blocks[1].dense[0].module], RomeSettings(**QUICK))
    with edit.applied(model):
        assert torch.allclose(on_prompts(model, [FACT], 1).written[1][0], value.target, atol=1e-4)


def test_a_passage_longer_than_the_model_reads_is_refused(model: nw.Model) -> None:
    long = " ".join(["cat"] * 3000)
    with pytest.raises(NeuronwiseError, match="reads at most"):
        rome(model, Fact(long + " {} is", "France", "dog"), **QUICK)


@pytest.mark.builtin
def test_subjects_of_byte_level_tokens(builtin_text: Any) -> None:
    tokenizer = builtin_text.tokenizer
    for subject, after in (("Île-de-France", " is"), ("Danielle Darrieux", "'s tongue is"), ("東京", " is in")):
        for prompt in ("{}" + after, "About {}" + after):
            passage = fact_passage(builtin_text, Fact(prompt, subject, "Rome"))
            head = tokenizer.decode(passage.ids[: passage.subject + 1])
            assert head.strip().endswith(subject)
            assert not tokenizer.decode(passage.ids[: passage.subject]).strip().endswith(subject)
    assert isinstance(passage, Passage)
