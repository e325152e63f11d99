"""An edit as a LoRA adapter of the peft library: the same numbers, in the form that others share."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neuronwise.edit.delta import Delta, Recorded, require_weights_alone, writer_of
from neuronwise.edit.ledger import require_same_model
from neuronwise.edit.storage import writes_alone
from neuronwise.errors import EditError
from neuronwise.files import write_folder
from neuronwise.model.model import Model
from neuronwise.model.weights import linear_shape
from neuronwise.model.writers import Experts, Writer

Factors = tuple[Tensor, Tensor]  # (d, r) and (r, f)


def write_adapter(edit: Recorded, model: Model, directory: str | os.PathLike[str]) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a new or empty folder.

    For neurons lora_A has one-hot rows and lora_B the deltas as columns; the rank is their number (at most d) and
    alpha equals it, writer by writer, so that the adapter adds exactly the deltas. Experts that are held in one
    parameter are addressed as peft's ``target_parameters``, whose experts all have one rank; so are the dense writers
    of such a model, since peft takes the name of a shared expert's projection for that of all experts. Raises
    ``EditError`` where peft does not address the experts, and when peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise EditError("Writing an adapter needs the peft library: pip install peft.") from error
    require_weights_alone(edit, "an adapter")
    require_same_model(model, edit)
    adapter = _Adapter()
    paths = {id(module): _plain_path(name) for name, module in model.module.named_modules()}
    tied = _tied(model)
    for delta in edit.deltas:
        adapter.add(model, delta, paths, tied)
    if len(adapter.transposed) > 1:
        raise EditError("This model mixes two layouts of weights; an adapter has one.")
    # See the docstring: beside routed experts, dense writers are addressed by their parameter.
    by_parameter = any(block.experts for block in model.blocks)
    tensors, ranks = adapter.tensors(by_parameter)
    parameters = sorted(ranks) if by_parameter else sorted(adapter.experts)
    if parameters and "target_parameters" not in {option.name for option in fields(LoraConfig)}:
        raise EditError("This peft does not address routed experts; an adapter of them needs peft 0.17 or newer.")
    options: dict[str, Any] = {"target_parameters": parameters} if parameters else {}  # older releases lack it
    rank = max(ranks.values(), default=1)
    others = {name: own for name, own in ranks.items() if own != rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[] if by_parameter else sorted(adapter.linear),
        **options,
        rank_pattern=others,
        alpha_pattern=dict(others),
        fan_in_fan_out=adapter.transposed == {True},
        bias="none",
        task_type="SEQ_2_SEQ_LM" if model.is_encoder_decoder else "CAUSAL_LM",
        base_model_name_or_path=published_name(model),
        inference_mode=True,
    )

    def write(folder: Path) -> None:
        config.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    write_folder(directory, write, EditError)


@dataclass
class _Adapter:
    """The factors of all deltas by the module or the parameter that peft addresses."""

    linear: dict[str, list[Factors]] = field(default_factory=dict)
    experts: dict[str, _Experts] = field(default_factory=dict)
    transposed: set[bool] = field(default_factory=set)

    def add(self, model: Model, delta: Delta, paths: dict[int, str], tied: dict[int, list[nn.Module]]) -> None:
        writer = writer_of(model, delta)
        module, parameter = writer.holder
        if not writes_alone(writer):
            name = f"{paths[id(module)]}.{parameter}"
            self.experts.setdefault(name, _Experts(writer)).add(writer, *delta.factors(writer.width))
            return
        if linear_shape(module) is None:
            raise EditError("The writers of this model are of a kind that peft does not address.")
        self.transposed.add(hasattr(module, "nx"))
        for alike in tied.get(id(getattr(module, parameter)), [module]):
            self.linear.setdefault(paths[id(alike)], []).append(delta.factors(writer.width))

    def tensors(self, by_parameter: bool) -> tuple[dict[str, Tensor], dict[str, int]]:
        """What the adapter holds, and the rank of each module or parameter."""
        tensors: dict[str, Tensor] = {}
        ranks: dict[str, int] = {}
        for name, parts in self.linear.items():
            a, b = torch.cat([right for _, right in parts]), torch.cat([left for left, _ in parts], 1)
            ranks[f"{name}.weight" if by_parameter else name] = a.shape[0]
            tensors |= _named(name, a, b)
        for name, held in self.experts.items():
            ranks[name] = held.rank
            tensors |= _named(name.rpartition(".")[0], *held.factors())  # peft wraps the parameter's module
        return tensors, ranks


class _Experts:
    """Factors of the deltas of one parameter's experts, in the order in which peft holds them.

    Of the change of expert e as it is stored, (rows, columns), peft computes lora_B[:, j·E + e] · lora_A[e·r + j]
    summed over j, or the same transposed for a module whose ``is_transposed`` is true.
    """

    def __init__(self, writer: Writer) -> None:
        assert writer.experts is not None
        module, parameter = writer.holder
        if getattr(module, parameter).dim() != 3:
            raise EditError("The experts of this model are held in a form that peft does not address.")
        self.experts: Experts = writer.experts
        # Which of a delta's factors, left (d, r) or right (r, f), faces peft's lora_A.
        self.left_first = self.experts.transposed and not getattr(module, "is_transposed", False)
        self.parts: dict[int, list[Factors]] = {}

    def add(self, writer: Writer, left: Tensor, right: Tensor) -> None:
        first, second = (left.T, right.T) if self.left_first else (right, left)
        index = (writer.expert or 0) - self.experts.first
        self.parts.setdefault(index, []).append((first.float().cpu(), second.float().cpu()))

    @property
    def rank(self) -> int:
        return max(sum(len(first) for first, _ in parts) for parts in self.parts.values())

    def factors(self) -> Factors:
        """lora_A (E·r, ·) and lora_B (·, r·E); experts of a lower rank are filled up with zeros."""
        first, second = next(iter(self.parts.values()))[0]
        a = torch.zeros(self.experts.count, self.rank, first.shape[1])
        b = torch.zeros(second.shape[0], self.rank, self.experts.count)
        for expert, parts in self.parts.items():
            rows = torch.cat([one for one, _ in parts])
            a[expert, : len(rows)] = rows
            b[:, : len(rows), expert] = torch.cat([two for _, two in parts], 1)
        return a.flatten(0, 1), b.flatten(1, 2)


def _plain_path(name: str) -> str:
    """The path of a module without what wraps it: ``torch.compile`` and peft put parts of their own into it."""
    parts = name.removeprefix("base_model.model.").split(".")
    return ".".join(part for part in parts if part not in ("_orig_mod", "base_layer"))


def published_name(model: Model) -> str:
    """By what others open the model: its name on the hub, or what it is called here."""
    known = str(getattr(model.config, "_name_or_path", "") or "")
    return known if re.fullmatch(r"[\w.-]+/[\w.-]+", known) and not Path(known).exists() else model.name


def _tied(model: Model) -> dict[int, list[nn.Module]]:
    """The modules that share each weight, by its identity: Zamba 2 ties those of several."""
    tied: dict[int, list[nn.Module]] = {}
    for module in model.module.modules():
        if isinstance(getattr(module, "weight", None), Tensor):
            tied.setdefault(id(module.weight), []).append(module)
    return tied


def _named(module: str, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    prefix = f"base_model.model.{module}"
    return {
        f"{prefix}.lora_A.weight": a.float().contiguous(),
        f"{prefix}.lora_B.weight": b.float().contiguous(),
    }
