"""``export_neurons`` and ``import_neurons``: a set of neurons as a file in the names of another tool, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from neuronwise.errors import NeuronError, NeuronwiseError
from neuronwise.files import read_json, write_json
from neuronwise.model.exchange.form import Form
from neuronwise.model.exchange.forms import FORMS
from neuronwise.model.model import Model
from neuronwise.neurons import Neurons, NeuronSet, ScoredNeuron
from neuronwise.registry.arguments import checked

SCHEMA = "neuronwise.exchange/1"
NUMBERS = ("score", "activation", "baseline", "adds")  # kept beside a tool's names


@checked
def export_neurons(
    neurons: Neurons,
    path: str | os.PathLike[str],
    form: str,
    *,
    model: Model | None = None,
    model_id: str | None = None,
) -> None:
    """Write neurons as JSON in the names of another tool, one of ``FORMS``; whole or not at all.

    Each row has the tool's own keys, and beside them score, activation and what else a ``ScoredNeuron`` holds.
    ``model``: needed for "nnsight" and "nnterp", whose names are those of its modules; for the others it says whether
    the neurons exist. ``model_id``: what Neuronpedia calls the model, such as "gpt2-small". Raises ``NeuronError`` for
    a neuron that the tool has no name for.
    """
    write_json(path, exported(neurons, form, model=model, model_id=model_id))


def exported(
    neurons: Neurons, form: str, *, model: Model | None = None, model_id: str | None = None
) -> dict[str, object]:
    """What ``export_neurons`` writes: schema, form, the set's record, and a row for each neuron."""
    chosen = FORMS[form]
    _require(chosen, model)
    if chosen.uses_model == "id" and not model_id:
        raise NeuronError(f"{chosen.title} names models by ids of its own, such as gpt2-small; give model_id.")
    found = NeuronSet.of(neurons)
    rows = []
    for member in found:
        if model is not None:
            _require_neuron(model, member)
        numbers = {name: getattr(member, name) for name in NUMBERS if getattr(member, name) is not None}
        rows.append({**chosen.write(member, model, model_id), **numbers})
    return {"schema": SCHEMA, "form": form, "record": dict(found.record), "neurons": rows}


@checked
def import_neurons(path: str | os.PathLike[str], form: str | None = None, *, model: Model | None = None) -> NeuronSet:
    """Read neurons that another tool names, from a JSON file.

    The file holds what ``export_neurons`` writes, a list of rows or names, one of them, or units by the name of where
    they are: ``{"blocks.3.mlp.hook_post": [5, 80]}``. ``form`` is one of ``FORMS``, by default the one that recognizes
    the first row. ``model`` is needed for module paths; with one, neurons that it does not have are refused. Raises
    ``NeuronError`` for rows that cannot be read, by their number.
    """
    content = read_json(os.fspath(path), "set of neurons", NeuronError, finite=True)
    rows = list(_rows(content))
    if not rows:
        raise NeuronError(f"'{path}' holds no rows that name neurons.")
    chosen = _recognized(rows[0], path) if form is None else FORMS[form]
    _require(chosen, model)
    members = []
    for number, row in enumerate(rows, 1):
        try:
            neuron, position = chosen.read(row, model)
            values = {name: row[name] for name in NUMBERS if row.get(name) is not None}
            member = ScoredNeuron(neuron, values.pop("score", 0.0), position=position, **values)
            if model is not None:
                _require_neuron(model, member)
        except NeuronwiseError as error:
            raise NeuronError(f"Row {number} of '{path}': {error}") from error
        members.append(member)
    record = content.get("record") if isinstance(content, Mapping) else None
    return NeuronSet(tuple(members), record if isinstance(record, Mapping) else {"method": f"from {chosen.title}"})


def _rows(content: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, whichever way it holds them."""
    if isinstance(content, Mapping) and isinstance(content.get("neurons"), list):
        content = content["neurons"]
    if isinstance(content, str):
        yield {"name": content}
    elif isinstance(content, list):
        for one in content:
            yield from _rows(one)
    elif isinstance(content, Mapping):
        listed = [(name, units) for name, units in content.items() if isinstance(units, list)]
        if len(listed) == len(content):
            yield from ({"name": name, "unit": unit} for name, units in listed for unit in units)
        else:
            yield content
    else:
        yield {"name": content}


def _recognized(row: Mapping[str, Any], path: object) -> Form:
    form = next((form for form in FORMS.values() if form.recognizes(row)), None)
    if form is None:
        known = ", ".join(FORMS)
        raise NeuronError(f"'{path}' names neurons in no form that is known ({known}); the first is {dict(row)!r:.80}.")
    return form


def _require(form: Form, model: Model | None) -> None:
    if form.uses_model == "always" and model is None:
        raise NeuronError(f"{form.title} are names of a model's own modules; give the model.")


def _require_neuron(model: Model, member: ScoredNeuron) -> None:
    layer = member.neuron.layer
    if layer >= model.num_layers:
        raise NeuronError(f"There is no neuron {member.neuron}: {model.name} has layers 0 to {model.num_layers - 1}.")
    model.blocks[layer].writer(member.neuron)
