"""Install each extra into an empty environment, with pip and with uv, and print what came.

    python tools/extras.py [EXTRA ...] [--with pip,uv] [--python PYTHON]

The versions are those of constraints.txt, torch's among them. Options of pip and uv come from their own settings and
environment variables: for uv and another Python than pip's, UV_FIND_LINKS names a folder with a build of torch without
CUDA, where there is one. `base` is the package without an extra.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What must import with each extra; `all` has those of the extras that it names.
IMPORTS = {
    "base": "neuronwise.model", "convert": "sentencepiece google.protobuf", "datasets": "datasets",
    "docs": "mkdocs mkdocstrings", "notebook": "neuronwise.view.widget",
    "peft": "peft", "probe": "sklearn", "quantized": "bitsandbytes torchao", "ray": "ray",
    "study": "neuronwise.study.suppression.recipe matplotlib cv2 pyarrow pycocotools.coco",
    "view": "fastapi uvicorn neuronwise.view.app",
}  # fmt: skip
LOOK = """
import importlib, importlib.metadata as m, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import torch
names = {d.name.lower() for d in m.distributions()}
print(len(names), torch.__version__, bool(torch.version.cuda), *sorted(names & {"torchvision", "torchaudio", "triton"}))
"""


@dataclass(frozen=True)
class Tried:
    """One environment: what went wrong in a line, or what is in it."""

    extra: str
    tool: str
    fault: str = ""
    packages: str = ""
    torch: str = ""
    cuda: str = ""
    unwanted: str = "–"
    size: int = 0

    def row(self) -> str:
        """A row of the table."""
        if self.fault:
            return f"| {self.extra} | {self.tool} | {self.fault} | | | | |"
        return (
            f"| {self.extra} | {self.tool} | imports | {self.packages} | {self.torch} | {self.unwanted} | "
            f"{self.size / 1e6:.0f} |"
        )


def tried(extra: str, tool: str, python: str, modules: str) -> Tried:
    """Install into a new environment, import there, look at it, and take it away again."""
    folder = Path(tempfile.mkdtemp(prefix="extra-"))
    try:
        subprocess.run([python, "-m", "venv", *["--without-pip"] * (tool == "uv"), folder / "env"], check=True)
        inside = folder / "env" / "bin" / "python"
        install = [inside, "-m", "pip", "install", "--quiet"] if tool == "pip" else (
            ["uv", "pip", "install", "--quiet", "--python", inside]
        )  # fmt: skip
        what = f"{ROOT}" if extra == "base" else f"{ROOT}[{extra}]"
        for given in (["torch"], [what]):  # torch first and alone: the build is chosen by itself, as `make` does
            done = run([*install, "-c", ROOT / "constraints.txt", *given])
            if done.returncode:
                return Tried(extra, tool, f"not installed: {last_line(done.stderr)}")
        done = run([inside, "-c", LOOK, "neuronwise", *modules.split()], cwd=folder)
        if done.returncode:
            return Tried(extra, tool, f"does not import: {last_line(done.stderr)}")
        packages, torch, cuda, *unwanted = done.stdout.split()
        shown = f"{torch}, {'CUDA' if cuda == 'True' else 'CPU'}"
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        return Tried(extra, tool, "", packages, shown, cuda, ", ".join(unwanted) or "–", size)
    finally:
        shutil.rmtree(folder)


def run(command: list[object], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command with its output as text."""
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    """The last line of what was printed, short enough for a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given").replace("|", "/")[:160]


def main() -> int:
    """The table of all; 1 where one fails, or brings torchvision or a build of torch for CUDA."""
    extras: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = ["base", *(name for name in sorted(extras) if name not in ("all", "dev")), "all"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", default=names, metavar="EXTRA", help=", ".join(names))
    parser.add_argument("--with", dest="tools", default="pip,uv", help="pip, uv or both")
    parser.add_argument("--python", default=sys.executable, help="the Python of the environments")
    given = parser.parse_args()
    inside = extras["all"][0].partition("[")[2].rstrip("]").split(",")
    imports = {**IMPORTS, "all": " ".join(IMPORTS[name] for name in inside)}
    print("| extra | by | | packages | torch | not wanted | MB |\n|---|---|---|---|---|---|---|")
    bad = 0
    for extra in given.extras:
        for tool in given.tools.split(","):
            one = tried(extra, tool, given.python, imports.get(extra, ""))
            bad += bool(one.fault) or one.cuda == "True" or "torchvision" in one.unwanted
            print(one.row(), flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
