"""Are the results still the same? Records seeded results of one checkout, and compares two such records.

    PYTHONPATH=OLD/src python tools/same_results record old.json
    PYTHONPATH=NEW/src python tools/same_results record new.json
    python tools/same_results compare old.json new.json [--expect 'cli/find*']...

Only public names are used: what design and documentation promise (`load`, `Model`, `run`, `locate`, `decode`,
`heatmap`, interventions, editors, `load_facts`) and the shell's commands with `--json`. So one copy of this tool serves
both checkouts, whatever is rearranged inside. Recording takes three minutes on one idle core (OMP_NUM_THREADS=1);
`--only 'llama/*'` records and compares a part.

Texts, tokens and neurons must be equal, numbers equal to 1e-5 of the largest number beside them; neurons may change
places where their scores are that close. Versions, paths and seconds are left out. A result that is new is a note,
one that is gone is a difference. Exit status 1 when anything differs that `--expect` does not name.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import photo_shell_results, shell_results, study_results
from compare import compare
from models import FAMILIES, square_photo, tiny
from plain import plain
from python import DATA, Results, builtin_edit_results, edit_results, fact_results, photo_results, text_results


def everything(folder: Path) -> Results:
    import neuronwise as nw

    for kind in FAMILIES:
        model = tiny(kind)
        yield from text_results(kind, model)
        if kind in ("llama", "gpt2", "qwen2_moe", "gemma2"):
            yield from edit_results(kind, model, folder)
        if kind == "llama":
            model.module.save_pretrained(folder / "tiny")
            model.tokenizer.save_pretrained(folder / "tiny")
    yield from photo_results("llava", tiny("llava"), square_photo(), square_photo(False), "the <image> is", None)
    yield from fact_results()
    yield from shell_results(folder, folder / "tiny")
    yield from text_results("builtin-text", nw.load("builtin-text"))
    photos = sorted((DATA / "coco-mini" / "val2017").glob("*.jpg"))
    if photos:
        model = nw.load("builtin")
        photo, word = next((p, run.concepts[-1].word) for p in photos
                           if (run := model.run(p, max_new_tokens=12)).concepts)  # fmt: skip
        yield from photo_results("builtin", model, photo, _blurred(photo), None, word)
        yield from builtin_edit_results(model, photo, word)
        yield from photo_shell_results(photo, word)
        yield from study_results(folder)


def _blurred(photo: Path) -> Any:
    """The photo with its middle blurred: what an object taken out may look like."""
    from PIL import Image, ImageFilter

    image = Image.open(photo).convert("RGB")
    width, height = image.size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    image.paste(image.filter(ImageFilter.GaussianBlur(20)).crop(box), box[:2])
    return image


def record(path: Path, only: str) -> None:
    """Write every result of a name like ``only``; one that fails is recorded by the name of its error."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in everything(Path(folder)):
            if not fnmatch.fnmatch(name, only):
                continue
            started = time.perf_counter()
            torch.manual_seed(0)
            try:
                results[name] = plain(make())
            except Exception as error:
                results[name] = {"error": type(error).__name__}
                print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
            if (seconds := time.perf_counter() - started) > 2:
                print(f"{name}: {seconds:.0f} s", file=sys.stderr)
        text = json.dumps(results, ensure_ascii=False, indent=0).replace(folder, "FOLDER")
    path.write_text(text.replace(str(DATA), "DATA"), encoding="utf-8")
    print(f"{len(results)} results: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording, comparing = commands.add_parser("record"), commands.add_parser("compare")
    recording.add_argument("out", type=Path)
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--expect", action="append", default=[], help="a pattern of places that may differ")
    for command in (recording, comparing):
        command.add_argument("--only", default="*", help="a pattern of results' names")
    given = parser.parse_args()
    if given.command == "record":
        record(given.out, given.only)
        return 0
    return compare(given.old, given.new, given.only, given.expect)


if __name__ == "__main__":
    sys.exit(main())
