"""Tables of named things: names are known at once, objects are imported on use, other packages add their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from neuronwise.errors import NeuronwiseError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to objects that are imported when they are first asked for.

    >>> METHODS: Registry[Method] = Registry(
    ...     "method", {"contribution": "neuronwise.locate.contribution:METHOD"}, group="neuronwise.methods"
    ... )
    >>> METHODS["contribution"]

    ``entries`` maps a name to "module:attribute". ``group`` is the entry-point group in which other packages name
    theirs. ``noun`` and ``plural`` are what error messages call the things; ``error`` is the error that an unknown
    name raises, listing the known ones. A name that is given twice is refused, with both of its givers.
    """

    def __init__(
        self,
        noun: str,
        entries: Mapping[str, str],
        *,
        group: str | None = None,
        plural: str | None = None,
        error: Callable[[str], NeuronwiseError] = NeuronwiseError,
    ) -> None:
        self.noun = noun
        self.plural = plural or f"{noun}s"
        self.group = group
        self._error = error
        self._targets = dict(entries)
        self._objects: dict[str, T] = {}
        self._searched = group is None

    def add(self, name: str, thing: T) -> None:
        """Add an object under a new name, for this process; raises the registry's error for a name that is taken."""
        if name in self._known():
            raise self._error(f"There is a {self.noun} {name!r} already ({self._known()[name]}); choose another name.")
        self._targets[name] = f"{type(thing).__module__}:{type(thing).__qualname__}"
        self._objects[name] = thing

    def remove(self, name: str) -> None:
        """Take out what ``add`` put in."""
        self._known().pop(name)
        self._objects.pop(name, None)

    def __getitem__(self, name: str) -> T:
        if name not in self._objects:
            self._objects[name] = self._opened(name)
        return self._objects[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def _opened(self, name: str) -> T:
        known = self._known()
        if name not in known:
            raise self._error(f"There is no {self.noun} {name!r}; the {self.plural} are {', '.join(known)}.")
        module, _, attribute = known[name].partition(":")
        try:
            thing: T = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise self._error(f"The {self.noun} {name!r} ({known[name]}) cannot be imported: {error}.") from error
        return thing

    def _known(self) -> dict[str, str]:
        """Names and where they come from, those of other packages included; these are looked up once."""
        if not self._searched:
            for found in entry_points(group=self.group or ""):
                if found.name in self._targets and self._targets[found.name] != found.value:
                    raise self._error(
                        f"The {self.noun} {found.name!r} is given twice: by {self._targets[found.name]} and by "
                        f"{found.value}; uninstall one of these packages."
                    )
                self._targets[found.name] = found.value
            self._searched = True
        return self._targets
