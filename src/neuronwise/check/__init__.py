"""Conformance: whether all that the library says of neurons holds for this very model, check by check.

Each check is a small function of a ``Subject``: it returns what it measured, raises ``Deviation`` when that is not
what it must be and ``NotApplicable`` when the model has nothing to look at. One that fails stops no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from neuronwise.check.changes import adapter, edit, saved, suppression
from neuronwise.check.heads import heads
from neuronwise.check.kept import State, placement, untouched
from neuronwise.check.passes import activations, generation, logits
from neuronwise.check.photo import heat, span
from neuronwise.check.relevance import relevance
from neuronwise.check.result import (
    FAILED,
    NOT_APPLICABLE,
    PASSED,
    Deviation,
    Measured,
    NotApplicable,
    Report,
    Result,
)  # fmt: skip
from neuronwise.check.scores import contribution, decoding, gradient, shares
from neuronwise.check.single import in_single
from neuronwise.check.subject import Subject, subject_of
from neuronwise.errors import ModelError
from neuronwise.files import versions
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted

Check = Callable[[Subject], Measured]

CHECKS: dict[str, tuple[str, Check]] = {
    "logits": ("a pass gives the model's own logits", logits),
    "activations": ("activations and value vectors reproduce each block", activations),
    "generation": ("cached generation records what one pass does", generation),
    "shares": ("exact shares add up to the logit", shares),
    "heads": ("heads add up to their attention's share", heads),
    "contribution": ("contribution is a · ⟨U, v⟩", contribution),
    "gradient": ("gradients are finite differences", gradient),
    "relevance": ("relevance adds up to the logit", relevance),
    "suppression": ("suppressing is zeroing by hand", suppression),
    "edit": ("an edit adds its numbers and comes out to the bit", edit),
    "saved": ("a saved edit loads the same", saved),
    "adapter": ("the edit's adapter does the same in peft", adapter),
    "decoding": ("neurons are read as their tokens", decoding),
    "span": ("the photo's tokens are where the photo is", span),
    "heat": ("heat has a cell for each token and the photo's shape", heat),
}
# These compare with what the model was before the first check, so they come last.
CLOSING: dict[str, tuple[str, Callable[[Subject, State], Measured]]] = {
    "untouched": ("weights, hooks and settings are as before", untouched),
    "placement": ("dtypes and devices are kept", placement),
}
NAMES = (*CHECKS, *CLOSING)


def conform(
    model: Model,
    prompted: Prompted,
    picture: Image.Image | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Run every check on a few tokens that ``model`` generates after ``prompted`` (see ``Model.prepare``).

    Some forty passes and four backward ones; the model is left as it is. What a check compares with is computed by
    hand, outside of what it checks; weights of half precision are judged in single precision where memory allows,
    so that their rounding neither hides a fault nor is one. Raises ``NeuronwiseError`` only when the model cannot be
    run at all.
    """
    before = State.of(model.module)
    about = subject_of(model, prompted, picture, seed)
    results = []
    with in_single(model.module) as single:
        fresh = Model(model.module, model.processor, name=model.name, check=False) if single else model
        judged = subject_of(fresh, prompted, picture, seed) if single else about
        then = State.of(model.module)
        for number, (name, (title, check)) in enumerate(CHECKS.items()):
            judged.run.state = None  # what a check left otherwise is for "untouched" to say, not for those after it
            results.append(_result(name, title, lambda check=check: check(judged)))
            if progress is not None:
                progress(number + 1, len(NAMES))
        judged.run.state = None
        within = _result("untouched", CLOSING["untouched"][0], lambda: untouched(judged, then))
    for name, (title, closing) in CLOSING.items():
        about.run.state = None
        found = _result(name, title, lambda closing=closing: closing(about, before))
        results.append(within if name == within.name and within.outcome == FAILED else found)
        if progress is not None:
            progress(len(results), len(NAMES))
    return Report(model.name, tuple(results), {**_record(about), "tolerance": judged.tolerance})


def _result(name: str, title: str, check: Callable[[], Measured]) -> Result:
    started = time.perf_counter()
    numbers: dict[str, float] = {}
    try:
        measured = check()
        outcome, detail, numbers = PASSED, measured.detail, dict(measured.numbers)
    except NotApplicable as reason:
        outcome, detail = NOT_APPLICABLE, str(reason)
    except Deviation as reason:
        outcome, detail, numbers = FAILED, str(reason), reason.numbers
    except Exception as error:  # whatever it is, the other checks go on
        words = str(error).strip().splitlines()
        outcome, detail = FAILED, f"raised {type(error).__name__}: {words[0] if words else 'without a word'}"
    numbers = {key: float(value) for key, value in numbers.items() if float(value) == float(value)}
    numbers = {key: min(max(value, -1e300), 1e300) for key, value in numbers.items()}  # JSON has no infinity
    return Result(name, title, outcome, detail, numbers, time.perf_counter() - started)


def _record(about: Subject) -> dict[str, Any]:
    image = about.run.image
    return {
        "architecture": type(about.model.module).__name__,
        "dtype": str(about.dtype).removeprefix("torch."),
        "tolerance": about.tolerance,
        "prompt": about.run.prompt,
        "image": None if image is None else list(image.size),
        "text": about.run.text if about.model.tokenizer is not None else None,
        "tokens": len(about.run.output_ids),
        "neurons": [str(neuron) for neuron in about.neurons],
        "seed": about.seed,
        "versions": versions(),
    }


def require_image(model: Model, image: object) -> None:
    """Raise ``ModelError`` for a model that reads photos and gets none, or one that reads none and gets one."""
    sees = reads_images(model)
    if sees and image is None:
        raise ModelError(f"{model.name} reads photos, so its check needs one: --image PHOTO.")
    if not sees and image is not None:
        raise ModelError(f"{model.name} reads text alone; leave the image out.")
    if sees and getattr(model.processor, "image_processor", None) is None:
        raise ModelError(
            f"{model.name} reads photos, but no image processor was found beside it (preprocessor_config.json); "
            "download the whole checkpoint."
        )


def reads_images(model: Model) -> bool:
    """Whether the model takes photos, by its configuration."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return type(model.config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or hasattr(model.config, "vision_config")


__all__ = [
    "CHECKS", "CLOSING", "FAILED", "NAMES", "NOT_APPLICABLE", "PASSED", "Report", "Result", "Subject", "conform",
    "reads_images", "require_image",
]  # fmt: skip
