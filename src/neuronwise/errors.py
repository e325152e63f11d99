"""What a user can get wrong: one sentence each, saying what was wrong and what would work."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator

LONGEST = 300  # characters of another library's words that are repeated


class NeuronwiseError(Exception):
    """Anything a user can mend: a wrong input, name or file. The shell prints it and exits with status 2.

    It is one line: characters that cannot be seen, such as line breaks in a name that a user gave, are escaped.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """A text with escapes for characters that cannot be seen, such as line breaks in a name that a user gave."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def reason(error: BaseException) -> str:
    """The words of another library's error in one line; of the file system's, what went wrong without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return textwrap.shorten(str(error) or type(error).__name__, LONGEST, placeholder=" …")


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the processor's or an accelerator's."""
    return isinstance(error, MemoryError) or any(mark in str(error).lower() for mark in _NO_MEMORY)


@contextlib.contextmanager
def told(error: Callable[[str], NeuronwiseError], failure: str) -> Iterator[None]:
    """The boundary to other libraries: what they raise in the body becomes ``error``, with ``failure`` and the reason.

    >>> with told(ImageError, "The photo 'a.jpg' is damaged"):
    ...     image.load()

    Our own errors pass as they are, and so does a lack of memory, of which what was given is not the cause.
    """
    try:
        yield
    except NeuronwiseError:
        raise
    except Exception as problem:
        if is_out_of_memory(problem):
            raise
        raise error(f"{failure}: {reason(problem).rstrip('.')}.") from problem


class ArgumentError(NeuronwiseError, TypeError):
    """An argument of another kind than the function takes."""


class ImageError(NeuronwiseError):
    """An image that is missing, truncated or no image at all."""


class ModelError(NeuronwiseError):
    """A checkpoint that cannot be opened, or a model without addressable feed-forward neurons."""


class ModelUnavailable(ModelError):
    """A model whose published parts cannot be had right now."""


class PromptError(NeuronwiseError):
    """A prompt that is empty or does not fit the model."""


class TargetError(NeuronwiseError):
    """A target or concept that the vocabulary or the caption does not have."""


class MethodError(NeuronwiseError):
    """An unknown method, or one whose options do not fit the model or the run."""


class NeuronError(NeuronwiseError):
    """A neuron that is misspelled or that the model does not have."""


class NonFiniteError(NeuronwiseError):
    """Scores or deltas with NaN or infinity: refused, never saved."""


class EditError(NeuronwiseError):
    """An edit that is damaged, does not fit the model, or is applied or reverted when it cannot be."""


class DataError(NeuronwiseError):
    """A dataset's file or folder that is missing, damaged or of an unknown form."""


class StudyError(NeuronwiseError):
    """A study's folder that is damaged, of another recipe, in use, or cannot be written."""


class IndexingError(NeuronwiseError):
    """An index of neurons that is damaged, unfinished, of another model or other data, in use, or cannot be written."""


class NothingToStudy(StudyError):
    """Facts or photos of which a study can use none."""
