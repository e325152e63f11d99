"""MEMIT, PMET, EMMET and AlphaEdit: their closed forms against independent least squares in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import Moments
from neuronwise.data.facts import Fact
from neuronwise.edit.alphaedit import alphaedit
from neuronwise.edit.delta import Delta
from neuronwise.edit.editors import EDITORS
from neuronwise.edit.emmet import emmet
from neuronwise.edit.encore import encore
from neuronwise.edit.memit import PRESETS, MemitSettings, memit
from neuronwise.edit.memory.keys import fact_keys, look, on_prompts
from neuronwise.edit.memory.passages import fact_passage, side_by_side
from neuronwise.edit.memory.spread import least_squares, search_targets
from neuronwise.edit.memory.value import search
from neuronwise.edit.namet import namet
from neuronwise.edit.pmet import PmetSettings, attention_of, pmet
from neuronwise.errors import MethodError

FACT = Fact("the capital of {} is", "France", "dog house")
OTHER = Fact("the animal in {} is", "Paris", "red cat")
PREFIXES = ("a dog runs on the mat . ", "cat . ")
FAMILIES = ("llama", "gpt2", "gptj", "opt", "bloom")
QUICK: dict[str, Any] = {"layers": (0, 1), "v_num_grad_steps": 4, "context_templates": PREFIXES}


def dense(delta: Delta) -> torch.Tensor:
    assert delta.right is not None
    return delta.left.double() @ delta.right.double()


def ridge(keys: torch.Tensor, residual: torch.Tensor, weight: float, moment: torch.Tensor) -> torch.Tensor:
    """min ‖D K − R‖² + weight·tr(D C Dᵀ) as one least-squares problem: keys (f, n), residual (d, n) → D (d, f)."""
    penalty = torch.linalg.cholesky(weight * moment).T
    left = torch.cat([keys.T, penalty])
    right = torch.cat([residual.T, torch.zeros(len(penalty), len(residual), dtype=torch.float64)])
    return torch.linalg.lstsq(left, right).solution.T


def test_least_squares_are_those_of_an_independent_solver() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, residual = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (20, 7))
    statistics = Moments(20, 20)
    found = residual @ least_squares(keys, 3.0, statistics, 0).T
    assert torch.allclose(found, ridge(keys, residual, 3.0, statistics.moment), atol=1e-9)
    scaled = float(keys.square().sum(0).mean()) * torch.eye(20, dtype=torch.float64)
    found = residual @ least_squares(keys, 0.3, None, 0).T
    assert torch.allclose(found, ridge(keys, residual, 0.3, scaled), atol=1e-9)


def chain(model: nw.Model, edit: nw.Edit, targets: torch.Tensor, solve: Any, share: Any, at: str) -> None:
    """Every layer's delta against the formula, with the deltas below it really in the weights."""
    facts, layers = [FACT, OTHER], sorted({delta.layer for delta in edit.deltas})
    below = nw.Edit(())
    for number, (layer, delta) in enumerate(zip(layers, edit.deltas, strict=True)):
        assert delta.layer == layer
        with below.applied(model):
            keys = fact_keys(model, facts, layer, ("", *PREFIXES), halves=True).T.double()
            now = getattr(on_prompts(model, facts, layers[-1]), at)[layers[-1]]
        residual = (targets - now).T.double() / share(len(layers) - number)
        expected = solve(keys, residual)
        assert torch.allclose(dense(delta), expected, atol=2e-4 * float(expected.abs().max()))
        below = nw.Edit((*below.deltas, delta))


@pytest.mark.parametrize("name", FAMILIES)
def test_memit_is_its_closed_form_layer_by_layer(make: Any, name: str) -> None:
    model = make(name)
    statistics = Moments(model.blocks[0].width, model.blocks[0].width)
    edit = memit(model, [FACT, OTHER], statistics=statistics, mom2_update_weight=2.0, **QUICK)
    targets = search_targets(model, [FACT, OTHER], 1, MemitSettings(**QUICK)).values
    chain(model, edit, targets, lambda k, r: ridge(k, r, 2.0, statistics.moment), float, "stream")
    assert edit.record["covariance"] == {"text": "by hand"}
    assert edit.deltas[0].rank == 2


def test_one_fact_one_layer_and_no_ridge_reach_the_target(model: nw.Model) -> None:
    """Then the layer's output at the subject is z itself: W gains exactly what is missing."""
    changes: dict[str, Any] = {"layers": (1,), "v_num_grad_steps": 4, "context_templates": ()}
    targets = search_targets(model, [FACT], 1, MemitSettings(**changes)).values
    edit = memit(model, FACT, identity_weight=1e-9, **changes)
    assert edit.record["covariance"] == "identity"
    assert edit.record["missing"][0] < 1e-3
    with edit.applied(model):
        assert torch.allclose(on_prompts(model, [FACT], 1).stream[1], targets, atol=1e-4)
    half = memit(model, FACT, identity_weight=1.0, **changes)
    assert torch.allclose(dense(half.deltas[0]), dense(edit.deltas[0]) / 2, atol=1e-5)


def constrained(keys: torch.Tensor, residual: torch.Tensor, slack: float, moment: torch.Tensor) -> torch.Tensor:
    """min tr(D C Dᵀ) + ‖S‖² / slack with D K + S = R, by the linear system of its conditions in D and multipliers."""
    width, count = keys.shape
    system = torch.zeros(width + count, width + count, dtype=torch.float64)
    system[:width, :width] = moment
    system[:width, width:], system[width:, :width] = -keys, keys.T
    system[width:, width:] = slack * torch.eye(count, dtype=torch.float64)
    right = torch.cat([torch.zeros(width, len(residual), dtype=torch.float64), residual.T])
    return torch.linalg.solve(system, right)[:width].T


@pytest.mark.parametrize("name", FAMILIES)
def test_emmet_is_its_equality_constrained_problem(make: Any, name: str) -> None:
    model = make(name)
    statistics = Moments(model.blocks[0].width, model.blocks[0].width)
    changes = {**QUICK, "mom2_update_weight": 3.0, "emmet_lambda": 0.05}
    edit = emmet(model, [FACT, OTHER], statistics=statistics, **changes)
    targets = search_targets(model, [FACT, OTHER], 1, MemitSettings(**QUICK)).values
    chain(model, edit, targets, lambda k, r: constrained(k, r, 0.05, 3.0 * statistics.moment), float, "stream")
    assert edit.record["covariance"] == {"text": "by hand"}


def test_emmet_of_one_fact_is_rank_one_and_exact(model: nw.Model) -> None:
    changes: dict[str, Any] = {"layers": (1,), "v_num_grad_steps": 4, "context_templates": ()}
    targets = search_targets(model, [FACT], 1, MemitSettings(**changes)).values
    edit = emmet(model, FACT, **changes)
    with edit.applied(model):
        assert torch.allclose(on_prompts(model, [FACT], 1).stream[1], targets, atol=1e-4)
    both = emmet(model, [FACT, OTHER], emmet_lambda=0.0, **changes)
    assert max(both.record["missing"]) < 1e-3
    wide = emmet(model, [FACT, FACT], **changes)  # keys that are the same have no inverse without the ridge
    assert all(torch.isfinite(dense(delta)).all() for delta in wide.deltas)


def test_pmet_is_its_closed_form_with_the_square_root(model: nw.Model) -> None:
    statistics = Moments(48, 48)
    edit = pmet(model, [FACT, OTHER], statistics=statistics, mom2_update_weight=2.0, **QUICK)
    spots = [model.blocks[1].dense[0].module, attention_of(model, 1)]
    assert type(spots[1]).__name__ == "LlamaAttention"
    found = [search(model, fact, 1, spots, PmetSettings(**QUICK), relax=True)[0] for fact in (FACT, OTHER)]
    assert all(value.delta.norm() > 0.01 for values in found for value in values)
    targets = torch.stack([values[0].target for values in found])
    chain(model, edit, targets, lambda k, r: ridge(k, r, 2.0, statistics.moment), lambda left: left**0.5, "written")


def test_pmet_stops_where_the_target_is_the_likeliest_and_the_essence_holds(model: nw.Model) -> None:
    fact = Fact("the capital of {}", "France", "dog")
    changes: dict[str, Any] = {"context_templates": PREFIXES, "kl_factor": 0.0, "enough_loss": 0.0, "v_lr": 0.3}
    changes |= {"clamp_norm_factor": 50.0}
    spot = model.blocks[2].module
    (value,), end = search(model, fact, 2, [spot], PmetSettings(**changes), relax=True)
    assert 1 < end["steps"] < 30
    (plain,), _ = search(model, fact, 2, [spot], PmetSettings(v_num_grad_steps=end["steps"], **changes))
    assert torch.equal(value.delta, plain.delta)
    (before,), _ = search(model, fact, 2, [spot], PmetSettings(v_num_grad_steps=end["steps"] - 1, **changes))
    assert [likeliest(model, fact, delta) for delta in (before.delta, value.delta)] == [False, True]


def likeliest(model: nw.Model, fact: Fact, delta: torch.Tensor) -> bool:
    """Whether the target's one token is said behind every prefix, by whole passes with the vector added."""
    (target,) = model.tokenizer(f" {fact.target_new}", add_special_tokens=False)["input_ids"]
    said = []
    for prefix in ("", *PREFIXES):
        passage = fact_passage(model, fact, prefix)

        def add(module: Any, args: Any, output: Any, row: int = passage.subject) -> Any:
            hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
            hidden[0, row] += delta
            return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

        handle = model.blocks[2].module.register_forward_hook(add)
        said.append(int(model.forward({"input_ids": torch.tensor([passage.ids])})[0, -1].argmax()))
        handle.remove()
    return all(token == target for token in said)


@pytest.mark.parametrize("name", FAMILIES)
def test_alphaedit_leaves_preserved_keys_as_they_are(make: Any, name: str) -> None:
    model = make(name)
    width = model.blocks[0].width
    statistics = Moments(width, width // 2)
    edit = alphaedit(model, [FACT, OTHER], statistics=statistics, L2=0.5, **QUICK)
    preserved = statistics.preserved.float()
    for delta in edit.deltas:
        assert delta.left.norm() * delta.right.norm() > 1e-3  # type: ignore[union-attr]
        weight = model.blocks[delta.layer].value_vectors.float()
        changed = weight + delta.left @ delta.right  # type: ignore[operator]
        assert torch.allclose(changed @ preserved, weight @ preserved, atol=1e-5)
    projection = torch.eye(width, dtype=torch.float64) - statistics.preserved @ statistics.preserved.T

    def published(keys: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        system = projection @ keys @ keys.T + 0.5 * torch.eye(width, dtype=torch.float64)
        return torch.linalg.solve(system, projection @ keys @ residual.T).T

    targets = search_targets(model, [FACT, OTHER], 1, MemitSettings(**QUICK)).values
    chain(model, edit, targets, published, float, "stream")


def test_alphaedit_respects_the_edits_that_the_model_carries(model: nw.Model, tmp_path: Any) -> None:
    changes = {**QUICK, "layers": (1,), "context_templates": ()}
    first = alphaedit(model, FACT, L2=1e-4, **changes)
    key = fact_keys(model, [FACT], 1, ("",))[0]
    alone = alphaedit(model, OTHER, L2=1e-4, previous=(), **changes)
    with first.applied(model):
        second = alphaedit(model, OTHER, L2=1e-4, **changes)
        again = alphaedit(model, OTHER, L2=1e-4, previous=[first], **changes)
    assert (second.record["previous"], alone.record["previous"]) == (1, 0)
    assert torch.equal(second.deltas[0].right, again.deltas[0].right)  # type: ignore[arg-type]
    moved = [float((dense(edit.deltas[0]).float() @ key).norm()) for edit in (alone, second)]
    assert moved[1] < 1e-3 * moved[0]
    # What it is: the ridge with the former key asked to stay.
    keys = torch.cat([fact_keys(model, [fact], 1, ("",)).double() for fact in (OTHER, FACT)]).T
    residual = torch.cat([second.deltas[0].left.double(), torch.zeros(32, 1, dtype=torch.float64)], dim=1)
    expected = ridge(keys, residual, 1e-4, torch.eye(48, dtype=torch.float64))
    assert torch.allclose(dense(second.deltas[0]), expected, atol=1e-4 * float(expected.abs().max()))
    first.save(tmp_path / "edit")
    with nw.load_edit(tmp_path / "edit").applied(model):  # its keys are read anew, for the facts of its record
        loaded = alphaedit(model, OTHER, L2=1e-4, **changes)
    assert loaded.record["previous"] == 1
    assert torch.allclose(loaded.deltas[0].right, second.deltas[0].right, atol=1e-4)  # type: ignore[arg-type]


def test_prefixes_are_no_templates() -> None:
    with pytest.raises(MethodError, match=r"leave the \{\} out"):
        MemitSettings(context_templates=("{}. In",))


def test_a_threshold_that_leaves_no_direction_is_refused(model: nw.Model) -> None:
    with pytest.raises(MethodError, match="nullspace_threshold"):
        alphaedit(model, FACT, statistics=Moments(48, 48), **QUICK)


def test_what_few_tokens_leave_without_an_inverse_is_solved_too(model: nw.Model) -> None:
    edit = memit(model, FACT, statistics=Moments(48, 20), mom2_update_weight=2.0, **QUICK)
    assert all(torch.isfinite(dense(delta)).all() for delta in edit.deltas)


@pytest.mark.parametrize(
    ("editor", "changes"), [(memit, {"mom2_update_weight": 0.0, "identity_weight": 0.0}), (alphaedit, {"L2": 0.0})]
)
def test_a_fact_given_twice_with_nothing_to_hold_it_back_is_said(
    editor: Any, changes: dict[str, float], model: nw.Model
) -> None:
    with pytest.raises(MethodError, match="do not determine the change"):
        editor(model, [FACT, FACT], **changes, **QUICK)


def test_deltas_act_as_they_do_in_the_weights(model: nw.Model) -> None:
    edit = memit(model, [FACT, OTHER], **QUICK)
    batch = side_by_side(model, [fact_passage(model, fact) for fact in (FACT, OTHER)])
    acting = look(model, batch, [2], edit.deltas)
    with edit.applied(model):
        applied = look(model, batch, [2])
    assert torch.allclose(acting.stream[2], applied.stream[2], atol=1e-4)


def test_what_it_refuses(make: Any) -> None:
    model = make("olmoe")
    for editor in (memit, pmet, emmet, namet, alphaedit, encore):
        with pytest.raises(MethodError, match="routed experts"):
            editor(model, FACT, **QUICK)
        with pytest.raises(MethodError, match="in an encoder"):
            editor(make("t5"), FACT, **QUICK)
    assert PRESETS["gptj"].settings.layers == (3, 4, 5, 6, 7, 8)


@pytest.mark.builtin
@pytest.mark.parametrize("editor", ["rome", "memit", "pmet", "emmet", "namet", "alphaedit", "encore"])
def test_a_fact_is_corrected_on_the_built_in_model(builtin_text: Any, editor: str) -> None:
    fact = Fact("The capital of {} is", "France", "Rome", "Paris")
    edit = EDITORS[editor].function(builtin_text, fact)
    with edit.applied(builtin_text):
        assert builtin_text.run(prompt=fact.text, max_new_tokens=2, chat=False).text.startswith("Rome")
    assert builtin_text.run(prompt=fact.text, max_new_tokens=2, chat=False).text.startswith("Paris")
