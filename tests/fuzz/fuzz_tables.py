"""What has a name in a table, with its own options: editors, methods, kinds of evidence; and what becomes of edits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz_api import FACT, values
from fuzz_world import World, quick
from hypothesis import strategies as st

import neuronwise as nw
from fact_records import RECORDS
from neuronwise.edit import EDITORS, facts_in, without
from neuronwise.index import explain
from neuronwise.locate import METHODS
from neuronwise.model.exchange import FORMS
from neuronwise.read import EVIDENCE

FACTS: tuple[Any, ...] = (
    FACT,
    [FACT, nw.Fact("{} sits on the", "cat", "red")],
    [FACT, FACT],
    [FACT, nw.Fact("the capital of {} is", "France", "mat")],
    nw.Fact("{}", "the cat", "the dog"),
    nw.Fact("the capital of {} is ", "France", " house\n"),
    nw.Fact("{} is", "France", "猫🐈"),
    nw.Fact("the {} is", "cat", "cat", join=""),
    nw.Fact("the {} is", "cat", "red", chat=True, system="the"),
)


def editors(data: st.DataObject, world: World, parent: Path) -> None:
    """An editor with one or two settings of any kind; what it makes goes in and out, and to a folder and back."""
    name, model = data.draw(st.sampled_from(list(EDITORS))), world.models["text"]
    editor, facts = EDITORS[name], data.draw(st.sampled_from(FACTS))
    known = sorted(asdict(editor.presets["default"].settings))
    changes = quick(name) | _replaced(data, world, known)

    def made() -> None:
        edit = editor.function(model, facts, **changes)
        edit.save("made")
        with nw.load_edit("made").applied(model):
            model.run(prompt="the cat", max_new_tokens=1, chat=False)

    with world.fresh(parent):
        world.judge.call((name, facts, changes), made)


def lives(data: st.DataObject, world: World, parent: Path) -> None:
    """Edits applied, reverted, added up, cut, merged, exported and saved in any order, for the model and for others."""
    model = world.models["text"]
    with world.at(world.folder):
        edits: list[Any] = [nw.load_edit("edit"), nw.load_edit("several"), data.draw(values(world))]
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2)), min_size=1, max_size=6))
    other = data.draw(st.sampled_from([model, model, model, world.models["photo"], "text", None]))

    def lived() -> None:
        try:
            for number, (step, which) in enumerate(steps):
                edit = edits[which]
                if isinstance(edit, nw.Edit):
                    edits[which] = STEPS[step](edit, other, f"{step}{number}", edits[(which + 1) % 3]) or edit
        finally:
            for one in (model, world.models["photo"]):
                nw.revert_all(one)

    with world.fresh(parent, "edit"):
        world.judge.call((steps, edits, other), lived, steps=True)


def _number(other: Any) -> Any:
    return other if isinstance(other, int) else 0


STEPS: dict[str, Any] = {
    "apply": lambda edit, model, name, other: edit.apply(model),
    "revert": lambda edit, model, name, other: edit.revert(model),
    "add": lambda edit, model, name, other: edit + other,
    "cut": lambda edit, model, name, other: without(edit, _number(other)),
    "list": lambda edit, model, name, other: facts_in(edit) and None,
    "save": lambda edit, model, name, other: edit.save(name),
    "load": lambda edit, model, name, other: nw.load_edit("edit"),
    "merge": lambda edit, model, name, other: edit.merge(model, name),
    "adapter": lambda edit, model, name, other: edit.to_peft(model, name),
    "changed": lambda edit, model, name, other: nw.edit.changed_neurons(model, edit, 2, 2) and None,
    "shown": lambda edit, model, name, other: edit._repr_html_() and None,
    "asked": lambda edit, model, name, other: edit.applied_to(model) and None,
}


def scored(data: st.DataObject, world: World, parent: Path) -> None:
    """A method or a kind of evidence with one or two options of any kind."""
    model, run = world.models["photo"], world.run["photo"]
    name = data.draw(st.sampled_from([*METHODS, *EVIDENCE]))
    right: dict[str, Any] = {"concept": "dog"}
    if name in METHODS:
        function, options = nw.locate, METHODS[name].options
        right |= {"method": name, "top": 2}
        right |= {"inpainted": "photo.png"} if METHODS[name].compares else {}
        right |= {"among": ["L1.U3", "L0.U2"]} if METHODS[name].needs == "among" else {}
    else:
        function, options = nw.evidence, EVIDENCE[name].options  # type: ignore[assignment]
        right |= {"by": name}
    given = right | _replaced(data, world, sorted({*options, *right}))
    with world.fresh(parent, "photo.png", "baseline"):
        world.judge.call((name, given), lambda: function(model, run, **given))


def exchanged(data: st.DataObject, world: World, parent: Path) -> None:
    """Names of neurons in other tools, labels in words, sets, and where edits go."""
    words = world.models["words"]
    with world.at(world.folder):
        edit = nw.load_edit("edit")

    def push(**given: Any) -> None:
        edit.push(**given)

    def save(path: Any) -> None:
        edit.save(path)

    def merge(model: Any, path: Any) -> None:
        edit.merge(model, path)

    def adapter(model: Any, path: Any) -> None:
        edit.to_peft(model, path)

    functions: dict[str, tuple[Any, dict[str, Any]]] = {
        "export": (nw.export_neurons, {"neurons": "set.json", "path": "out.json", "form": "nnsight",
                                       "model": world.models["photo"], "model_id": "gpt2-small"}),
        "import": (nw.import_neurons, {"path": "neurons.json", "form": None, "model": None}),
        "explain": (explain, {"index": "words", "neurons": ["L0.U1"], "top": None, "model": words, "explainer": words,
                              "place": None, "lowest": False, "seed": 1}),
        "set": (nw.NeuronSet, {"members": (), "record": {}}),
        "scored": (nw.ScoredNeuron, {"neuron": nw.Neuron(1, 2), "score": 0.5, "activation": None, "position": 3}),
        "push": (push, {"repo_id": "me/it", "adapter_for": None, "private": False, "token": None, "message": None}),
        "save": (save, {"path": "new"}),
        "merge": (merge, {"model": world.models["text"], "path": "new"}),
        "adapter": (adapter, {"model": world.models["text"], "path": "new"}),
        "head": (nw.Head, {"layer": 1, "head": 2}),
        "heads": (nw.HeadSet, {"members": (nw.ScoredHead(nw.Head(1, 0), 0.5),), "record": {}}),
        "head named": (nw.Head.parse, {"address": "L1.H0"}),
        "messages": (words.run, {"messages": [{"role": "user", "content": "the cat"}], "template": None,
                                 "max_new_tokens": 1}),
        "several": (nw.edit.fine_each, {"model": world.models["text"], "facts": [FACT], "steps": 2, "freeze_last": 0}),
        "in text": (nw.load_facts, {"source": "facts.qaedit.json", "form": "qaedit", "strict": False, "seed": 0,
                                    "images": None}),
    }  # fmt: skip
    name = data.draw(st.sampled_from(sorted(functions)))
    function, right = functions[name]
    forms = data.draw(st.sampled_from([*FORMS, *RECORDS]))
    given = right | ({"form": forms} if "form" in right and data.draw(st.booleans()) else {})
    given |= _replaced(data, world, sorted(right))
    with world.fresh(parent, "set.json", "neurons.json", "words", "facts.qaedit.json"):
        world.judge.call((name, given), lambda: function(**given))


def _replaced(data: st.DataObject, world: World, names: list[str]) -> dict[str, Any]:
    """One or two of these arguments, with values of any kind."""
    return {data.draw(st.sampled_from(names)): data.draw(values(world)) for _ in range(data.draw(st.integers(1, 2)))}
