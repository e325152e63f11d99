"""What the model does on photos: where a neuron fires on one of an index, and which neurons a new one fires."""

from __future__ import annotations

from neuronwise.errors import NeuronwiseError
from neuronwise.neurons import Neuron
from neuronwise.view.asked import Heated, Seen
from neuronwise.view.index_page import index_of, indexes, photo_file
from neuronwise.view.labels import labels_or_why
from neuronwise.view.live import Live, passes
from neuronwise.view.viewer import Viewer
from neuronwise.view.worker import Event, Job

FOUND = 30


def heat_on(viewer: Viewer, live: Live, job: Job, asked: Heated) -> Event:
    """How strongly a neuron fires over a photo of an index, as it was when that was made."""
    neuron, index = Neuron.parse(asked.neuron), index_of(viewer.item("index", asked.item))
    path, model = photo_file(viewer, index, asked.number), live.model(job)
    index.require(model)
    prompt = index.about["recipe"]["reading"].get("prompt")
    with passes(job, model, "reading the photo"):
        run = model.run(image=path, prompt=prompt, max_new_tokens=0)
        return {"heat": live.heat(model, run, neuron)}


def firing_on(viewer: Viewer, live: Live, job: Job, asked: Seen) -> Event:
    """The neurons that a photo or a text fires most, each as a share of what it does on its examples."""
    item = next(iter(indexes(viewer)), None)
    if item is None:
        raise NeuronwiseError("Searching by a photo needs an index of this model: start the viewer with --index.")
    index, run = index_of(item), live.run(job, asked)
    with passes(job, run.model, "reading all neurons"):
        found = index.firing_in(run, top=FOUND)
    labels = labels_or_why(item)[0]
    rows = [
        {"neuron": str(one.neuron), "score": one.score, "label": labels[one].text if one.neuron in labels else ""}
        for one in found
    ]
    return {"neurons": rows, "text": run.text, "index": item.title}
