"""Which words hold for a photo, and what the language model embeds them as."""

import collections
import dataclasses
import random
import re

import torch

from captions import plain_word
from neuronwise.data.words import COCO_CATEGORIES
from photos import Photo

_DULL = set(
    "a an the is are was were be been being and or of in on at to from with by for as it its this that these those "
    "there his her their they he she him them who which what while some another other others one two three several "
    "many each up down out off over into onto near next behind front top back side through around along across under "
    "above between has have having do does can not very about against during after before toward towards s t so like "
    "both all no".split()
)


@dataclasses.dataclass
class Vocabulary:
    """Words and their mean input embeddings (V, d)."""

    words: list[str]
    embeddings: torch.Tensor

    def __post_init__(self):
        self.at = {word: number for number, word in enumerate(self.words)}


def content_words(caption: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", caption.lower()) if word not in _DULL and len(word) > 1]


def class_words(photo: Photo) -> list[str]:
    """Return the plain word and the name of a class-named photo."""
    assert photo.class_index is not None
    return sorted({plain_word(photo.class_index, photo.class_name, random.Random(0)), photo.class_name.lower()})


def collect(captioned: list[Photo], classes: list[Photo], tokenizer, embeddings: torch.Tensor, least: int = 15):
    """Return the vocabulary: COCO's categories, the training classes' words, words of `least` photos' captions."""
    counts = collections.Counter()
    for photo in captioned:
        counts.update({word for caption in photo.captions for word in content_words(caption)})
    words = list(COCO_CATEGORIES)
    words += sorted({word for photo in classes for word in class_words(photo)} - set(words))
    words += sorted({word for word, count in counts.items() if count >= least} - set(words))
    ids = [tokenizer(" " + word, add_special_tokens=False).input_ids for word in words]
    return Vocabulary(words, torch.stack([embeddings[row].float().mean(0) for row in ids]))


def caption_bag(photo: Photo, vocabulary: Vocabulary) -> torch.Tensor:
    """Return (V,): 1 for a word that two captions hold, 0.7 for a word of one caption."""
    counts = collections.Counter(word for caption in photo.captions for word in set(content_words(caption)))
    bag = torch.zeros(len(vocabulary.words))
    for word, count in counts.items():
        if word in vocabulary.at:
            bag[vocabulary.at[word]] = 1.0 if count > 1 else 0.7
    return bag
