"""An edit as a LoRA adapter of the peft library: the same numbers, in the form that others share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.edit.storage import home
from neuronwise.errors import EditError
from neuronwise.model.anatomy import linear_shape
from neuronwise.model.model import Model

if TYPE_CHECKING:
    from neuronwise.edit.edit import Edit


def write_adapter(edit: Edit, model: Model, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    For neurons lora_A has one-hot rows and lora_B the deltas as columns; the rank is their number (at most d) and
    alpha equals it, writer by writer, so that the adapter adds exactly the deltas. Raises ``EditError`` for experts
    that are held in one piece, which peft does not address, and when peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise EditError("Writing an adapter needs the peft library: pip install peft.") from error
    from safetensors.torch import save_file

    paths = {id(module): name for name, module in model.module.named_modules()}
    factors: dict[str, list[tuple[Tensor, Tensor]]] = {}
    transposed = set()
    for delta in edit.deltas:
        own = home(model, delta.key)
        shape = linear_shape(own.module)
        if not own.linear or shape is None:
            raise EditError("An edit of routed experts cannot be written as an adapter: peft does not address them.")
        transposed.add(hasattr(own.module, "nx"))
        factors.setdefault(paths[id(own.module)], []).append(delta.factors(shape[0]))
    if len(transposed) > 1:
        raise EditError("This model mixes two layouts of weights; an adapter has one.")
    tensors, ranks = {}, {}
    for name, parts in factors.items():
        right = torch.cat([r for _, r in parts])
        ranks[name] = right.shape[0]
        tensors[f"base_model.model.{name}.lora_A.weight"] = right.float().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = (
            torch.cat([left for left, _ in parts], 1).float().contiguous()
        )
    rank = max(ranks.values())
    LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(factors),
        rank_pattern=dict(ranks),
        alpha_pattern=dict(ranks),
        fan_in_fan_out=transposed == {True},
        bias="none",
        task_type="SEQ_2_SEQ_LM" if model.is_encoder_decoder else "CAUSAL_LM",
        base_model_name_or_path=model.name,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
