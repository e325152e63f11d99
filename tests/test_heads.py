"""Attention heads: their shares add up to the attention's, zeroing one is zeroing its pattern, values and sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import neuronwise as nw
from conformed import words
from families import NAMES, tiny
from neuronwise.errors import ArgumentError, MethodError, NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.intervene import mean_ablate, mean_outputs, scale, suppress
from neuronwise.locate.heads import HeadScores, contribution, joined
from neuronwise.locate.shares import direct_shares
from neuronwise.model import Model, Run, Target
from neuronwise.model.heads import Attention, attention_of, attentions, mixed
from neuronwise.model.hooks import Hooks
from neuronwise.model.passes import inputs_of
from neuronwise.model.prompt import Prompted
from neuronwise.read import find, with_heads
from schema_guard import validated

TARGET = Target(29, 0, "t")
NO_HEADS = {"jetmoe"}  # its output projections are experts
OTHER_BRANCH = {"zamba2"}  # what attention writes is read by a mamba layer alone
HEADED = [name for name in NAMES if name not in NO_HEADS]


def fresh(name: str, dtype: torch.dtype = torch.float32) -> Run:
    module, inputs = tiny(name, dtype)
    return Run.of(Model(module, words()), Prompted("", False, inputs))


def logits(run: Run) -> Tensor:
    with torch.no_grad():
        return run.model.forward(run.forced_inputs(), rows=[-1])[0, -1].float()


@pytest.mark.parametrize("name", [name for name in HEADED if name not in OTHER_BRANCH])
def test_the_heads_of_an_attention_and_its_bias_add_up_to_its_share(name: str) -> None:
    run = fresh(name)
    shares = direct_shares(run.model, run, [(0, {29: 1.0})])
    scores = contribution(run.model, run, [TARGET])[0]
    assert len(set(scores.heads)) == len(scores.heads) > 0
    for own in attentions(run.model):
        total = sum(float(scores.values[scores.heads.index(head)]) for head in own.heads)
        bias = getattr(own.writer.module, "bias", None)
        if bias is not None:
            total += float(bias.detach() @ shares.gradients[0][own.site])
        assert total == pytest.approx(shares.shares[0].get(own.site, 0.0), abs=1e-4)


class _PatternZeroed(TorchFunctionMode):
    """Attention in which one head's pattern is 0: what it mixes is nothing, whatever is done with that afterwards."""

    def __init__(self, head: int, count: int) -> None:
        super().__init__()
        self.head, self.count, self.calls = head, count, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        patterns = (functional.scaled_dot_product_attention, functional.softmax, torch.softmax, Tensor.softmax)
        if func in patterns and self.count in output.shape[-3:-2]:  # (…, heads, queries, keys or size)
            output = output.clone()
            output[..., self.head, :, :] = 0
            self.calls += 1
        return output


def zeroed_by_pattern(run: Run, attention: Attention, number: int) -> Tensor:
    layer = run.model.blocks[attention.writer.layer].module
    own = layer.get_submodule(attention.path)
    mode = _PatternZeroed(number, attention.count)
    with Hooks() as hooks:
        inside = hooks.inside(layer)
        hooks.before(own, lambda *_: mode.__enter__() and None if inside() else None)
        hooks.after(own, lambda *_: mode.__exit__(None, None, None) if inside() else None)
        found = logits(run)
    assert mode.calls == 1, "the test did not see the head's pattern"
    return found


@pytest.mark.parametrize("name", HEADED)
def test_suppressing_a_head_is_zeroing_its_pattern(name: str) -> None:
    """The slice of the output projection's input that is called a head is what that head's pattern mixes."""
    run = fresh(name)
    plain = logits(run)
    for attention in attentions(run.model):
        for number in (0, attention.count - 1):
            head = attention.heads[number]
            wanted = zeroed_by_pattern(run, attention, number)
            with suppress(run.model, head):
                torch.testing.assert_close(logits(run), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(run), plain, rtol=0, atol=0)


def test_a_llamas_heads_are_patterns_times_shared_values() -> None:
    """Grouped queries: the head's output written out from queries, keys and values."""
    run = fresh("llama", torch.float64)
    core: Any = run.model.module
    layer = core.model.layers[1].self_attn
    with inputs_of(core.model.layers[1].input_layernorm) as seen, torch.no_grad():
        core(**run.prompted.inputs, use_cache=False)
    x = core.model.layers[1].input_layernorm(seen[0])
    count = x.shape[1]
    cos, sin = core.model.rotary_emb(x, torch.arange(count)[None])

    def turned(values: Tensor) -> Tensor:
        first, second = values.chunk(2, -1)
        return values * cos[0] + torch.cat([-second, first], -1) * sin[0]

    read = mixed(run.model, run.forced_inputs(), [-1])[attentions(run.model)[1]]
    for head in range(4):
        shared = head // 2  # two queries for each key
        q = turned(functional.linear(x, layer.q_proj.weight[8 * head : 8 * head + 8])[0])
        k = turned(functional.linear(x, layer.k_proj.weight[8 * shared : 8 * shared + 8])[0])
        v = functional.linear(x, layer.v_proj.weight[8 * shared : 8 * shared + 8])[0]
        pattern = (q[-1] @ k.T / 8**0.5).softmax(-1)
        torch.testing.assert_close(read[0, 8 * head : 8 * head + 8], (pattern @ v).detach(), rtol=1e-5, atol=1e-7)


def test_plain_contribution_is_the_unembedding_times_what_a_head_writes() -> None:
    run = fresh("gpt2")
    scores = contribution(run.model, run, [TARGET], normalize=False)[0]
    module: Any = run.model.module
    for own in attentions(run.model):
        layer = module.transformer.h[own.writer.layer].attn.c_proj
        with inputs_of(layer) as seen, torch.no_grad():
            module(**run.prompted.inputs, use_cache=False)
        for number, head in enumerate(own.heads):
            part = seen[0][0, -1, 8 * number : 8 * number + 8] @ layer.weight[8 * number : 8 * number + 8]
            expected = float((part @ module.lm_head.weight[29]).detach())
            assert float(scores.values[scores.heads.index(head)]) == pytest.approx(expected, abs=1e-5)


def test_a_contrast_is_a_difference_of_scores() -> None:
    run = fresh("gemma2")
    alone = [contribution(run.model, run, [Target(token, 0, "")])[0].values for token in (29, 7, 8)]
    contrasted = contribution(run.model, run, [TARGET], contrast=[7, 8])[0].values
    torch.testing.assert_close(contrasted, alone[0] - (alone[1] + alone[2]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "deepseek_v3", "t5", "qwen2_vl"])
def test_the_causal_effect_of_a_head_is_what_suppressing_it_there_takes(name: str) -> None:
    run = fresh(name)
    found = nw.locate(run.model, run, target=29, kind="heads", method="causal_effect", top=None)
    count = sum(own.count for own in attentions(run.model))
    assert len(found) == count
    before = logits(run).log_softmax(-1)[29]
    for member in (*found[:2], found[-1]):
        with suppress(run.model, member, positions=[run.length - 1]):
            drop = float(before - logits(run).log_softmax(-1)[29])
        assert member.score == pytest.approx(drop, abs=1e-4)
    chosen = nw.locate(run.model, run, target=29, kind="heads", method="causal_effect", among=["L1.H2", "L0.H0"])
    assert sorted(chosen.heads) == [nw.Head(0, 0), nw.Head(1, 2)]
    scores = [{m.head: m.score for m in one}[nw.Head(1, 2)] for one in (chosen, found)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_locate_ranks_heads() -> None:
    run = fresh("llama")
    found = nw.locate(run.model, run, target=29, kind="heads", top=None)
    assert isinstance(found, nw.HeadSet)
    scores = contribution(run.model, run, [TARGET])[0]
    assert [member.score for member in found] == sorted(scores.values.tolist(), reverse=True)
    assert found.record["kind"] == "heads"
    assert found.record["method"] == "contribution"
    assert nw.locate(run.model, run, target=29, kind="heads", top=3) == nw.HeadSet(found.members[:3], found.record)
    both = nw.locate(run.model, [run, run], target=29, kind="heads", top=3)
    assert both.heads == found.heads[:3]
    assert both[0].score == pytest.approx(found[0].score)
    votes = nw.locate(run.model, [run, run], target=29, kind="heads", top=3, agree="vote")
    assert votes.heads == found.heads[:3]
    assert {member.score for member in votes} == {1.0}


def test_votes_are_shares_of_runs() -> None:
    heads = (nw.Head(0, 0), nw.Head(0, 1), nw.Head(0, 2))
    scored = [HeadScores(heads, torch.tensor(values)) for values in ([3.0, 2.0, 1.0], [1.0, 2.0, 9.0])]
    assert joined(scored, "vote", 2).to_pandas().to_dict("list") == {
        "layer": [0, 0, 0][:2], "head": [1, 2], "score": [1.0, 0.5],
    }  # fmt: skip
    assert joined(scored, "mean", 1)[0] == nw.ScoredHead(nw.Head(0, 2), 5.0)


def test_what_has_no_heads_is_told_by_its_name() -> None:
    run = fresh("jetmoe")
    with pytest.raises(MethodError, match=r"JetMoeAttention \(layer 0, 'self_attention'\)"):
        nw.locate(run.model, run, target=29, kind="heads")
    run = fresh("zamba2")
    with pytest.raises(MethodError, match=r"Zamba2Attention .* another branch"):
        nw.locate(run.model, run, target=29, kind="heads")
    run = fresh("jamba")
    found = nw.locate(run.model, run, target=29, kind="heads")
    assert {head.layer for head in found.heads} == {1}
    assert found.record["note"] == "JambaMambaMixer (layers 0, 2) has no heads and is not scored."


def test_what_does_not_fit_heads_is_refused() -> None:
    run = fresh("llama")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"method": "relp"}, "does not score attention heads; use one of contribution, causal_effect"),
        ({"baseline": "self"}, "contribution of heads has no option baseline; it takes normalize, contrast"),
        ({"positions": "all"}, "no option positions"),
        ({"top": 0}, "top is 0"),
        ({"among": ["L0.H0"]}, "leave among out"),
        ({"inpainted": "photo.png"}, "leave inpainted"),
        ({"method": "causal_effect", "batch": 0}, "batch is 0"),
    )
    for options, match in cases:
        with pytest.raises(MethodError, match=match):
            nw.locate(run.model, run, target=29, kind="heads", **options)
    with pytest.raises(ArgumentError, match="kind='units' does not fit; it takes 'neurons' or 'heads'"):
        nw.locate(run.model, run, target=29, kind="units")  # type: ignore[call-overload]
    with pytest.raises(NeuronError, match=r"There is no head L1\.H4: layer 1 has heads 0 to 3"):
        attention_of(run.model, nw.Head(1, 4))
    with (
        pytest.raises(NeuronError, match=r"There is no head L9\.H0: .* has layers 0 to 2"),
        suppress(run.model, "L9.H0"),
    ):
        raise AssertionError("not reached")


# Interventions


def test_scaling_heads_is_linear_in_what_they_write_and_comes_off() -> None:
    run = fresh("llama")
    plain = logits(run)
    with scale(run.model, ["L2.H1", nw.Head(2, 3)], 1.0):
        torch.testing.assert_close(logits(run), plain)
    row = run.length - 1
    with suppress(run.model, "L0.H1", positions=[0]):
        elsewhere = logits(run)
    with suppress(run.model, "L0.H1"):
        everywhere = logits(run)
    with suppress(run.model, "L2.H1", positions=[row]), suppress(run.model, "L2.H1", positions=[row]):
        twice = logits(run)
    with suppress(run.model, "L2.H1"):  # in the last layer the other rows no longer count
        torch.testing.assert_close(logits(run), twice)
    assert not torch.allclose(elsewhere, everywhere)
    torch.testing.assert_close(logits(run), plain, rtol=0, atol=0)


def test_heads_are_set_to_their_mean_outputs() -> None:
    run = fresh("llama")
    means = mean_outputs(run.model, ["L1.H0", "L1.H2"], [run, run])
    whole = mixed(run.model, run.forced_inputs(), range(run.length))[attentions(run.model)[1]]
    torch.testing.assert_close(means[nw.Head(1, 2)], whole[:, 16:24].mean(0))
    projection = run.model.module.model.layers[1].self_attn.o_proj
    with mean_ablate(run.model, ["L1.H0", "L1.H2"], means), inputs_of(projection) as seen:
        logits(run)
    torch.testing.assert_close(seen[0][0, :, 16:24], means[nw.Head(1, 2)].expand(run.length, 8))
    torch.testing.assert_close(seen[0][0, :, 8:16], whole[:, 8:16])
    with pytest.raises(MethodError, match=r"no mean output of L1\.H3"), mean_ablate(run.model, "L1.H3", means):
        raise AssertionError("not reached")
    with pytest.raises(MethodError, match="one run or more"):
        mean_outputs(run.model, "L1.H3", [])


# Values


def test_a_head_prints_as_it_is_parsed() -> None:
    assert str(nw.Head(5, 3)) == "L5.H3"
    assert nw.Head.parse(" L5.H3 ") == nw.Head(5, 3)
    assert nw.Head(5, 3) < nw.Head(5, 10) < nw.Head(6, 0)
    for wrong in ("L5", "H3", "L5.U3", "L5.H3@2", "L-1.H0", f"L{'9' * 5000}.H1"):
        with pytest.raises(NeuronError, match=r"write L5\.H3"):
            nw.Head.parse(wrong)
    for layer, head in ((-1, 0), (0, -2), ("1", 0)):
        with pytest.raises(NeuronError):
            nw.Head(layer, head)  # type: ignore[arg-type]


def test_a_set_is_saved_and_loaded(tmp_path: Path) -> None:
    found = nw.HeadSet((nw.ScoredHead(nw.Head(5, 3), 1.5), nw.ScoredHead(nw.Head(0, 1), -2.0)), {"method": "x"})
    found.save(tmp_path / "heads.json")
    assert nw.HeadSet.load(tmp_path / "heads.json") == found
    assert "L5.H3" in found
    assert nw.Head(5, 4) not in found
    assert found[:1].heads == (nw.Head(5, 3),)
    with pytest.raises(NeuronError, match="'high' does not fit"):
        nw.ScoredHead(nw.Head(0, 0), "high")  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        nw.HeadSet((nw.ScoredHead(nw.Head(0, 0), float("nan")),))
    with pytest.raises(NeuronError, match="once"):
        nw.HeadSet((nw.ScoredHead(nw.Head(0, 0), 1.0), nw.ScoredHead(nw.Head(0, 0), 2.0)))


@pytest.mark.parametrize(
    "heads",
    [
        '[{"layer": 1}]',
        "{}",
        "[3]",
        '[{"layer": 1, "head": 0, "score": "high"}]',
        '[{"layer": -1, "head": 0, "score": 1}]',
    ],
)
def test_a_damaged_set_is_refused(heads: str, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    file.write_text(f'{{"schema": "neuronwise.heads/1", "record": {{}}, "heads": {heads}}}')
    with pytest.raises(NeuronwiseError, match="damaged"):
        nw.HeadSet.load(file)


# Findings


def test_a_finding_has_heads_beside_neurons() -> None:
    run = fresh("gemma2")
    found = with_heads(find(run.model, run, targets=[29], top=3, baseline=None), 4)
    (row,) = validated(found.to_dict())["concepts"]
    wanted = nw.locate(run.model, run, target=29, kind="heads", top=4, contrast=10)
    assert [(head["layer"], head["head"]) for head in row["heads"]] == [(h.layer, h.head) for h in wanted.heads]
    assert [head["score"] for head in row["heads"]] == pytest.approx([member.score for member in wanted])
    # What a head raises is read off what it writes, through the norms behind it.
    own = attention_of(run.model, wanted[0].head)
    columns = own.columns(wanted[0].head)
    written = own.writer.vectors[:, columns] @ mixed(run.model, run.forced_inputs(), [-1])[own][0, columns]
    module: Any = run.model.module
    gains = [module.model.layers[own.writer.layer].post_attention_layernorm.weight, module.model.norm.weight]
    arrived = written * (1 + gains[0]) * (1 + gains[1])
    unembedding = module.lm_head.weight - module.lm_head.weight.mean(0)
    best = functional.cosine_similarity(unembedding, arrived[None], dim=1).argmax()
    assert row["heads"][0]["raises"][0] == run.model.tokenizer.decode([int(best)])
    run = fresh("jetmoe")
    without = with_heads(find(run.model, run, targets=[29], top=3, baseline=None), 4)
    assert "JetMoeAttention" in validated(without.to_dict())["note"]
    assert "heads" not in without.to_dict()["concepts"][0]
