"""What all commands share: the application, the options that several take, and opening a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise._version import __version__
from neuronwise.cli.output import status
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.model import Model

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the neurons in which a transformer keeps a piece of knowledge, and read them.",
)

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Hub id, folder, .gguf file, builtin or builtin-text.", show_default="builtin"),
]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the checkpoint's own by default.")]
DeviceOption = Annotated[str | None, typer.Option("--device-map", help="auto, cpu, cuda, ...: passed to transformers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.callback(invoke_without_command=True)
def version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def load_model(name: str, dtype: str | None, device_map: str | None) -> Model:
    """The model that the options name; raises ``NeuronwiseError`` for an unknown dtype, and as ``load`` does."""
    import torch

    from neuronwise.model import load

    chosen: Any = None
    if dtype is not None:
        chosen = getattr(torch, dtype, None)
        if not isinstance(chosen, torch.dtype):
            raise NeuronwiseError(f"There is no dtype '{dtype}'; use float32, bfloat16 or float16.")
    with status(f"opening {name}"):
        return load(name, dtype=chosen, device_map=device_map)
