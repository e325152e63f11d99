"""A cheap start for the projector, without the language model: grid cells learn to point at the words of what they show.

Every view of a photo has words (an ImageNet class's name and parents, the annotated or agreed COCO objects). The score
of a word is the softened maximum over grid cells of the projected cell's cosine with the word's embedding; the right
words' scores are raised over all others'. A pass costs a hundredth of one through the language model.
"""

import random

import torch
from photos import Photo, around, pixels, random_view
from projector import Projector
from speaking import Speaker

from neuronwise.data.objects import COCO_CATEGORIES, imagenet_parents

TEMPERATURE = 0.07


def words_of(photo: Photo) -> list[str]:
    if photo.class_index is not None:
        return [photo.class_name, *imagenet_parents(photo.class_index)[:2]]
    return sorted(photo.agreed_objects)


def pool(speaker: Speaker, captioned: list[Photo], classes: list[Photo], seed: int) -> tuple[torch.Tensor, list]:
    """Return features (N, 49, 1280) in float16 of random views and the words of each."""
    chance, views, words = random.Random(seed), [], []
    for photo in classes:
        for _ in range(3):
            views.append(random_view(photo.image, chance, 0.4))
            words.append(words_of(photo))
    for photo in captioned:
        for _ in range(8):
            views.append(random_view(photo.image, chance, 0.6))
            words.append(words_of(photo))
        for category, box in photo.boxes:
            if (box[2] - box[0]) * (box[3] - box[1]) > 0.01:
                for _ in range(2):
                    views.append(random_view(photo.image, chance, 0.8, box=around(box, chance)))
                    words.append([category])
    features = [speaker.encode(pixels(views[at : at + 64])).half() for at in range(0, len(views), 64)]
    return torch.cat(features), words


def word_start(
    projector: Projector, speaker: Speaker, captioned: list[Photo], classes: list[Photo], steps: int, seed: int
) -> None:
    """Train the projector in place on words; its output ends with the embeddings' standard deviation."""
    features, words = pool(speaker, captioned, classes, seed)
    vocabulary = sorted({word for entry in words for word in entry} | set(COCO_CATEGORIES))
    embeddings = speaker.model.get_input_embeddings().weight.float()
    center = embeddings.mean(0)
    vectors = torch.stack(
        [
            embeddings[speaker.tokenizer(" " + word, add_special_tokens=False).input_ids].mean(0) - center
            for word in vocabulary
        ]
    )
    vectors = nn_normalize(vectors)
    number = {word: at for at, word in enumerate(vocabulary)}
    goals = torch.zeros(len(words), len(vocabulary))
    for row, entry in enumerate(words):
        for word in entry:
            goals[row, number[word]] = 1 / len(entry)
    usable = goals.sum(1).nonzero().flatten()
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min((step + 1) / 20, 1 - step / steps)
        chosen = usable[torch.randint(len(usable), (48,), generator=generator)]
        out = projector(features[chosen].float(), drop=0.2, drop_cells=0.2) - center
        cosines = nn_normalize(out) @ vectors.T
        scores = (cosines / TEMPERATURE).logsumexp(1)
        loss = -(goals[chosen] * scores.log_softmax(1)).sum(1).mean()
        # Without this the length of the output would drift, which the cosine does not see.
        loss = loss + 10 * (out.std() / embeddings.std() - 1) ** 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"words {step} loss {loss.item():.3f}", flush=True)


def nn_normalize(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
