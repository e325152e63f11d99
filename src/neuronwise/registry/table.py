"""Tables of named things: names are known at once, objects are imported on use, other packages add their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from neuronwise.errors import NeuronwiseError
from neuronwise.files.kinds import a

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to objects, each of which is imported when it is first asked for.

    >>> METHODS: Registry[Method] = Registry(
    ...     "method",
    ...     {"contribution": "neuronwise.locate.contribution:METHOD"},
    ...     kind="neuronwise.locate.method:Method",
    ...     group="neuronwise.methods",
    ... )
    >>> METHODS["contribution"]

    ``entries`` maps a name to "module:attribute". ``kind`` is the class of the objects, named in the same way, and
    imported with the first of them. ``group`` is the entry-point group in which other packages name
    theirs. ``noun`` and ``plural`` are what error messages call the things. ``error`` is raised for an unknown name,
    listing the known ones, for a name that is given twice, naming both givers, for what cannot be imported, for an
    object that is of another class, and for one that calls itself otherwise (``name``) than the table does: each
    when that name is asked for, so that a package that goes wrong leaves the others usable.
    """

    def __init__(
        self,
        noun: str,
        entries: Mapping[str, str],
        *,
        kind: str = "builtins:object",
        group: str | None = None,
        plural: str | None = None,
        error: Callable[[str], NeuronwiseError] = NeuronwiseError,
    ) -> None:
        self.noun = noun
        self.plural = plural or f"{noun}s"
        self.group = group
        self._kind = EntryPoint(noun, kind, "")
        self._error = error
        self._entries = {name: EntryPoint(name, value, group or "") for name, value in entries.items()}
        self._rivals: dict[str, EntryPoint] = {}
        self._objects: dict[str, T] = {}
        self._searched = group is None

    def add(self, name: str, thing: T) -> None:
        """Add an object under a new name, for this process.

        Raises the registry's error for a name that is taken, and for an object that does not belong under it.
        """
        if name in self._known():
            giver = _giver(self._known()[name])
            raise self._error(f"There is already a {self.noun} {name!r}, from {giver}; choose another name.")
        value = f"{getattr(thing, '__module__', '__main__')}:{getattr(thing, '__qualname__', name)}"
        entry = EntryPoint(name, value, self.group or "")
        self._require_fitting(entry, thing)
        self._entries[name] = entry
        self._objects[name] = thing

    def remove(self, name: str) -> None:
        """Take out what ``add`` put in; raises the registry's error for an unknown name."""
        self._entry(name)
        del self._entries[name]
        self._objects.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """The object of a name, imported now if it has not been."""
        if name not in self._objects:
            entry = self._entry(name)
            try:
                thing = entry.load()
            except NeuronwiseError:
                raise
            except Exception as error:  # whatever a module of another package does when it is imported
                why = str(error) or type(error).__name__
                giver = _giver(entry)
                raise self._error(f"The {self.noun} {name!r} from {giver} cannot be imported: {why}.") from error
            self._require_fitting(entry, thing)
            self._objects[name] = thing
        return self._objects[name]

    def __iter__(self) -> Iterator[str]:
        """The names, imported or not: the own ones in the order of the table, then those of other packages."""
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        """Whether the name is known; imports nothing."""
        return name in self._known()

    def _require_fitting(self, entry: EntryPoint, thing: object) -> None:
        """Raise the registry's error for an object of another class than the table's, or of another name."""
        kind: type = self._kind.load()
        what = f"The {self.noun} {entry.name!r} from {_giver(entry)}"
        if not isinstance(thing, kind):
            given = f"the class {thing.__name__}" if isinstance(thing, type) else a(type(thing).__name__)
            raise self._error(f"{what} is {given}, not {a(kind.__name__)}.")
        own = getattr(thing, "name", entry.name)
        if own != entry.name:
            raise self._error(f"{what} is called {own!r} in its own code; give it one name in both places.")

    def _entry(self, name: str) -> EntryPoint:
        known = self._known()
        if name not in known:
            raise self._error(f"There is no {self.noun} {name!r}; the {self.plural} are {', '.join(known)}.")
        if name in self._rivals:
            givers = f"by {_giver(known[name])} and by {_giver(self._rivals[name])}"
            raise self._error(f"The {self.noun} {name!r} is given twice, {givers}; uninstall one of these packages.")
        return known[name]

    def _known(self) -> dict[str, EntryPoint]:
        """The names with what they import, those of other packages included; these are looked up once."""
        if not self._searched:
            self._searched = True
            for found in sorted(entry_points(group=self.group or ""), key=lambda entry: entry.name):
                if self._entries.setdefault(found.name, found).value != found.value:
                    self._rivals[found.name] = found
        return self._entries


def _giver(entry: EntryPoint) -> str:
    """Who gives an entry: "the package vendor (vendor.methods:METHOD)"."""
    return f"the package {entry.dist.name} ({entry.value})" if entry.dist is not None else entry.value
