"""The weights of one linear module as plain numbers: transposed, quantized, offloaded or under an adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError

PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MERGE = "Merge the adapter first: model.merge_and_unload()."


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear-like module: nn.Linear and its quantized kin, or Conv1D; None for anything else."""
    if hasattr(module, "nx") and hasattr(module, "nf"):  # transformers' Conv1D
        return _size(module, "nx"), _size(module, "nf")
    if hasattr(module, "in_features") and hasattr(module, "out_features") and hasattr(module, "weight"):
        return _size(module, "in_features"), _size(module, "out_features")
    return None


def _size(module: nn.Module, name: str) -> int:
    return int(getattr(module, name))


def linear_weight(module: nn.Module) -> Tensor:
    """(d, f) of a linear module: a view of an nn.Linear's or a Conv1D's weight, else a copy.

    Quantized weights are dequantized. A LoRA adapter counts as it acts: base + scaling · B · A. Raises ``ModelError``
    for an adapter whose effect is not a readable matrix.
    """
    base = under_adapter(module)
    weight = plain_weight(base)
    weight = weight.T if hasattr(base, "nx") else weight
    for scaling, first, second in lora_factors(module):
        weight = weight + (scaling * (plain_weight(second) @ plain_weight(first))).to(weight)
    return weight


def linear_bias(module: nn.Module) -> Tensor | None:
    """(d,) what a linear module adds beside its product, None without one."""
    base = under_adapter(module)
    with materialized(base):
        own = getattr(base, "bias", None)
        bias = own.detach() if isinstance(own, Tensor) else None
    for scaling, _, second in lora_factors(module):
        extra = getattr(second, "bias", None)
        if isinstance(extra, Tensor):
            bias = scaling * extra.detach() + (0 if bias is None else bias)
    return bias


def under_adapter(module: nn.Module) -> nn.Module:
    """The linear module that an adapter wraps (PEFT's ``base_layer``), or ``module`` itself."""
    base = getattr(module, "base_layer", None)
    return under_adapter(base) if isinstance(base, nn.Module) else module


def lora_factors(module: nn.Module) -> list[tuple[float, nn.Module, nn.Module]]:
    """(scaling, A, B) of each LoRA adapter that acts in a module; none for a plain one.

    Raises ``ModelError`` for every other adapter: DoRA, IA3 and their like scale what the neurons write or read.
    """
    if not isinstance(getattr(module, "base_layer", None), nn.Module):
        inside = [part for part in module.modules() if part is not module and linear_shape(part) is not None]
        if inside:
            raise ModelError(f"{type(module).__name__} wraps another linear module, so it is not one matrix. {MERGE}")
        return []
    if getattr(module, "disable_adapters", False) or getattr(module, "merged", False):
        return []
    found: list[tuple[float, nn.Module, nn.Module]] = []
    for adapter in getattr(module, "active_adapters", ()):
        parts = [name for name in getattr(module, "adapter_layer_names", ()) if adapter in getattr(module, name, ())]
        if not parts:
            continue
        if set(parts) != {"lora_A", "lora_B"} or adapter in getattr(module, "lora_variant", ()):
            raise ModelError(
                f"The adapter {adapter!r} ({type(module).__name__}) does more than add a matrix to the weights, so the "
                f"neurons under it cannot be read. {MERGE}"
            )
        found.append((module.scaling[adapter], module.lora_A[adapter], module.lora_B[adapter]))  # type: ignore[index]
    return found


@contextlib.contextmanager
def materialized(module: nn.Module) -> Iterator[None]:
    """Weights that accelerate keeps on disk or in another memory are brought in for the body only."""
    if hasattr(module, "_hf_hook"):
        from accelerate.utils import align_module_device

        with align_module_device(module):
            yield
    else:
        yield


def plain_weight(module: nn.Module) -> Tensor:
    """A module's ``weight`` in its own layout, detached; dequantized where it is quantized."""
    with materialized(module):
        weight: Any = module.weight
        if hasattr(weight, "quant_state") or type(weight).__name__ == "Int8Params":
            from transformers.integrations.bitsandbytes import dequantize_bnb_weight

            return dequantize_bnb_weight(weight, getattr(module, "state", None))  # type: ignore[arg-type]
        if not weight.is_floating_point() or (not _numbers(weight) and hasattr(weight, "dequantize")):
            return weight.dequantize()
        return weight.detach()


def is_plain(weight: object) -> bool:
    """Whether a weight holds the numbers themselves in memory, neither quantized nor offloaded."""
    if type(weight) is nn.Parameter and weight.dtype in PRECISIONS and not weight.is_meta:
        return not hasattr(weight, "quant_state")  # nearly all, and asked for often
    if not isinstance(weight, Tensor) or weight.is_meta or not _numbers(weight):
        return False
    return weight.is_floating_point() and weight.element_size() > 1 and not hasattr(weight, "quant_state")


def _numbers(weight: Tensor) -> bool:
    """Whether a tensor is of a plain kind: quantized forms are classes with names of their own."""
    return type(weight.data).__name__ == "Tensor"


def keep_readable(module: nn.Module) -> None:
    """Have bitsandbytes leave its 4-bit weights as they are, where it would lay them out anew for this CPU.

    In that form nothing can be read from them and no gradient passes. Raises ``ModelError`` where it has been done.
    """
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
            if getattr(getattr(part.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise ModelError(
                    "This model has run already, and bitsandbytes has laid its 4-bit weights out anew for this CPU, "
                    "unreadable; load it again and wrap it before it runs."
                )


def cast_routers(module: nn.Module) -> None:
    """Cast routers to the dtype that they compute in, as their first pass would: it is no change of the weights.

    Switch's and NLLB-MoE's cast their ``classifier`` in place. What is quantized or offloaded is left to them.
    """
    for part in module.modules():
        dtype, classifier = vars(part).get("dtype"), getattr(part, "classifier", None)
        if not isinstance(dtype, torch.dtype) or not isinstance(classifier, nn.Module):
            continue
        if all(map(is_plain, classifier.parameters())):
            classifier.to(dtype)


def precision(dtype: object) -> torch.dtype:
    """A dtype that models compute in, by itself or by its name; raises ``ModelError`` for any other."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in PRECISIONS:
        raise ModelError(f"There is no dtype {str(dtype)!r}; use float32, bfloat16 or float16.")
    return found


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of a module's first floating-point parameter, float32 without one."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def output_head(module: nn.Module) -> nn.Module:
    """The linear module that turns the last hidden state into logits; raises ``ModelError`` without one."""
    for owner in (module, getattr(module, "language_model", None), getattr(module, "text_decoder", None)):
        if owner is None:
            continue
        try:
            head = getattr(owner, "get_output_embeddings")()  # noqa: B009 (its type is unknown)
        except (AttributeError, NotImplementedError):
            head = None
        if head is not None:
            return head
    raise ModelError(f"{type(module).__name__} has no output embeddings: neurons are scored by what they do to logits.")
