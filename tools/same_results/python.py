"""Results of the Python interface: runs, neurons, interventions, edits, facts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plain import changes, logits_under, plain, projections, ranked, tensors_in

DATA = Path(os.environ.get("NEURONWISE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


METHODS: dict[str, dict[str, Any]] = {
    "contribution": {},
    "contribution, gate": {"activation": "gate"},
    "contribution, shares": {"normalize": True},
    "contribution, against a word": {"contrast": [" red"]},
    "contribution, against three": {"contrast": 3, "normalize": True},
    "log_prob_increase": {},
    "gradient_activation": {},
    "gradient_activation, all": {"positions": "all"},
    "gradient": {},
    "gradient, all": {"positions": "all"},
    "integrated_gradients": {"steps": 4},
    "activation": {},
    "activation, all": {"positions": "all"},
    "activation, gate": {"activation": "gate"},
    "random": {"seed": 3},
}
PHOTO_METHODS: dict[str, dict[str, Any]] = {
    "gradient_activation, predicting": {"positions": "predicting"},
    "gradient, image": {"positions": "image"},
    "activation, image": {"positions": "image"},
}
COMPARING: dict[str, dict[str, Any]] = {
    "activation_difference": {},
    "activation_difference, image": {"positions": "image"},
    "two_stage": {},
    "two_stage, quantile": {"difference": "quantile", "gradient": "quantile", "quantile": 0.9, "over": "photo"},
    "two_stage, by hand": {"difference": 0.01, "gradient": 0.001, "stages": "both"},
    "two_stage, one stage": {"stages": "difference", "positions": "image"},
}
VALUES: dict[str, Any] = {"layers": (1,), "v_num_grad_steps": 3, "context_templates": ("a dog runs . ", "cat . ")}
EDITORS: dict[str, dict[str, Any]] = {
    "fine": {"steps": 3, "freeze_last": 1},
    "fine_specific": {"steps": 2, "texts": 4, "text_tokens": 8},
    "fine_tune": {"steps": 2, "rate": 1e-2, "norm_constraint": None},
    "knowledge_neurons": {"steps": 2},
    "rome": VALUES,
    "rome_published": VALUES,
    "memit": VALUES,
    "pmet": VALUES,
    "emmet": VALUES,
    "namet": VALUES,
    "alphaedit": VALUES,
    "encore": VALUES,
    "ultraedit": {"layers": (1,), "lr": 1e-4},
}

Results = Iterator[tuple[str, Callable[[], Any]]]


def text_results(kind: str, model: Any) -> Results:
    import neuronwise as nw
    from neuronwise import intervene

    run = model.run(prompt="the capital of France is", max_new_tokens=4, chat=False)
    still = model.run(prompt="the capital of France is", max_new_tokens=0, chat=False)
    listed = 10_000 if model.num_neurons < 10_000 else 100  # the exact scores of all would take a minute
    yield f"{kind}/run", lambda: [run.text, model.num_layers, model.num_neurons]
    for name, options in METHODS.items():
        method = name.split(",")[0]
        yield (
            f"{kind}/locate/{name}",
            lambda method=method, options=options: ranked(
                nw.locate(model, still, target=" Paris", method=method, top=listed, **options)
            ),
        )
    found = nw.locate(model, still, target=" Paris", top=12)
    yield f"{kind}/locate/later", lambda: ranked(nw.locate(model, run, target=" dog", position=1, top=10_000))
    for method in ("causal_effect", "random_same_layers"):
        yield (
            f"{kind}/locate/{method}",
            lambda method=method: ranked(nw.locate(model, still, target=" Paris", method=method, among=found)),
        )
    more = [model.run(prompt=p, max_new_tokens=0, chat=False) for p in ("France is in", "the capital of France is")]
    yield (
        f"{kind}/locate/refined",
        lambda: ranked(nw.locate(model, more, target=" Paris", method="integrated_gradients", steps=4)),
    )
    addresses = [str(member.neuron) for member in found[:3]]
    decodings: tuple[dict[str, Any], ...] = ({}, {"bottom": True}, {"form": "logits"})
    for options in decodings:
        yield (
            f"{kind}/decode/{options}",
            lambda options=options: [nw.decode(model, address, k=6, **options) for address in addresses],
        )
    yield f"{kind}/logits", lambda: logits_under(model, contextlib.nullcontext())
    yield f"{kind}/suppress", lambda: logits_under(model, nw.suppress(model, found))
    yield f"{kind}/scale", lambda: logits_under(model, intervene.scale(model, found, 2.5))
    yield f"{kind}/perturb", lambda: logits_under(model, intervene.perturb(model, found, 0.5, seed=1))
    dense = [member.neuron for member in found if member.neuron.expert is None]
    if dense:
        yield (
            f"{kind}/mean_ablate",
            lambda: logits_under(
                model, intervene.mean_ablate(model, dense, intervene.mean_activations(model, dense, [run, *more]))
            ),
        )


def photo_results(kind: str, model: Any, photo: Any, without: Any, prompt: str | None, word: str | None) -> Results:
    import neuronwise as nw

    run = model.run(photo, prompt, max_new_tokens=12)
    asked: dict[str, Any] = {"target": " dog"} if word is None else {"concept": word}
    listed = 10_000 if word is None else 100
    yield f"{kind}/run", lambda: [run.text, [concept.word for concept in run.concepts]]
    for name, options in {**METHODS, **PHOTO_METHODS}.items():
        yield (
            f"{kind}/locate/{name}",
            lambda name=name, options=options: ranked(
                nw.locate(model, run, method=name.split(",")[0], top=listed, **asked, **options)
            ),
        )
    for name, options in COMPARING.items():
        yield (
            f"{kind}/locate/{name}",
            lambda name=name, options=options: ranked(
                nw.locate(model, run, method=name.split(",")[0], top=listed, inpainted=without, **asked, **options)
            ),
        )
    found = nw.locate(model, run, top=20, **asked)

    def heat() -> Any:
        made = nw.heatmap(model, run, found)
        return [list(made.grid.shape), projections(_tensor(made.grid)), projections(_tensor(made.each))]

    yield f"{kind}/heatmap", heat

    def suppressed() -> str:
        with nw.suppress(model, found):
            return model.run(photo, prompt, max_new_tokens=12).text

    yield f"{kind}/suppress", suppressed


def _tensor(array: Any) -> Any:
    import torch

    return torch.tensor(array)


def edit_results(kind: str, model: Any, folder: Path) -> Results:
    import neuronwise as nw
    import neuronwise.edit as editors

    facts = [nw.Fact("the capital of {} is", "France", "house"), nw.Fact("{} sits on the", "cat", "red")]
    for name, settings in EDITORS.items():
        make: Any = getattr(editors, name)
        for called, request in (("one", facts[0]), ("two", facts)):
            yield (
                f"{kind}/edit/{name}/{called}",
                lambda make=make, request=request, settings=settings: changes(make(model, request, **settings), model),
            )

    def kept() -> Any:
        edit = nw.fine(model, facts[0], steps=3, freeze_last=1) + nw.rome(model, facts[1], **VALUES)
        edit.save(folder / kind / "edit")
        edit.to_peft(model, folder / kind / "adapter")
        return [changes(nw.load_edit(folder / kind / "edit"), model), tensors_in(folder / kind / "adapter")]

    yield f"{kind}/edit/saved and shared", kept


def builtin_edit_results(model: Any, photo: Path, word: str) -> Results:
    import neuronwise as nw
    import neuronwise.edit as editors

    quick: dict[str, Any] = {"top": 50, "steps": 6}
    yield "builtin/edit/swap", lambda: changes(nw.swap(model, photo, word, "dog", **quick), model)
    yield "builtin/edit/suppress", lambda: changes(editors.suppress(model, photo, word, top=10), model)


def fact_results() -> Results:
    import neuronwise as nw

    for source in ("shipped", "known-facts.json", "counterfact-2000.json", "zsre-500.json"):

        def read(source: str = source) -> Any:
            loaded = nw.load_facts(source if source == "shipped" else DATA / source)
            rows = [plain(case) for case in loaded]
            return {"count": len(rows), "first": rows[:2], "last": rows[-1], "problems": len(loaded.problems)}

        yield f"facts/{source}", read
