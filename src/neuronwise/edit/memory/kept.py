"""Tensors that take long to gather, kept in the cache folder for the weights that they were gathered with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronwise.errors import ModelUnavailable, NeuronwiseError
from neuronwise.files import cache_folder, make_folder, ordinary, whole_file
from neuronwise.model.hashes import stored_hash
from neuronwise.model.hooks import hooked
from neuronwise.model.model import Model

WORTH_A_FILE = 10_000  # neurons: below, gathering takes less time than is worth a file
LARGEST = 2**30  # bytes of a tensor that is kept


def kept(model: Model, name: str, make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` gives, from disk where it was made before with these weights; made anew where it cannot be kept."""
    small = model.num_neurons < WORTH_A_FILE
    state = None if small or hooked(model.module) else stored_hash(model)  # hooks change what is gathered
    if state is None:
        return make()
    folder = cache_folder() / "moments"
    file = folder / f"{state[:24]}-{name}.safetensors"
    try:
        return load_file(ordinary(file))["moment"]
    except (OSError, SafetensorError, KeyError):  # not there yet, or damaged
        made = make()
    if made.nbytes <= LARGEST and bool(torch.isfinite(made).all()):
        try:
            make_folder(folder, ModelUnavailable)
            with whole_file(file, ModelUnavailable) as new:
                save_file({"moment": made.contiguous()}, new)
        except (OSError, SafetensorError, NeuronwiseError):  # the cache cannot be written
            pass
    return made
