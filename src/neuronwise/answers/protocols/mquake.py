"""MQuAKE's questions of several hops (Zhong et al. 2023, arXiv:2305.14795), asked with a chain of thought."""

from __future__ import annotations

import re

from neuronwise.answers.protocols.table import Protocol
from neuronwise.answers.protocols.wild import exact_match

# In the published form, by examples of our own.
_EXAMPLES = (
    ("What is the capital of the country where the Louvre is located?",
     "The Louvre is located in the country of France. The capital of France is Paris.", "Paris"),
    ("In which country is the company that created the PlayStation located?",
     "The PlayStation was created by Sony. Sony is located in the country of Japan.", "Japan"),
    ("Which continent is the country where Nelson Mandela was born located in?",
     "Nelson Mandela was born in the country of South Africa. South Africa is located in the continent of Africa.",
     "Africa"),
    ("Who is the spouse of the author of Frankenstein?",
     "The author of Frankenstein is Mary Shelley. The spouse of Mary Shelley is Percy Bysshe Shelley.",
     "Percy Bysshe Shelley"),
    ("What is the official language of the country where flamenco originated?",
     "Flamenco originated in the country of Spain. The official language of Spain is Spanish.", "Spanish"),
)  # fmt: skip
PROMPT = "".join(
    f"Question: {question}\nThoughts: {thoughts}\nAnswer: {answer}\n\n" for question, thoughts, answer in _EXAMPLES
)
_ANSWER = re.compile(r"^Answer:(.*)$", re.MULTILINE)


def answered(text: str, answer: str) -> float:
    """1 where the line "Answer:" behind the thoughts is the answer (see ``exact_match``), else 0."""
    said = _ANSWER.search(text)
    return 0.0 if said is None else exact_match(said[1], answer)


# A case counts as right if any wording of its question does, as published.
PROTOCOL = Protocol(
    "mquake", 256, ("\n\n", "\nQuestion:"), answered, says="MQuAKE: chain of thought, any wording",
    cites="arXiv:2305.14795", prompt=PROMPT + "Question: {}\nThoughts:", parts=("portability_multi_hop",), best=True,
)  # fmt: skip
