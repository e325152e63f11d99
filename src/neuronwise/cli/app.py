"""The application, and what a command is: a function of options, single or in groups, that returns its output."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import ArgumentInfo, OptionInfo

from neuronwise._version import __version__
from neuronwise.cli.output import print_json, stdout_kept
from neuronwise.errors import NeuronwiseError

_TYPED: ContextVar[Mapping[str, str] | None] = ContextVar("_TYPED", default=None)  # parameter → option as typed
_EMPTY: ContextVar[Set[str]] = ContextVar("_EMPTY", default=frozenset())  # parameters that were typed as ""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the neurons in which a transformer keeps a piece of knowledge, and read them.",
)


@app.callback(invoke_without_command=True)
def version(version: Annotated[bool, option("Print the version.", "--version")] = False) -> None:
    """Print the version where it is asked for."""
    if version:
        print(__version__)
        raise typer.Exit


def option(text: str, *names: str, **settings: Any) -> OptionInfo:
    """What a command takes by name: its help, its names if they are not the parameter's, and typer's settings."""
    return typer.Option(*names, help=text, **settings)


def argument(text: str, **settings: Any) -> ArgumentInfo:
    """What a command takes by place: its help, and typer's settings."""
    return typer.Argument(help=text, **settings)


@dataclass(frozen=True, eq=False)
class Names:
    """The names that an option takes, listed below all options, where no column is too narrow for a whole name.

    >>> Annotated[str, option("How neurons are scored."), Names("Methods", METHODS)]
    """

    title: str
    names: Iterable[str]

    def __str__(self) -> str:
        return f"{self.title}: {', '.join(self.names)}."


@dataclass(frozen=True)
class Output:
    """What a command found: ``content`` is printed with ``--json``, ``show`` prints it for people."""

    content: Mapping[str, object]
    show: Callable[[], None]
    status: int = 0


class _Command(TyperCommand):
    """A command that knows what was typed, and takes an option of one value once.

    Its help ends with ``names``, which are looked up then: those of other packages take a while to find.
    """

    names: Sequence[Names] = ()

    @property
    def epilog(self) -> str | None:
        """What its help ends with."""
        return "\n\n".join(map(str, self.names)) or None

    @epilog.setter
    def epilog(self, _: str | None) -> None:
        """As the library sets it: to nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does; raises ``NeuronwiseError`` for an option of one value that is typed twice."""
        given, _, named = self.make_parser(ctx).parse_args(args=list(args))
        order = [one for one in named if one.param_type_name == "option"]
        _TYPED.set({str(one.name): one.opts[0] for one in order})
        single = [one.opts[0] for one in order if not (one.multiple or getattr(one, "is_flag", False))]
        twice = next((name for name, count in Counter(single).items() if count > 1), None)
        if twice is not None:
            raise NeuronwiseError(f"{twice} is given twice; give it once.")
        _EMPTY.set({name for name, value in given.items() if value == ""})
        return super().parse_args(ctx, args)


def typed(*parameters: str) -> bool:
    """Whether any of these options was typed."""
    return any(name in (_TYPED.get() or {}) for name in parameters)


def refuse(why: str, *parameters: str) -> None:
    """Raise ``NeuronwiseError`` for an option that was typed though nothing reads it here.

    >>> refuse("without --data", "photos")  # --photos has no effect without --data; leave it out.
    """
    typed = _TYPED.get() or {}
    idle = [typed[name] for name in parameters if name in typed]
    if idle:
        have, them = ("has", "it") if len(idle) == 1 else ("have", "them")
        raise NeuronwiseError(f"{' and '.join(idle)} {have} no effect {why}; leave {them} out.")


def command(group: typer.Typer) -> Callable[[Callable[..., Output]], Callable[..., Output]]:
    """Register a function as a command of a group.

    >>> @command(app)
    ... def decode(neurons: list[str], placement: Placement) -> Output: ...

    A parameter that is a dataclass is a group of options, one for each field. Every command takes ``--json``. While
    the function runs, what libraries print goes to standard error.
    """

    def register(function: Callable[..., Output]) -> Callable[..., Output]:
        def run(*, as_json: bool, **given: object) -> None:
            unnamed = [name for name in _EMPTY.get() if isinstance(given.get(name), Path)]
            if unnamed:  # it would be the folder one is in
                name = (_TYPED.get() or {}).get(unnamed[0], unnamed[0].upper())  # an argument has no option's name
                raise NeuronwiseError(f"{name} is empty; name a file or folder.")
            with stdout_kept():
                output = function(**_grouped(function, given))
            if as_json:
                print_json(output.content)
            else:
                output.show()
            if output.status:
                raise typer.Exit(output.status)

        parameters = {parameter.name: parameter for parameter in _options(function)}
        run.__name__, run.__doc__ = function.__name__.rstrip("_"), function.__doc__  # import_ is named "import"
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        run.__dict__["__signature__"] = inspect.Signature(list(parameters.values()))
        listed = [one for parameter in parameters.values() for one in get_args(parameter.annotation)[1:]]
        names = [one for one in listed if isinstance(one, Names)]
        group.command(cls=type("_Listing", (_Command,), {"names": names}))(run)
        return function

    return register


def _options(function: Callable[..., Output]) -> Iterator[inspect.Parameter]:
    """The parameters as typer reads them: one for each option, ``--json`` last."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if is_dataclass(kind):
            own = get_type_hints(kind, include_extras=True)
            for field in fields(kind):
                yield _option(field.name, own[field.name], field.default)
        else:
            yield _option(name, kind, parameter.default)
    yield _option("as_json", Annotated[bool, option("Print one JSON object and nothing else.", "--json")], False)


def _option(name: str, kind: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _grouped(function: Callable[..., Output], given: Mapping[str, object]) -> dict[str, object]:
    """The arguments of the function, options of a group put together."""
    arguments: dict[str, object] = {}
    for name, kind in get_type_hints(function).items():
        if isinstance(kind, type) and is_dataclass(kind) and kind is not Output:
            arguments[name] = kind(**{field.name: given[field.name] for field in fields(kind)})
        elif name in given:
            arguments[name] = given[name]
    return arguments
