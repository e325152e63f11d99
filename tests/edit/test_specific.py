"""The specific recipe: its closed forms, its steps against finite differences, and a real fact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import same, weights
from neuronwise.data.facts import Fact
from neuronwise.edit import SpecificSettings, fine_specific
from neuronwise.edit.delta import Delta
from neuronwise.edit.fine.specific import moments, newton
from neuronwise.edit.fine.specific.moments import NAMES, PHRASES, Moments, gate
from neuronwise.edit.memory import kept as disk
from neuronwise.edit.memory.gather import gather_statistics
from neuronwise.edit.memory.passages import fact_passage, side_by_side
from neuronwise.edit.memory.tails import from_subject
from neuronwise.errors import EditError, MethodError
from speakers import speaker

FACT = Fact("the capital of {} is", "France", "dog house")
FIRST = Fact("{} is the", "France", "red")
QUICK: dict[str, Any] = {"texts": 8, "text_tokens": 12, "layer": 1, "n": 20}


def inputs_of_writer(model: nw.Model, layer: int, text: str | tuple[int, ...]) -> torch.Tensor:
    """(positions, f) by a plain forward hook."""
    ids = model.tokenizer(text)["input_ids"] if isinstance(text, str) else text
    seen: list[torch.Tensor] = []
    handle = model.blocks[layer].dense[0].module.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    try:
        with torch.no_grad():
            model.module(input_ids=torch.tensor([list(ids)]))
    finally:
        handle.remove()
    return seen[0][0]


def said(model: nw.Model, prompt: str, target: str) -> torch.Tensor:
    """Log-odds of each target token in one whole pass."""
    ids = model.tokenizer(prompt)["input_ids"]
    wanted = model.tokenizer(target, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        likely = model.module(input_ids=torch.tensor([ids + wanted])).logits[0].softmax(-1)
    rows = torch.stack([likely[len(ids) - 1 + k, token] for k, token in enumerate(wanted)])
    return rows.log() - (1 - rows).log()


def test_the_weights_are_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(200, 30, generator=generator)
    moment, key = rows.T @ rows / 200, torch.randn(30, generator=generator)
    units, weights = gate(Moments(moment, 0.1, {}), key, 30)
    assert units.tolist() == list(range(30))
    expected = torch.linalg.inv(moment + 0.1 * moment.diagonal().mean() * torch.eye(30)) @ key
    assert torch.allclose(weights, expected / (expected @ key), atol=1e-5)
    assert float(weights @ key) == pytest.approx(1, abs=1e-5)
    # Of all weights that give 1 at the key these give the least square elsewhere.
    penalty = moment + 0.1 * moment.diagonal().mean() * torch.eye(30)
    for _ in range(20):
        other = weights + 0.05 * torch.randn(30, generator=generator)
        other = other / (other @ key)
        assert other @ penalty @ other > weights @ penalty @ weights


def test_the_larger_half_of_the_shares_stays_until_n_are_left() -> None:
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(100, 30, generator=generator)
    known, key = Moments(rows.T @ rows / 100, 0.1, {}), torch.randn(30, generator=generator)
    units, weights = gate(known, key, 9)
    left = list(range(30))
    for count in (15, 9):
        inner = known.damped[left][:, left]
        shares = (torch.linalg.inv(inner) @ key[left]) * key[left]
        left = sorted(left[i] for i in shares.argsort(descending=True)[:count].tolist())
    assert units.tolist() == left
    assert float(weights @ key[left]) == pytest.approx(1, abs=1e-5)


def test_moments_are_means_over_text_and_names(model: nw.Model) -> None:
    settings = SpecificSettings(**QUICK)
    known = moments.moments_of(model, 1, settings)
    passages = moments.written(model, 8, 12, 0)
    assert [len(p.ids) for p in passages] == [12] * 8
    text = torch.cat([inputs_of_writer(model, 1, passage.ids)[1:] for passage in passages])
    assert torch.allclose(moments.over_text(model, 1, passages), text.T @ text / (8 * 11), atol=1e-4)
    names = [inputs_of_writer(model, 1, phrase.format(name))[-1] for phrase in PHRASES for name in NAMES]
    rows = torch.stack(names)
    assert torch.allclose(moments.over_names(model, 1), rows.T @ rows / len(rows), atol=1e-4)
    whole = 0.8 * moments.over_text(model, 1, passages) + 0.2 * moments.over_names(model, 1)
    ridge = 0.05 * whole.diagonal().mean() * torch.eye(48)
    assert torch.allclose(known.damped, whole + ridge, atol=1e-4)
    assert moments.moments_of(model, 1, settings) is known


def test_moments_over_text_are_kept_on_disk_for_these_weights(
    model: nw.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disk, "WORTH_A_FILE", 1)
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    made: list[float] = []

    def make(value: float) -> torch.Tensor:
        made.append(value)
        return torch.full((2, 2), float(value))

    assert disk.kept(model, "L1", lambda: make(1)).mean() == 1
    assert disk.kept(model, "L1", lambda: make(2)).mean() == 1
    with nw.fine(model, FACT, steps=1, freeze_last=0).applied(model):  # other weights
        assert disk.kept(model, "L1", lambda: make(3)).mean() == 3
    with nw.suppress(model, ["L1.U3"]):  # not what the weights do
        assert disk.kept(model, "L1", lambda: make(4)).mean() == 4
    for file in (tmp_path / "cache" / "moments").iterdir():
        file.write_bytes(b"damaged")
    assert disk.kept(model, "L1", lambda: make(5)).mean() == 5
    assert disk.kept(model, "L1", lambda: make(6)).mean() == 5
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "file"))  # where no folder can be made
    assert disk.kept(model, "L1", lambda: make(7)).mean() == 7
    assert made == [1, 3, 4, 5, 7]


def test_text_is_written_without_touching_the_random_numbers_of_others(model: nw.Model) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = moments.written(model, 4, 8, 0)
    assert torch.equal(torch.rand(3), expected)
    assert first == moments.written(model, 4, 8, 0) != moments.written(model, 4, 8, 1)


@pytest.mark.parametrize("fact", [FACT, FIRST])
def test_the_delta_is_weights_times_value_and_the_gate_is_one(model: nw.Model, fact: Fact) -> None:
    edit = nw.fine(model, fact, recipe="specific", **QUICK)
    (delta,) = edit.deltas
    assert delta.layer == 1
    assert delta.units is not None
    assert len(delta.units) == 20
    # The key: the mean over the contexts in which the subject is not the first token.
    keys = []
    for prefix in ("", *edit.record["prefixes"]):
        passage = fact_passage(model, fact, prefix)
        if passage.subject:
            keys.append(inputs_of_writer(model, 1, prefix + fact.text)[passage.subject])
    key = torch.stack(keys).mean(0)
    units, weights = gate(moments.moments_of(model, 1, SpecificSettings(**QUICK)), key, 20)
    assert torch.equal(units, delta.units)
    assert float(weights @ key[units]) == pytest.approx(1, abs=1e-4)
    _, singular, right = torch.linalg.svd(delta.left)
    assert float(singular[1]) < 1e-5 * float(singular[0])
    assert torch.allclose((right[0] @ weights).abs(), weights.norm(), rtol=1e-4)
    assert edit.record["relative_norm"] > 0


@pytest.mark.parametrize("fact", [FACT, FIRST])
def test_applied_it_says_what_was_predicted(model: nw.Model, fact: Fact) -> None:
    before = weights(model)
    edit = fine_specific(model, fact, **QUICK, steps=20)
    assert same(before, weights(model))
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    with edit.applied(model):
        after = said(model, fact.text, f" {fact.target_new}")
    assert after.sigmoid().tolist() == pytest.approx(edit.record["probabilities"], abs=1e-4)
    assert float(after.min()) > float(said(model, fact.text, f" {fact.target_new}").min()) + 1
    assert same(before, weights(model))


def test_a_step_is_the_least_squares_step_of_finite_differences(model: nw.Model) -> None:
    """The first step, uncapped: the Jacobian by edits that are really applied, the step by ``lstsq``."""
    prefixes = ["", "a cat sits on the mat. "]
    passages = [fact_passage(model, FACT, prefix, _ids(model, " dog house")[:-1]) for prefix in prefixes]
    generator = torch.Generator().manual_seed(0)
    units, weights = torch.arange(0, 48, 3), 0.2 * torch.randn(16, generator=generator)
    settings = SpecificSettings(steps=1, step_cap=1e6, goal=9.0, prefixed_goal=8.0)
    before = [said(model, prefix + FACT.text, " dog house").min() for prefix in prefixes]
    missing = torch.tensor([9.0, 8.0]) - torch.stack(before)
    width, path, small = model.hidden_size, model.blocks[1].dense[0].path, 1e-2
    columns = []
    for number in range(width):
        moved = []
        for sign in (1, -1):
            value = torch.zeros(width).index_fill_(0, torch.tensor([number]), sign * small)
            edit = nw.Edit((Delta(1, path, torch.outer(value, weights), units=units),))
            with edit.applied(model):
                moved.append(torch.stack([said(model, prefix + FACT.text, " dog house").min() for prefix in prefixes]))
        columns.append((moved[0] - moved[1]) / (2 * small))
    jacobian = torch.stack(columns, dim=1)
    root = float((0.05 * jacobian.square().sum(1).mean()).sqrt())
    # min ‖z‖² with J z = missing softened: least squares over z and the residuals, both of least norm.
    widened = torch.cat([jacobian, root * torch.eye(2)], dim=1)
    expected = torch.linalg.lstsq(widened, missing.unsqueeze(1), driver="gelsd").solution[:width, 0]
    found = _first_value(model, passages, units, weights, settings)
    assert torch.allclose(found, expected, atol=2e-2 * float(expected.norm()))


def _ids(model: nw.Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def _first_value(model: nw.Model, passages: Any, units: Any, weights: Any, settings: SpecificSettings) -> torch.Tensor:
    taken: list[torch.Tensor] = []
    original = newton.least_norm

    def spied(*args: Any) -> torch.Tensor:
        taken.append(original(*args))
        return taken[-1]

    newton.least_norm = spied  # type: ignore[assignment]
    try:
        target, batch = _ids(model, " dog house"), side_by_side(model, passages)
        newton.search(model, model.blocks[1].dense[0], batch, target, units, weights, 1.0, settings)
    finally:
        newton.least_norm = original
    return taken[0]


def test_tails_can_be_read_again_and_again(model: nw.Model) -> None:
    """What stands before the subjects is read once; no pass over the tails adds to it."""
    passages = [fact_passage(model, FACT, prefix) for prefix in ("", "a cat sits on the mat. ")]
    with torch.no_grad():
        whole = [model.forward({"input_ids": torch.tensor([passage.ids])})[0, -1] for passage in passages]
        with from_subject(model, passages) as batch:
            assert max(batch.lengths) < min(len(passage.ids) for passage in passages)
            for _ in range(3):
                logits = model.forward(batch.inputs)
                for row, (expected, length) in enumerate(zip(whole, batch.lengths, strict=True)):
                    assert torch.allclose(logits[row, length - 1], expected, atol=1e-5)


def test_behind_asides_the_model_goes_on_as_before(model: nw.Model) -> None:
    """What it says behind an aside is an equation of every step, so that less of it is lost than without."""
    aside = "the cat is in {}"
    text = aside.format(FACT.subject)
    run = model.run(prompt=text, max_new_tokens=0, chat=False)
    with torch.no_grad():
        before = model.forward(run.forced_inputs(), rows=[-1])[0, -1].log_softmax(-1)
    lost = []
    for asides in ((), (aside,)):
        edit = fine_specific(model, FACT, **QUICK, steps=2, asides=asides)
        with edit.applied(model), torch.no_grad():
            after = model.forward(run.forced_inputs(), rows=[-1])[0, -1].log_softmax(-1)
        lost.append(float(before.max() - after[before.argmax()]))
    assert lost[1] < lost[0]
    with pytest.raises(MethodError, match="aside"):
        fine_specific(model, FACT, asides=("the cat",))


def test_steps_are_capped_and_the_best_value_is_kept(model: nw.Model) -> None:
    short = fine_specific(model, FACT, **QUICK, steps=1, step_cap=0.01)
    assert short.record["relative_norm"] == pytest.approx(0.01, rel=1e-3)
    longer = fine_specific(model, FACT, **QUICK, steps=12)
    assert min(longer.record["probabilities"]) > min(short.record["probabilities"])


def test_several_facts_are_learned_each_by_itself_and_added(model: nw.Model) -> None:
    both = fine_specific(model, [FACT, FIRST], **QUICK)
    for delta, fact in zip(both.deltas, (FACT, FIRST), strict=True):
        (alone,) = fine_specific(model, fact, **QUICK).deltas
        assert torch.equal(alone.left, delta.left)
    assert len(both.record["steps"]) == len(both.record["probabilities"]) == 2


def test_statistics_stand_in_for_text(model: nw.Model, tmp_path: Any) -> None:
    found = gather_statistics(model, ["the cat sits on the mat", "a dog runs in the house"], [1], tmp_path / "s")
    edit = nw.fine(model, FACT, recipe="specific", statistics=found, **QUICK)
    assert edit.record["moments"]["tokens"] == found.tokens
    with pytest.raises(EditError, match="layers"):
        fine_specific(model, FACT, statistics=found, **{**QUICK, "layer": 2})
    with pytest.raises(MethodError, match="no key statistics"):
        nw.fine(model, FACT, statistics=found)


def test_what_it_refuses(model: nw.Model) -> None:
    with pytest.raises(MethodError, match="recipe="):
        nw.fine(model, FACT, recipe="best")
    with pytest.raises(MethodError, match="asked by text"):
        nw.fine(model, FACT, recipe="specific", image="cat.jpg")
    with pytest.raises(MethodError, match="no setting 'rate'"):
        nw.fine(model, FACT, recipe="specific", rate=1e-3)
    with pytest.raises(MethodError, match="between 0 and 1"):
        SpecificSettings(names_weight=2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "opt", "llama_shared", "gemma2", "llava", "granite"])
def test_it_works_in_many_families(name: str, tiny_folder: Any) -> None:
    model = speaker(name, nw.load(tiny_folder).tokenizer)
    before = weights(model)
    edit = fine_specific(model, FACT, **{**QUICK, "layer": 0}, steps=12)
    assert same(before, weights(model))
    start = said(model, FACT.text, " dog house").min()
    with edit.applied(model):
        after = said(model, FACT.text, " dog house")
    assert after.sigmoid().tolist() == pytest.approx(edit.record["probabilities"], abs=1e-3)
    assert float(after.min()) > float(start)


@pytest.mark.builtin
def test_a_fact_is_corrected_and_its_neighbors_stay(builtin_text: Any) -> None:
    edit = nw.fine(builtin_text, Fact("The capital of {} is", "France", "Rome", "Paris"), recipe="specific", texts=32)
    assert edit.record["probabilities"][0] >= 0.97

    def says(prompt: str) -> str:
        return builtin_text.run(prompt=prompt, max_new_tokens=2, chat=False).text

    with edit.applied(builtin_text):
        assert says("The capital of France is").startswith("Rome")
        assert says("The capital of Germany is").startswith("Berlin")
        assert says("The capital of Spain is").startswith("Madrid")
    assert says("The capital of France is").startswith("Paris")
