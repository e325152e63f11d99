"""What a case of the properties study measures: the parts of its rows, one function each."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from neuronwise.answers.naming import names
from neuronwise.data.photos import Captioned
from neuronwise.errors import ImageError, PromptError
from neuronwise.intervene import perturb, shuffle_image_tokens
from neuronwise.measure.properties import (
    heat_fit,
    noise_effects,
    overlap,
    says,
    token_text,
    value_scale,
)
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet
from neuronwise.read.decode import decode_all
from neuronwise.read.heatmap import heatmaps
from neuronwise.study.entries import each
from neuronwise.study.properties.recipe import PropertiesRecipe
from neuronwise.study.store import Row
from neuronwise.study.word_neurons import TimedNeurons, word_neurons
from neuronwise.study.workspace import Workspace


@dataclass(frozen=True)
class Word:
    """The word of one case, with what is needed to look at it; ``named``: the word as its caption says it."""

    workspace: Workspace[PropertiesRecipe]
    photo: Captioned
    concept: str
    named: str
    run: Run
    target: Target
    inpainted: Image.Image | None
    seed: int

    def neurons(self, run: Run, seed: int) -> dict[str, TimedNeurons]:
        """The neurons of every method for this word on its run, or on the same run changed."""
        recipe = self.workspace.recipe
        return word_neurons(
            run, self.target, each(recipe.methods), recipe.K, concept=self.named, inpainted=self.inpainted, seed=seed
        )


def overlaps(word: Word, found: dict[str, TimedNeurons]) -> dict[str, float]:
    """Each method's neurons found again on the shuffled image; the random ones are drawn anew."""
    recipe, run = word.workspace.recipe, word.run
    sums = dict.fromkeys((name for name, one in found.items() if len(one.neurons)), 0.0)
    for shuffle in range(recipe.shuffles):
        again = Run.of(run.model, run.prompted, run.output_ids, run.image, max_new_tokens=run.max_new_tokens)
        try:
            with shuffle_image_tokens(word.workspace.model, again, seed=word.seed + shuffle):
                after = word.neurons(again, word.seed + shuffle + 1)
        except PromptError:
            return {}
        for name in sums:
            sums[name] += overlap(found[name].neurons.neurons, after[name].neurons.neurons)
    return {name: total / recipe.shuffles for name, total in sums.items()} if recipe.shuffles else {}


def meaning(word: Word, neurons: NeuronSet) -> Row:
    """What a method's first neurons decode to, against the word, the photo and its captions.

    Semantic sensitivity is the best score among them ([MMN] §4.3); a neuron's text is its top tokens (the published
    form) without surrounding spaces, joined by single ones, each once and unreadable ones left out (our choice).
    """
    recipe, model, photo = word.workspace.recipe, word.workspace.model, word.photo
    words = [word.named, model.decode_ids([word.target.token_id])]
    decoded = decode_all(model, neurons.neurons[: recipe.decoded_neurons], recipe.tokens, form="logits")
    row: Row = {"says_word": says(decoded, words) if decoded else None}
    texts = [text for text in map(token_text, decoded) if text]
    meant = photo.captions or (word.workspace.captions[photo.id],)
    first: list[float] = []
    for metric, folder in recipe.metric_models.given():
        scores = metric.score(folder, photo.path, texts, [meant] * len(texts)) if texts else []
        row[metric.name] = max(scores, default=None)
        first = first or scores
    best = first.index(max(first)) if first else 0
    row["best_tokens"] = texts[best] if texts else None
    return row


def heats(word: Word, found: dict[str, TimedNeurons]) -> dict[str, Row]:
    """Where each method's first neurons fire, against the object's mask."""
    columns = ("heat_iou", "heat_chance", "heat_pointing", "object_share", "grid", "grid_rows", "box")
    rows: dict[str, Row] = {name: dict.fromkeys(columns) for name in found}
    there = [name for name, one in found.items() if len(one.neurons)]
    try:
        maps = heatmaps(
            word.workspace.model, word.run, [found[name].neurons[: word.workspace.recipe.heat] for name in there]
        )
    except PromptError:
        return rows
    try:
        mask = word.workspace.mask(word.photo, word.concept)
    except ImageError:
        mask = None
    for name, heat in zip(there, maps, strict=True):
        row = rows[name]
        row |= {
            "grid": [float(value) for value in heat.grid.ravel()],
            "grid_rows": len(heat.grid),
            "box": [float(edge) for edge in heat.box],
        }
        if mask is not None:
            try:
                fit = heat_fit(heat, mask)
            except ImageError:
                continue
            row |= {"heat_iou": fit.iou, "heat_chance": fit.chance, "heat_pointing": fit.pointing}
            row["object_share"] = fit.object_share
    return rows


def noise(word: Word, method: str, neurons: NeuronSet) -> list[Row]:
    """What noise on a method's first neurons does to the word, cell by cell of both sweeps."""
    recipe, model = word.workspace.recipe, word.workspace.model
    unit = value_scale(model) if recipe.sigma_unit == "weights" else 1.0
    cells = [("sigma", sigma, recipe.noise_K) for sigma in recipe.sigmas]
    cells += [("K", recipe.noise_sigma, count) for count in recipe.counts]
    distinct = list(dict.fromkeys((sigma, count) for _, sigma, count in cells))
    scaled = [(sigma * unit, count) for sigma, count in distinct]
    measured = noise_effects(model, word.run, word.target, neurons, scaled, seed=word.seed)
    effects = dict(zip(distinct, measured, strict=True))
    said: dict[float, str] = {}
    for sigma in recipe.said_sigmas:
        with perturb(model, neurons[: recipe.noise_K], sigma * unit, seed=word.seed):
            said[sigma] = word.workspace.say(word.photo)
    rows: list[Row] = []
    for sweep, sigma, count in cells:
        text = said.get(sigma) if sweep == "sigma" else None
        rows.append(
            {
                "part": "noise",
                "method": method,
                "sweep": sweep,
                "sigma": sigma,
                "unit": unit,
                "K": count,
                "drop": effects[sigma, count].drop,
                "first": effects[sigma, count].first,
                "said": None if text is None else names(text, word.concept),
                "text": text,
            }
        )
    return rows
