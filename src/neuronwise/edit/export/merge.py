"""An edit written into a full checkpoint."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from neuronwise.edit.delta import Recorded, require_weights_alone, writer_of
from neuronwise.edit.ledger import Ledger
from neuronwise.edit.storage import stored
from neuronwise.errors import EditError
from neuronwise.files import write_folder
from neuronwise.model.model import Model
from neuronwise.model.weights import MERGE, under_adapter


def merge(edit: Recorded, model: Model, directory: str | os.PathLike[str]) -> None:
    """Write the edited model as an ordinary full checkpoint, see ``Edit.merge``."""
    require_weights_alone(edit, "a checkpoint")
    if hasattr(model.module, "peft_config") or any(under_adapter(part) is not part for part in model.module.modules()):
        raise EditError(
            f"An adapter is in {model.name}, beside which no whole checkpoint can be written. {MERGE} The edit alone "
            "can be shared with to_peft."
        )
    ledger = Ledger.of(model)
    present = ledger.holds(edit)
    for delta in edit.deltas:
        found = stored(writer_of(model, delta))
        if found is None:
            raise EditError(
                f"The weights of {model.name} are quantized, so an edit cannot be written into them; merge it into "
                "the model as it was before quantization, or share it with to_peft."
            )
        if not present:
            found.release()

    def write(folder: Path) -> None:
        model.module.save_pretrained(folder)
        if model.processor is not None:
            model.processor.save_pretrained(folder)

    with contextlib.nullcontext() if present else ledger.applied(model, edit):
        write_folder(directory, write, EditError)
