"""What the model does for a page: it belongs to the worker's thread, and so does everything here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from neuronwise.errors import MethodError, NeuronwiseError, PromptError
from neuronwise.neurons import Neuron
from neuronwise.view.photos import Photos
from neuronwise.view.turned import ANSWER, CAPTION, MEASURING, Turn, answers, is_current
from neuronwise.view.worker import Event, Job, Tells

if TYPE_CHECKING:
    from neuronwise.locate import Baseline
    from neuronwise.model import Model, Run
    from neuronwise.view.asked import Decoded, Fired, Scaled, Searched, Seen

KEPT = 12  # runs that are remembered, so that moving the slider asks only once what the model says by itself
TOKENS = 12


class Live:
    """A model that is opened when it is first needed, and what pages ask of it."""

    def __init__(self, name: str, opened: Callable[[], Model], photos: Photos) -> None:
        self.name, self._opened, self.photos = name, opened, photos
        self._model: Model | None = None
        self._runs: dict[tuple[str | None, str | None], Run] = {}

    @property
    def opened(self) -> Model | None:
        """The model, None before it is open; to be used by the worker's thread."""
        return self._model

    def open(self, job: Job) -> Event:
        """Open the model; how many layers and neurons it has."""
        model = self.model(job)
        return {"model": model.name, "layers": model.num_layers, "neurons": model.num_neurons}

    def model(self, job: Job) -> Model:
        """The model, opened first if need be."""
        if self._model is None:
            job.tell(f"opening {self.name}")
            self._model = self._opened()
        return self._model

    def run(self, job: Job, seen: Seen) -> Run:
        """What the model says to a photo or after a text, as it is now; a recent one is not computed again."""
        model, key = self.model(job), (seen.photo, seen.text)
        known = self._runs.pop(key, None)
        if known is None or not is_current(known):
            with passes(job, model, "asking the model", CAPTION if seen.photo else ANSWER):
                known = self._asked(model, seen)
        self._runs[key] = known
        while len(self._runs) > KEPT:
            self._runs.pop(next(iter(self._runs)))
        return known

    def _asked(self, model: Model, seen: Seen) -> Run:
        if seen.photo is not None:
            return model.run(image=self.photos.image(seen.photo), max_new_tokens=CAPTION, heat=True)
        return model.run(prompt=seen.text, max_new_tokens=ANSWER, chat=False)

    def decode(self, job: Job, asked: Decoded) -> Event:
        """The tokens that neurons raise and lower when they fire positively."""
        from neuronwise.read import effects

        model = self.model(job)
        found = effects(model, asked.neurons, TOKENS)
        ends = {
            name: {"raises": one.raises, "lowers": one.lowers} for name, one in zip(asked.neurons, found, strict=True)
        }
        return {"neurons": ends}

    def fire(self, job: Job, asked: Fired) -> Event:
        """How strongly a neuron fires at every token, and over the photo where its tokens have a place."""
        from neuronwise.locate.firing import firing

        neuron, model = Neuron.parse(asked.neuron), self.model(job)
        model.writer(neuron)
        run = self.run(job, asked)
        job.tell("reading the neuron")
        fired = firing(model, run.forced_inputs(), [neuron])[:, 0].tolist()
        at = set(run.image_rows)
        shown = [row for row in range(len(fired)) if row not in at]
        return {
            "tokens": [{"text": run.tokens[row], "value": fired[row]} for row in shown],
            "generated": len(shown) - len(run.output_ids),
            "text": run.text,
            "heat": None if run.image is None else self.heat(model, run, neuron),
        }

    def heat(self, model: Model, run: Run, neuron: Neuron) -> object:
        """How strongly a neuron fires over a run's photo, as pages draw it; with a note where it has no place there."""
        from neuronwise.read import heatmap
        from neuronwise.report.page import ConceptHeat, packed_heat

        try:
            found = heatmap(model, run, [neuron])
        except (PromptError, MethodError) as error:
            return {"note": str(error), "mean": None}
        heat = ConceptHeat(found.grid.tolist(), (), found.box, found.note)
        return packed_heat({"concepts": [0]}, run.image, [heat])[0]

    def scale(self, job: Job, asked: Scaled) -> Event:
        """What the model says with a neuron changed, beside what it says by itself and with random ones changed."""
        neuron, model = Neuron.parse(asked.neuron), self.model(job)
        model.writer(neuron)
        run = self.run(job, asked)
        turn = Turn(neuron, asked.factor, self._baseline(job, model) if asked.mean else None, asked.randoms, asked.seed)
        for answer in answers(run, turn, lambda stage: passes(job, model, stage, run.max_new_tokens)):
            job.send({"event": "part", **answer.row()})
        return {}

    def _baseline(self, job: Job, model: Model) -> Baseline:
        from neuronwise.locate import Baseline

        with passes(job, model, MEASURING):
            return Baseline.gather(model, "self")

    def search(self, job: Job, asked: Searched) -> Event:
        """The neurons that raise a token most, and those that lower it most, of the whole model."""
        from neuronwise.read import effects
        from neuronwise.read.writing import neurons_writing

        model = self.model(job)
        found = {}
        for end, turned in (("raises", False), ("lowers", True)):
            job.tell(f"looking for neurons that {end[:-1]} it")
            best = neurons_writing(model, asked.token, 20, turned=turned)
            read = effects(model, best.neurons, TOKENS)
            rows = zip(best, read, strict=True)
            found[end] = [
                {"neuron": str(one.neuron), "score": one.score, "raises": ends.raises, "lowers": ends.lowers}
                for one, ends in rows
            ]
        return {**found, "token": best.record["token"]}


@contextlib.contextmanager
def passes(job: Tells, model: Model, stage: str, total: int = 0) -> Iterator[None]:
    """Within the body every pass of the model is told, and none begins that nobody waits for."""
    from neuronwise.model.passes import watched

    done = 0

    def look() -> None:
        nonlocal done
        job.tell(stage, min(done, total), total)
        done += 1

    with watched(model, look):
        yield


def no_model() -> NeuronwiseError:
    """What a page is told that needs a model where there is none."""
    return NeuronwiseError("This viewer has no model; start it with --model, such as --model builtin.")
