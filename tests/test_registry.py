"""Tables of named things: names without imports, sentences for mistakes, entry points of other packages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import neuronwise
from neuronwise.errors import MethodError, NeuronwiseError
from neuronwise.registry import Registry

HEAVY = {"torch", "transformers", "pandas", "numpy", "matplotlib"}
Write = Callable[..., None]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write modules and installed packages that are importable during a test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(package: str, entry: str = "", **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        if entry:
            about = tmp_path / f"{package}-1.0.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            (about / "entry_points.txt").write_text(f"[test.methods]\n{entry}\n")

    return write


def registry(**entries: str) -> Registry[object]:
    return Registry("method", entries, group="test.methods", error=MethodError)


def test_names_are_known_without_an_import_and_objects_come_once(written: Write) -> None:
    written("own", reg_sum="THING = object()\nclass Holder: inner = 3\n")
    methods = registry(sum="reg_sum:THING", inner="reg_sum:Holder.inner", lost="no_such_module:THING")
    assert (list(methods), len(methods)) == (["sum", "inner", "lost"], 3)
    assert "sum" in methods
    assert "product" not in methods
    assert "reg_sum" not in sys.modules
    assert methods["sum"] is methods["sum"] is sys.modules["reg_sum"].THING
    assert methods["inner"] == 3


def test_an_unknown_name_gets_the_error_of_its_noun_with_the_known_names() -> None:
    with pytest.raises(MethodError, match=r"There is no method 'product'; the methods are sum, mean\."):
        registry(sum="a:b", mean="a:c")["product"]
    plural = Registry[object]("entry", {}, plural="entries")
    with pytest.raises(Exception, match="the entries are"):
        plural["one"]


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("import no_such_library\n", "No module named 'no_such_library'"),
        ("", "has no attribute 'THING'"),
        ("1 / 0\n", "division by zero"),
        ("raise RuntimeError\n", "RuntimeError"),
        ("def broken(:\n", "invalid syntax"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(written: Write, module: str, why: str) -> None:
    written("own", reg_broken=module)
    with pytest.raises(MethodError, match=rf"The method 'bad' from reg_broken:THING cannot be imported: .*{why}.*\.$"):
        registry(bad="reg_broken:THING")["bad"]


def test_an_error_of_ours_inside_a_module_stays_as_it_is(written: Write) -> None:
    written("own", reg_refuses="from neuronwise.errors import DataError\nraise DataError('Install pyarrow.')\n")
    with pytest.raises(Exception, match=r"^Install pyarrow\.$"):
        registry(bad="reg_refuses:THING")["bad"]


def test_other_packages_add_theirs_by_entry_point(written: Write) -> None:
    written("vendor", "mean = reg_vendor:THING", reg_vendor="THING = 'theirs'\n")
    methods = registry(sum="a:b")
    assert list(methods) == ["sum", "mean"]
    assert "reg_vendor" not in sys.modules
    assert methods["mean"] == "theirs"
    assert "mean" not in Registry("method", {}, group="test.others")


def test_a_name_given_twice_is_refused_with_both_givers(written: Write) -> None:
    written("vendor", "sum = reg_vendor:THING")
    methods = registry(sum="own:THING", mean="reg_own:THING")
    both = r"'sum' is given twice, by own:THING and by the package vendor \(reg_vendor:THING\); uninstall one"
    for _ in range(2):
        with pytest.raises(MethodError, match=both):
            methods["sum"]
    written("own", reg_own="THING = 1\n")
    assert (list(methods), methods["mean"]) == (["sum", "mean"], 1)


def test_two_packages_that_give_one_name_are_both_named(written: Write) -> None:
    written("vendor", "mean = reg_vendor:THING")
    written("second", "mean = reg_second:THING")
    with pytest.raises(MethodError, match=r"package (vendor|second) .* and by the package (vendor|second) "):
        registry()["mean"]


def test_a_package_that_is_found_twice_is_one_giver(written: Write) -> None:
    written("vendor", "mean = reg_vendor:THING", reg_vendor="THING = 1\n")
    written("vendor_editable", "mean = reg_vendor:THING")
    assert registry()["mean"] == 1


def test_added_for_this_process_and_taken_out_again() -> None:
    methods = registry(sum="a:b")
    methods.add("mean", len)
    assert methods["mean"] is len
    assert list(methods) == ["sum", "mean"]
    with pytest.raises(MethodError, match=r"already a method 'mean', from builtins:len; choose another name"):
        methods.add("mean", max)
    with pytest.raises(MethodError, match="already a method 'sum', from a:b"):
        methods.add("sum", max)
    methods.remove("mean")
    assert "mean" not in methods
    with pytest.raises(MethodError, match="There is no method 'mean'"):
        methods.remove("mean")


KINDED = "class Thing:\n    def __init__(self, name): self.name = name\nTHING = Thing('sum')\ndef make(): ...\n"


def test_an_object_of_another_kind_or_name_is_refused(written: Write) -> None:
    written("own", reg_kinds=KINDED)
    entries = {
        "sum": "reg_kinds:THING",
        "mean": "reg_kinds:make",
        "most": "reg_kinds:Thing",
        "other": "reg_kinds:THING",
    }
    methods = Registry[object]("method", entries, kind="reg_kinds:Thing", error=MethodError)
    assert "reg_kinds" not in sys.modules
    assert methods["sum"] is sys.modules["reg_kinds"].THING
    for name, said in {
        "mean": "from reg_kinds:make is a function, not a Thing",
        "most": "from reg_kinds:Thing is the class Thing, not a Thing",
        "other": "from reg_kinds:THING is called 'sum' in its own code; give it one name in both places",
    }.items():
        for _ in range(2):
            with pytest.raises(MethodError, match=rf"^The method '{name}' {said}\.$"):
                methods[name]
    with pytest.raises(MethodError, match="from builtins:len is a builtin_function_or_method, not a Thing"):
        methods.add("length", len)
    assert "length" not in methods


SOURCE = Path(neuronwise.__file__).parent
TABLES = [
    (f"neuronwise.{'.'.join(path.relative_to(SOURCE).with_suffix('').parts)}", name)
    for path in sorted(SOURCE.rglob("*.py"))
    for name in re.findall(r"^([A-Z]+): Registry\[", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize(("module", "name"), TABLES)
def test_a_table_of_the_package_names_what_exists(module: str, name: str) -> None:
    table = getattr(import_module(module), name)
    assert None not in list(table.values())
    with pytest.raises(NeuronwiseError, match=r"'new' from .* is an int, not an? \w+"):
        table.add("new", 3)


@pytest.mark.parametrize(("module", "name"), TABLES)
def test_a_table_of_the_package_lists_its_names_without_a_heavy_library(module: str, name: str) -> None:
    code = f"import sys; from {module} import {name}; print(*{name}); assert not {HEAVY} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()
