"""Swap: its loss by hand, its direction and cap, where it stops, what it leaves as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edits import same, weights
from neuronwise.answers.naming import names
from neuronwise.edit import swap
from neuronwise.edit.delta import writer_of
from neuronwise.edit.swap import READINGS, Terms, activations_at, activations_in, narrowing
from neuronwise.edit.words import positions_of
from neuronwise.errors import EditError, MethodError, NonFiniteError, TargetError
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron, NeuronSet
from speakers import PHOTO, SPEAKERS, given, speaker, spoken
from vocabulary import WORDS


def another(model: Model, run: Any, word: str) -> Any:
    """A run of another prompt that says the word too."""
    prompts = (f"{first} {second} sits on" for first in WORDS for second in WORDS)
    runs = (spoken(model, prompt=prompt) for prompt in prompts if prompt != run.prompt)
    return next(other for other in runs if names(other.text, word))


def hooks(model: Model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())


def vectors_of(model: Model, edit: Any) -> tuple[list[tuple[Any, Tensor]], float]:
    """Each edited column with its Δ, and the norm of all value vectors that are edited."""
    rows, total = [], 0.0
    for delta in edit.deltas:
        view = writer_of(model, delta).vectors
        for column, unit in enumerate(delta.units.tolist()):
            rows.append(((delta.layer, unit, delta.expert), delta.left[:, column]))
            total += float(view[:, unit].float().norm()) ** 2
    return rows, total**0.5


def test_the_loss_is_the_sum_written_out_and_its_gradient_is_the_difference_quotient() -> None:
    torch.manual_seed(0)
    fired, directions = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    vectors, delta = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    expected = 0.0
    for p in range(3):
        for i in range(4):
            moved = [float(vectors[i, d] + delta.detach()[i, d]) for d in range(5)]
            expected += float(fired[p, i]) * sum(m * float(u) for m, u in zip(moved, directions[p, i], strict=True)) / 3
    expected += 0.7 * sum(float(x) ** 2 for x in delta.detach().flatten()) ** 0.5
    terms = Terms(fired, vectors, directions)
    loss = terms.loss(delta, 0.7)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda d: terms.loss(d, 0.7), (delta,))


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_first_step_goes_against_source_less_target(name: str, tiny_tokenizer: Any) -> None:
    """The loss is linear, so every Δ_i lies along −o_i·(U_src − U_tgt), as long as the step says."""
    model, run, word = given(name, tiny_tokenizer)
    edit = swap(model, run, word, "dog", top=6, steps=1, step=0.05, beta=0.0, generate=False, spare=None)
    places = positions_of(model, run, word, "dog")
    against = model.unembedding[places[0].target_id] - model.unembedding[places[0].source_id]
    rows, size = vectors_of(model, edit)
    assert len(rows) == 6
    fired = []
    for (layer, unit, expert), _ in rows:
        values = []
        for place in places:
            acts = run.activations(place.position)
            if expert is None:
                values.append(float(acts.dense[layer][0, unit]))
            else:
                routed = acts.routed[layer][0].get(expert)
                values.append(0.0 if routed is None else float(routed.weight) * float(routed.activation[unit]))
        fired.append(sum(values) / len(values))
    raw = torch.tensor(fired)[:, None] * against[None, :].detach()
    expected = 0.05 * size * raw / raw.norm()
    for (_, found), row in zip(rows, expected, strict=True):
        assert torch.allclose(found, row, atol=1e-5)


def test_later_steps_grow_and_beta_holds_back(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, word = given("gpt2", tiny_tokenizer)
    monkeypatch.setattr(sys.modules[swap.__module__], "ranked", lambda model, places: [False] * len(places))
    found = locate(model, [run], word, top=10)
    lengths = {}
    for steps, beta in ((1, 0.0), (2, 0.0), (3, 0.0), (3, 1.0)):
        edit = swap(model, run, word, "dog", neurons=found, steps=steps, step=0.01, growth=2.0, beta=beta, spare=None)
        lengths[steps, beta] = edit.record["norm"]
    assert [lengths[steps, 0.0] for steps in (1, 2, 3)] == pytest.approx([0.01, 0.03, 0.07])
    places = positions_of(model, run, word, "dog")
    fired = torch.stack([activations_at(model, run, p.position, found.neurons) for p in places])
    direction = model.unembedding[places[0].source_id] - model.unembedding[places[0].target_id]
    slope = (fired[:, :, None] * direction).mean(0)
    # The first step is not held back (‖Δ‖ has no slope at 0), the later ones by β / ‖slope‖.
    held = 1 - 1.0 / float(slope.norm())
    assert lengths[3, 1.0] == pytest.approx(0.01 + 0.06 * held, rel=1e-4)


def test_the_cap_is_kept(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    monkeypatch.setattr(sys.modules[swap.__module__], "ranked", lambda model, places: [False] * len(places))
    edit = swap(model, run, word, "dog", step=0.1, cap=0.25, steps=40)
    rows, size = vectors_of(model, edit)
    assert torch.stack([row for _, row in rows]).norm() == pytest.approx(0.25 * size, rel=1e-5)
    assert edit.record["capped"]
    assert not edit.record["success"]
    assert edit.record["steps"] < 40


@pytest.mark.parametrize("name", SPEAKERS)
def test_it_stops_at_the_first_success_and_the_text_says_the_target(name: str, tiny_tokenizer: Any) -> None:
    model, run, word = given(name, tiny_tokenizer)
    edit = swap(model, run, word, "dog", top=30, step=0.05, growth=1.2, cap=20.0, spare=None)
    record = edit.record
    assert record["success"], record["texts"]
    assert record["texts_before"] == [run.text]
    with edit.applied(model):
        after = run.again()
    assert record["texts"] == [after]
    assert names(after, "dog")
    assert not names(after, word)
    if record["steps"] > 1:
        changes = {"top": 30, "step": 0.05, "growth": 1.2, "cap": 20.0, "steps": record["steps"] - 1}
        assert not swap(model, run, word, "dog", **changes).record["success"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SPEAKERS)
def test_the_model_is_left_as_it_is(
    name: str, dtype: torch.dtype, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run, word = given(name, tiny_tokenizer, dtype)
    before, hooked = weights(model), hooks(model)
    edit = swap(model, run, word, "dog" if word != "dog" else "bear", top=4, steps=2)
    assert same(before, weights(model))
    edit.apply(model)
    assert not same(before, weights(model))
    edit.revert(model)
    assert same(before, weights(model))

    def interrupted(*_: Any) -> Any:
        assert not same(before, weights(model)), "interrupted while the edit is in"
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[swap.__module__], "ranked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swap(model, run, word, "dog" if word != "dog" else "bear", top=4, steps=2)
    assert same(before, weights(model))
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    assert hooks(model) == hooked


def test_it_is_saved_and_loaded(tiny_tokenizer: Any, tmp_path: Path) -> None:
    from neuronwise.edit import load_edit

    model, run, word = given("llava", tiny_tokenizer)
    edit = swap(model, run, word, "dog", options={"contrast": 3, "normalize": True})
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    assert loaded.record == edit.record
    assert loaded.record["request"] == {"source": word, "target": "dog", "prompts": [run.prompt], "photos": 1}
    assert loaded.record["settings"]["options"] == {"contrast": 3, "normalize": True}


def test_several_runs_are_averaged(tiny_tokenizer: Any) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    other = another(model, run, word)
    found = locate(model, [run, other], word, top=5)
    alone = {
        name: swap(model, seen, word, "bear", neurons=found, steps=1, beta=0.0, generate=False, spare=None)
        for name, seen in (("both", [run, other]), ("one", run), ("other", other))
    }
    places = {"one": positions_of(model, run, word, "bear"), "other": positions_of(model, other, word, "bear")}
    assert alone["both"].record["request"]["photos"] == 2
    slopes = []
    for runs in ("one", "other"):
        fired = [activations_at(model, p.run, p.position, [n.neuron for n in found]) for p in places[runs]]
        slopes += fired
    mean = torch.stack(slopes).mean(0)
    rows = {(layer, unit): row for (layer, unit, _), row in vectors_of(model, alone["both"])[0]}
    lengths = torch.stack([rows[n.neuron.layer, n.neuron.unit].norm() for n in found])
    assert torch.allclose(lengths / lengths.norm(), mean.abs() / mean.norm(), atol=1e-5)


@pytest.mark.parametrize("read", READINGS)
def test_reading_directions_are_gradients_of_the_logits_difference(read: str, tiny_tokenizer: Any) -> None:
    """Through the model, one small step lowers the real difference at the rate that the slope says."""
    model, run, word = given("llama", tiny_tokenizer)
    run = model.run(prompt=run.prompt, max_new_tokens=run.concept(word).positions[0] + 1)
    (place,) = positions_of(model, run, word, "bear")
    edit = swap(model, run, word, "bear", read=read, top=8, steps=1, step=1e-3, beta=0.0, generate=False, spare=None)

    def difference() -> float:
        with torch.no_grad():
            logits = model.forward(run.forced_inputs(place.position), rows=[-1])[0, -1].double()
        return float(logits[place.source_id] - logits[place.target_id])

    before = difference()
    with edit.applied(model):
        after = difference()
    assert after < before
    if read == "model":
        rows, _ = vectors_of(model, edit)
        # Δ = −rate·slope, so the first-order change is −‖Δ‖·‖slope‖; the same neurons at half the step give half of it.
        half = swap(
            model, run, word, "bear", read=read, top=8, steps=1, step=5e-4, beta=0.0, generate=False, spare=None
        )
        with half.applied(model):
            halved = difference()
        assert (before - halved) / (before - after) == pytest.approx(0.5, abs=0.02)
        other = swap(
            model,
            run,
            word,
            "bear",
            read="unembedding",
            top=8,
            steps=1,
            step=1e-3,
            beta=0.0,
            generate=False,
            spare=None,
        )
        with other.applied(model):
            assert before - difference() <= (before - after) * 1.001, "no direction of that length is steeper"
        assert rows


def test_what_cannot_be_swapped_is_said(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    before = weights(model)
    with pytest.raises(TargetError, match="nouns are: France, cat"):
        swap(model, run, "mouse", "dog")
    with pytest.raises(TargetError, match="empty"):
        swap(model, run, word, " ")
    with pytest.raises(TargetError, match="vocabulary"):
        swap(model, run, word, "xylophone")
    with pytest.raises(EditError, match="nothing to edit"):
        swap(model, [], word, "dog")
    with pytest.raises(MethodError, match="read="):
        swap(model, run, word, "dog", read="tea leaves")
    with pytest.raises(MethodError, match="no setting 'stepp'"):
        swap(model, run, word, "dog", stepp=1)
    with pytest.raises(MethodError, match="beta="):
        swap(model, run, word, "dog", beta=1e9)
    assert same(before, weights(model))


def test_a_target_that_is_said_already_is_no_error(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    before = weights(model)
    for source, target in ((word, word), ("dog", word)):
        edit = swap(model, run, source, target, top=3)
        assert "nothing is changed" in edit.record["note"]
        with edit.applied(model):
            assert same(before, weights(model))


def test_words_of_several_tokens_are_swapped_at_the_first(tiny_tokenizer: Any) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    edit = swap(model, run, word, "graffe", steps=1, generate=False)
    assert "'graffe' is 2 tokens, of which the first is swapped" in edit.record["note"]
    place = positions_of(model, run, word, "graffe")[0]
    assert model.tokenizer.convert_ids_to_tokens(place.target_id) == "▁gra"


def test_numbers_that_are_not_finite_are_refused(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    found = locate(model, [run], word, top=3)
    monkeypatch.setattr(sys.modules[swap.__module__], "activations_at", lambda *_: torch.full((3,), torch.nan))
    with pytest.raises(NonFiniteError):
        swap(model, run, word, "dog", neurons=found)


def test_neurons_together(tiny_tokenizer: Any) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    other = another(model, run, word)
    every = model.num_neurons
    one, two = (locate(model, r, word, top=every) for r in (run, other))
    scores = [{m.neuron: m.score for m in found} for found in (one, two)]
    found = locate(model, [run, other], word, top=7)
    mean = {n: (scores[0][n] + scores[1][n]) / 2 for n in scores[0]}
    assert list(found.neurons) == sorted(mean, key=lambda n: (-mean[n], n))[:7]
    assert found[0].score == pytest.approx(mean[found[0].neuron], rel=1e-5)
    voted = locate(model, [run, other], word, top=7, agree="vote")
    shared = set(one[:7].neurons) & set(two[:7].neurons)
    assert {m.neuron for m in voted if m.score == 1.0} == shared
    assert all(m.score in (0.5, 1.0) for m in voted)
    with pytest.raises(MethodError, match="agree="):
        locate(model, [run], word, agree="all")
    with pytest.raises(MethodError, match="one run or more"):
        locate(model, [], word)
    with pytest.raises(MethodError, match="2 words for 1 runs"):
        locate(model, [run], [word, word])
    assert isinstance(voted, NeuronSet)


def test_a_narrow_edit_writes_little_beside_the_word(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    found = locate(model, [run], word, top=30)
    places = positions_of(model, run, word, "dog")
    predicting = {run.length + run.row(place.position) for place in places}
    shares = []
    for spare in (None, 0.1, 0.001):
        edit = swap(model, run, word, "dog", neurons=found, spare=spare, steps=2, step=0.05, beta=1.0, generate=False)
        rows = vectors_of(model, edit)[0]
        delta = torch.stack([row for _, row in rows])
        written = (activations_in(model, run, [Neuron(*address) for address, _ in rows]) @ delta).norm(dim=1)
        beside = [row for row in range(1, run.length) if row not in predicting]
        shares.append(float(written[beside].square().mean().sqrt() / written[sorted(predicting)].max()))
    assert shares[0] > 2 * shares[1] > 4 * shares[2]


def test_how_it_is_narrowed(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    places = positions_of(model, run, word, "dog")
    chosen = list(locate(model, [run], word, top=9).neurons)
    acts = run.rows(list(range(run.length))).dense
    whole = torch.stack([acts[n.layer][:, n.unit].float() for n in chosen], dim=1)
    assert torch.allclose(activations_in(model, run, chosen), whole, atol=1e-6)
    for place in places:
        at = activations_at(model, run, place.position, chosen)
        assert torch.allclose(whole[run.length + run.row(place.position)], at, atol=1e-4)
    predicting = {run.length + run.row(place.position) for place in places}
    beside = whole[[row for row in range(1, run.length) if row not in predicting]].double()
    moment = beside.T @ beside / len(beside)
    system = torch.eye(9, dtype=torch.float64) + moment / (0.05 * moment.diagonal().mean())
    kept = narrowing(model, [run], places, chosen, 0.05).double()
    assert torch.allclose(system @ kept, torch.eye(9, dtype=torch.float64), atol=1e-4)


@pytest.mark.long
@pytest.mark.builtin
def test_the_cat_becomes_a_dog(builtin: Any, chelsea: Path) -> None:
    run = builtin.run(image=chelsea, max_new_tokens=12)
    assert names(run.text, "cat")
    before = weights(builtin)
    edit = swap(builtin, run, "cat", "dog")
    assert edit.record["success"]
    assert names(edit.record["texts"][0], "dog")
    assert same(before, weights(builtin))
    assert edit.parameters_changed == 300 * builtin.hidden_size
    control = locate(builtin, run, "cat", method="random", top=50)
    assert not swap(builtin, run, "cat", "dog", neurons=control, cap=edit.record["norm"]).record["success"]


def test_a_photo_itself_is_captioned(tiny_tokenizer: Any) -> None:
    model = speaker("llava", tiny_tokenizer)
    word = model.run(PHOTO).text.split()[0]
    edit = swap(model, PHOTO, word, "bear" if word != "bear" else "dog", steps=1, generate=False)
    assert edit.record["texts_before"] == [model.run(PHOTO).text]


def test_it_says_how_few_neurons_would_do(tiny_tokenizer: Any) -> None:
    model, run, word = given("llama", tiny_tokenizer)
    changes: dict[str, Any] = {"step": 0.05, "growth": 1.2, "cap": 20.0, "spare": None}
    counts = (1, 3, 9, 27)
    enough = swap(model, run, word, "dog", top=30, fewer=1, **changes).record["enough"]
    assert enough in (*counts, 30)
    found = locate(model, [run], word, top=30, **SHARP)
    tried = [
        swap(model, run, word, "dog", neurons=found[:count], fewer=0, **changes).record["success"]
        for count in counts
        if count <= enough
    ]
    assert tried == [count == enough for count in counts if count <= enough]
    with pytest.raises(MethodError, match="fewer"):
        swap(model, run, word, "dog", fewer=-1)
