"""A slider for notebooks: turn a neuron up and down, and see what the model says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import NeuronError, NeuronwiseError, PromptError
from neuronwise.images import ImageLike
from neuronwise.neurons import Neurons, as_neurons
from neuronwise.registry.arguments import checked
from neuronwise.view.turned import ANSWER, CAPTION

if TYPE_CHECKING:
    from neuronwise.model import Model
    from neuronwise.view.widget import Slider


@checked
def slider(
    model: Model,
    neuron: Neurons,
    image: ImageLike | None = None,
    prompt: str | None = None,
    *,
    max_new_tokens: int | None = None,
    seed: int = 0,
) -> Slider:
    """A widget that asks the model about a photo, or lets it continue a text, with a neuron turned up or down.

    >>> nw.slider(model, "L29.U808", image="cat.png")

    The activation is multiplied (a ← c·a), or set to its mean over texts that the model writes itself; beside it are
    two random neurons of the same writer, drawn by ``seed``, changed likewise. A ``prompt`` without a photo is
    continued as it stands. ``max_new_tokens`` is 40 about a photo and 16 after a text. The widget's ``factor`` and
    ``mean`` can be set from Python too, and ``answers`` holds what was said.
    Raises ``NeuronError`` for anything but one neuron of the model, what ``Model.run`` raises, and
    ``NeuronwiseError`` where anywidget is not installed.
    """
    try:
        from neuronwise.view.widget import Slider
    except ImportError as error:
        raise NeuronwiseError("The slider needs anywidget: pip install 'neuronwise[notebook]'.") from error
    if image is None and prompt is None:
        raise PromptError("Give an image or a prompt.")
    named = as_neurons(neuron)
    if len(named) != 1:
        raise NeuronError(f"The slider turns one neuron, not {len(named)}.")
    model.writer(named[0])
    chat, length = (False, ANSWER) if image is None else (None, CAPTION)
    run = model.run(image, prompt, chat=chat, max_new_tokens=length if max_new_tokens is None else max_new_tokens)
    return Slider(run, named[0], seed)
