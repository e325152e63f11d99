"""The command that says in words what neurons fire on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.options import MOST, ModelOption, Placement, PlaceOption, SeedOption
from neuronwise.cli.output import note, print_table
from neuronwise.cli.progress import progress
from neuronwise.errors import IndexingError, NeuronwiseError
from neuronwise.neurons import as_neurons

if TYPE_CHECKING:
    from neuronwise.index import Labels
    from neuronwise.index.labels import Detection


@command(app)
def explain(
    *,
    neurons: Annotated[
        list[str] | None, argument("Neurons such as L23.U8083, or files of neurons.", show_default="see --top")
    ] = None,
    index: Annotated[
        Path | None, option("The folder of an index; the labels are kept there.", show_default="the one in this folder")
    ] = None,
    top: Annotated[
        int | None, option("Explain the N neurons whose examples stand out most.", min=1, max=MOST, show_default="20")
    ] = None,
    explainer: Annotated[
        str, option("The local model that writes and judges: a hub id or folder; --model's name for the same model.")
    ] = "builtin-text",
    model: ModelOption = None,
    place: PlaceOption = None,
    lowest: Annotated[bool, option("What they fire negatively on, and lower.", "--lowest")] = False,
    seed: SeedOption = 0,
    placement: Placement,
) -> Output:
    """Say in words what neurons fire on, by a local model, and how well the words tell it; resumes when interrupted."""
    if neurons and top is not None:
        raise NeuronwiseError("Give neurons or --top, not both.")
    parsed = as_neurons(neurons) if neurons else None
    from neuronwise.index import Index
    from neuronwise.index.explain import explain

    opened = Index.load(_index_here() if index is None else index)
    for neuron in parsed or ():
        opened[neuron]  # refused before a model is loaded
    source = model or opened.about["recipe"]["model"]["source"]
    loaded = placement.load(source)
    speaker = loaded if explainer == source else placement.load(explainer)
    with progress() as tell:
        labels = explain(
            opened, parsed, top=top, model=loaded, explainer=speaker, place=place, lowest=lowest, seed=seed,
            progress=lambda done, total: tell("explaining", done, total),
        )  # fmt: skip
    for neuron, why in labels.left_out.items():
        note(f"{neuron} has no label: {why}")
    if not labels:
        raise IndexingError("None of these neurons has a label.")
    return Output(labels.to_dict(), lambda: _show(labels))


def _index_here() -> Path:
    """The index that this folder is, or the only one in it."""
    found = sorted(path.parent for path in [*Path().glob("index.json"), *Path().glob("*/index.json")])
    if len(found) != 1:
        what = "several: " + ", ".join(f"'{one}'" for one in found[:4]) if found else "none"
        raise IndexingError(f"Name an index with --index, as neuronwise index --out wrote it; here there is {what}.")
    return found[0]


def _show(labels: Labels) -> None:
    rows = [
        [str(one.neuron), one.text, _figure(one.detection), _figure(one.control and one.control.detection)]
        for one in labels.values()
    ]
    print_table("", ["neuron", "label", "detection", "another neuron's label"], rows)


def _figure(detection: Detection | None) -> str:
    if detection is None:
        return ""
    auc = detection.auc
    return f"{auc.mean:.2f} [{auc.low:.2f}, {auc.high:.2f}]"
