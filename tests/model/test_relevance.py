"""Relevance propagation: a pass keeps its numbers, input · gradient adds up, a LLaMA written out gives the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from families import NAMES, tiny
from neuronwise.errors import MethodError
from neuronwise.locate import score_all
from neuronwise.locate.relp import METHOD
from neuronwise.model import Model, Run, Target
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.passes import frozen_parameters
from neuronwise.model.prompt import Prompted
from neuronwise.model.relevance import relevance_rules

torch.set_num_threads(1)
# Mixers of positions that have no rule.
REFUSED = {"qwen3_next", "granitemoehybrid", "jamba", "nemotron_h", "bamba", "zamba2"}
# A final soft cap, a constant added to a branch, and states that a decoder reads beside its embeddings: no sum to 1.
OTHERWISE = {
    "gemma2", "nanochat", "gpt_oss", "gpt_oss_square", "t5", "flan_t5", "bart", "switch_transformers", "qwen3_vl",
    "qwen3_vl_moe", "mllama",
}  # fmt: skip


def relevance(model: Model, inputs: dict[str, Tensor], token: int) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """The last row's logits, the embeddings that enter the decoder, ∂̃ logit / ∂ embeddings, and shares of biases."""
    kept: list[Tensor] = []

    def enter(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        kept.append(first_tensor(args, kwargs).detach().requires_grad_(True))
        return replace_first(args, kwargs, kept[0])

    constants = biases(model.module)
    with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
        for parameter in constants:
            parameter.requires_grad_(True)
        hooks.before(model.blocks[0].module, enter)
        with relevance_rules(model):
            logits = model.forward(inputs, rows=[-1])[0, -1]
        gradient, *shares = torch.autograd.grad(logits[token], [kept[0], *constants], allow_unused=True)
    added = [float((p.detach() * g).sum()) for p, g in zip(constants, shares, strict=True) if g is not None]
    return logits.detach(), kept[0].detach(), gradient, added


def hooks_in(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def biases(module: nn.Module) -> list[nn.Parameter]:
    outside = ("vision", "visual", "encoder.")
    return [p for name, p in module.named_parameters() if name.endswith("bias") and not any(o in name for o in outside)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_a_pass_gives_its_own_numbers_and_relevance_adds_up(name: str) -> None:
    module, inputs = tiny(name, torch.float32)
    model = Model(module)
    inputs = model.extend(inputs, [5, 6])
    with torch.no_grad():
        plain = model.forward(inputs, rows=[-1])[0, -1]
    token, before = int(plain.argmax()), hooks_in(module)
    found, embeddings, gradient, added = relevance(model, inputs, token)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert hooks_in(module) == before
    if name not in OTHERWISE:
        total, scale = float((embeddings * gradient).sum()) + sum(added), 1.0 + sum(map(abs, added))
        assert total == pytest.approx(float(plain[token]), abs=1e-4 * scale)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_mixer_without_a_rule_is_refused_by_name(name: str) -> None:
    module, _ = tiny(name, torch.float32)
    with pytest.raises(MethodError, match="no rule for"), relevance_rules(Model(module)):
        raise AssertionError("not reached")


def written_out(module: Any, ids: Tensor, embeddings: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A LLaMA's last logits and the inputs of its W_down, its pass written with the published rules as detach calls."""
    config, core = module.config, module.model
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads

    def norm(part: Any, x: Tensor) -> Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + part.variance_epsilon).rsqrt().detach()
        return part.weight * x * scale

    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    count = ids.shape[1]
    cos, sin = core.rotary_emb(embeddings, torch.arange(count)[None])
    hidden, activations = embeddings, []
    for layer in core.layers:
        x = norm(layer.input_layernorm, hidden)
        attention = layer.self_attn
        q, k, v = (
            part(x).reshape(1, count, -1, size).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        k, v = (one.repeat_interleave(heads // groups, 1) for one in (k, v))
        scores = (q @ k.transpose(2, 3)) / size**0.5 + torch.full((count, count), -torch.inf).triu(1)
        mixed = scores.softmax(-1).detach() @ v
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(1, count, -1))
        x = norm(layer.post_attention_layernorm, hidden)
        gate, up = layer.mlp.gate_proj(x), layer.mlp.up_proj(x)
        act = gate * (functional.silu(gate) / gate).detach()
        activations.append(0.5 * (act * up.detach() + act.detach() * up))
        hidden = hidden + layer.mlp.down_proj(activations[-1])
    return module.lm_head(norm(core.norm, hidden))[0, -1], activations  # type: ignore[operator]


def test_a_llama_written_out_gives_the_same_relevance() -> None:
    module, inputs = tiny("llama", torch.float64)
    model = Model(module)
    with torch.no_grad():
        plain = model.forward(inputs, rows=[-1])[0, -1]
    token = int(plain.argmax())
    _, embeddings, gradient, _ = relevance(model, inputs, token)
    leaf = embeddings.clone().requires_grad_(True)
    logits, _ = written_out(module, inputs["input_ids"], leaf)
    torch.testing.assert_close(logits.detach(), plain, rtol=1e-6, atol=1e-6)
    (expected,) = torch.autograd.grad(logits[token], leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("positions", ["all", "predicting"])
def test_relp_is_activation_times_the_gradient_under_the_rules(positions: str) -> None:
    module, inputs = tiny("llama", torch.float64)
    run = Run.of(Model(module), Prompted("", False, inputs), [5, 6])
    target = Target(9, 1, "t")  # predicted by the row before the last
    (scores,) = METHOD.function(run.model, run, [target], positions=positions)
    ids = run.forced_inputs()["input_ids"][:, : run.row(1)]
    ids = torch.cat([ids, run.forced_inputs()["input_ids"][:, run.row(1) : run.row(1) + 1]], dim=1)
    llama: Any = module
    embeddings = llama.get_input_embeddings()(ids).detach().requires_grad_(True)
    logits, activations = written_out(module, ids, embeddings)
    gradients = torch.autograd.grad(logits[9] - logits.mean(), activations)
    for layer, (a, gradient) in enumerate(zip(activations, gradients, strict=True)):
        each = (a * gradient)[0].detach()
        expected = each.sum(0) if positions == "all" else each[-1]
        torch.testing.assert_close(scores.layer(layer), expected.float(), rtol=1e-4, atol=1e-6)


def in_place(gate: Tensor, up: Tensor) -> Tensor:
    gate = gate.clone()
    gate *= up
    return gate


@pytest.mark.parametrize(
    ("product", "what"),
    [
        (in_place, "mul_"),
        (lambda gate, up: gate.clone().mul_(up), "mul_"),
        (lambda gate, up: gate / (1 + up.abs()), "div|abs"),
        (lambda gate, up: torch.maximum(gate, up), "maximum"),
        (lambda gate, up: torch.einsum("bij,bij->bij", gate, up), "einsum"),
        (lambda gate, up: gate.pow(3) + up, "pow"),
    ],
)
def test_a_form_without_a_rule_is_refused_by_its_module(
    product: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, inputs = tiny("llama", torch.float32)
    llama: Any = module
    mlp = type(llama.model.layers[0].mlp)
    monkeypatch.setattr(
        mlp, "forward", lambda self, x: self.down_proj(product(self.act_fn(self.gate_proj(x)), self.up_proj(x)))
    )
    run = Run.of(Model(module), Prompted("", False, inputs), [5])
    with pytest.raises(MethodError, match=rf"no rule for \w*({what})\w* in LlamaMLP \(layer 2, 'mlp'\)"):
        score_all(run.model, run, [Target(9, 0, "t")], "relp")
    assert hooks_in(module) == 0


@pytest.mark.parametrize("product", [lambda gate, up: gate * up, lambda gate, up: torch.mul(gate, up)])
def test_a_form_with_a_rule_is_not(product: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = tiny("llama", torch.float32)
    llama: Any = module
    mlp = type(llama.model.layers[0].mlp)
    monkeypatch.setattr(
        mlp, "forward", lambda self, x: self.down_proj(product(self.act_fn(self.gate_proj(x)), self.up_proj(x)))
    )
    run = Run.of(Model(module), Prompted("", False, inputs), [5])
    assert len(score_all(run.model, run, [Target(9, 0, "t")], "relp")[0])
