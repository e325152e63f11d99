"""Where facts come from, for the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import option
from neuronwise.cli.output import note

if TYPE_CHECKING:
    from neuronwise.data.facts import Facts


@dataclass(frozen=True)
class FactSource:
    """How facts are read."""

    form: Annotated[str | None, option("The form of the facts.", show_default="that which recognizes most of them")] = (
        None
    )
    images: Annotated[
        Path | None, option("The folder that photos of facts are named from.", show_default="the file's own")
    ] = None

    def load(self, source: str, seed: int) -> Facts:
        """Read them, and say on standard error what was read."""
        from neuronwise.data.facts import load_facts

        facts = load_facts(source, self.form, seed=seed, images=self.images)
        note(str(facts))
        return facts
