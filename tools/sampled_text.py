"""Text that a model makes up itself, to gather key statistics from without any data.

python tools/sampled_text.py sampled.jsonl
neuronwise statistics sampled.jsonl --model builtin-text --layers 3-16 --tokens 20000 --out runs/statistics
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import neuronwise as nw

STARTS = "The In A I He She It We On When After This For One As There"
LENGTH, BATCH = 64, 64


def sampled(model: nw.Model, tokens: int, seed: int) -> list[str]:
    """Texts of ``LENGTH`` tokens, a tenth more than ``tokens`` in all."""
    torch.manual_seed(seed)
    starts = [model.tokenizer(word)["input_ids"][:1] for word in STARTS.split()]
    texts: list[str] = []
    while len(texts) * LENGTH < 1.1 * tokens:
        ids = torch.tensor((starts * BATCH)[:BATCH])
        made = model.module.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=LENGTH, pad_token_id=0,
        )  # fmt: skip
        texts += [model.decode_ids(row.tolist()) for row in made]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    texts = sampled(nw.load(options.model), options.tokens, options.seed)
    options.out.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


if __name__ == "__main__":
    main()
