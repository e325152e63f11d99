"""What an explainer's labels of neurons are worth, over an index of photos; and what its judgments are worth.

python benchmarks/labels.py INDEX                                   # the built-in models, in bfloat16
python benchmarks/labels.py INDEX --explainer some/folder --each 30

Neurons are those whose examples stand out most, those drawn at random, and those that fire on photos that name one of
WORDS. Of the judge by itself: how well it tells the captions that name a word from others, given that word as label.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import neuronwise as nw
from neuronwise.answers.naming import names
from neuronwise.index import Index, Label
from neuronwise.index.cases import Case, Cases
from neuronwise.index.explainer import detect
from neuronwise.measure import mean_interval

WORDS = ("dog", "cat", "train", "man", "woman", "table", "street", "plate", "water", "sitting")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--explainer", default="builtin-text")
    parser.add_argument("--each", type=int, default=12, help="neurons of each kind")
    asked = parser.parse_args()
    index = Index.load(asked.index)
    explainer = nw.load(asked.explainer, dtype=torch.bfloat16)
    judge(index, explainer)
    model = nw.load(index.about["recipe"]["model"]["source"], dtype=torch.bfloat16)
    for kind, place, neurons in chosen(index, asked.each):
        labels = list(nw.explain(index, neurons, model=model, explainer=explainer, place=place).values())
        report(f"{kind}, at {place}", labels)
    return 0


def judge(index: Index, explainer: nw.Model) -> None:
    """The area under the ROC curve of true labels: captions that name a word, and as many that do not."""
    captions = list(dict.fromkeys(item.captions[0] for item in index.items if item.captions))
    found = []
    for word in WORDS:
        named = [Case(text, text) for text in captions if names(text, word)][:20]
        others = [Case(text, text) for text in captions if not names(text, word)]
        if len(named) >= 4:
            drawn = random.Random(word).sample(others, len(named))
            found.append(detect(explainer, word, Cases(named[::2], drawn[::2], named[1::2], drawn[1::2])))
    print(f"the judge, on {len(found)} true labels: {said([one.auc.mean for one in found])}, "
          f"balanced accuracy {said([one.accuracy.mean for one in found])}", flush=True)  # fmt: skip


def chosen(index: Index, count: int) -> list[tuple[str, str, list[nw.Neuron]]]:
    """Neurons of each kind, with the place at which they are explained."""
    every = [neuron for layer in index.layers for neuron in index.neurons(layer)]
    known = (word for word in WORDS if any(names(text, word) for own in index.items.texts() for text in own))
    named = [neuron for word in known for neuron in index.locate(word, top=2).neurons]
    return [
        ("standing out", "image", list(index.selective("image", top=count).neurons)),
        ("at random", "image", random.Random(0).sample(every, count)),
        ("firing on what names a word", "image", named[:count]),
        ("standing out", "predicting", list(index.selective("predicting", top=count).neurons)),
    ]


def report(kind: str, labels: Sequence[Label]) -> None:
    beside = [(one.detection.auc.mean, one.control.detection.auc.mean) for one in labels if one.control]
    figures = {
        "detection": [one.detection.auc.mean for one in labels],
        "another neuron's label": [other for _, other in beside],
        "difference": [own - other for own, other in beside],
        "balanced accuracy": [one.detection.accuracy.mean for one in labels],
    }
    above = sum(one.detection.auc.low > 0.5 for one in labels)
    line = ", ".join(f"{name} {said(values)}" for name, values in figures.items())
    print(f"{kind}: {len(labels)} neurons; {line}; {above} with an interval above .5", flush=True)
    for one in sorted(labels, key=lambda label: -label.detection.auc.mean):
        print(f"  {one!r}")


def said(values: Sequence[float]) -> str:
    found = mean_interval(values)
    return "none" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
