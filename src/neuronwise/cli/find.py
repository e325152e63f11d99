"""The command that finds the neurons behind words: of a photo's caption, of a text's answer, over many photos."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import Names, Output, app, argument, command, option, refuse
from neuronwise.cli.options import (
    Ask,
    BatchOption,
    ModelOption,
    Placement,
    Scoring,
    Settings,
    TextOption,
    Words,
    parse_batch,
    require_folder,
    require_photos,
)
from neuronwise.cli.output import command_line, note, print_finding
from neuronwise.cli.photos import PhotoSource, find_in_photos, find_over_photos
from neuronwise.cli.texts import find_in_texts
from neuronwise.data.texts import read_lines
from neuronwise.errors import NeuronwiseError
from neuronwise.locate.methods import METHODS
from neuronwise.read.evidence.table import EVIDENCE

if TYPE_CHECKING:
    from neuronwise.model import Model, Run
    from neuronwise.model.halving import BatchSize

    Load = Callable[[], Model]

NO_EVIDENCE, ON_PAGE = "none", "relp"
OVER_PHOTOS = "over photos, where find takes words of captions"
OVER_TEXTS = "over the texts of a file"
OF_ONE = ("specific", "heads", "lens")  # photo or text alone


@command(app)
def find(
    *,
    images: Annotated[
        list[Path] | None,
        argument("A photo, or several to look at one by one and together; none with --text or --data."),
    ] = None,
    text: TextOption = None,
    text_file: Annotated[
        Path | None, option("Many texts, one a line, each used as it is: looked at one by one and together.")
    ] = None,
    model: ModelOption = None,
    words: Words,
    scoring: Scoring,
    ask: Ask,
    source: PhotoSource,
    evidence: Annotated[
        str | None,
        option(
            "Map what of the photo each word depends on, by a kind of evidence listed below, or none.",
            show_default=f"{ON_PAGE} with --out",
        ),
        Names("Kinds of evidence", EVIDENCE),
    ] = None,
    batch_size: BatchOption = "auto",
    heads: Annotated[int, option("Attention heads to show for each word, by their share of its logit.", min=0)] = 0,
    lens: Annotated[bool, option("Also read each word layer by layer, see the command lens.")] = False,
    out: Annotated[Path | None, option("Write a page (index.html) and finding.json there.")] = None,
    placement: Placement,
) -> Output:
    """Find the neurons behind the words that a model writes about photos, or behind its answer to a text."""
    require_folder(out)
    size = parse_batch(batch_size)
    if evidence not in (None, NO_EVIDENCE):
        EVIDENCE[evidence]  # an unknown name is refused before a model is opened
    photos, load = images or [], partial(placement.load, model, "builtin-text" if text_file or text else "builtin")
    if text_file is not None:
        if photos or text is not None or source.data is not None:
            raise NeuronwiseError("--text-file holds all texts; leave the photos, --text and --data out.")
        return _output(_in_texts(text_file, load, words, scoring, ask, size, out), out)
    removes = source.removes(scoring) or _wants_inpainted(scoring, text)
    if removes or source.data is not None or len(photos) > 1:
        return _output(_in_photos(source, removes, photos, load, words, scoring, ask, size, out), out)
    refuse("with one photo or text", "batch_size")
    image = photos[0] if photos else None
    ask.require_one(image, text)
    refuse("without --data, --mask or --box", "photos", "inpainting", "dilation")
    if not words.targets and (words.concepts or image is not None):
        refuse("without --target", "position")
    options = scoring.checked()
    if image is None:
        refuse("without a photo", "evidence")
        run = ask.text(load(), text or "", look=bool(words.concepts))
    else:
        run = ask.photo(load(), image, heat=out is not None)
    scoring.gather(run.model, options)
    return _output(_find_in_run(run, words, scoring, options, out, evidence, heads, lens), out)


def _in_texts(
    file: Path, load: Load, words: Words, scoring: Scoring, ask: Ask, size: BatchSize, out: Path | None
) -> dict[str, Any]:
    refuse(OVER_TEXTS, "prompt", "evidence", *OF_ONE, "mask", "box", "inpainting", "dilation", "photos")
    if not words.targets and words.concepts:
        refuse("without --target", "position")
    read_lines(file)  # refused before a model is opened
    return find_in_texts(file, load, words, scoring, ask, size, out)


def _in_photos(
    source: PhotoSource,
    removes: bool,
    photos: list[Path],
    load: Load,
    words: Words,
    scoring: Scoring,
    ask: Ask,
    size: BatchSize,
    out: Path | None,
) -> dict[str, Any]:
    """Several photos, or one whose object is removed."""
    require_photos(photos)
    if removes and len(photos) > 1:
        raise NeuronwiseError("An object is removed from one photo, or from those of --data; name one photo.")
    refuse(OVER_PHOTOS, "text", "target", "position", "chat", "evidence", *OF_ONE)
    if not removes:
        return find_in_photos(source, photos, load, words, scoring, ask, size, out)
    if not words.concepts:
        raise NeuronwiseError("Over photos, find takes words of captions: name one with --concept WORD.")
    source.require_used(scoring.method)
    return find_over_photos(source, photos[0] if photos else None, load, words, scoring, ask, size, out)


def _output(content: dict[str, Any], out: Path | None) -> Output:
    """What is printed; notes are printed now."""
    for part in (content, *content["concepts"]):
        if part.get("note"):
            note(part["note"])
    return Output(content, lambda: print_finding(content, out))


def _wants_inpainted(scoring: Scoring, text: str | None) -> bool:
    """Whether the method compares the photo with one without the object, and not the prompt with another."""
    method = METHODS[scoring.chosen]
    by_prompt = method.needs == "twin" and (text is not None or "counterfactual" in scoring.options())
    return method.compares and not by_prompt


def _find_in_run(
    run: Run,
    words: Words,
    scoring: Scoring,
    options: Settings,
    out: Path | None,
    evidence: str | None,
    heads: int,
    lens: bool,
) -> dict[str, Any]:
    """The object that is printed; with ``out`` it is written there beside its page."""
    from neuronwise.read import find as find_neurons
    from neuronwise.read import with_heads, with_lens

    model, by = run.model, evidence or (NO_EVIDENCE if out is None else ON_PAGE)
    targets: list[str | int] = [*words.targets]
    if run.image is None and not words.concepts and not targets:
        targets = [run.answer]
    found = find_neurons(
        model, run, words.concepts or None, targets,
        method=None if scoring.by_default else scoring.chosen, top=words.top, seed=scoring.seed,
        position=words.position, specific=words.specific, heat=out is not None, form=scoring.form,
        evidence=None if by == NO_EVIDENCE else by, **options,
    )  # fmt: skip
    if heads:
        found = with_heads(found, heads)
    if lens:
        found = with_lens(found)
    content = {**found.to_dict(), "command": command_line()}
    if out is not None:
        from neuronwise.report import write_finding

        write_finding(out, found, content)
    return content
