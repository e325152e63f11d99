"""The command that finds the neurons behind words: of a photo's caption, of a text's answer, over many photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import Names, Output, app, argument, command, option, refuse
from neuronwise.cli.options import (
    Ask,
    ModelOption,
    Placement,
    Scoring,
    Settings,
    TextOption,
    Words,
    require_folder,
    require_photos,
)
from neuronwise.cli.output import command_line, note, print_finding
from neuronwise.cli.photos import PhotoSource, find_in_photos, find_over_photos
from neuronwise.errors import NeuronwiseError
from neuronwise.locate.methods import METHODS
from neuronwise.read.evidence.table import EVIDENCE

if TYPE_CHECKING:
    from neuronwise.model import Run

NO_EVIDENCE, ON_PAGE = "none", "relp"
OVER_PHOTOS = "over photos, where find takes words of captions"


@command(app)
def find(
    *,
    images: Annotated[
        list[Path] | None,
        argument("A photo, or several to look at one by one and together; none with --text or --data."),
    ] = None,
    text: TextOption = None,
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
    heads: Annotated[int, option("Attention heads to show for each word, by their share of its logit.", min=0)] = 0,
    out: Annotated[Path | None, option("Write a page (index.html) and finding.json there.")] = None,
    placement: Placement,
) -> Output:
    """Find the neurons behind the words that a model writes about photos, or behind its answer to a text."""
    require_folder(out)
    if evidence not in (None, NO_EVIDENCE):
        EVIDENCE[evidence]  # an unknown name is refused before a model is opened
    photos = images or []
    image = photos[0] if photos else None
    if source.removes(scoring) or _wants_inpainted(scoring, text):
        require_photos(photos)
        if len(photos) > 1:
            raise NeuronwiseError("An object is removed from one photo, or from those of --data; name one photo.")
        refuse(OVER_PHOTOS, "text", "target", "position", "chat", "evidence", "specific", "heads")
        if not words.concepts:
            raise NeuronwiseError("Over photos, find takes words of captions: name one with --concept WORD.")
        source.require_used(scoring.method)
        content = find_over_photos(source, image, lambda: placement.load(model), words, scoring, ask, out)
        return _output(content, out)
    if source.data is not None or len(photos) > 1:
        require_photos(photos)
        refuse(OVER_PHOTOS, "text", "target", "position", "chat", "evidence", "specific", "heads")
        return _output(find_in_photos(source, photos, lambda: placement.load(model), words, scoring, ask, out), out)
    ask.require_one(image, text)
    refuse("without --data, --mask or --box", "photos", "inpainting", "dilation")
    if not words.targets and (words.concepts or image is not None):
        refuse("without --target", "position")
    if image is None:
        refuse("without a photo", "evidence")
    options = scoring.checked()
    loaded = placement.load(model, "builtin" if text is None else "builtin-text")
    if image is not None:
        run = ask.photo(loaded, image, heat=out is not None)
    else:
        run = ask.text(loaded, text or "", look=bool(words.concepts))
    scoring.gather(loaded, options)
    by = evidence or (NO_EVIDENCE if out is None else ON_PAGE)
    content = _find_in_run(run, words, scoring, options, out, None if by == NO_EVIDENCE else by, heads)
    return _output(content, out)


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
    run: Run, words: Words, scoring: Scoring, options: Settings, out: Path | None, evidence: str | None, heads: int
) -> dict[str, Any]:
    """The object that is printed; with ``out`` it is written there beside its page."""
    from neuronwise.read import find as find_neurons
    from neuronwise.read import with_heads

    model = run.model
    targets: list[str | int] = [*words.targets]
    if run.image is None and not words.concepts and not targets:
        targets = [run.answer]
    found = find_neurons(
        model, run, words.concepts or None, targets,
        method=None if scoring.by_default else scoring.chosen, top=words.top, seed=scoring.seed,
        position=words.position, specific=words.specific, heat=out is not None, evidence=evidence, form=scoring.form,
        **options,
    )  # fmt: skip
    if heads:
        found = with_heads(found, heads)
    content = {**found.to_dict(), "command": command_line()}
    if out is not None:
        from neuronwise.report import write_finding

        write_finding(out, found, content)
    return content
