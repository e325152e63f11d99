"""Checkpoints whose files were damaged or say something else."""

from __future__ import annotations

from pathlib import Path

from fuzz_spoil import spoil_file
from fuzz_world import World
from hypothesis import strategies as st

import neuronwise as nw

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


def checkpoints(data: st.DataObject, world: World, parent: Path) -> None:
    """Load one and ask it."""
    with world.fresh(parent, "model") as folder:
        spoil_file(data, folder / "model" / data.draw(st.sampled_from(FILES)))
        where = folder / "model"

        def asked() -> None:
            model = nw.load(where)
            nw.locate(model, model.run(prompt="the cat", max_new_tokens=2, chat=False), target=" dog", top=2)

        world.judge.call("checkpoint", asked)
