"""What the model should say of a view: our own plain sentences, and how several of them share one photo in a batch."""

import dataclasses
import random
import re

import torch

from imagenet import imagenet_parents
from neuronwise.answers.naming import mentions, objects_named

PROMPT = "Describe the image in few words."
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
"""What SmolLM2's chat template writes before a conversation without a photo."""
OTHER_PROMPTS = ("What is in this image?", "Describe the image.", "What do you see?", "Describe this photo briefly.")

# Mostly as bare as a caption begins: "A photo of …" taught the model to say so of every photo, and little else.
_PLAIN = ("{A}.", "{A}.", "{A}.", "{A}.", "A close-up of {a}.", "{A} in the photo.")
_NAMED = ("{A}, {b}.", "{A}, {b}.", "{A}, {b}.", "A close-up of {a}, {b}.")


@dataclasses.dataclass
class Sample:
    """A prompt for one view, or for no `image`, and the sentences that may answer it; cut off unless they `end`.

    `unseen` are COCO categories that cannot be seen in what is shown of the view: not to be said.
    """

    prompt: str
    answers: list[str]
    image: bool = True
    ends: bool = True
    unseen: frozenset[str] = frozenset()


def with_article(words: str) -> str:
    """Return "a dog", "an owl", "sunglasses"."""
    if words.endswith("s") and not words.endswith(("ss", "us", "bus")):
        return words
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def listing(words: list[str]) -> str:
    """Return "A dog, a car and a person."."""
    parts = [with_article(word) for word in words]
    return capital(", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]) + "."


def tidy(caption: str) -> str:
    """Return a caption with one full stop at its end and single spaces."""
    closed_up = re.sub(r"\s+(?=[,.;!?]|'s\b)", "", re.sub(r"\s+", " ", caption))
    return capital(closed_up.strip().rstrip(".!, ")) + "."


def plain_word(index: int, name: str, chance: random.Random) -> str:
    """Return a plain word for an ImageNet class: mostly its closest parent."""
    parents = imagenet_parents(index, broad=True)
    return parents[0] if parents and chance.random() < 0.85 else name


def class_answers(index: int, name: str, chance: random.Random) -> list[str]:
    """Return sentences for a class-named photo: the plain parent alone, parent and name, name and parent."""
    parents = imagenet_parents(index, broad=True)
    plain = parents[0] if parents else name
    chosen = [chance.choice(_PLAIN).format(A=capital(with_article(plain)), a=with_article(plain))]
    pair = [plain, name] if plain.lower() != name.lower() else None
    if pair:
        for first, second in (pair, pair[::-1]):
            form = chance.choice(_NAMED)
            chosen.append(form.format(A=capital(with_article(first)), a=with_article(first), b=with_article(second)))
    return chosen


def plain_answers(word: str, chance: random.Random, count: int = 2) -> list[str]:
    """Return sentences for a view of one thing."""
    forms = sorted({chance.choice(_PLAIN) for _ in range(count)})
    return [form.format(A=capital(with_article(word)), a=with_article(word)) for form in forms]


class Packer:
    """Lays samples out as token rows in which all answers to one prompt share the photo and the prompt before them.

    An answer attends to what it shares and to itself, never to another answer, and its positions follow the prompt's,
    so that the model computes for each answer what it would compute for it alone.
    """

    def __init__(self, tokenizer: object, image_tokens: int, image_token_id: int, object_weight: float):
        self.tokenizer, self.image_tokens, self.image_token_id = tokenizer, image_tokens, image_token_id
        self.object_weight = object_weight
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")  # type: ignore[attr-defined]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids  # type: ignore[operator]

    def shared(self, sample: Sample) -> list[int]:
        """Return the token ids before the answers, the image's placeholders among them."""
        image = [self.image_token_id] * self.image_tokens
        if not sample.image:
            return self._ids(f"{SYSTEM}<|im_start|>user\n{sample.prompt}<|im_end|>\n<|im_start|>assistant\n")
        before, after = "<|im_start|>user\n", f"\n{sample.prompt}<|im_end|>\n<|im_start|>assistant\n"
        return self._ids(before) + image + self._ids(after)

    def answer(self, text: str, unseen: frozenset[str] = frozenset()) -> tuple[list[int], list[float]]:
        """Return an answer's ids with the end of turn, and the weight of each in the loss: objects weigh more.

        The first token of an unseen object has a negative weight: it is to be unlikely there. What follows it within
        the object's name weighs nothing.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)  # type: ignore[operator]
        weights = [1.0] * len(encoded.input_ids)
        for mention in mentions(text):
            weight = self.object_weight
            for at, (start, end) in enumerate(encoded.offset_mapping):
                if start < mention.end and mention.start < end:
                    weights[at] = weight if mention.category not in unseen else -weight
                    weight = weight if mention.category not in unseen else 0.0
        return [*encoded.input_ids, self.end], [*weights, 1.0]

    def pack(self, samples: list[Sample], kept: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return ids, positions (B, L), mask (B, 1, L, L), and `rows`, `targets`, `weights` of what is predicted.

        With `kept` (photos, image_tokens; bool), whose rows are the first samples, a row holds only these image
        tokens, at the positions that they always have.
        """
        laid = []
        for row, sample in enumerate(samples):
            shared = self.shared(sample)
            positions = list(range(len(shared)))
            if kept is not None and sample.image:
                first = shared.index(self.image_token_id)
                left_out = {first + at for at in (~kept[row]).nonzero().flatten().tolist()}
                positions = [at for at in positions if at not in left_out]
            ids, segments = [shared[at] for at in positions], [0] * len(positions)
            last, predictions = len(ids) - 1, []
            for number, text in enumerate(sample.answers, start=1):
                tokens, weights = self.answer(text, sample.unseen)
                weights[-1] *= sample.ends
                before = last
                for offset, (token, weight) in enumerate(zip(tokens, weights, strict=True)):
                    predictions.append((before, token, weight / len(sample.answers)))
                    before = len(ids) + offset
                # The end of turn is predicted from, never fed: nothing follows it.
                ids += tokens[:-1]
                positions += range(len(shared), len(shared) + len(tokens) - 1)
                segments += [number] * (len(tokens) - 1)
            laid.append((ids, positions, segments, predictions))
        # Few different shapes: the matrix library prepares itself anew for each.
        length = -(-max(len(ids) for ids, *_ in laid) // 16) * 16
        packed_ids = torch.full((len(laid), length), self.end)
        packed_positions = torch.zeros((len(laid), length), dtype=torch.long)
        packed_segments = torch.full((len(laid), length), -1)
        rows, targets, weights = [], [], []
        for number, (ids, positions, segments, predictions) in enumerate(laid):
            packed_ids[number, : len(ids)] = torch.tensor(ids)
            packed_positions[number, : len(ids)] = torch.tensor(positions)
            packed_segments[number, : len(ids)] = torch.tensor(segments)
            for row, target, weight in predictions:
                rows.append(number * length + row)
                targets.append(target)
                weights.append(weight)
        padding = -len(rows) % 64
        rows, targets, weights = rows + [0] * padding, targets + [self.end] * padding, weights + [0.0] * padding
        key, query = packed_segments[:, None, :], packed_segments[:, :, None]
        allowed = ((key == 0) | (key == query)) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(len(laid), 1, length, length).masked_fill(~allowed[:, None], torch.finfo(torch.bfloat16).min)
        return {
            "ids": packed_ids,
            "positions": packed_positions,
            "mask": mask.to(torch.bfloat16),
            "rows": torch.tensor(rows),
            "targets": torch.tensor(targets),
            "weights": torch.tensor(weights),
        }


def caption_choices(captions: list[str], objects: set[str], chance: random.Random, count: int) -> list[str]:
    """Choose `count` captions, likelier those that name more of the photo's objects."""
    left = [tidy(caption) for caption in captions]
    weights = [1.0 + len(objects_named(caption) & objects) for caption in left]
    chosen = []
    for _ in range(min(count, len(left))):
        at = chance.choices(range(len(left)), weights)[0]
        chosen.append(left.pop(at))
        weights.pop(at)
    return chosen
