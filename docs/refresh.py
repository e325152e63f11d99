"""Run the commands and the Python of the documentation, and put what they print beneath them.

    python docs/refresh.py [README.md docs/find.md ...]      # all pages by default

In a ```console block every line that starts with "$ " is run and what follows it is replaced by its output; a
```text block right after a ```python block is replaced by what that block prints (the blocks of a page share one
session). `<!-- lines: N -->` before a block keeps the first N lines of its output. docs/presets.md ends in the tables
of the editors.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:<!-- lines: (\d+) -->\n)?```(console|python|text)\n(.*?)```\n", re.DOTALL)


def main() -> int:
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["COLUMNS"] = "120"
    pages = [Path(name) for name in sys.argv[1:]] or [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
    for page in pages:
        print(f"{page} ...", file=sys.stderr)
        content = refreshed(page.read_text(encoding="utf-8"))
        page.write_text(with_presets(content) if page.name == "presets.md" else content, encoding="utf-8")
    return 0


def with_presets(content: str) -> str:
    """The page of presets with every editor's table, which it ends in, made anew."""
    from neuronwise.edit.editors import EDITORS

    tables = [editor.table() for editor in EDITORS.values()]
    return content[: content.index(tables[0].splitlines()[0])] + "\n".join(tables).strip() + "\n"


def refreshed(content: str) -> str:
    session: dict[str, object] = {"__name__": "__main__"}
    printed: list[str | None] = [None]

    def replace(match: re.Match[str]) -> str:
        lines, kind, body = match.groups()
        start = match.group(0)[: match.group(0).index("```")]
        if kind == "python":
            printed[0] = python_output(body, session)
        elif kind == "console":
            body = "".join(f"$ {command}\n{first(shell_output(command), lines)}" for command in commands(body))
            printed[0] = None
        elif printed[0] is not None:
            body = first(printed[0], lines)
            printed[0] = None
        return f"{start}```{kind}\n{body}```\n"

    return BLOCK.sub(replace, content)


def commands(body: str) -> list[str]:
    return [line[2:] for line in body.splitlines() if line.startswith("$ ")]


def shell_output(command: str) -> str:
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return tidy(done.stdout)


def python_output(body: str, session: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(body, "documentation", "exec"), session)
    return tidy(out.getvalue())


def tidy(output: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines())


def first(output: str, lines: str | None) -> str:
    kept = output.splitlines(keepends=True)
    if lines is None or len(kept) <= int(lines):
        return output
    return "".join(kept[: int(lines)]) + "...\n"


if __name__ == "__main__":
    sys.exit(main())
