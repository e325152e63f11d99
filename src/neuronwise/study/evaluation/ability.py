"""What else a model can do, before and after edits: a text of the user's, tasks, a neutral text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronwise.answers.perplexity import perplexity
from neuronwise.edit.verdict import neutral_perplexity
from neuronwise.errors import DataError, reason
from neuronwise.files import read_bytes
from neuronwise.measure.figures import Figures
from neuronwise.measure.tasks import Tasks
from neuronwise.model.model import Model
from neuronwise.study.store import Row


@dataclass(frozen=True)
class Ability:
    """``neutral``: the perplexity of a neutral text; ``text``: that of this one; ``tasks`` of lm-evaluation-harness."""

    neutral: bool = False
    text: str | None = None
    tasks: Tasks | None = None

    @classmethod
    def of(cls, neutral: bool, file: str | None, tasks: Sequence[str], limit: int | None) -> Ability:
        """With the text of a file and tasks by their names; raises ``DataError`` and ``MethodError``."""
        text = None if file is None else read_passage(file)
        return cls(neutral, text, Tasks(tasks, limit) if tasks else None)

    def figures(self, model: Model) -> Figures:
        """All of them, as the model is now; none where nothing is wanted."""
        found: Figures = {}
        if self.neutral:
            found["perplexity"] = neutral_perplexity(model)
        if self.text is not None:
            found["perplexity_text"] = perplexity(model, self.text)
        return found if self.tasks is None else {**found, **self.tasks.measure(model)}


def read_passage(file: str) -> str:
    """A text file; raises ``DataError`` for one that cannot be read, is not UTF-8, or empty."""
    try:
        text = read_bytes(Path(file)).decode("utf-8")
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}' is not text in UTF-8 (byte {error.start}).") from error
    if not text.strip():
        raise DataError(f"'{file}' is empty; give a text whose perplexity can be measured.")
    return text.strip()


def passage_record(file: str) -> Row:
    """What a manifest holds of a text."""
    return {"file": Path(file).name, "sha256": hashlib.sha256(read_passage(file).encode()).hexdigest()}
