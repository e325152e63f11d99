"""Options that several commands take, alone or in groups, and what is read from them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import Names, argument, option, refuse
from neuronwise.cli.progress import status
from neuronwise.edit.editors import EDITORS
from neuronwise.errors import NeuronwiseError
from neuronwise.files import from_json
from neuronwise.locate.methods import METHODS
from neuronwise.model.sources import SOURCES
from neuronwise.registry.arguments import LARGEST_SEED

if TYPE_CHECKING:
    from neuronwise.edit import Statistics
    from neuronwise.model import Model, Run
    from neuronwise.model.halving import BatchSize
    from neuronwise.neurons import NeuronSet

CONTINUED = 20  # tokens after a text in which a word is looked for
FIGURES = (".json", ".svg", ".png")
LAYERS = 10_000  # more than any model has
LONGEST = 10_000_000  # more positions than any model has
MOST = 10_000  # neurons of a word, each of which is read
Settings = dict[str, Any]  # by name, of whatever kind a method or an editor takes

MODEL, MODELS = "Hub id, folder, .gguf file, or a model listed below.", Names("Models", SOURCES)
ModelArgument = Annotated[str, argument(MODEL), MODELS]
ModelOption = Annotated[
    str | None, option(MODEL, "--model", "-m", show_default="builtin, or builtin-text for texts"), MODELS
]
DtypeOption = Annotated[str | None, option("float32, bfloat16 or float16.", show_default="the checkpoint's own")]
DeviceOption = Annotated[str | None, option("auto, cpu, cuda, ...: passed to transformers.", "--device-map")]
PhotoArgument = Annotated[Path | None, argument("A photo; leave it out with --text.")]
TextOption = Annotated[str | None, option("A text prompt instead of a photo, used as it is.")]
WordOption = Annotated[str | None, option("A word of the output.")]
TokenOption = Annotated[str | None, option("Any token, such as ' Paris'.", show_default="the model's answer to a text")]
SeedOption = Annotated[int, option("Random seed.", min=0, max=LARGEST_SEED)]
PlaceOption = Annotated[
    str | None, option("predicting, image or text positions.", show_default="image where there are photos")
]
BatchOption = Annotated[
    str, option("Photos or texts that are asked about together at most: a number, or auto: as many as pay.")
]
SetOption = Annotated[
    list[str] | None,
    option(
        "An option of what was chosen (method, editor, kind of evidence), such as n=10; repeat for several.", "--set"
    ),
]


@dataclass(frozen=True)
class Placement:
    """How a model is opened."""

    dtype: DtypeOption = None
    device_map: DeviceOption = None

    def load(self, name: str | None, default: str = "builtin") -> Model:
        """Open a model; raises ``NeuronwiseError`` for an unknown dtype, and as ``neuronwise.load`` does."""
        from neuronwise.model import load

        name = default if name is None else name
        with status(f"opening {name}"):
            return load(name, dtype=self.dtype, device_map=self.device_map)


@dataclass(frozen=True)
class Ask:
    """What a model is asked, and how much it answers."""

    prompt: Annotated[str | None, option("What to ask about the photo.", show_default="the model's default prompt")] = (
        None
    )
    max_new_tokens: Annotated[
        int | None,
        option("Tokens to generate.", min=0, show_default="50 for a photo; 0 for a text, or 20 with --concept"),
    ] = None
    chat: Annotated[
        bool | None,
        option("Apply the chat template.", "--chat/--no-chat", show_default="for photos, where there is one"),
    ] = None

    @property
    def length(self) -> int:
        """Tokens to generate about a photo."""
        return 50 if self.max_new_tokens is None else self.max_new_tokens

    def photo(self, model: Model, image: Path, *, heat: bool = False) -> Run:
        """Ask about a photo; ``heat`` keeps what heatmaps need."""
        with status("captioning the photo"):
            return model.run(image=image, prompt=self.prompt, max_new_tokens=self.length, chat=self.chat, heat=heat)

    def require_one(self, image: Path | None, text: str | None) -> None:
        """Refuse anything but a photo that opens or a text, before a model is loaded."""
        if (image is None) == (text is None):
            raise NeuronwiseError("Give either a photo or --text.")
        if text is not None and not text.strip():
            raise NeuronwiseError("--text is empty; write what the model should continue.")
        if text is not None and os.path.isfile(text):  # never raises, however long the text
            raise NeuronwiseError(f"--text is the name of a file, {text!r}; give a photo without --text.")
        if text is not None:
            refuse("with --text, which is the whole prompt", "prompt")
        require_photos([image])

    def require_word(self, image: Path | None, concept: str | None, target: str | None) -> None:
        """Refuse a word and a token together, and a photo with neither: what a text asks for has an answer."""
        if concept is not None and target is not None:
            raise NeuronwiseError("Give either --concept or --target.")
        if image is not None and concept is None and target is None:
            raise NeuronwiseError("Name a word of the caption: --concept WORD, or any token: --target TOKEN.")

    def run(self, model: Model, image: Path | None, text: str | None, *, look: bool) -> Run:
        """Ask about the photo, or continue the text."""
        return self.photo(model, image) if image is not None else self.text(model, text or "", look=look)

    def text(self, model: Model, text: str, *, look: bool) -> Run:
        """Continue a text, unless the user says otherwise by nothing, or far enough to ``look`` for a word."""
        length = (CONTINUED if look else 0) if self.max_new_tokens is None else self.max_new_tokens
        with status("reading the text"):
            return model.run(prompt=text, max_new_tokens=length, chat=bool(self.chat))


@dataclass(frozen=True)
class Words:
    """What to look for."""

    concept: Annotated[
        list[str] | None, option("A word of the output; repeat for several.", show_default="all nouns")
    ] = None
    target: Annotated[
        list[str] | None, option("Any token, generated or not, such as ' Paris'; repeat for several.")
    ] = None
    position: Annotated[
        int | None, option("The generated token, counted from 0, at which targets are scored.", min=0)
    ] = None
    top: Annotated[int, option("Neurons for each word.", min=1, max=MOST)] = 100
    specific: Annotated[
        float,
        option(
            "Rank a word's neurons by their score minus this times the mean size of their scores for the others.",
            min=0,
        ),
    ] = 0.0

    @property
    def concepts(self) -> list[str]:
        """The words, each once."""
        return list(dict.fromkeys(self.concept or ()))

    @property
    def targets(self) -> list[str]:
        """The tokens, each once."""
        return list(dict.fromkeys(self.target or ()))


@dataclass(frozen=True)
class Scoring:
    """How neurons are scored."""

    method: Annotated[
        str | None,
        option(
            "How neurons are scored, by a method listed below, with the options that you give.",
            show_default="contribution with --normalize, --contrast 10, --baseline self and --set focus=3.5",
        ),
        Names("Methods", METHODS),
    ] = None
    settings: SetOption = None
    activation: Annotated[str | None, option("ffn (the input of W_down) or gate.", show_default="ffn")] = None
    normalize: Annotated[
        bool | None, option("Score exact shares of the logit.", "--normalize/--no-normalize", show_default=False)
    ] = None
    contrast: Annotated[
        list[str] | None,
        option("Subtract the score of this token, or of the N likeliest others: a number; none. Repeat for several."),
    ] = None
    baseline: Annotated[
        str | None,
        option("Measure activations from their mean over: self (texts that the model writes), a saved folder; none."),
    ] = None
    published: Annotated[
        bool, option("The published procedure (Pan et al. 2024): plain contribution, tokens by U·v.", "--published")
    ] = False
    seed: SeedOption = 0

    @property
    def chosen(self) -> str:
        """The method's name."""
        return self.method or "contribution"

    @property
    def by_default(self) -> bool:
        """Whether the user leaves the choice of the method to us."""
        return self.method is None and not self.published

    @property
    def form(self) -> str:
        """How tokens are read."""
        return "logits" if self.published else "cosine"

    def checked(self, *beside: str) -> Settings:
        """``options`` of a method that scores a run; raises ``MethodError`` for others, before a model is opened.

        ``beside`` names settings that are not the method's.
        """
        if not METHODS[self.chosen].scores_all:
            known = ", ".join(name for name, method in METHODS.items() if method.scores_all)
            raise NeuronwiseError(f"--method {self.chosen} does not score all neurons of one run; use one of {known}.")
        options = self.options()
        if self.published and (self.method is not None or options.keys() - {"activation"}):
            raise NeuronwiseError("--published is a procedure of its own; it takes --activation and no other option.")
        if "seed" in options:
            raise NeuronwiseError("Use --seed for the random seed, not --set seed=…")
        METHODS[self.chosen].check({name: value for name, value in options.items() if name not in beside})
        return options

    def options(self) -> Settings:
        """The method's options; raises ``NeuronwiseError`` for what cannot be read."""
        options = parse_settings(self.settings)
        if self.activation is not None:
            options["activation"] = self.activation
        if self.normalize is not None:
            options["normalize"] = self.normalize
        if self.contrast:
            options["contrast"] = parse_contrast(self.contrast)
        if self.baseline is not None:
            options["baseline"] = None if self.baseline == "none" else self.baseline
        return options

    def gather(self, model: Model, options: Settings) -> None:
        """Gather the model's own baseline where the scores need it, and say so: the first time takes a while."""
        from neuronwise.errors import ModelError
        from neuronwise.locate import Baseline

        default = self.by_default and options.get("activation", "ffn") == "ffn"
        if options.get("baseline", "self" if default else None) == "self":
            with status("measuring what neurons usually do (once for a model)"), contextlib.suppress(ModelError):
                Baseline.gather(model, "self")  # a model that does not generate has none, and the result says so

    def locate(self, model: Model, run: Run, concept: str, top: int) -> NeuronSet:
        """The ``top`` neurons of a word, by the method that is named or by default."""
        from neuronwise.locate import locate
        from neuronwise.locate.default import locate_by_default

        options = self.checked()
        self.gather(model, options)
        if self.by_default:
            return locate_by_default(model, run, concept, top, options)
        if "seed" in METHODS[self.chosen].options:
            options["seed"] = self.seed
        return locate(model, run, concept, method=self.chosen, top=top, **options)


@dataclass(frozen=True)
class EditorChoice:
    """An editor with what it takes."""

    editor: Annotated[str, option("The editor, listed below."), Names("Editors", EDITORS)] = "fine"
    settings: SetOption = None
    statistics: Annotated[Path | None, option("Folder of key statistics from `neuronwise statistics`.")] = None

    def changes(self, seed: int | None = None) -> Settings:
        """The settings that the user changes; raises ``NeuronwiseError`` for what the editor does not take."""
        return EDITORS[self.editor].options(parse_settings(self.settings), statistics=self.statistics, seed=seed)

    def read_statistics(self) -> Statistics | None:
        """The key statistics that the user names."""
        from neuronwise.edit import Statistics

        return None if self.statistics is None else Statistics(self.statistics)


def parse_settings(given: Sequence[str] | None) -> Settings:
    """ "n=10" → {"n": 10}: values as JSON writes them, "none" for None, anything else a text."""
    found: Settings = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name.strip().isidentifier():
            raise NeuronwiseError(f"--set takes name=value, such as n=10; not '{one}'.")
        name = name.strip()
        if name in found:
            raise NeuronwiseError(f"--set {name} is given twice; give it once.")
        try:
            found[name] = None if value.strip().lower() == "none" else from_json(value)
        except ValueError:
            found[name] = value
    return found


def parse_batch(text: str) -> BatchSize:
    """A number from 1, or "auto"; raises ``NeuronwiseError`` for anything else."""
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"0*[1-9]\d{0,5}", text):
        raise NeuronwiseError(f"--batch-size is {text!r}; give a number from 1, or auto.")
    return int(text)


def parse_layers(text: str) -> list[int]:
    """Layers written as "5", "4-8" or "3,5-7"; raises ``NeuronwiseError`` for anything else."""
    chosen = _parse_numbers(text, "layers", LAYERS)
    if chosen is None:
        raise NeuronwiseError(f"--layers is {text!r}; write layers such as 5, 4-8 or 3,5,7.")
    return chosen


def parse_positions(text: str) -> str | list[int]:
    """Positions written as "3", "3,7" or "0-4,7"; any other word as it is."""
    numbers = _parse_numbers(text, "positions", LONGEST)
    return text if numbers is None else numbers


def _parse_numbers(text: str, what: str, limit: int) -> list[int] | None:
    """Numbers and ranges of them, in order; None for anything else. Raises ``NeuronwiseError`` from ``limit`` on."""
    chosen: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part)
        if found is None or (found[2] is not None and int(found[2]) < int(found[1])):
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        if last >= limit:
            raise NeuronwiseError(f"--{what} is {text!r}; no model has {limit} {what}.")
        chosen |= set(range(first, last + 1))
    return sorted(chosen)


def parse_box(text: str) -> list[float]:
    """A box "x,y,width,height" in pixels; raises ``NeuronwiseError`` for anything else."""
    try:
        x, y, width, height = (float(one) for one in text.split(","))
    except ValueError:
        raise NeuronwiseError(f"--box takes X,Y,WIDTH,HEIGHT in pixels, such as 10,20,100,80; not '{text}'.") from None
    return [x, y, width, height]


def require_photos(images: Iterable[Path | None]) -> None:
    """Refuse files that are not photos before a model is loaded; raises ``ImageError``."""
    from neuronwise.images import open_image

    for image in images:
        if image is not None:
            open_image(image)


def require_folder(folder: Path | None, *, new: bool = False) -> None:
    """Refuse a folder that cannot be written, or, where it has to be ``new``, one that holds anything."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise NeuronwiseError(f"'{folder}' is a file; name a folder.")
    if new and folder.exists() and any(folder.iterdir()):
        raise NeuronwiseError(f"'{folder}' already exists; name a new folder.")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise NeuronwiseError(f"The folder '{parent}' cannot be written to.")


def require_file(file: Path | None, *suffixes: str) -> None:
    """Refuse a file of another suffix than ``suffixes``, if there are some, or in a folder that is missing."""
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        raise NeuronwiseError(f"--out is '{file}'; end it in {', '.join(suffixes[:-1])} or {suffixes[-1]}.")
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder; name a file" if file.is_dir() else f"needs the folder '{file.parent}'; make it first"
        raise NeuronwiseError(f"--out {file} {why}.")


def require_studies() -> None:
    """Studies need pydantic and PyYAML beside pyarrow; raises ``NeuronwiseError`` where they are missing."""
    try:
        import pydantic  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise NeuronwiseError("Studies need pydantic and PyYAML: pip install 'neuronwise[study]'.") from error


def parse_contrast(given: list[str]) -> int | list[str] | None:
    """A number of alternatives, or words; what looks like a number is one, and "none" is no contrast."""
    if given == ["none"]:
        return None
    numbers = [word for word in given if re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", word)]
    if not numbers:
        return given
    if len(given) > 1 or not re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*", numbers[0]):
        raise NeuronwiseError(f"--contrast takes words, or one whole number from 1; not {', '.join(given)}.")
    return int(numbers[0])
