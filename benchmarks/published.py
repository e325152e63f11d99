"""The published procedure for multi-modal neurons, done literally, as the thing to compare with.

After the code released with Pan et al., "Finding and Editing Multi-Modal Neurons in Pre-Trained Transformers"
(Findings of ACL 2024, arXiv 2311.07470): `prepare` is its preparation.py, `find` its find_mm_neurons for one photo.
Kept as published: the full product of neurons and vocabulary with a full sort of each row, generation without cache
that copies all activations of all positions in each step, half-precision scores, the loops over layers, over the
10 000 best neurons and over the pixels of its eleven maps for each word. Left out: masks, coloring, and everything
written to disk. ``seconds`` tells the one map that `find` of this library gives too (the mean over ``top`` neurons)
from the ten others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import neuronwise as nw
from neuronwise.model.concepts import Concept, concepts_in
from neuronwise.model.gate import activation_function
from neuronwise.model.hooks import Hooks
from neuronwise.model.prompt import Prompted

LISTED = 10_000  # the best neurons that the published code lists for each word
MEANS = (1, 10, 50, 500, 1000)  # maps of the mean over so many neurons, besides that over ``top``
SINGLE = 5  # maps of single neurons


@dataclass
class Preparation:
    """For each layer ⟨U_t, v_i⟩ for every neuron and token, (f, V), and the ten top tokens of every neuron."""

    projection: list[Tensor]
    tokens: list[list[list[str]]]

    @property
    def size(self) -> int:
        """Bytes of the projection."""
        return sum(layer.numel() * layer.element_size() for layer in self.projection)


@torch.no_grad()
def prepare(model: nw.Model, dtype: torch.dtype = torch.float16, batch: int = 100) -> Preparation:
    unembedding = model.unembedding.T
    projection, tokens = [], []
    for block in model.blocks:
        product = torch.matmul(block.value_vectors.T.float(), unembedding.float()).to(dtype)
        projection.append(product.cpu())
        words = []
        for start in range(0, product.shape[0], batch):
            order = product[start : start + batch].sort(descending=True, dim=1).indices[:, :10]
            for row in order:
                words.append(model.tokenizer.batch_decode(row.unsqueeze(-1), skip_special_tokens=True))
        tokens.append(words)
    return Preparation(projection, tokens)


@dataclass
class Found:
    """What it gives for one photo; ``scores[word]`` is (L, f), ``top[word]`` lists (layer, unit)."""

    ids: list[int]
    scores: dict[str, Tensor]
    top: dict[str, list[tuple[int, int]]]
    tokens: dict[str, list[list[str]]]
    maps: dict[str, np.ndarray[Any, Any]]
    seconds: dict[str, float]


def find(
    model: nw.Model, prompted: Prompted, prepared: Preparation, length: int, top: int = 100, dtype: Any = torch.float16
) -> Found:
    start = time.perf_counter()
    ids, last_activation, activations = generate(model, prompted, length, dtype)
    generated = time.perf_counter()
    found = Found(ids, {}, {}, {}, {}, {})
    for concept in concepts_in(model.tokenizer, ids):
        found.scores[concept.word] = score(model, last_activation, concept, prepared)
        top_index = found.scores[concept.word].flatten().sort(descending=True, dim=0).indices[:LISTED]
        width = last_activation.shape[2]
        neurons = [(x.item() // width, x.item() % width) for x in top_index]
        found.top[concept.word] = [(int(layer), int(unit)) for layer, unit in neurons]
        found.tokens[concept.word] = [prepared.tokens[int(n)][int(u)][:10] for n, u in neurons[:top]]
    scored = time.perf_counter()
    where = [place for place, token in enumerate(prompted.input_ids) if token == model.image_token_id]
    patches = torch.stack(activations)[:, where]
    size = prompted.inputs["pixel_values"].shape[-2:]
    for word, neurons in found.top.items():
        found.maps[word] = draw(patches, neurons[:top], *size)
    drawn = time.perf_counter()
    for neurons in found.top.values():
        for chosen in [neurons[:count] for count in MEANS] + [[neuron] for neuron in neurons[:SINGLE]]:
            draw(patches, chosen, *size)
    found.seconds = {
        "generation": generated - start,
        "scores": scored - generated,
        "one map a word": drawn - scored,
        "ten other maps a word": time.perf_counter() - drawn,
    }
    return found


def generate(
    model: nw.Model, prompted: Prompted, length: int, dtype: Any = torch.float16
) -> tuple[list[int], Tensor, list[Tensor]]:
    """Generation without cache; the last position's activations (steps, L, f), and all positions' of the last step."""
    act: list[list[Tensor]] = [[] for _ in model.blocks]
    kept: list[Tensor] = []
    steps: list[list[Tensor]] = []

    def end_of_pass(*_: Any) -> None:
        kept[:] = [values[0].detach()[0].to(dtype).cpu() for values in act]
        steps.append([values[0].detach()[0, -1].to(dtype).cpu() for values in act])
        for values in act:
            values.clear()

    with Hooks() as hooks, torch.no_grad():
        for block in model.blocks:
            function = activation_function(block.around(block.writers[0].path))
            hooks.after(function, lambda m, args, kwargs, output, n=block.layer: act[n].append(output.detach()))
        hooks.after(model.module, end_of_pass)
        inputs = model.placed(prompted.inputs)
        sequence = model.module.generate(**inputs, do_sample=False, max_new_tokens=length, use_cache=False)[0].tolist()
    ids = [token for token in sequence[-len(steps) :] if token not in model.tokenizer.all_special_ids]
    return ids, torch.stack([torch.stack(step) for step in steps]), kept


def score(model: nw.Model, last_activation: Tensor, concept: Concept, prepared: Preparation) -> Tensor:
    """(L, f): activation times ⟨U_t, v⟩, layer by layer."""
    device = model.device
    scores = torch.zeros(last_activation.shape[1:], dtype=last_activation.dtype, device=device)
    for layer in range(last_activation.shape[1]):
        act = last_activation[concept.positions[0], layer]
        column = prepared.projection[layer][:, concept.token_ids[0]].flatten()
        scores[layer] += (act.to(device) * column.to(device)).flatten()
    return scores


def draw(patches: Tensor, neurons: list[tuple[int, int]], height: int, width: int) -> np.ndarray[Any, Any]:
    """Mean of the neurons' activations at the image's tokens, brought to the size of the pixels that the model sees."""
    side = int(patches.shape[1] ** 0.5)
    grids = [patches[layer, :, unit].float().reshape(side, side, 1) for layer, unit in neurons]
    return bilinear_interpolation(torch.stack(grids).mean(dim=0).numpy(), height, width)


def bilinear_interpolation(img: np.ndarray[Any, Any], height: int, width: int) -> np.ndarray[Any, Any]:
    rows, columns = img.shape[:2]
    dst = np.zeros((height, width, img.shape[2]))
    scale_x, scale_y = float(columns) / width, float(rows) / height
    for i in range(height):
        for j in range(width):
            x = min(int(j * scale_x), columns - 2)
            y = min(int(i * scale_y), rows - 2)
            u = j * scale_x - x
            v = i * scale_y - y
            dst[i, j] = (
                (1 - u) * (1 - v) * img[y, x]
                + u * (1 - v) * img[y, x + 1]
                + (1 - u) * v * img[y + 1, x]
                + u * v * img[y + 1, x + 1]
            )
    return dst
