"""Scores against formulas written here once more, against TransformerLens and Captum, and planted neurons."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conformed import words
from families import NAMES, tiny
from neuronwise.errors import MethodError
from neuronwise.locate import score_all
from neuronwise.locate.causal_effect import causal_effect
from neuronwise.model import Model, Run, Target
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.prompt import Prompted
from neuronwise.neurons import Neuron, NeuronSet

TARGET = Target(29, 0, "t")  # predicted by the prompt's last position


def fresh(name: str, dtype: torch.dtype = torch.float32) -> Run:
    module, inputs = tiny(name, dtype)
    return Run(Model(module), Prompted("", False, inputs), [], [])


def seen(run: Run, *paths: str, inputs: bool = True) -> list[Tensor]:
    """The last row of what these modules get (or return) in a plain pass."""
    kept: dict[str, Tensor] = {}
    with Hooks() as hooks, torch.no_grad():
        for path in paths:

            def keep(module: nn.Module, args: Any, kwargs: Any, output: Any, path: str) -> None:
                value = first_tensor(args, kwargs) if inputs else output
                kept[path] = value.reshape(-1, value.shape[-1])[-1].clone()

            hooks.after(run.model.module.get_submodule(path), functools.partial(keep, path=path))
        run.model.module(**run.prompted.inputs, use_cache=False)
    return [kept[path] for path in paths]


def answers(run: Run) -> Tensor:
    with torch.no_grad():
        return run.model.module(**run.prompted.inputs, use_cache=False).logits[0, -1]


def test_contribution_is_activation_times_projection() -> None:
    run = fresh("llama")
    module = run.model.module
    scores = score_all(run.model, run, [TARGET], "contribution")[0]
    for layer in range(3):
        a = seen(run, f"model.layers.{layer}.mlp.down_proj")[0]
        down = module.model.layers[layer].mlp.down_proj.weight
        expected = torch.stack([a[i] * (module.lm_head.weight[29] @ down[:, i]) for i in range(len(a))])
        torch.testing.assert_close(scores.layer(layer), expected.detach(), rtol=1e-4, atol=1e-6)


def test_gate_contribution_takes_the_gate_alone() -> None:
    run = fresh("llama")
    module = run.model.module
    scores = score_all(run.model, run, [TARGET], "contribution", activation="gate")[0]
    x = seen(run, "model.layers.1.mlp")[0]
    mlp = module.model.layers[1].mlp
    expected = functional.silu(mlp.gate_proj.weight @ x) * (module.lm_head.weight[29] @ mlp.down_proj.weight)
    torch.testing.assert_close(scores.layer(1), expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("focus", [1.0, 2])
def test_focus_weighs_by_the_cosines(focus: float) -> None:
    run = fresh("llama")
    module = run.model.module
    scores = score_all(run.model, run, [TARGET], "contribution", focus=focus)[0]
    a = seen(run, "model.layers.1.mlp.down_proj")[0]
    down = module.model.layers[1].mlp.down_proj.weight
    read = module.lm_head.weight[29]
    cosines = [
        functional.cosine_similarity(down.T, towards[None], dim=1)
        for towards in (read, read - module.lm_head.weight.mean(0))
    ]
    aimed = len(down) * cosines[0] * cosines[1]
    assert (aimed < 0).any()  # the two directions disagree for some
    expected = a * (read @ down) * aimed.clamp_min(0) ** focus
    torch.testing.assert_close(scores.layer(1), expected.detach(), rtol=1e-4, atol=1e-6)
    best = scores.top(1)[0]
    unweighed = score_all(run.model, run, [TARGET], "contribution")[0]
    assert best.adds == pytest.approx(unweighed.of(best.neuron), rel=1e-5)
    assert unweighed.top(1)[0].adds is None
    with pytest.raises(MethodError, match="focus is -1"):
        score_all(run.model, run, [TARGET], "contribution", focus=-1)


def test_contrast_subtracts_the_strongest_alternatives() -> None:
    run = fresh("llama")
    logits = answers(run)
    others = [int(token) for token in logits.argsort(descending=True) if int(token) != 29][:2]
    targets = [TARGET, *(Target(token, 0, "") for token in others)]
    own, first, second = (score.layer(2) for score in score_all(run.model, run, targets, "contribution"))
    found = score_all(run.model, run, [TARGET], "contribution", contrast=2)[0]
    torch.testing.assert_close(found.layer(2), own - (first + second) / 2)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_contribution_equals_transformer_lens(name: str, tmp_path: Path) -> None:
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    wrapped, inputs = tiny(name)  # of its own: the bridge changes what it wraps
    words().save_pretrained(tmp_path)
    wrapped.config.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    bridge = bridges.TransformerBridge.boot_transformers(str(tmp_path), hf_model=wrapped)
    run = fresh(name)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(inputs["input_ids"])
        torch.testing.assert_close(logits[0, -1], answers(run), rtol=1e-4, atol=1e-4)
        theirs = cache.stack_neuron_results(layer=-1, pos_slice=-1)  # (neurons of all layers, batch, d)
        scaled = cache.apply_ln_to_stack(theirs, layer=-1, pos_slice=-1)
    final = run.model.module.transformer.ln_f if name == "gpt2" else run.model.module.model.norm
    for normalize, stack in ((False, theirs), (True, scaled * final.weight.detach())):
        scores = score_all(run.model, run, [TARGET], "contribution", normalize=normalize)[0]
        ours = torch.cat([scores.layer(layer) for layer in range(3)])
        torch.testing.assert_close(ours, stack[:, 0] @ bridge.W_U[:, 29].detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "llama_shared"])  # a layer there serves twice
def test_integrated_gradients_equal_captum(name: str) -> None:
    """Every step by whole passes, on each architecture; of experts see the next test."""
    attr = pytest.importorskip("captum.attr")
    run = fresh(name)
    scores = score_all(run.model, run, [TARGET], "integrated_gradients", steps=20)[0]
    largest = max(float(values.abs().max()) for values in scores.values())
    inputs = run.forced_inputs()
    for layer in range(run.model.num_layers):
        if len(run.model.blocks[layer].writers) != 1:
            continue  # several writers are scaled together
        writer = run.model.blocks[layer].dense[0].module

        def probability(activations: Tensor, writer: nn.Module = writer) -> Tensor:
            """p_t with W_down's input at the last position set to each row of ``activations``."""

            def put(module: nn.Module, args: Any, kwargs: Any) -> Any:
                given = first_tensor(args, kwargs)
                whole = given.reshape(len(activations), -1, given.shape[-1])  # some blocks run the batch's rows in one
                joined = torch.cat([whole[:, :-1], activations.unsqueeze(1).to(whole.dtype)], dim=1)
                return replace_first(args, kwargs, joined.reshape(given.shape))

            count = len(activations)
            with Hooks() as hooks:
                hooks.before(writer, put)
                repeated = {k: v.repeat(count, *[1] * (v.dim() - 1)) for k, v in inputs.items()}
                logits = run.model.reader(repeated)(**repeated, use_cache=False).logits[:, -1]
            return logits.softmax(-1)[:, 29]

        a = run.activations(0).dense[layer]
        theirs = attr.IntegratedGradients(probability).attribute(a, n_steps=20, method="riemann_right")
        torch.testing.assert_close(scores.layer(layer), theirs[0].float(), rtol=0, atol=1e-4 * largest)


def test_integrated_gradients_of_experts_scale_them_alone() -> None:
    """With many steps the scores of a layer add up to p(as it is) − p(neurons of the layer zeroed)."""
    run = fresh("qwen2_moe")
    scores = score_all(run.model, run, [TARGET], "integrated_gradients", steps=400)[0]
    before = float(answers(run).softmax(-1)[29])

    def silence(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed.view(-1, output.shape[-1])[-1] = 0
        return changed

    block = run.model.module.model.layers[1].mlp
    with Hooks() as hooks:
        hooks.after(block.experts, silence)
        hooks.after(block.shared_expert, silence)
        after = float(answers(run).softmax(-1)[29])
    total = sum(float(values.sum()) for writer, values in scores.items() if writer.layer == 1)
    assert total == pytest.approx(before - after, rel=2e-2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "granite", "cohere"])
def test_log_prob_increase_reads_the_stream_with_and_without(name: str) -> None:
    run = fresh(name)
    module: Any = run.model.module
    scores = score_all(run.model, run, [TARGET], "log_prob_increase")[0]
    layer = 1
    if name == "gpt2":
        norm, mlp = module.transformer.ln_f, module.transformer.h[layer].mlp.c_proj
        stream = seen(run, f"transformer.h.{layer}.ln_2")[0]
        a, vectors = seen(run, f"transformer.h.{layer}.mlp.c_proj")[0], mlp.weight
    else:
        norm, mlp = module.model.norm, module.model.layers[layer].mlp.down_proj
        a, vectors = seen(run, f"model.layers.{layer}.mlp.down_proj")[0], mlp.weight.T
        path = f"model.layers.{layer}.post_attention_layernorm"
        if name == "gemma2":
            path = f"model.layers.{layer}.pre_feedforward_layernorm"
        if name != "cohere":
            stream = seen(run, path)[0]
        else:  # parallel: the stream as it is before the layer, and what attention adds
            before = seen(run, f"model.layers.{layer}.input_layernorm")[0]
            stream = before + seen(run, f"model.layers.{layer}.self_attn.o_proj", inputs=False)[0]
    written = a.unsqueeze(1) * vectors
    if name == "gemma2":  # the norm after the block, with the scale that it had
        post = module.model.layers[layer].post_feedforward_layernorm
        whole = seen(run, f"model.layers.{layer}.mlp.down_proj", inputs=False)[0]
        written = written * torch.rsqrt(whole.pow(2).mean() + post.eps) * (1 + post.weight)
    if name == "granite":
        written = written * 0.3

    def log_probability(streams: Tensor) -> Tensor:
        logits = module.lm_head(norm(streams))
        if name == "gemma2":
            logits = 5.0 * torch.tanh(logits / 5.0)
        if name == "granite":
            logits = logits / 4.0
        if name == "cohere":
            logits = logits * 0.25
        return logits.log_softmax(-1)[:, 29]

    with torch.no_grad():
        expected = log_probability(stream + written) - log_probability(stream.unsqueeze(0))
    torch.testing.assert_close(scores.layer(layer), expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_log_prob_increase_finds_the_same_best_with_bounds(name: str) -> None:
    run = fresh(name)
    whole = score_all(run.model, run, [TARGET], "log_prob_increase")[0].top(5)
    bounded = score_all(run.model, run, [TARGET], "log_prob_increase", exact=5)[0].top(5)
    assert bounded.neurons == whole.neurons


PLANTED = Neuron(1, 5)


def planted(name: str) -> Run:
    """A model in which one neuron fires at the last position and writes the target's own direction."""
    run = fresh(name)
    module: Any = run.model.module
    with torch.no_grad():
        if name == "gpt2":
            x = seen(run, "transformer.h.1.mlp.c_fc")[0]
            mlp = module.transformer.h[1].mlp
            mlp.c_fc.weight[:, 5] = 3 * x / x.norm()
            mlp.c_proj.weight[5] = module.lm_head.weight[29]
        elif name == "mixtral":
            x = seen(run, "model.layers.1.mlp")[0]
            experts = module.model.layers[1].mlp.experts
            for expert in range(4):  # whichever it is routed to
                experts.gate_up_proj[expert, 5] = experts.gate_up_proj[expert, 48 + 5] = 3 * x / x.norm()
                experts.down_proj[expert, :, 5] = module.lm_head.weight[29]
        else:
            x = seen(run, "model.layers.1.mlp.gate_proj")[0]
            mlp = module.model.layers[1].mlp
            mlp.gate_proj.weight[5] = mlp.up_proj.weight[5] = 3 * x / x.norm()
            mlp.down_proj.weight[:, 5] = module.lm_head.weight[29]
    return run


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "mixtral"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("contribution", {}),
        ("contribution", {"normalize": True}),
        ("contribution", {"contrast": 3}),
        ("gradient_activation", {"positions": "predicting"}),
        ("gradient_activation", {"positions": "all"}),
        ("log_prob_increase", {}),
        ("activation", {}),
    ],
)
def test_planted_neurons_are_found(name: str, method: str, options: dict[str, Any]) -> None:
    run = planted(name)
    found = score_all(run.model, run, [TARGET], method, **options)[0].top(20)
    assert found[0].neuron.layer == PLANTED.layer
    assert found[0].neuron.unit == PLANTED.unit
    # The same neuron is nothing special for a model without it.
    assert fresh(name).model.num_neurons > 20
    untouched = fresh(name)
    plain = score_all(untouched.model, untouched, [TARGET], method, **options)[0].top(1)
    assert (plain[0].neuron.layer, plain[0].neuron.unit) != (PLANTED.layer, PLANTED.unit)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_effect_ranks_the_planted_neuron_first(name: str) -> None:
    run = planted(name)
    shortlist = score_all(run.model, run, [TARGET], "activation")[0].top(20)
    found = causal_effect(run.model, run, TARGET, NeuronSet(shortlist.members[::-1]))
    assert found[0].neuron.layer == PLANTED.layer
    assert found[0].neuron.unit == PLANTED.unit
    assert found[0].score > 1
