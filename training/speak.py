"""Train the grounded projector to make the frozen language model speak: captions, with words kept at their places.

    python training/speak.py DATA… --store RUNS/views --start RUNS/ground/state.pt --run RUNS/speak

Interrupt it at any time; the same command goes on from the last saved step. Each validation writes the averaged
projector and a line of `validation.jsonl`.
"""

import argparse
import copy
import json
import pathlib
import random
import time

import torch
from safetensors.torch import save_file

from captions import OTHER_PROMPTS, PROMPT, Packer, Sample, caption_choices, class_answers, listing, plain_answers
from ground import Cases, WordHead, grounding
from material import Material, add_folders
from photos import Photo
from projector import Projector
from scores import caption_scores
from speaking import Speaker
from views import Store, View
from words import Vocabulary

CELLS = 64


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--store", type=pathlib.Path, required=True, help="folder of the views' features")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of this run's state")
    parser.add_argument("--start", type=pathlib.Path, required=True, help="state that ground.py wrote")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--grounded", type=int, default=20, help="further views of a step, for masks and words only")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--answers", type=int, default=2)
    parser.add_argument("--kept", type=int, default=32, help="image tokens of a photo that a training step shows")
    parser.add_argument("--all-after", type=float, default=0.75, help="share of the steps after which all are shown")
    parser.add_argument("--cells", type=float, default=0.5, help="weight of the loss against masks")
    parser.add_argument("--bags", type=float, default=0.02, help="weight of the loss against the captions' words")
    parser.add_argument("--object-weight", type=float, default=2.0)
    parser.add_argument("--mix", default="0.45,0.22,0.12,0.08,0.13")
    parser.add_argument("--validate", type=int, default=200)
    return parser.parse_args()


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

    def __call__(self, chance: random.Random) -> tuple[tuple, Sample]:
        kind = chance.choices(range(len(self.pools)), self.mix)[0]
        case = chance.choice(self.pools[kind])
        answers = self.answers(kind, case[2], case[3], chance)
        if not answers:
            return self(chance)
        return case, Sample(PROMPT if chance.random() < 0.92 else chance.choice(OTHER_PROMPTS), answers)

    def answers(self, kind: int, photo: Photo, view: View, chance: random.Random) -> list[str]:
        if kind < 2:
            captions = photo.captions
            if view.flip:
                captions = [text for text in captions if " left" not in text and " right" not in text]
            return caption_choices(captions, photo.agreed_objects, chance, self.options.answers)
        if kind == 2:
            coverage, _ = self.cases.coverage(photo, view)
            area = coverage.sum(0)
            # What fills a fifth of a cell or more, the largest first: a person and a dog before a cup.
            seen = [at for at in area.argsort(descending=True).tolist() if area[at] > 0.2][:3]
            return [listing([self.cases.vocabulary.words[at] for at in seen])] if seen else []
        if kind == 3:
            return plain_answers(view.word, chance, 1)
        assert photo.class_index is not None
        return class_answers(photo.class_index, photo.class_name, chance)[: self.options.answers]


def keep_cells(count: int, kept: int, generator: torch.Generator) -> torch.Tensor:
    """Return (count, 64) booleans, `kept` of each row true."""
    return torch.rand(count, CELLS, generator=generator).argsort(1) < kept


@torch.no_grad()
def validate(projector: Projector, head: WordHead, speaker: Speaker, cases: Cases) -> dict:
    """Return the caption loss on Flickr8k dev and what captions of the validation photos name."""

    def features(chosen: list[tuple]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(array[row].copy()) for array, row, _, _ in chosen]).float()

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


class Training:
    """Projector, word head, optimizer and average, saved and resumed together."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.step = options, 0
        started = torch.load(options.start, weights_only=True)
        self.words = started["words"]
        mean = started["projector"]["mean"]
        self.projector = Projector(mean, 1.0, inputs=len(mean), shift=0.0)
        self.projector.load_state_dict(started["projector"])
        self.averaged = copy.deepcopy(self.projector)
        self.head_state = started["head"]

    def prepare(self, head: WordHead) -> None:
        head.load_state_dict(self.head_state)
        self.head = head
        options = self.options
        self.parameters = [*self.projector.parameters(), *head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1.0, weight_decay=options.decay, betas=(0.9, 0.98))
        if (options.run / "state.pt").is_file():
            state = torch.load(options.run / "state.pt", weights_only=True)
            self.step = state["step"]
            for name in ("projector", "averaged", "head", "optimizer"):
                getattr(self, name).load_state_dict(state[name])

    def save(self) -> None:
        names = ("projector", "averaged", "head", "optimizer")
        state = {"step": self.step} | {name: getattr(self, name).state_dict() for name in names}
        file = self.options.run / "state.pt"
        torch.save(state, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)

    def update(self, loss: torch.Tensor) -> None:
        # Level until the last three tenths, so that a run may be made longer or shorter while it goes.
        left = 1 - self.step / self.options.steps
        share = min((self.step + 1) / 20, 1.0, left / 0.3 + 0.02)
        for group in self.optimizer.param_groups:
            group.update(lr=self.options.rate * share, weight_decay=self.options.decay)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.projector.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.options.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.averaged.parameters(), self.projector.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "options.json").write_text(json.dumps(vars(options), default=str, indent=1))
    speaker = Speaker()
    table = speaker.model.get_input_embeddings().weight.detach()
    training = Training(options)
    ids = [speaker.tokenizer(" " + word, add_special_tokens=False).input_ids for word in training.words]
    vocabulary = Vocabulary(training.words, torch.stack([table[row].float().mean(0) for row in ids]))
    material, store = Material(options), Store(options.store)
    cases = Cases(material, store, vocabulary)
    training.prepare(WordHead(vocabulary))
    draw = Draw(cases, options)
    print("pools", [len(pool) for pool in draw.pools], flush=True)
    packer = Packer(speaker.tokenizer, CELLS, speaker.image_token_id, options.object_weight)
    recent: list[list[float]] = []
    began = time.time()
    while training.step < options.steps:
        step = training.step
        # Drawn by step number, so that a resumed run sees what an uninterrupted one would have seen.
        chance, generator = random.Random(options.seed * 1_000_003 + step), torch.Generator().manual_seed(step)
        torch.manual_seed(options.seed * 1_000_003 + step)
        drawn = [draw(chance) for _ in range(options.batch)]
        # Views that are only grounded cost little beside those that the language model reads.
        batch = cases.batch([case for case, _ in drawn] + [draw(chance)[0] for _ in range(options.grounded)])
        with torch.autocast("cpu", torch.bfloat16):
            projected = training.projector(batch["features"], options.drop)
        projected = projected.float()
        every = step >= options.all_after * options.steps
        kept = keep_cells(len(drawn), CELLS if every else options.kept, generator)
        packed = packer.pack([sample for _, sample in drawn], kept)
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
            result: dict = {"step": training.step} | validate(training.averaged, training.head, speaker, cases)
            exported = {name: tensor.contiguous() for name, tensor in training.averaged.exported().items()}
            save_file(exported, options.run / f"step-{training.step}.safetensors")
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
