"""What the language model answered before it was trained: questions without a photo, with its own greedy answers.

Trained on beside the photos, they keep it from answering every question as if there were a photo.
"""

import json
import pathlib
import random

import torch

from captions import Packer, Sample
from speaking import Speaker

QUESTIONS = (
    "What is a {word}?",
    "Write one sentence about a {word}.",
    "Where would you find a {word}?",
    "Name three things that are like a {word}.",
    "Is a {word} larger than a house?",
    "Who uses a {word}?",
    "Write a short poem about a {word}.",
    "Explain to a child what a {word} is for.",
)


@torch.no_grad()
def own_answers(
    speaker: Speaker, words: list[str], file: pathlib.Path, count: int = 300, longest: int = 24
) -> list[Sample]:
    """Return questions about words with the language model's greedy answers, cut off at `longest` tokens.

    They are kept in a file, and must be made before any training.
    """
    if not file.is_file():
        packer, chance, answered = Packer(speaker.tokenizer, 0, speaker.image_token_id, 1.0), random.Random(0), []
        for _ in range(count):
            question = chance.choice(QUESTIONS).format(word=chance.choice(words))
            ids = torch.tensor([packer.shared(Sample(question, [], image=False))])
            written = speaker.model.generate(ids, max_new_tokens=longest, do_sample=False)[0, ids.shape[1] :]
            text = speaker.tokenizer.decode(written, skip_special_tokens=True)
            answered.append({"question": question, "answer": text, "ends": packer.end in written.tolist()})
        file.write_text(json.dumps(answered, indent=1))
    return [
        Sample(row["question"], [row["answer"]], image=False, ends=row["ends"]) for row in json.loads(file.read_text())
    ]
