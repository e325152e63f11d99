"""Lazy packages: their public names are known at once and imported when they are first asked for."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def face(package: str) -> None:
    """Make a package lazy; its ``__init__.py`` holds nothing else.

    >>> face(__name__)

    The stub ``__init__.pyi`` beside it lists the public names, for type checkers and for this function:
    ``from neuronwise.read import decode as decode``, or ``from neuronwise import edit as edit`` for a submodule.
    """
    module = sys.modules[package]
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    lines = [line for line in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(line, ast.ImportFrom)]
    homes = {alias.name: str(line.module) for line in lines for alias in line.names}
    module.__dict__.update(__all__=sorted(homes), __homes__={n: home for n, home in homes.items() if home != package})
    module.__class__ = Face


class Face(ModuleType):
    """A package that imports what its stub lists, and its submodules, on first use.

    The import system binds each submodule in its package. Where a public function has the same name
    (``neuronwise.locate``), the function keeps it.
    """

    __all__: list[str]
    __homes__: dict[str, str]

    def __getattr__(self, name: str) -> object:
        """Import a public name or a submodule; called only for what is not bound yet."""
        if name in self.__homes__:
            thing = getattr(import_module(self.__homes__[name]), name)
            self.__dict__[name] = thing
            return thing
        submodule = f"{self.__name__}.{name}"
        if not name.startswith("_"):
            try:
                return import_module(submodule)
            except ModuleNotFoundError as error:
                if error.name != submodule:
                    raise
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        """Bind a name, unless it is a submodule that would take the place of a public function."""
        if not (name in self.__homes__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """The public names, imported or not."""
        return self.__all__
