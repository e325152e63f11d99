"""Train the grounded projector to make the language model speak: captions, with words kept at their places.

    python training/speak.py DATA… --store RUNS/views --start RUNS/ground/state.pt --run RUNS/speak

With `--lora RANK` the language model learns too, by an adapter of that rank on every matrix; else it is frozen.
Interrupt it at any time; the same command goes on from the last saved step. Each validation writes the averaged
projector and a line of `validation.jsonl`.
"""

import argparse
import collections
import contextlib
import copy
import itertools
import json
import pathlib
import random
import time
from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from torch import nn

from captions import (
    OTHER_PROMPTS,
    PROMPT,
    Packer,
    Sample,
    caption_choices,
    class_answers,
    listing,
    plain_answers,
    plain_word,
)
from ground import Cases, WordHead, grounding
from hiding import drawn_cells, hideable, unseen
from lora import adapt
from material import Material, add_folders
from photos import Photo
from projector import Projector
from scores import caption_scores
from speaking import Speaker
from texts import own_answers
from views import Store, View
from words import Vocabulary

CELLS = 64
# How often each kind of case answers the default prompt: captions nearly always, lists of objects seldom, so that the
# default answer is a sentence.
DEFAULT_SHARES = (0.92, 0.92, 0.0, 0.3, 0.5)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--store", type=pathlib.Path, required=True, help="folder of the views' features")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of this run's state")
    parser.add_argument("--start", type=pathlib.Path, required=True, help="state of ground.py, or of an earlier run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--grounded", type=int, default=20, help="further views of a step, for masks and words only")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--lora", type=int, default=0, help="rank of the language model's adapters; 0 leaves it frozen")
    parser.add_argument("--lora-rate", type=float, default=5e-4)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--answers", type=int, default=2)
    parser.add_argument("--kept", type=int, default=32, help="image tokens of a photo that a training step shows")
    parser.add_argument("--all-after", type=float, default=0.75, help="share of the steps after which all are shown")
    parser.add_argument("--cells", type=float, default=0.5, help="weight of the loss against masks")
    parser.add_argument("--bags", type=float, default=0.02, help="weight of the loss against the captions' words")
    parser.add_argument("--object-weight", type=float, default=2.0)
    parser.add_argument("--balance", default="0.3,0.6", help="how much rare objects are drawn more: Flickr8k, the rest")
    parser.add_argument("--hide", type=float, default=0.35, help="share of masked photos with one object hidden")
    parser.add_argument("--mix", default="0.45,0.22,0.12,0.08,0.13")
    parser.add_argument("--texts", type=int, default=0, help="questions without a photo in a step, answered as before")
    parser.add_argument("--validate", type=int, default=200)
    return parser.parse_args()


def rarity(pool: list[tuple], balance: float) -> list[float]:
    """Return how often each case is to be drawn: more often where its rarest object is rare, so that cats are not dogs.

    `balance` lies between each case alike (0) and each object alike (1).
    """
    # Photos without any known object are alike in that.
    words = [_objects(photo, view) or {""} for _, _, photo, view in pool]
    counts = collections.Counter(word for row in words for word in row)
    return [max(counts[word] ** -balance for word in row) for row in words]


def _objects(photo: Photo, view: View) -> set[str]:
    if view.word:
        return {view.word}
    if photo.class_index is not None:
        return {plain_word(photo.class_index, photo.class_name, random.Random(0))}
    return photo.agreed_objects


class Draw:
    """Draws cases with what the model is to say of them: Flickr8k, captioned COCO, listed COCO, objects, classes."""

    def __init__(self, cases: Cases, options: argparse.Namespace):
        self.cases, self.options = cases, options
        self.mix = [float(share) for share in options.mix.split(",")]
        coco = cases.crops("coco")
        self.pools = [
            cases.crops("flickr"),
            [case for case in coco if case[2].captions],
            [case for case in coco if case[2].boxes],
            cases.of("coco", "objects"),
            cases.crops("classes"),
        ]
        flickr, others = (float(share) for share in options.balance.split(","))
        balances = [flickr] + [others] * (len(self.pools) - 1)
        self.weights = [list(itertools.accumulate(rarity(*pair))) for pair in zip(self.pools, balances, strict=True)]

    def __call__(self, chance: random.Random, count: int) -> tuple[tuple, Sample, torch.Tensor]:
        """Return a case, what is to be said of it, and which of its cells are shown, mostly `count` (cells; bool)."""
        kind = chance.choices(range(len(self.pools)), self.mix)[0]
        case = chance.choices(self.pools[kind], cum_weights=self.weights[kind])[0]
        _, _, photo, view = case
        at, words = self.cases.vocabulary.at, self.cases.vocabulary.words
        coverage, annotated = self.cases.coverage(photo, view)
        known = [at[name] for name in sorted(photo.objects) if annotated[at[name]]] if kind in (1, 2) else []
        hidden = None
        if known and chance.random() < self.options.hide and (choice := hideable(coverage, known)):
            hidden = chance.choice(choice)
        shown = drawn_cells(coverage, count, chance, hidden)
        answers = self.answers(kind, photo, view, coverage[shown], chance)
        if not answers:
            return self(chance, count)
        asked = PROMPT if chance.random() < DEFAULT_SHARES[kind] else chance.choice(OTHER_PROMPTS)
        absent = frozenset(words[row] for row in unseen(coverage, shown, known))
        return case, Sample(asked, answers, unseen=absent), shown

    def answers(self, kind: int, photo: Photo, view: View, coverage: torch.Tensor, chance: random.Random) -> list[str]:
        if kind < 2:
            captions = photo.captions
            if view.flip:
                captions = [text for text in captions if " left" not in text and " right" not in text]
            return caption_choices(captions, photo.agreed_objects, chance, self.options.answers)
        if kind == 2:
            area = coverage.sum(0)
            # What fills a fifth of a cell or more, the largest first: a person and a dog before a cup.
            seen = [at for at in area.argsort(descending=True).tolist() if area[at] > 0.2][:3]
            return [listing([self.cases.vocabulary.words[at] for at in seen])] if seen else []
        if kind == 3:
            return plain_answers(view.word, chance, 1)
        assert photo.class_index is not None
        return class_answers(photo.class_index, photo.class_name, chance)[: self.options.answers]


@torch.no_grad()
def validate(projector: Projector, head: WordHead, speaker: Speaker, cases: Cases) -> dict:
    """Return the caption loss on Flickr8k dev and what captions of the validation photos name."""

    def features(chosen: list[tuple]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(array[row]) for array, row, _, _ in chosen]).float()

    flickr = cases.of("flickr_dev", "0")[:600:12]
    losses = []
    for at in range(0, len(flickr), 10):
        part = flickr[at : at + 10]
        samples = [
            Sample(PROMPT, caption_choices(photo.captions, set(), random.Random(0), 5)) for _, _, photo, _ in part
        ]
        losses.append(speaker.loss(projector, features(part), samples).item())
    coco, classes = cases.of("coco_dev", "0"), cases.of("classes_dev", "0")
    captions = speaker.describe(projector, features(coco))
    named = speaker.describe(projector, features(classes))
    hits = [photo.is_named_by(text) for text, (_, _, photo, _) in zip(named, classes, strict=True)]
    result: dict = {"flickr_loss": sum(losses) / len(losses), "class": sum(hits) / len(hits)}
    result |= caption_scores(captions, [photo.objects for _, _, photo, _ in coco])
    result |= {key: value for key, value in grounding(head, projector, cases, coco).items() if key != "objects"}
    spoken = speaker.describe(projector, features(flickr[:12]))
    return result | {"captions": captions, "flickr_captions": spoken, "named_classes": named[:12]}


class Adapters(nn.Module):
    """The language model's adapters, by name."""

    def __init__(self, parameters: dict[str, nn.Parameter]):
        super().__init__()
        self.names = list(parameters)
        self.values = nn.ParameterList(parameters.values())

    def named(self) -> dict[str, nn.Parameter]:
        """Return the parameters by the name of their matrix and factor."""
        return dict(zip(self.names, self.values, strict=True))


def stored_projector(state: dict) -> Projector:
    """Return the projector of a saved state, averaged where that was kept."""
    weights = state.get("averaged", state["projector"])
    projector = Projector(weights["mean"], weights["scale"], inputs=len(weights["mean"]), shift=0.0)
    projector.load_state_dict(weights)
    return projector


class Training:
    """Projector, word head, optimizer and average, saved and resumed together."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.step = options, 0
        started = self.started = torch.load(options.start, weights_only=True)
        self.words = started["words"]
        self.projector = stored_projector(started)
        self.averaged = copy.deepcopy(self.projector)

    def prepare(self, head: WordHead, adapters: dict[str, nn.Parameter]) -> None:
        head.load_state_dict(self.started["head"])
        self.head = head
        options = self.options
        self.adapters = Adapters(adapters)
        self.averaged_adapters = copy.deepcopy(self.adapters)
        groups = [
            {"params": [*self.projector.parameters(), *head.parameters()], "peak": options.rate},
            {"params": [*self.adapters.parameters()], "peak": options.lora_rate},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=options.decay, betas=(0.9, 0.98))
        if "averaged_adapters" in self.started:
            for own in (self.adapters, self.averaged_adapters):
                own.load_state_dict(self.started["averaged_adapters"])
        if (options.run / "state.pt").is_file():
            state = torch.load(options.run / "state.pt", weights_only=True)
            self.step = state["step"]
            for name in self.PARTS:
                getattr(self, name).load_state_dict(state[name])
            for group, given in zip(self.optimizer.param_groups, groups, strict=True):
                group["peak"] = given["peak"]

    PARTS = ("projector", "averaged", "adapters", "averaged_adapters", "head", "optimizer")

    @contextlib.contextmanager
    def averaged_speaker(self) -> Iterator[None]:
        """Let the language model speak with its averaged adapters in the block."""
        trained = copy.deepcopy(self.adapters.state_dict())
        self.adapters.load_state_dict(self.averaged_adapters.state_dict())
        yield
        self.adapters.load_state_dict(trained)

    def exported(self) -> dict[str, torch.Tensor]:
        """Return the averaged projector's tensors and, as `lora.LAYER.…`, the averaged adapters', in half precision."""
        tensors = self.averaged.exported()
        tensors |= {f"lora.{name}": tensor for name, tensor in self.averaged_adapters.named().items()}
        return {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}

    def save(self) -> None:
        names = self.PARTS
        state = {"step": self.step, "words": self.words} | {name: getattr(self, name).state_dict() for name in names}
        file = self.options.run / "state.pt"
        torch.save(state, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)

    def update(self, loss: torch.Tensor) -> None:
        # Level until the last three tenths, so that a run may be made longer or shorter while it goes.
        left = 1 - self.step / self.options.steps
        share = min((self.step + 1) / 20, 1.0, left / 0.3 + 0.02)
        for group in self.optimizer.param_groups:
            group.update(lr=group["peak"] * share, weight_decay=self.options.decay)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.projector.parameters(), 1.0)
        torch.nn.utils.clip_grad_norm_(self.adapters.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.options.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            slow = [*self.averaged.parameters(), *self.averaged_adapters.parameters()]
            fast = [*self.projector.parameters(), *self.adapters.parameters()]
            for mean, value in zip(slow, fast, strict=True):
                mean.lerp_(value, 1 - keep)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "options.json").write_text(json.dumps(vars(options), default=str, indent=1))
    speaker = Speaker()
    table = speaker.model.get_input_embeddings().weight.detach()
    training = Training(options)
    texts = own_answers(speaker, training.words, options.run / "texts.json") if options.texts else []
    ids = [speaker.tokenizer(" " + word, add_special_tokens=False).input_ids for word in training.words]
    vocabulary = Vocabulary(training.words, torch.stack([table[row].float().mean(0) for row in ids]))
    material, store = Material(options), Store(options.store)
    cases = Cases(material, store, vocabulary)
    training.prepare(WordHead(vocabulary), adapt(speaker.model, options.lora) if options.lora else {})
    draw = Draw(cases, options)
    print("pools", [len(pool) for pool in draw.pools], flush=True)
    packer = Packer(speaker.tokenizer, CELLS, speaker.image_token_id, options.object_weight)
    recent: list[list[float]] = []
    began = time.time()
    while training.step < options.steps:
        step = training.step
        # Drawn by step number, so that a resumed run sees what an uninterrupted one would have seen.
        chance = random.Random(options.seed * 1_000_003 + step)
        torch.manual_seed(options.seed * 1_000_003 + step)
        count = CELLS if step >= options.all_after * options.steps else options.kept
        drawn = [draw(chance, count) for _ in range(options.batch)]
        # Views that are only grounded cost little beside those that the language model reads.
        further = [draw(chance, count)[0] for _ in range(options.grounded)]
        batch = cases.batch([case for case, _, _ in drawn] + further)
        with torch.autocast("cpu", torch.bfloat16):
            projected = training.projector(batch["features"], options.drop)
        projected = projected.float()
        kept = torch.stack([shown for _, _, shown in drawn])
        packed = packer.pack([sample for _, sample, _ in drawn] + chance.sample(texts, options.texts), kept)
        losses = [
            speaker.packed_loss(projected[: options.batch][kept], packed),
            options.cells * training.head.cell_loss(projected, batch["coverage"], batch["annotated"]),
            options.bags * training.head.bag_loss(projected, batch["bags"], batch["known"]),
            0.1 * training.head.length_loss(projected),
        ]
        training.update(torch.stack(losses).sum())
        recent = [*recent[-99:], [loss.item() for loss in losses]]
        if training.step % 10 == 0:
            means = [round(sum(column) / len(recent), 3) for column in zip(*recent, strict=True)]
            print(training.step, "losses", means, f"{time.time() - began:.0f} s", flush=True)
        if training.step % 10 == 0 or training.step == options.steps:
            training.save()
        if training.step % options.validate == 0 or training.step == options.steps:
            with training.averaged_speaker():
                result: dict = {"step": training.step} | validate(training.averaged, training.head, speaker, cases)
            save_file(training.exported(), options.run / f"step-{training.step}.safetensors")
            with (options.run / "validation.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
            figures = {key: round(value, 3) for key, value in result.items() if not isinstance(value, list)}
            print(
                json.dumps(figures),
                json.dumps(result["captions"][:8]),
                f"{time.time() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
