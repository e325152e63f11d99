"""An index against the same numbers taken from plain passes, one position at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import families
import neuronwise as nw
from neuronwise.errors import IndexingError
from neuronwise.index import Index
from neuronwise.index.bins import EDGES
from neuronwise.index.items import rows_of
from neuronwise.locate import Baseline
from neuronwise.model import Model, Run
from speakers import speaker

TEXTS = [
    "the cat sits on the mat", "a dog runs", "Paris is the capital of France", "the red house is blue", "a teddy bear",
    "the animal sits in a house .", "a cat runs on the red mat in Paris",
]  # fmt: skip
FAMILIES = ["llama", "gpt2", "opt", "mixtral", "qwen2_moe", "gpt_oss", "t5", "llama_shared"]


def photos(folder: Path, count: int = 5) -> list[Path]:
    draw = np.random.default_rng(0)
    paths = []
    for number in range(count):
        paths.append(folder / f"photo{number}.png")
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def text_runs(model: Model, texts: list[str]) -> list[Run]:
    return [Run.of(model, model.prepare(None, text, chat=False)[0]) for text in texts]


def seen_of(model: Model, runs: list[Run]) -> dict[str, dict[str, list[tuple[int, int, torch.Tensor]]]]:
    """(item, row, values) of each writer at each place, by single-row recording."""
    found: dict[str, dict[str, list[tuple[int, int, torch.Tensor]]]] = {}
    for item, run in enumerate(runs):
        for place, rows in rows_of(run).items():
            for row in rows:
                recorded = run.rows([row])
                for writer in model.writers:
                    fired = writer.fired(recorded)
                    if fired is not None:
                        found.setdefault(place, {}).setdefault(str(writer), []).append((item, row, fired))
    return found


def check(index: Index, model: Model, runs: list[Run], *, close: float = 1e-4) -> None:
    expected = seen_of(model, runs)
    assert set(index.places) == {place for place, rows in expected.items() if rows}
    for place in index.places:
        for writer in model.writers:
            seen = expected[place].get(str(writer), [])
            values = torch.stack([one for _, _, one in seen]) if seen else torch.zeros(0, writer.width)
            for column in range(0, writer.width, 5):
                entry = index[writer.neuron(column)].at(place)
                own = values[:, column].double().numpy()
                assert entry.count == len(own)
                if not len(own):
                    assert entry.top() == entry.bottom() == []
                    continue
                assert entry.mean == pytest.approx(own.mean(), abs=close)
                assert entry.std == pytest.approx(own.std(), abs=close)
                steady = [edge for edge in EDGES if np.abs(own - edge).min() > close]
                for edge in steady:  # where rounding does not decide
                    below = entry.histogram.counts[: int(np.searchsorted(EDGES, edge)) + 1].sum()
                    assert below == pytest.approx((own < edge).sum(), rel=0.05, abs=2)
                if entry.threshold in steady and -entry.threshold in steady:
                    assert entry.frequency == pytest.approx((np.abs(own) >= entry.threshold).mean())
                compare_ends(entry, [(item, row) for item, row, _ in seen], own, close)


def compare_ends(entry: Any, where: list[tuple[int, int]], own: np.ndarray, close: float) -> None:
    for sign, found in ((1, entry.top(3)), (-1, entry.bottom(3))):
        best: dict[int, float] = {}
        for (item, _), value in zip(where, own, strict=True):
            best[item] = max(best.get(item, -np.inf), sign * value)
        ranked = sorted(best.values(), reverse=True)[:3]
        assert [sign * one.value for one in found] == pytest.approx(ranked, abs=close)
        assert len({one.item.number for one in found}) == len(found)
        for one in found:
            assert one.value == pytest.approx(own[where.index((one.item.number, one.position))], abs=close)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_of_texts_it_holds_what_plain_passes_give(family: str, batch: int, make: Any, tmp_path: Path) -> None:
    model = make(family)
    index = Index.build(model, texts=TEXTS, out=tmp_path / "index", examples=3, batch_size=batch)
    assert index is not None
    check(index, model, text_runs(model, TEXTS))
    assert len(index) == model.num_neurons
    assert [item.text for item in index.items] == TEXTS


@pytest.mark.parametrize("batch", [1, 4])
def test_of_photos_the_places_are_apart(batch: int, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = speaker("llava", tiny_tokenizer)
    paths, how = photos(tmp_path), {"max_new_tokens": 4, "prompt": "a dog in"}
    index = Index.build(model, paths, ["the cat sits"], out=tmp_path / "index", batch_size=batch, **how)
    assert index is not None
    runs = [model.run(path, "a dog in", max_new_tokens=4) for path in paths]
    check(index, model, [*runs, *text_runs(model, ["the cat sits"])], close=1e-4)
    assert index.places == ("predicting", "image", "text")
    assert index.items[0].name == "photo0.png"
    assert index.items[0].text == runs[0].text
    assert index.items[2].tokens == runs[2].tokens[: len(index.items[2].tokens)] or "" in index.items[2].tokens
    example = index["L1.U7"].at("image").top(1)[0]
    assert example.token == ""
    assert example.region is not None
    left, top, right, bottom = example.region
    assert (right - left, bottom - top) == (8, 8)
    assert example.position in index.items[example.item.number].cells


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_signs_of_gate_and_input(family: str, make: Any, tmp_path: Path) -> None:
    model = make(family)
    index = Index.build(model, texts=TEXTS, out=tmp_path / "index")
    assert index is not None
    for unit in range(0, 48, 7):
        for example in [*index[f"L1.U{unit}"].top(), *index[f"L1.U{unit}"].bottom()]:
            if family == "gpt2":
                assert example.gate is None
                continue
            run = text_runs(model, TEXTS)[example.item.number]
            mlp, hidden = model.module.model.layers[1].mlp, []
            hook = mlp.register_forward_pre_hook(lambda module, args, hidden=hidden: hidden.append(args[0]))
            model.forward(run.forced_inputs())
            hook.remove()
            row = hidden[0][0, example.position]
            assert example.gate == (1 if mlp.gate_proj(row)[unit] > 0 else -1)
            assert example.input == (1 if mlp.up_proj(row)[unit] > 0 else -1)


@pytest.mark.parametrize("family", list(families.TEXT))
def test_its_baseline_is_that_of_the_same_texts(family: str, make: Any, tmp_path: Path) -> None:
    model, texts = make(family), TEXTS[:4]
    index = Index.build(model, texts=texts, out=tmp_path / "index")
    assert index is not None
    found, expected = index.baseline(), Baseline.gather(model, texts=texts)
    found.require(model)
    assert found.record["positions"] == expected.record["positions"]
    for writer in model.writers:
        torch.testing.assert_close(found.mean(writer), expected.mean(writer), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.spread(writer), expected.spread(writer), rtol=1e-3, atol=1e-5)


def test_its_baseline_is_saved_and_taken_by_locate(make: Any, tmp_path: Path) -> None:
    model = make("llama")
    index = Index.build(model, texts=TEXTS, out=tmp_path / "index")
    assert index is not None
    index.baseline().save(tmp_path / "baseline")
    run = model.run(prompt="the cat", max_new_tokens=0)
    assert nw.locate(model, run, target=5, baseline=str(tmp_path / "baseline"), top=3)


def test_a_neuron_fires_above_the_median_root_mean_square_of_its_layer(make: Any, tmp_path: Path) -> None:
    model = make("llama")
    index = Index.build(model, texts=TEXTS, out=tmp_path / "index")
    assert index is not None
    for layer in index.layers:
        rows = torch.cat([run.rows(list(range(1, run.length))).dense[layer] for run in text_runs(model, TEXTS)])
        middle = float(rows.double().square().mean(0).sqrt().median())
        assert index[f"L{layer}.U0"].threshold == min(edge for edge in EDGES if edge >= middle)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("moments", lambda tensor: tensor[:, :, :2]),
        ("item", lambda tensor: tensor[1:]),
        ("item", lambda tensor: tensor + 10_000),
        ("counts", lambda tensor: tensor[:0]),
    ],
)
def test_arrays_that_are_not_of_its_neurons_are_refused(make: Any, tmp_path: Path, name: str, wrong: Any) -> None:
    from safetensors.torch import load_file, save_file

    Index.build(make("llama"), texts=TEXTS, out=tmp_path / "index")
    file = tmp_path / "index" / "layers" / "L1.safetensors"
    tensors = load_file(file)
    save_file({**tensors, name: wrong(tensors[name]).contiguous()}, file)
    with pytest.raises(IndexingError, match="is damaged"):
        Index.load(tmp_path / "index")["L1.U3"]
