"""Importing neuronwise and asking for help load no heavy library, and names mean the same in any order."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import neuronwise as nw

HEAVY = {"torch", "transformers", "pandas", "numpy", "matplotlib", "PIL"}


def fresh(code: str, *arguments: str) -> str:
    """What a new Python process prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADED = f"import sys; print('loaded:', *sorted({HEAVY} & set(sys.modules)))"


@pytest.mark.parametrize("module", ["", ".errors", ".registry", ".neurons", ".files", ".cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    assert fresh(f"import neuronwise{module}; {LOADED}") == "loaded:"


HELP = """
import sys, typer
from neuronwise import cli

def commands(group, path):
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield [*path, name]
        yield from commands(command, [*path, name])

asked = [["--version"], ["--help"], *([*path, "--help"] for path in commands(typer.main.get_command(cli.app), []))]
assert len(asked) > 15
for arguments in asked:
    sys.argv = ["neuronwise", *arguments]
    try:
        cli.main()
    except SystemExit as leaving:
        assert not leaving.code, arguments
"""


def test_no_help_loads_a_heavy_library() -> None:
    shown = fresh(HELP + LOADED)
    assert "Usage: neuronwise edit fact" in shown
    assert shown.splitlines()[-1] == "loaded:"


def test_completion_knows_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_NEURONWISE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "neuronwise de")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert fresh("import sys; sys.argv = ['neuronwise']; from neuronwise.cli import main; main()") == "decode"


def test_libraries_that_load_later_are_quiet() -> None:
    code = """
    from neuronwise.cli.output import silence_libraries
    silence_libraries()
    from transformers.utils import logging
    logging.get_logger("transformers.anything").warning("not the user's")
    print(logging.is_progress_bar_enabled(), logging.get_verbosity() == logging.ERROR)
    """
    assert fresh("\n".join(line.strip() for line in code.splitlines())) == "False True"


@pytest.mark.parametrize(
    "first",
    [
        "nw.heatmap",
        "import neuronwise.locate",
        "from neuronwise import locate",
        "nw.edit.suppress; import neuronwise.read",
    ],
)
def test_a_room_does_not_shadow_the_function_of_its_name(first: str) -> None:
    code = f"import neuronwise as nw\n{first}\nfrom types import FunctionType, ModuleType\n"
    asked = "isinstance(nw.locate, FunctionType), isinstance(nw.edit, ModuleType), callable(nw.edit.suppress)"
    assert fresh(f"{code}print({asked}, nw.suppress is not nw.edit.suppress)") == "True True True True"


def test_every_listed_name_is_there_and_dir_lists_it() -> None:
    assert {"locate", "edit", "load", "NeuronSet", "__version__"} <= set(dir(nw))
    exec("from neuronwise import *", taken := {})
    assert set(dir(nw)) <= set(taken)
    assert None not in taken.values()


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'neuronwise' has no attribute 'lokate'"):
        nw.lokate  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(nw, "_hidden")
    assert getattr(nw, "study") is import_module("neuronwise.study")  # noqa: B009  (rooms need no import of their own)


def test_a_broken_room_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lazy_package"
    package.mkdir()
    (package / "__init__.py").write_text("from neuronwise.registry.lazy import face\nface(__name__)\n")
    (package / "__init__.pyi").write_text("from lazy_package.broken import thing as thing\n")
    (package / "broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_module("lazy_package").broken  # noqa: B018
