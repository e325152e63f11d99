"""The numbers on tiny random models of many architectures: activations, shares of the logit, gradients, effects."""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from families import NAMES, tiny
from neuronwise.locate import score_all
from neuronwise.locate.causal_effect import causal_effect
from neuronwise.locate.shares import component_scale, direct_shares
from neuronwise.model import Model, Run, Target
from neuronwise.model.activations import Activations
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit
from neuronwise.model.prompt import Prompted
from neuronwise.model.record import Recorder
from neuronwise.model.writers import Experts
from neuronwise.neurons import Neuron, NeuronSet

SPOKEN = [17, 33]  # what the model "said" after the prompt; the row after it predicts TARGET
TARGET = Target(29, len(SPOKEN), "t")


@functools.lru_cache(maxsize=4)
def recorded(name: str, dtype: torch.dtype = torch.float32) -> Run:
    """A run without a tokenizer: the family's inputs and two forced tokens."""
    module, inputs = tiny(name, dtype)
    return Run(Model(module), Prompted("", False, inputs), SPOKEN, [])


def plain_logits(run: Run) -> Tensor:
    """The last row's logits of an ordinary forward pass."""
    with torch.no_grad():
        return run.model.module(**run.model.placed(run.forced_inputs()), use_cache=False).logits[0, -1]


def uncapped(run: Run, logits: Tensor) -> Tensor:
    cap = getattr(run.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.atanh(logits / cap)


def own_weight(module: nn.Module) -> Tensor:
    """(f, d) from the module's own parameter, read here again."""
    assert isinstance(module.weight, Tensor)
    return module.weight.detach() if hasattr(module, "nx") else module.weight.detach().T


def served_layers(run: Run, module: nn.Module) -> list[int]:
    """The layers that ``module`` writes for: Zamba has one feed-forward block for many."""
    return [block.layer for block in run.model.blocks if any(w.module is module for w in block.dense)]


def neurons_of(run: Run) -> list[Neuron]:
    """The strongest neuron of every layer, dense and routed."""
    acts = run.activations(TARGET.position)
    found = [Neuron(layer, int(a[0].abs().argmax())) for layer, a in acts.dense.items() if a.shape[1]]
    for layer, rows in acts.routed.items():
        for expert, record in rows[0].items():
            found.append(Neuron(layer, int(record.activation.abs().argmax()), expert))
    return found


def routed_column(run: Run, neuron: Neuron) -> Tensor:
    """The value vector's own numbers in the parameter, so that they can be changed in place."""
    experts = run.model.writer(neuron).experts
    assert experts is not None
    assert neuron.expert is not None
    index = neuron.expert - experts.first
    if experts.parameter is None:
        return experts.linears[index].weight.data[:, neuron.unit]  # type: ignore[union-attr, index]
    owner, _, name = experts.parameter.rpartition(".")
    parameter = getattr(experts.module.get_submodule(owner), name).data
    expert = parameter.view(experts.count, -1, parameter.shape[-1])[index]
    return expert[neuron.unit] if experts.transposed else expert[:, neuron.unit]


def scaled_logits(run: Run, neuron: Neuron, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits of a plain whole pass in which what one neuron writes at the last row is changed by hand.

    A dense neuron: at W_down's input. A routed one: the experts are computed again with its value vector changed in
    the weights, and the last row taken from there.
    """
    busy = [False]
    calls = [0]

    def dense(module: nn.Module, args: Any, kwargs: Any, unit: int) -> Any:
        calls[0] += 1
        if served_layers(run, module)[calls[0] - 1] != neuron.layer:
            return None
        inputs = first_tensor(args, kwargs).clone()
        flat = inputs.view(-1, inputs.shape[-1])
        flat[-1, unit] = change(flat[-1, unit])
        return replace_first(args, kwargs, inputs)

    def routed(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if busy[0]:
            return None
        busy[0] = True
        column = routed_column(run, neuron)
        kept = column.clone()
        column.copy_(change(kept))
        again = module(*args, **kwargs)
        column.copy_(kept)
        busy[0] = False
        whole, changed = (o if isinstance(o, Tensor) else o[0] for o in (output, again))
        joined = whole.clone()
        joined.view(-1, whole.shape[-1])[-1] = changed.reshape(-1, whole.shape[-1])[-1]
        return joined if isinstance(output, Tensor) else (joined, *output[1:])

    with Hooks() as hooks:
        writer = run.model.writer(neuron)
        if writer.experts is None:
            hooks.before(writer.module, functools.partial(dense, unit=neuron.unit - writer.first))
        else:
            hooks.after(writer.experts.unit, routed)
        return plain_logits(run)


def all_hooks(module: nn.Module) -> Iterator[Any]:
    for part in module.modules():
        yield from part._forward_hooks.values()
        yield from part._forward_pre_hooks.values()


@pytest.mark.parametrize("name", NAMES)
def test_recorded_activations_reproduce_what_is_written(name: str) -> None:
    run = recorded(name)
    written: dict[int, list[Tensor]] = {}  # a module that serves several layers is called in their order
    with Hooks() as hooks:
        for block in run.model.blocks:
            for writer in block.dense:

                def keep(module: nn.Module, args: Any, kwargs: Any, output: Any, key: Any) -> None:
                    written.setdefault(key, []).append(output.detach().reshape(-1, output.shape[-1])[-1].clone())

                if len(served_layers(run, writer.module)) == 1 or block.layer == served_layers(run, writer.module)[0]:
                    hooks.after(writer.module, functools.partial(keep, key=id(writer.module)))
        plain_logits(run)
    acts = run.activations(TARGET.position)
    assert any(block.num_neurons for block in run.model.blocks)
    for block in run.model.blocks:
        for writer in block.dense:
            units = slice(writer.first, writer.first + writer.width)
            expected = acts.dense[block.layer][0, units] @ own_weight(writer.module)
            torch.testing.assert_close(block.value_vectors[:, units].T, own_weight(writer.module))
            bias = getattr(writer.module, "bias", None)
            expected = expected if bias is None else expected + bias.detach()
            torch.testing.assert_close(expected, written[id(writer.module)].pop(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_all_components_add_up_to_the_logit(name: str) -> None:
    run = recorded(name)
    model = run.model
    scores = score_all(model, run, [TARGET], "contribution", normalize=True)[0]
    written = direct_shares(model, run, [(TARGET.position, {TARGET.token_id: 1.0})])
    others, shares = dict(written.gradients[0]), dict(written.shares[0])
    total = written.constants[0]
    acts = run.activations(TARGET.position)
    for block in model.blocks:
        for writer in block.dense:
            gradient = others.pop((block.layer, writer.path), None)
            if gradient is None:  # written into another branch (Zamba's, which Mamba reads): no share of its own
                assert not any(scores.layer(block.layer))
                continue
            bias = getattr(writer.module, "bias", None)
            total += 0.0 if bias is None else float(gradient @ bias.detach())
        for experts in block.experts:
            path = next(n for n, m in block.module.named_modules() if m is experts.unit)
            total += expert_biases(experts, acts, others.pop((block.layer, path)))
    total += sum(float(values.double().sum()) for values in scores.values())
    total += sum(shares[key] for key in others)
    real = float(uncapped(run, plain_logits(run))[TARGET.token_id])
    # Rounding is measured against the sizes of the shares: they cancel one another in a random model.
    assert total == pytest.approx(real, abs=1e-4 * component_scale(written, 0), rel=1e-4)
    if name != "zamba2":
        assert sum(float(v.abs().sum()) for v in scores.values()) > 0.01 * component_scale(written, 0)


def expert_biases(experts: Experts, acts: Activations, gradient: Tensor) -> float:
    own = getattr(experts.unit, "bias", None)
    total = 0.0 if own is None else float(gradient @ own.detach())
    owner, _, name = (experts.parameter or "").rpartition(".")
    biases = getattr(experts.module.get_submodule(owner), f"{name}_bias", None)
    for expert, record in acts.routed[experts.layer][0].items():
        if biases is not None and experts.first <= expert < experts.first + experts.count:
            total += record.weight * float(gradient @ biases.detach()[expert - experts.first])
    return total


def relative_slope(run: Run, neuron: Neuron, step: float) -> float:
    """The logit's change for each part by which the neuron's activation grows: a · ∂y/∂a."""
    up, down = (scaled_logits(run, neuron, lambda a, s=s: a * (1 + s))[TARGET.token_id] for s in (step, -step))
    return float(up - down) / (2 * step)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name: str) -> None:
    run = recorded(name, torch.float32 if name == "xglm" else torch.float64)  # its mask overflows in float64
    scores = score_all(run.model, run, [TARGET], "gradient_activation", positions="predicting")[0]
    acts = run.activations(TARGET.position)
    largest = max(float(v.abs().max()) for v in scores.values())
    for neuron in neurons_of(run):
        # Central differences, extrapolated: norms and rotary embeddings compute in float32 even in a float64 model,
        # so that a smaller step would drown.
        fine, coarse = (relative_slope(run, neuron, step) for step in (1e-2, 2e-2))
        assert scores.of(neuron) == pytest.approx((4 * fine - coarse) / 3, rel=1e-3, abs=1e-4 * largest), neuron
    plain = score_all(run.model, run, [TARGET], "gradient")[0]
    for layer, a in acts.dense.items():
        torch.testing.assert_close(plain.layer(layer) * a[0].float(), scores.layer(layer))


@pytest.mark.parametrize("name", NAMES)
def test_causal_effect_equals_zeroing_by_hand(name: str) -> None:
    run = recorded(name)
    neurons = neurons_of(run)
    found = causal_effect(run.model, run, TARGET, NeuronSet.of(neurons), batch=3)
    before = plain_logits(run).log_softmax(-1)[TARGET.token_id]
    assert {m.neuron for m in found} == set(neurons)
    for member in found:
        after = scaled_logits(run, member.neuron, torch.zeros_like).log_softmax(-1)[TARGET.token_id]
        assert member.score == pytest.approx(float(before - after), rel=1e-3, abs=2e-5), member.neuron
    assert max(abs(m.score) for m in found) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_last_position_equals_a_whole_pass(name: str) -> None:
    run = recorded(name)
    last = LastPosition(run.model, run.forced_inputs())
    torch.testing.assert_close(last.evaluate(2), plain_logits(run).expand(2, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_copies_may_join_at_their_layer(name: str) -> None:
    """Each is the whole pass; what is done to one at its layer is what is done there to copies from below."""
    run = recorded(name)
    last = LastPosition(run.model, run.forced_inputs())
    if not last.joins:
        assert name not in ("gpt2", "llama", "mixtral", "gemma3_text", "llava")
        return
    torch.testing.assert_close(
        last.evaluate_joining({0: 2, 1: 1}), plain_logits(run).expand(3, -1), rtol=1e-3, atol=1e-4
    )

    def turned(hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:-1], -hidden[-1:]])

    with edit(run.model.blocks[1].module, turned):
        below, joining = last.evaluate(2), last.evaluate_joining({0: 1, 1: 1})
    torch.testing.assert_close(joining, below, rtol=1e-3, atol=1e-4)
    assert float((joining[1] - joining[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_every_method_lets_go_of_hooks_and_gradients(name: str) -> None:
    run = recorded(name)
    model = run.model
    frozen = next(model.module.parameters())
    frozen.requires_grad_(False)
    flags = [p.requires_grad for p in model.module.parameters()]
    before = list(all_hooks(model.module))
    for method in ("contribution", "gradient", "integrated_gradients"):
        scores = score_all(model, run, [TARGET], method)[0]
        assert all(torch.isfinite(values).all() for values in scores.values())
    for positions in (None, [0]):
        with pytest.raises(KeyError, match="on purpose"), Recorder(model.blocks, positions):
            raise KeyError("on purpose")
    assert list(all_hooks(model.module)) == before
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert all(p.grad is None for p in model.module.parameters())
    frozen.requires_grad_(True)


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "llama4_text", "llava"])
def test_memory_is_let_go(name: str) -> None:
    """After a call only its result is left: no tensor of the pass, no graph."""
    run = recorded(name)
    run.activations(TARGET.position)  # kept by the run

    def tensors() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if issubclass(type(thing), Tensor))

    before = tensors()
    tried: dict[str, dict[str, Any]] = {"contribution": {"normalize": True}, "gradient": {}, "integrated_gradients": {}}
    for method, options in tried.items():
        score_all(run.model, run, [TARGET], method, **options)
    causal_effect(run.model, run, TARGET, NeuronSet.of(neurons_of(run)))
    assert tensors() <= before


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "mixtral", "gpt_oss", "t5", "llava", "qwen2_vl"])
def test_half_precision_is_finite(name: str) -> None:
    run = recorded(name, torch.bfloat16)
    exact = score_all(recorded(name).model, recorded(name), [TARGET], "contribution")[0]
    for method in ("contribution", "gradient_activation", "integrated_gradients"):
        scores = score_all(run.model, run, [TARGET], method)[0]
        assert all(values.dtype == torch.float32 for values in scores.values())
        assert len(scores.top(5)) == 5
        assert not math.isnan(scores.top(1)[0].score)
    rounded = score_all(run.model, run, [TARGET], "contribution")[0]
    for writer, values in exact.items():
        if writer.expert is None:
            assert torch.nn.functional.cosine_similarity(rounded[writer], values, dim=0) > 0.9
