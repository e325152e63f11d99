"""What an editor of facts is: a function, its settings and presets with their sources, what it does, what it cites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from neuronwise.edit.edit import Edit
from neuronwise.edit.presets import DEPTHS, Preset, layers_of
from neuronwise.edit.settings import checked, require_range, require_settings
from neuronwise.errors import MethodError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


@dataclass(frozen=True)
class Editor(Generic[S]):
    """``function(model, facts, settings=None, **changes)`` gives the edit of one fact or of several.

    ``presets`` maps families of models to their settings, "default" for the others; ``layers`` says which layers are
    taken where settings name none; ``says`` is what it does, in one sentence; ``cites`` the paper or where it comes
    from. ``statistics``: the function takes key statistics too. ``weights``: what it makes is changes of weights,
    which checkpoints and adapters can hold. Raises ``MethodError`` for presets that the settings would refuse.
    """

    name: str
    function: Callable[..., Edit]
    settings: type[S]
    presets: Mapping[str, Preset[S]]
    layers: str
    says: str
    cites: str
    statistics: bool = False
    weights: bool = True

    def __post_init__(self) -> None:
        for name, preset in self.presets.items():
            try:
                require_range(preset.settings)
            except MethodError as error:
                raise MethodError(
                    f"The preset {name!r} of the editor {self.name!r}: {error} "
                    "A setting that may be negative is a field(…, metadata=SIGNED)."
                ) from error

    def options(
        self,
        changes: Mapping[str, object],
        settings: object = None,
        *,
        statistics: object = None,
        seed: int | None = None,
    ) -> dict[str, object]:
        """``changes`` as the function takes them, checked before there is a model.

        ``seed`` is added where the editor draws at random and neither ``settings`` nor ``changes`` says how. Raises
        ``MethodError`` for unknown names, values that do not fit, settings of another editor, and key statistics that
        it does not use.
        """
        if statistics is not None and not self.statistics:
            raise MethodError(f"The editor {self.name!r} uses no key statistics; leave them out.")
        found = checked(self.settings, changes)
        require_settings(self.settings, settings)
        require_range(replace(settings if isinstance(settings, self.settings) else self.settings(), **found))
        seeded = seed is not None and settings is None and any(field.name == "seed" for field in fields(self.settings))
        return {"seed": seed, **found} if seeded else found

    def changed(self, settings: S) -> dict[str, object]:
        """The settings that are other than by default, layers left out."""
        default = asdict(self.presets["default"].settings)
        given = asdict(settings)
        return {name: given[name] for name in given if given[name] != default[name] and name not in ("layer", "layers")}

    def table(self) -> str:
        """The presets in Markdown, as ``docs/presets.md`` shows them."""
        default = asdict(self.presets["default"].settings)
        usual = ", ".join(f"{key}={_shown(value)}" for key, value in default.items() if not isinstance(value, tuple))
        lines = [f"### {self.name}", "", f"By default: {usual}.", ""]
        lines += ["| preset | layers | other than by default | from |", "|---|---|---|---|"]
        for name, preset in sorted(self.presets.items(), key=lambda item: (item[0] == "default", item[0])):
            layers = self.layers_taken(preset.settings)
            layers += f" of {DEPTHS[name]}" if layers_of(preset.settings) and name in DEPTHS else ""
            others = ", ".join(f"{key}={value}" for key, value in self.changed(preset.settings).items()) or "–"
            lines.append(f"| {name} | {layers} | {others} | {preset.source} |")
        return "\n".join([*lines, ""])

    def layers_taken(self, settings: S) -> str:
        """ "4–8" for a range of layers, "5" for one, the editor's rule where settings name none."""
        named = layers_of(settings)
        if not named:
            return self.layers
        return str(named[0]) if len(named) == 1 else f"{named[0]}–{named[-1]}"


def _shown(value: object) -> object:
    """A value as the table shows it: texts with blanks or line breaks as they are written."""
    return repr(value) if isinstance(value, str) and value.split() != [value] else value
