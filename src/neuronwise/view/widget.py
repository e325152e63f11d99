"""The slider of a neuron as a widget of notebooks; importing this needs anywidget."""

from __future__ import annotations

import base64
import contextlib
import io
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anywidget
import traitlets

from neuronwise.errors import is_out_of_memory
from neuronwise.neurons import Neuron
from neuronwise.view.live import passes
from neuronwise.view.pages import SLIDER, asset
from neuronwise.view.turned import MEASURING, Answer, Turn, answers, is_current
from neuronwise.view.worker import Clock, Event, failure, free_memory

if TYPE_CHECKING:
    from neuronwise.locate import Baseline
    from neuronwise.model import Run

SIDE = 480  # pixels of the photo
RANDOMS = 2


class Slider(anywidget.AnyWidget):
    """A neuron and a knob; what the model says with it turned is in ``answers``.

    Setting ``factor`` or ``mean``, here or by the knob, asks the model. ``shown`` is what the page draws: the rows of
    the answers with the turn that they are of, how far the work is, and what went wrong.
    """

    _esm = "".join(map(asset, SLIDER))
    _css = f".neuronwise-slider {{\n{asset('slider.css')}{asset('answers.css')}}}\n"
    neuron = traitlets.Unicode(read_only=True).tag(sync=True)
    given = traitlets.Unicode(read_only=True).tag(sync=True)
    photo = traitlets.Unicode(read_only=True).tag(sync=True)
    factor = traitlets.Float(1.0).tag(sync=True)
    mean = traitlets.Bool(False).tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(self, run: Run, neuron: Neuron, seed: int) -> None:
        super().__init__()
        self._run, self._seed, self._clock = run, seed, Clock()
        self.set_trait("neuron", str(neuron))
        self.set_trait("photo", "" if run.image is None else _source(run))
        self.set_trait("given", run.prompt if run.image is None else "")
        self.answers: tuple[Answer, ...] = (Answer("before", run.text),)
        self._asked = (self.factor, self.mean)
        self._show()

    def __repr__(self) -> str:
        turn = "set to its mean" if self.mean else f"× {self.factor:g}"
        said = ", ".join(repr(textwrap.shorten(one.text, 60, placeholder=" …")) for one in self.answers[:2])
        return f"Slider({self.neuron} {turn}: {said})"

    @traitlets.observe("factor", "mean")
    def _turned(self, change: object) -> None:
        if self._asked == (self.factor, self.mean):  # both came at once
            return
        self._asked = (self.factor, self.mean)
        self.answers, problem, full = (), "", False
        try:
            self._ask()
        except Exception as error:
            problem, full = failure(error), is_out_of_memory(error)
        except KeyboardInterrupt:
            self._show(problem="Interrupted.")
            raise
        if full:
            free_memory()
        self._show(problem=problem)

    def _ask(self) -> None:
        model = self._run.model
        if not is_current(self._run):  # an edit came in, or went out
            with self._watching("asking the model"):
                self._run = model.run_prompted(
                    self._run.prompted, self._run.image, max_new_tokens=self._run.max_new_tokens
                )
        turn = Turn(
            Neuron.parse(self.neuron), self.factor, self._baseline() if self.mean else None, RANDOMS, self._seed
        )
        for answer in answers(self._run, turn, self._watching):
            self.answers = (*self.answers, answer)
            self.tell("asking the model")

    def _baseline(self) -> Baseline:
        from neuronwise.locate import Baseline

        with passes(self, self._run.model, MEASURING):
            return Baseline.gather(self._run.model, "self")

    @contextlib.contextmanager
    def _watching(self, stage: str) -> Iterator[None]:
        with passes(self, self._run.model, stage, self._run.max_new_tokens):
            yield

    def tell(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Show how far the work is."""
        self._show(self._clock.progress(stage, done, total))

    def _show(self, progress: Event | None = None, problem: str = "") -> None:
        factor, mean = self._asked
        self.shown = {
            "answers": [one.row() for one in self.answers],
            "factor": factor, "mean": mean, "progress": progress, "problem": problem,
        }  # fmt: skip


def _source(run: Run) -> str:
    """The photo, small, as the address of itself."""
    picture, stream = run.photo.convert("RGB"), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
