"""Neurons at positions: the scores of each, reduced where they must be, kept once by sets; the two rival methods."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn

import neuronwise as nw
from conformed import tiny, words
from families import tiny as tiny_module
from neuronwise.errors import ArgumentError, MethodError
from neuronwise.images import open_image
from neuronwise.intervene import patch
from neuronwise.locate import METHODS
from neuronwise.locate.activation_difference import differences
from neuronwise.locate.attribution_patching import attribution_patching
from neuronwise.locate.eap_ig import entering
from neuronwise.locate.positions import rows_of
from neuronwise.locate.twin import twin_of
from neuronwise.model import Model, Run, Target
from neuronwise.model.hooks import Hooks, first_tensor, replace_first

FAMILIES = ("llama", "gpt2", "qwen2_moe", "mixtral", "t5")
APART = sorted(name for name, method in METHODS.items() if method.by_position and method.needs == "run")
TWINS = sorted(name for name, method in METHODS.items() if method.needs == "twin")
OWN, OTHER = "w3 w7 w8 w33 w41 w30 w9", "w3 w7 w8 w33 w50 w51 w9"


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest) -> Run:
    model, prompted, _ = tiny(request.param)
    return Run.of(model, prompted, [5, 6])


def last(run: Run, position: int = 1) -> int:
    return run.length + run.row(position)


@pytest.mark.parametrize("name", APART)
def test_positions_apart_add_up_to_the_sum(name: str, run: Run) -> None:
    apart = nw.locate(run.model, run, target=6, method=name, positions="all", top=None)
    assert len({member.place for member in apart}) == len(apart)
    assert {member.position for member in apart} == set(range(last(run) + 1))
    reduce: dict[str, Any] = {"reduce": "sum"} if "reduce" in METHODS[name].options else {}
    summed = nw.scores(run.model, run, target=6, method=name, positions="all", **reduce)
    totals: dict[nw.Neuron, float] = {}
    for member in apart:
        totals[member.neuron] = totals.get(member.neuron, 0.0) + member.score
    assert set(totals) == {neuron for writer in summed for neuron in writer.neurons}
    for neuron, total in itertools.islice(totals.items(), 0, None, 37):
        assert total == pytest.approx(summed.of(neuron), rel=1e-4, abs=1e-6)
    scores = [member.score for member in apart]
    assert scores == sorted(scores, reverse=True)
    assert nw.locate(run.model, run, target=6, method=name, positions="all", top=9).members == apart.members[:9]


@pytest.mark.parametrize("name", APART)
def test_one_position_is_that_of_all(name: str, run: Run) -> None:
    everywhere = nw.locate(run.model, run, target=6, method=name, positions="all", top=None)
    for position in (0, last(run)):
        one = nw.locate(run.model, run, target=6, method=name, positions=position, top=None)
        expected = {member.place: member.score for member in everywhere if member.position == position}
        assert {member.place for member in one} == set(expected)
        assert [member.score for member in one] == pytest.approx(
            [expected[member.place] for member in one], rel=1e-4, abs=1e-9
        )
    two = nw.locate(run.model, run, target=6, method=name, positions=[0, last(run)], top=None)
    assert {member.position for member in two} == {0, last(run)}
    # The predicting position alone is the default of one score for each neuron: no position is said.
    plain = nw.locate(run.model, run, target=6, method=name, positions="predicting", top=3)
    assert [member.position for member in plain] == [None] * 3


def test_a_set_holds_each_neuron_at_a_position_once(run: Run, tmp_path: Path) -> None:
    found = nw.locate(run.model, run, target=6, method="relp", positions="all", top=200)
    found.save(tmp_path / "found.json")
    loaded = nw.NeuronSet.load(tmp_path / "found.json")
    assert loaded == found
    assert str(loaded[0]) == f"{found[0].neuron}@{found[0].position}"
    frame = found.to_pandas()
    assert frame["position"].tolist() == [member.position for member in found]
    first, rest = found[:120], found[80:]
    assert len(first & rest) == 40
    assert (first | rest).members == found.members
    assert (first - rest).members == found.members[:80]
    with pytest.raises(nw.NeuronwiseError, match="repeats"):
        nw.NeuronSet((*found.members, found[0]))


def test_image_positions_are_those_of_the_image() -> None:
    model, prompted, photo = tiny("llava")
    run = Run.of(model, prompted, [5], photo)
    found = nw.locate(model, run, target=5, method="relp", positions="image", top=None)
    assert {member.position for member in found} == set(run.image_positions.tolist())


def test_numbers_of_numpy_are_positions_too(run: Run, tmp_path: Path) -> None:
    for given, plain in ((np.int64(1), 1), (np.array([0, 1]), [0, 1]), ([np.int64(1)], [1])):
        wanted: dict[str, Any] = {"target": 6, "method": "gradient_activation"}
        expected = nw.scores(run.model, run, positions=plain, **wanted).top(3)
        assert nw.scores(run.model, run, positions=given, **wanted).top(3).members == expected.members
        found = nw.locate(run.model, run, positions=given, contrast=np.array([3, 4]), top=3, **wanted)  # type: ignore[arg-type]
        found.save(tmp_path / "found.json")
        assert nw.NeuronSet.load(tmp_path / "found.json").members == found.members


def test_what_is_no_position_is_refused(run: Run) -> None:
    model = run.model
    for unknown in ("some", []):
        with pytest.raises(MethodError, match=r"positions=.* is unknown"):
            nw.locate(model, run, target=6, method="relp", positions=unknown)
    for strange in (1.5, True, [0, "all"]):  # of another kind: as an argument of locate, and as an option of scores
        with pytest.raises(ArgumentError, match=r"locate: positions.* does not fit; it takes a whole number"):
            nw.locate(model, run, target=6, method="relp", positions=strange)  # type: ignore[arg-type]
        with pytest.raises(MethodError, match=r"positions.* does not fit; it takes a whole number"):
            nw.scores(model, run, target=6, method="relp", positions=strange)
    for outside in (-1, last(run) + 1):
        with pytest.raises(MethodError, match=f"Position {outside} has no part"):
            nw.locate(model, run, target=6, method="relp", positions=outside)
    with pytest.raises(MethodError, match="has no option positions"):
        nw.locate(model, run, target=6, positions="all")
    with pytest.raises(MethodError, match="with one run"):
        nw.locate(model, [run, run], target=6, method="relp", positions="all")
    with pytest.raises(MethodError, match="reduce= says how"):
        nw.locate(model, run, target=6, method="gradient", positions="all", reduce="sum")
    with pytest.raises(MethodError, match="reduce='mean' is unknown"):
        nw.scores(model, run, target=6, method="gradient", positions="all", reduce="mean")


def test_a_finding_has_each_neuron_once_by_the_sum(run: Run) -> None:
    found = nw.find(run.model, run, targets=[6], method="gradient_activation", positions="all", top=20, heat=False)
    expected = nw.scores(run.model, run, target=6, method="gradient_activation", positions="all", reduce="sum").top(20)
    assert found.concepts[0].neurons.members == expected.members
    assert {member.position for member in found.concepts[0].neurons} == {None}


def worded(name: str, dtype: torch.dtype = torch.float64) -> Run:
    """A run of the tiny prompt made of words, so that another prompt can be made like it."""
    tokenizer = words()
    tokenizer.backend_tokenizer.pre_tokenizer = WhitespaceSplit()
    model = Model(tiny_module(name, dtype)[0], tokenizer)
    return Run.of(model, model.prepare(None, OWN, chat=False)[0], [5, 6])


def logit(run: Run, token: int, path: str, change: Tensor) -> float:
    """y_t at the row before the last, W_down's input being what it is plus ``change`` (rows, width)."""

    def put(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return replace_first(args, kwargs, first_tensor(args, kwargs) + change)

    with torch.no_grad(), Hooks() as hooks:
        hooks.before(run.model.module.get_submodule(path), put)
        return float(run.model.forward(run.forced_inputs(), rows=[run.row(1)])[0, 0, token])


@pytest.mark.parametrize(
    ("name", "path"), [("llama", "model.layers.1.mlp.down_proj"), ("gpt2", "transformer.h.1.mlp.c_proj")]
)
def test_attribution_patching_is_the_first_step_towards_the_twin(name: str, path: str) -> None:
    """By finite differences: activations moved a little towards the twin's, neuron by neuron and row by row."""
    run, target = worded(name), Target(9, 1, "t")
    rows = rows_of(run, target, "all")
    twin = twin_of(run.model, run, None, OTHER)
    found = next(
        part
        for part in attribution_patching(run.model, run, [target], counterfactual=OTHER)[0]
        if part.writer.layer == 1
    )
    away = next(part for part in differences(run, twin, rows) if part.writer.layer == 1)
    step = 0.02  # norms round to single precision
    strongest = found.values.abs().flatten().topk(6).indices.tolist()
    for at in strongest:
        row, column = divmod(at, found.values.shape[1])
        change = torch.zeros(run.length, found.values.shape[1], dtype=torch.float64)
        change[row, column] = -step * away.values[row, column]
        slope = (logit(run, 9, path, -change) - logit(run, 9, path, change)) / (2 * step)
        assert float(found.values[row, column]) == pytest.approx(slope, rel=5e-3)


def test_eap_ig_is_the_mean_over_an_explicit_loop() -> None:
    run = worded("llama")
    module: Any = run.model.module
    own, other = torch.tensor([[3, 7, 8, 33, 41, 30, 9, 5, 6]]), torch.tensor([[3, 7, 8, 33, 50, 51, 9, 5, 6]])
    h, start = module.model.embed_tokens(own).detach(), module.model.embed_tokens(other).detach()
    steps, kept = 4, {}
    for name, hidden in (("own", h), ("twin", start), *((k, start + k / steps * (h - start)) for k in (1, 2, 3, 4))):
        seen: list[Tensor] = []

        def keep(module: nn.Module, args: Any, kwargs: Any, seen: list[Tensor] = seen) -> Any:
            seen.append(first_tensor(args, kwargs).detach().requires_grad_(True))
            return replace_first(args, kwargs, seen[0])

        with Hooks() as hooks:
            hooks.before(module.model.layers[1].mlp.down_proj, keep)
            logits = module(inputs_embeds=hidden, use_cache=False).logits[0, run.row(1)]
        (gradient,) = torch.autograd.grad(logits[9], seen[0])
        kept[name] = (seen[0].detach()[0], gradient[0])
    mean = torch.stack([kept[k][1] for k in (1, 2, 3, 4)]).mean(0)
    expected = ((kept["own"][0] - kept["twin"][0]) * mean)[: last(run) + 1].sum(0)
    scores = nw.scores(run.model, run, target=9, position=1, method="eap_ig", counterfactual=OTHER, steps=steps)
    torch.testing.assert_close(scores.layer(1).double(), expected, rtol=1e-4, atol=1e-6)


def test_one_step_is_attribution_patching_and_more_are_not() -> None:
    run = worded("llama", torch.float32)
    plain = nw.scores(run.model, run, target=9, position=1, method="attribution_patching", counterfactual=OTHER)
    once = nw.scores(run.model, run, target=9, position=1, method="eap_ig", counterfactual=OTHER, steps=1)
    for writer, values in plain.items():
        torch.testing.assert_close(values, once[writer], rtol=1e-4, atol=1e-5)
    many = nw.scores(run.model, run, target=9, position=1, method="eap_ig", counterfactual=OTHER, steps=6)
    assert any(not torch.allclose(values, many[writer], rtol=1e-2) for writer, values in plain.items())


@pytest.mark.parametrize("name", TWINS)
def test_a_photo_and_its_inpainted_twin(name: str) -> None:
    model, prompted, photo = tiny("llava")
    assert photo is not None
    run = Run.of(model, prompted, [5], photo)
    assert entering(model, run).shape == (1, run.length, model.hidden_size)
    with pytest.raises(MethodError, match="either inpainted=PHOTO"):
        nw.locate(model, run, target=5, method=name)
    with pytest.raises(MethodError, match="either inpainted=PHOTO"):
        nw.locate(model, run, target=5, method=name, inpainted=photo, counterfactual="w4")


@pytest.mark.parametrize("name", TWINS)
def test_twins_that_do_not_fit_are_refused(name: str) -> None:
    run = worded("llama", torch.float32)
    for prompt, why in ((OTHER + " w3", "makes 8 tokens"), (OWN, "own prompt")):
        with pytest.raises(MethodError, match=why):
            nw.locate(run.model, run, target=9, method=name, counterfactual=prompt)


@pytest.mark.builtin
@pytest.mark.parametrize("name", TWINS)
def test_another_subject_and_an_inpainted_photo_on_the_built_in_model(
    name: str, builtin: Model, builtin_text: Model, chelsea: Path
) -> None:
    run = builtin_text.run(prompt="The capital of France is", max_new_tokens=0, chat=False)
    other = "The capital of Italy is"
    twin = builtin_text.run(prompt=other, max_new_tokens=0, chat=False)
    wanted: Any = {"target": " Paris", "contrast": [" Rome"], "positions": "all"}
    found = nw.locate(builtin_text, run, method=name, counterfactual=other, top=20, **wanted)
    # Where the prompts are still the same, nothing differs.
    assert min(member.position or 0 for member in found) >= 3
    random = nw.locate(builtin_text, run, target=" Paris", method="random", top=20)
    rome = builtin_text.run(prompt=other, max_new_tokens=0, chat=False).answer

    def lead() -> float:
        with torch.no_grad():
            logits = builtin_text.forward(run.forced_inputs(), rows=[-1])[0, -1]
        return float(logits[run.answer] - logits[rome])

    before = lead()
    with patch(builtin_text, random, twin, [3, 4]):
        assert abs(before - lead()) < 1
    with patch(builtin_text, found, twin, [3, 4]):
        assert before - lead() > 3
    seen = builtin.run(image=chelsea)
    gray = open_image(chelsea).convert("L").convert("RGB").point(lambda _: 127)
    on_photo = nw.locate(builtin, seen, "cat", method=name, inpainted=gray, positions="image", top=5)
    assert {member.position for member in on_photo} <= set(seen.image_positions.tolist())
