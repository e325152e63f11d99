"""Functions of the library with arguments of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_spoil import TEXTS, spoil_file
from fuzz_world import RECIPES, World
from hypothesis import strategies as st

import neuronwise as nw
from fact_records import RECORDS
from neuronwise import study
from neuronwise.data.photos import load_photos
from neuronwise.images.masks import box_mask, coco_mask
from neuronwise.locate.methods import METHODS
from neuronwise.read import decode_all, neurons_writing

FACT = nw.Fact(prompt="the capital of {} is", subject="France", target_new="house")


def values(world: World) -> st.SearchStrategy[Any]:
    """Arguments: right ones of every function among them."""
    text, photo, found = world.models["text"], world.models["photo"], world.found
    return st.one_of(
        st.sampled_from([
            None, True, False, 0, 1, -1, 3, 10**20, 0.5, float("nan"), float("inf"), np.int64(2), np.float32(0.5),
            torch.tensor(1), [], (), {}, [1], ["L1.U3"], "L1.U3", "L9.U9@2", "dog", " Paris", "cat", b"dog", object(),
            Path("set.json"), "set.json", "photo.png", "edit", Path("no"), np.zeros((3, 3)), torch.zeros(3), len,
            {"a": 1}, FACT, [FACT], found, found[0], list(found), found[:1], nw.Neuron(1, 3), [nw.Neuron(1, 3)],
            range(3), text, photo, world.run["text"], world.run["photo"], [world.run["photo"]], found.to_pandas(),
        ]),
        st.sampled_from(TEXTS),
        st.sampled_from(list(METHODS)),
    )  # fmt: skip


Functions = dict[str, tuple[Callable[..., object], dict[str, Any]]]
FILES = ("photo.png", "set.json", "edit", "facts.json", "index", "halves", "text.txt", "baseline", "evaluation",
         "study", "parts", "circuit", "statistics")  # fmt: skip


def newer(world: World) -> Functions:
    """Of the index, batches, the lens, traces, probes, circuits, baselines, studies: as ``functions``."""
    text, photo = world.models["text"], world.models["photo"]
    said, seen = world.run["text"], world.run["photo"]
    circuit = {"model": text, "run": said, "target": " Paris", "nodes": 3, "heads": 1, "contrast": 1, "position": 0}

    def entry(neuron: Any, place: Any, k: Any) -> None:
        nw.Index.load("index")[neuron].at(place).top(k)

    def reported(path: Any) -> None:
        nw.circuit(text, said, target=" Paris", nodes=2).save(path)

    def activations(position: Any) -> None:
        said.activations(position)

    return {
        "run_many": (photo.run_many, {"images": ["photo.png"], "prompts": ["the"], "max_new_tokens": 1, "batch_size": 2,
                                      "errors": "return", "heat": False}),
        "texts": (text.run_many, {"prompts": ["the", "a cat"], "texts": None, "max_new_tokens": 1, "chat": False}),
        "lens": (nw.lens, {"model": text, "run": said, "target": " Paris", "positions": [1], "position": 0}),
        "trace": (nw.causal_trace, {"model": text, "run": said, "target": " Paris", "subject": "France", "layers": [0],
                                    "samples": 1, "noise": 3.0, "restore": "states", "positions": "text", "seed": 0}),
        "circuit": (nw.circuit, circuit),
        "circuit file": (nw.Circuit.load, {"path": "circuit/circuit.json"}),
        "circuit saved": (reported, {"path": "c.json"}),
        "probe": (nw.probe, {"features": world.cases, "labels": [True, False] * 6, "groups": None, "folds": 2,
                             "shuffles": 1, "strengths": [0.1], "seed": 0, "neurons": None}),
        "specific": (nw.specific_neurons, {"model": photo, "run": seen, "concept": "dog", "top": 2, "weight": 1.0}),
        "gather": (nw.Baseline.gather, {"model": text, "texts": ["the cat sits on the mat"], "runs": None}),
        "baseline file": (nw.Baseline.load, {"folder": "baseline"}),
        "index": (nw.Index.build, {"model": text, "texts": "text.txt", "out": "new", "length": 9, "batch_size": 2,
                                   "examples": 2, "shard": None, "photos": None, "field": "text"}),
        "merge": (nw.Index.merge, {"shards": ["halves/1", "halves/2"], "out": "new"}),
        "entry": (entry, {"neuron": "L1.U3", "place": "image", "k": 2}),
        "firing": (lambda **given: nw.Index.load("index").locate(**given), {"word": "dog", "by": "fires", "top": 2,
                                                                            "place": "image", "lowest": False}),
        "similar": (lambda **given: nw.Index.load("index").similar(**given), {"neuron": "L1.U3", "by": "fires",
                                                                              "top": 2, "place": "image"}),
        "heads": (nw.locate, {"model": text, "run": said, "target": " Paris", "kind": "heads", "top": 2}),
        "activations": (activations, {"position": 0}),
        "edits": (nw.edit.changed_neurons, {"model": text, "edit": nw.load_edit("edit"), "most": 2, "k": 2}),
        "revert": (nw.revert_all, {"model": text, "force": False}),
        "scaled": (nw.edit.suppress_neurons, {"model": text, "neurons": ["L1.U3"]}),
        "statistics": (nw.Statistics, {"folder": "statistics"}),
        "evaluation": (study.read_evaluation, {"folder": "evaluation"}),
        "study": (study.read_study, {"folder": "study"}),
        "recipe": (study.make_recipe, {"content": RECIPES["circuits"]}),
        "writing": (neurons_writing, {"model": text, "token": " dog", "top": 2, "turned": False}),
        "decode all": (decode_all, {"model": text, "neurons": ["L1.U3"], "k": 2}),
        "memit": (nw.memit, {"model": text, "facts": FACT, "layers": [1], "v_num_grad_steps": 2}),
        "tune": (nw.edit.fine_tune, {"model": text, "facts": [FACT], "layer": 1, "steps": 2}),
    }  # fmt: skip


def functions(world: World) -> Functions:
    """Each with arguments that are right; those of them that a user gives are replaced."""
    text, photo = world.models["text"], world.models["photo"]
    said, seen = world.run["text"], world.run["photo"]
    neurons = ["L1.U3"]

    def suppressed(**given: Any) -> None:
        with nw.suppress(**given):
            pass

    def applied(edit: Any, model: Any) -> None:
        with nw.load_edit(edit).applied(model):
            pass

    return {
        "load": (nw.load, {"source": "no such", "dtype": None, "device_map": None}),
        "run": (photo.run, {"image": "photo.png", "prompt": "the", "max_new_tokens": 1, "chat": None, "heat": False}),
        "text run": (text.run, {"prompt": "the cat", "text": None, "max_new_tokens": 1, "chat": False}),
        "locate": (nw.locate, {"model": photo, "run": seen, "concept": "dog", "method": "contribution", "top": 3}),
        "target": (nw.locate, {"model": text, "run": said, "target": " Paris", "position": 0, "contrast": 1, "top": 2}),
        "scores": (nw.scores, {"model": text, "run": said, "target": " Paris", "method": "contribution"}),
        "decode": (nw.decode, {"model": text, "neuron": "L1.U3", "k": 2}),
        "heatmap": (nw.heatmap, {"model": photo, "run": seen, "neurons": neurons}),
        "evidence": (nw.evidence, {"model": photo, "run": seen, "concept": "dog", "by": "occlusion"}),
        "circuit": (nw.circuit, {"model": text, "run": said, "target": " Paris", "nodes": 3}),
        "suppress": (suppressed, {"model": text, "neurons": neurons}),
        "find": (nw.find, {"model": photo, "run": seen, "concepts": ["dog"], "top": 2}),
        "fine": (nw.fine, {"model": text, "facts": FACT, "steps": 2, "freeze_last": 0}),
        "rome": (nw.edit.rome, {"model": text, "facts": FACT, "layers": [1], "v_num_grad_steps": 2}),
        "swap": (nw.edit.swap, {"model": photo, "seen": [seen], "source": "dog", "target": "cat"}),
        "set": (nw.NeuronSet.of, {"neurons": neurons}),
        "neuron": (nw.Neuron, {"layer": 1, "unit": 2, "expert": None}),
        "address": (nw.Neuron.parse, {"address": "L1.U3"}),
        "load_edit": (applied, {"edit": "edit", "model": text}),
        "facts": (nw.load_facts, {"source": "facts.json", "seed": 0}),
        "fact": (nw.Fact, {"prompt": "the {}", "subject": "cat", "target_new": "dog"}),
        "box": (lambda box: box_mask(box, 5, 5), {"box": [0, 0, 2, 2]}),
        "polygon": (lambda code: coco_mask(code, 5, 5), {"code": [[0, 0, 2, 0, 2, 2]]}),
    }  # fmt: skip


def calls(data: st.DataObject, world: World, parent: Path) -> None:
    """A function with one or two arguments of any kind."""
    with world.at(world.folder):
        known = functions(world) | newer(world)
    name = data.draw(st.sampled_from(sorted(known)))
    function, right = known[name]
    given = dict(right)
    for _ in range(data.draw(st.integers(1, 2))):
        given[data.draw(st.sampled_from(sorted(right)))] = data.draw(values(world))
    with world.fresh(parent, *FILES):
        world.judge.call((name, given), lambda: function(**given))


def sets(data: st.DataObject, world: World, parent: Path) -> None:
    """A saved set of neurons, spoiled."""
    with world.fresh(parent, "set.json"):
        spoil_file(data, Path("set.json"))
        read = data.draw(st.sampled_from([nw.NeuronSet.load, nw.NeuronSet.of]))
        world.judge.call("set", lambda: read("set.json"))


def annotated(data: st.DataObject, world: World, parent: Path) -> None:
    """COCO's files, spoiled, and every mask drawn."""

    def drawn() -> None:
        for photo in load_photos("coco"):
            for one in photo.objects or ():
                coco_mask(one.segmentation, 28, 28)

    with world.fresh(parent, "coco"):
        spoil_file(
            data, Path("coco/annotations") / data.draw(st.sampled_from(["instances_val.json", "captions_val.json"]))
        )
        world.judge.call("coco", drawn)


def records(data: st.DataObject, world: World, parent: Path) -> None:
    """Facts in every form, spoiled."""
    name = f"facts.{data.draw(st.sampled_from(sorted(RECORDS)))}.json"
    with world.fresh(parent, name):
        spoil_file(data, Path(name))
        world.judge.call(name, lambda: nw.load_facts(name))


def baselines(data: st.DataObject, world: World, parent: Path) -> None:
    """A saved baseline, spoiled."""
    with world.fresh(parent, "baseline"):
        spoil_file(data, Path("baseline") / data.draw(st.sampled_from(["baseline.json", "baseline.safetensors"])))
        run = world.run["text"]
        world.judge.call(
            "baseline", lambda: nw.locate(run.model, run, target=" Paris", baseline="baseline", normalize=True, top=1)
        )
