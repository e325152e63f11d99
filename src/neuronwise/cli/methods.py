"""The command that lists the methods of locating neurons, and what can be set of each."""

from __future__ import annotations

from inspect import signature
from typing import Annotated, TypedDict

from neuronwise.cli.app import Output, app, argument, command
from neuronwise.cli.output import print_table
from neuronwise.files.kinds import described
from neuronwise.locate.method import Method
from neuronwise.locate.methods import METHODS
from neuronwise.registry.arguments import kinds_of

SCHEMA = "neuronwise.methods/1"
_LOOKS_AT: dict[str, str] = {
    "run": "one run",
    "inpainted": "one run, and its photo without the object",
    "twin": "one run, and another photo or prompt",
    "among": "one run, among given neurons",
    "photos": "photos, with and without the object",
}


class OptionRow(TypedDict):
    """One option of a method."""

    option: str
    takes: str
    default: str


class Row(TypedDict):
    """One method."""

    method: str
    score: str
    source: str
    needs: str
    control: bool
    options: list[OptionRow]


@command(app)
def methods(
    *,
    name: Annotated[str | None, argument("Show the options of this method.", show_default="all methods")] = None,
) -> Output:
    """List the methods that score neurons, those of other packages included, or show the options of one."""
    rows = [_row(METHODS[found]) for found in ([name] if name else METHODS)]

    def show() -> None:
        if name:
            _show_one(rows[0])
        else:
            names = ["method", "score", "looks at", "options"]
            print_table("", names, [[r["method"], r["score"], _LOOKS_AT[r["needs"]], _options(r)] for r in rows])

    return Output({"schema": SCHEMA, "methods": rows}, show)


def _row(method: Method) -> Row:
    taker = method.function if method.settings is None else method.settings.__init__
    kinds, parameters = kinds_of(taker), signature(taker).parameters
    options: list[OptionRow] = [
        {"option": one, "takes": described(kinds[one]), "default": _shown(parameters[one].default)}
        for one in method.options
    ]
    return {
        "method": method.name, "score": method.meaning.format(token="the token"), "source": method.source,
        "needs": method.needs, "control": method.control, "options": options,
    }  # fmt: skip


def _show_one(row: Row) -> None:
    print(f"{row['method']}: {row['score']}." + (f" {row['source']}." if row["source"] else ""))
    if not row["options"]:
        print("It has no options.")
        return
    print_table("", ["option", "takes", "default"], [[o["option"], o["takes"], o["default"]] for o in row["options"]])


def _shown(default: object) -> str:
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _options(row: Row) -> str:
    return ", ".join(one["option"] for one in row["options"]) or "–"
