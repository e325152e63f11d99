"""General ability by the tasks of lm-evaluation-harness, which takes the model's module as it is."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neuronwise.errors import MethodError, one_line, told
from neuronwise.measure.figures import Figures
from neuronwise.model.model import Model

BATCH = 8  # requests of one pass
_DATASET = re.compile(r"'([\w.-]+/[\w.-]+)'")
_ENDINGS = (".yaml", ".yml")
_NULL = re.compile(rb"^[\s\xef\xbb\xbf]*null", re.MULTILINE)


class Tasks:
    """Tasks by their names or by the YAML files that describe them, loaded once; ``limit`` examples of each.

    Raises ``MethodError`` without lm-evaluation-harness, for a name that it does not have, and for a task whose data
    are neither here nor can be downloaded.
    """

    def __init__(self, names: Sequence[str], limit: int | None = None) -> None:
        try:
            import lm_eval
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise MethodError(
                "Tasks are those of lm-evaluation-harness, which is not installed: pip install 'neuronwise[tasks]'."
            ) from error
        self.limit, self.version = limit, str(lm_eval.__version__)
        own = all(name.endswith(_ENDINGS) for name in names)
        self._manager = TaskManager(include_defaults=not own)  # to list all of them takes seconds
        self._asked: list[Any] = []  # tasks, and groups of them
        for name in names:
            with _loading(name, self.version):
                found: dict[str, Any] = {**self._manager.load([name])}
            self._asked += [found["groups"][name]] if name in found.get("groups", {}) else found["tasks"].values()

    def measure(self, model: Model) -> Figures:
        """The metrics of each task, as "task_NAME_METRIC"; the model's weights and its tokenizer stay as they are.

        Raises ``MethodError`` where a task's requests cannot be made of its examples.
        """
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        evaluate: Any = lm_eval.simple_evaluate  # its decorator hides what it takes

        tokenizer = copy.deepcopy(model.tokenizer)  # it would be given a padding token
        with model.lock, told(MethodError, "The tasks cannot be measured"), _quiet():
            reader = HFLM(pretrained=model.module, tokenizer=tokenizer, batch_size=BATCH)  # type: ignore[arg-type]
            found: dict[str, Any] | None = evaluate(
                reader, tasks=self._asked, task_manager=self._manager, limit=self.limit, bootstrap_iters=0,
                log_samples=False, random_seed=None, numpy_random_seed=None, torch_random_seed=None,
            )  # fmt: skip
        results: dict[str, dict[str, Any]] = {} if found is None else {**found.get("groups", {}), **found["results"]}
        return {
            f"task_{task}_{metric.partition(',')[0]}": float(value)
            for task, metrics in results.items()
            for metric, value in metrics.items()
            if "," in metric and "_stderr" not in metric and isinstance(value, (int, float))
        }


@contextlib.contextmanager
def _loading(name: str, version: str) -> Iterator[None]:
    """What cannot be loaded is said in one sentence, with what would help."""
    if name.endswith(_ENDINGS) and not Path(name).is_file():
        raise MethodError(f"There is no file '{name}' that describes a task.")
    try:
        with _quiet(), _whole_rows():
            yield
    except Exception as error:  # whatever a task's own code or datasets raises
        raise MethodError(_why(name, version, error)) from error


def _why(name: str, version: str, error: Exception) -> str:
    """Why a task cannot be loaded, and what would help."""
    text = one_line(str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, KeyError) and "is not a registered" in text:
        listed = "`lm-eval ls tasks` lists them, or name the YAML file of one"
        return f"lm-evaluation-harness {version} has no task {name!r}; {listed}."
    dataset = _DATASET.search(text)
    if dataset is not None and isinstance(error, OSError) and not Path(dataset[1]).exists():
        return (
            f"The task {name!r} needs the dataset {dataset[1]}, which is not on this machine and cannot be downloaded "
            f"now. Where there is a network: hf download {dataset[1]} --repo-type dataset; or describe a task of local "
            "files, see docs/general-ability.md."
        )
    return f"The task {name!r} cannot be loaded: {text}."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's remarks and its progress bars."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _whole_rows() -> Iterator[None]:
    """Rows of JSON that are null are an error: pyarrow, by which datasets reads JSON lines, ends the process there."""
    from pyarrow import json

    read: Any = json.read_json

    def checked(rows: io.BytesIO, **options: Any) -> Any:
        if _NULL.search(rows.getvalue()):
            raise ValueError("a row of its data is null; every row must be an object")
        return read(rows, **options)

    json.read_json = checked
    try:
        yield
    finally:
        json.read_json = read
