"""What ``find`` does with many photos of one concept, and with a photo whose object is masked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import Names, option, refuse, typed
from neuronwise.cli.options import Ask, Scoring, Settings, Words, parse_box, require_studies
from neuronwise.cli.output import command_line, counted, note
from neuronwise.cli.progress import progress_bar
from neuronwise.data.photos.load import FORMS
from neuronwise.errors import ImageError, NeuronwiseError, TargetError
from neuronwise.images.inpaint.table import INPAINTERS, parsed
from neuronwise.locate.methods import METHODS

if TYPE_CHECKING:
    from neuronwise.data.photos import Photos
    from neuronwise.images.masks import Mask
    from neuronwise.model import Model, Run
    from neuronwise.model.halving import BatchSize


DEFAULT = "two_stage"  # the method of finding over photos


@dataclass(frozen=True)
class PhotoSource:
    """Where photos of a concept come from: a folder, or one photo with a mask or a box."""

    data: Annotated[
        Path | None,
        option(
            "Find --concept in the photos of a folder in a form listed below, one by one and together. With an option "
            f"that says how its object is removed, the default method is {DEFAULT}."
        ),
        Names("Forms of photos", FORMS),
    ] = None
    mask: Annotated[Path | None, option("Where the concept is in the photo: a white on black image.")] = None
    box: Annotated[str | None, option("The same as a box in pixels: X,Y,WIDTH,HEIGHT.")] = None
    inpainting: Annotated[
        str,
        option(
            "How the object is removed: telea or ns, or lama:FILE.pt, diffusers:FOLDER, folder:DIR of finished photos."
        ),
        Names("Ways of inpainting", INPAINTERS),
    ] = "telea"
    dilation: Annotated[int, option("Pixels by which masks grow.", min=0)] = 5
    photos: Annotated[int, option("Use at most this many photos of a concept.", min=1)] = 12

    def removes(self, scoring: Scoring) -> bool:
        """Whether the user says where an object is, or of a folder's photos how it is removed."""
        if self.mask is not None or self.box is not None:
            return True
        method = None if scoring.by_default else METHODS[scoring.chosen]
        says_how = typed("inpainting", "dilation") if method is None else method.compares
        return self.data is not None and says_how

    def require_used(self, method: str | None) -> None:
        """Refuse options of this group that nothing reads with this method; raises ``NeuronwiseError``."""
        if self.data is None:
            refuse("with one photo", "photos")
        if not METHODS[method or DEFAULT].compares:
            refuse(f"with --method {method}, which removes nothing", "mask", "box", "inpainting", "dilation")
        elif parsed(self.inpainting)[0].ready:
            refuse(f"with --inpainting {self.inpainting}, whose photos are finished", "dilation", "mask", "box")

    def read(self, image: Path | None, method: str) -> tuple[Photos, dict[str, Mask]]:
        """The photos for a method, and the masks that are not annotated, by the photo's id."""
        from neuronwise.data.photos import Captioned, Photos, load_photos
        from neuronwise.images import open_image
        from neuronwise.images.masks import box_mask, file_mask

        if self.data is not None:
            if image is not None or self.mask is not None or self.box is not None:
                raise NeuronwiseError("--data takes photos and masks from a folder; omit the photo, --mask and --box.")
            return load_photos(self.data), {}
        if image is None:
            raise NeuronwiseError(f"--method {method} looks at photos: name a folder with --data, or one photo.")
        if self.mask is not None and self.box is not None:
            raise NeuronwiseError("Give either --mask or --box.")
        photos, size = Photos((Captioned(image.stem, image),), (), str(image)), open_image(image).size
        if self.mask is not None:
            return photos, {image.stem: file_mask(self.mask, *size)}
        if self.box is not None:
            return photos, {image.stem: box_mask(parse_box(self.box), *size)}
        if not parsed(self.inpainting)[0].ready:
            raise NeuronwiseError(
                f"--method {method} needs to know where the object is: --mask FILE, --box X,Y,W,H, or --data."
            )
        return photos, {}


def find_over_photos(
    source: PhotoSource,
    image: Path | None,
    load: Callable[[], Model],
    words: Words,
    scoring: Scoring,
    ask: Ask,
    size: BatchSize,
    out: Path | None,
) -> dict[str, Any]:
    """Find every concept, and with ``out`` save what it was found on: the object that is printed."""
    options, method = scoring.options(), scoring.method or DEFAULT
    agree = options.pop("agree", "mean")
    require_studies()
    photos, masks = source.read(image, method)
    model = load()
    from neuronwise.report.concept import write_concept
    from neuronwise.study.concept import find

    found = []
    for concept in words.concepts:
        with progress_bar("captioning photos") as bar:
            one = find(
                model, photos, concept,
                method=method, top=words.top, options=options, agree=agree,
                most=source.photos, masks=masks, inpainting=source.inpainting, dilation=source.dilation,
                prompt=ask.prompt, max_new_tokens=ask.length, batch=size, seed=scoring.seed,
                progress=lambda what, done, total, bar=bar: bar(done, total),
            )  # fmt: skip
        found.append((one, {**one.to_dict(), "command": command_line()}))
        used = ", ".join(photo.id for photo in one.photos)
        note(f"{concept}: found on {len(one.photos)} photo{'s' if len(one.photos) != 1 else ''} ({used})")
    if out is not None:  # not before every concept is found
        for one, content in found:
            write_concept(out / one.concept if len(found) > 1 else out, one, content)
    return _joined([content for _, content in found])


def find_in_photos(
    source: PhotoSource,
    images: Sequence[Path],
    load: Callable[[], Model],
    words: Words,
    scoring: Scoring,
    ask: Ask,
    size: BatchSize,
    out: Path | None,
) -> dict[str, Any]:
    """Find words in each of several photos and in all of them together: the object that is printed."""
    from neuronwise.read.findings import find_in_each

    options, agree = joining(scoring)
    if source.data is None:
        refuse("without --data", "photos", "inpainting", "dilation")
    if source.data is not None and (images or not words.concepts):
        raise NeuronwiseError("--data takes photos from a folder: omit the photo, and name a word with --concept WORD.")
    captions = _Captions(load, ask, size, heat=out is not None)
    if source.data is None:
        captions.of_files(images, words.concepts)
    else:
        captions.of_folder(source, words.concepts, scoring.seed)
    if captions.model is not None:
        scoring.gather(captions.model, options)
    found = find_in_each(
        captions.runs, captions.words, files=captions.files, left_out=captions.unused, agree=agree,
        at_least=1 if words.concepts else 2, form=scoring.form, heat=out is not None, top=words.top, seed=scoring.seed,
        method=None if scoring.by_default else scoring.chosen, **options,
    )  # fmt: skip
    content = {**found.to_dict(), "command": command_line()}
    for concept in words.concepts:
        names = [name for name, own in captions.words.items() if concept in own]
        note(f"{concept}: found on {counted(len(names), 'photo')} ({', '.join(names)})")
    if source.data is None:
        for name, why in captions.unused.items():
            note(f"{name} is left out: {why}")
    if not found.together:
        note(
            "the captions share no word; " + ("each photo has its own page" if out else "--out DIR writes each photo's")
        )
    if out is not None:
        from neuronwise.report import write_findings

        write_findings(out, found, content)
    return content


def joining(scoring: Scoring) -> tuple[Settings, str]:
    """The options of a method that scores each of several runs, and how the scores are joined."""
    from neuronwise.locate.joint import AGREE

    options = scoring.checked("agree")
    agree = options.pop("agree", "mean")
    if agree not in AGREE:
        raise NeuronwiseError(f"--set agree is {agree!r}; choose {' or '.join(AGREE)}.")
    return options, agree


class _Captions:
    """Photos by their id, captioned as they are needed, with the words of their captions that are looked for."""

    def __init__(self, load: Callable[[], Model], ask: Ask, size: BatchSize, heat: bool) -> None:
        self._load, self._ask, self._heat = load, ask, heat
        self._size: BatchSize = size
        self.model: Model | None = None
        self.runs: dict[str, Run] = {}
        self.files: dict[str, str] = {}
        self.words: dict[str, dict[str, str]] = {}
        self.left_out: dict[str, str] = {}

    @property
    def unused(self) -> dict[str, str]:
        """Photos in which nothing is found, with the reason."""
        return {name: why for name, why in self.left_out.items() if not self.words.get(name)}

    def of_files(self, images: Sequence[Path], concepts: Sequence[str]) -> None:
        """Every photo that was named, with all nouns of its caption or the ``concepts`` that it has."""
        named: dict[str, Path] = {}
        for number, image in enumerate(images):
            named[image.stem if image.stem not in named else f"{image.stem}-{number + 1}"] = image
        with progress_bar("captioning photos") as bar:
            failed = self._caption(named, bar)
        if failed:
            raise next(iter(failed.values()))
        for name in named:
            run = self.runs[name]
            self.words[name] = {concept.word.lower(): concept.word for concept in run.concepts}
            if not run.concepts:
                self.left_out[name] = f"its caption has no noun to look for: {run.text!r}"
            if concepts:
                self.words[name] = {}
                for concept in concepts:
                    self._look(name, concept)

    def of_folder(self, source: PhotoSource, concepts: Sequence[str], seed: int) -> None:
        """Photos of a folder that show a concept, drawn by the seed until enough captions name it."""
        from neuronwise.data.photos import load_photos
        from neuronwise.study.concept import DRAWN
        from neuronwise.study.concept_photos import shows

        assert source.data is not None
        photos = load_photos(source.data)
        for concept in concepts:
            there = [photo for photo in photos if shows(photo, concept)]
            random.Random(seed).shuffle(there)
            waiting, named = there[: DRAWN * source.photos], 0
            with progress_bar(f"captioning photos of {concept}") as bar:
                while waiting and named < source.photos:
                    # No more than can be used: none is captioned for nothing.
                    some, waiting = waiting[: source.photos - named], waiting[source.photos - named :]
                    failed = self._caption({photo.id: photo.path for photo in some})
                    for name, error in failed.items():
                        if not isinstance(error, ImageError):
                            raise error
                        self.left_out[name] = str(error)
                    named += sum(self._look(photo.id, concept) for photo in some if photo.id not in failed)
                    bar(named, source.photos)

    def _caption(
        self, photos: Mapping[str, Path], progress: Callable[[int, int], None] | None = None
    ) -> dict[str, NeuronwiseError]:
        """Caption photos that are not captioned yet, in batches; those that fail, with the error."""
        asked = {name: path for name, path in photos.items() if name not in self.runs}
        self.model = self.model or self._load()
        runs = self.model.run_many(
            list(asked.values()), self._ask.prompt, max_new_tokens=self._ask.length, heat=self._heat,
            batch_size=self._size, errors="return", progress=progress,
        )  # fmt: skip
        failed = {name: run for name, run in zip(asked, runs, strict=True) if isinstance(run, NeuronwiseError)}
        for name, run in zip(asked, runs, strict=True):
            if not isinstance(run, NeuronwiseError):
                self.runs[name], self.files[name], self.words[name] = run, asked[name].name, {}
        return failed

    def _look(self, name: str, concept: str) -> bool:
        """Whether a caption names a concept, by whatever word."""
        from neuronwise.answers.naming import names
        from neuronwise.study.concept_photos import word_for

        run = self.runs[name]
        try:
            said = run.concept(concept).word
        except TargetError:
            said = word_for(run.text, concept) if names(run.text, concept) else None
        if said is None:
            self.left_out[name] = f"its caption does not name {concept}: {run.text!r}"
            return False
        self.words[name][concept] = said
        return True


def _joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """One object of all concepts; what belongs to a concept is then under its word."""
    content = {**found[0], "concepts": [row for one in found for row in one["concepts"]]}
    if len(found) > 1:
        for name in ("photos", "left_out", "funnel"):
            content[name] = {one["concepts"][0]["word"]: one[name] for one in found}
    return content
