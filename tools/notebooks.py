"""Run the example notebooks and store what they show, so that they render without being run.

python tools/notebooks.py [NAME ...]      # all of examples/notebooks by default
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
LARGEST = 300_000  # bytes of a notebook with its outputs
SECONDS = 600  # of one cell


def executed(path: Path, folder: Path) -> NotebookNode:
    """A notebook as it is after a run in ``folder``, without what differs from run to run.

    Raises ``nbclient.exceptions.CellExecutionError`` for a cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the kernel's debugger warns of frozen modules otherwise
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=SECONDS, startup_timeout=SECONDS, resources=where)
    kernel = client.create_kernel_manager()
    kernel.transport, kernel.ip = "ipc", str(folder / "ipc")  # sockets of the file system: no port is opened
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":  # progress bars and warnings
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/jpeg" in output.get("data", {}):  # photos come as PNG too, which is larger
                    output["data"].pop("image/png", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main(names: list[str]) -> int:
    """Run and store; 1 where a notebook is larger than ``LARGEST``."""
    large = 0
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not path.name.startswith(tuple(names)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        size = path.stat().st_size
        large += size > LARGEST
        print(f"{path.name}: {size / 1000:.0f} kB" + (f", more than {LARGEST / 1000:.0f} kB" * (size > LARGEST)))
    return int(large > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
