"""The table of docs/placement.md, measured on the tiny models of ``processors``.

python tests/placement_table.py     # writes it anew
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from neuronwise.model.grid import image_grid
from neuronwise.model.run import Run
from placing import placing
from processors import BUILDERS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "placement.md"
TITLES = "| family | a cell is | tokens of a 150 × 60 photo | its grid | what it covers | note |"
HEAD = f"{TITLES}\n|---|---|---|---|---|---|\n"
PATCH, SHUFFLED, MERGED = "a patch", "2 × 2 patches, shuffled into a token", "2 × 2 patches, merged"
CELLS = {  # families whose cell is more or less than a patch of the whole photo or of a tile
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "mistral3"), MERGED),
    **dict.fromkeys(("internvl", "idefics3", "smolvlm", "aya_vision", "ovis2"), SHUFFLED),
    **dict.fromkeys(("gemma3", "gemma3, pan and scan"), "2 × 2 patches, pooled"),
    **dict.fromkeys(("chameleon", "emu3"), "a code's square"),
    "llava_onevision, shrunk": "a token of the tiles after they were shrunk",
    "minigpt4_patches": "4 patches of a row, joined",
}


def row(name: str) -> str:
    """One line of the table."""
    model, prompt = placing(name)
    photo = Image.fromarray(np.full((60, 150, 3), 100, dtype=np.uint8))
    prompted, opened = model.prepare(photo, prompt, chat=False)
    run = Run(model, prompted, [], [], opened)
    grid = image_grid(run)
    box = ", ".join(f"{edge:.1f}".removesuffix(".0") for edge in grid.box)
    tokens = len(run.image_positions)
    cell = CELLS.get(name, PATCH)
    return f"| {name} | {cell} | {tokens} | {grid.height} × {grid.width} | {box} | {grid.note or ''} |"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    after = rest[rest.index("\n\n") :] if "\n\n" in rest else "\n"
    PAGE.write_text(before + HEAD + "\n".join(row(name) for name in BUILDERS) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
