"""Let a trained projector see a second encoder beside the first: what the new features add is learned from words alone.

    python training/widen.py DATA… --store RUNS/views --start RUNS/speak/state.pt --out RUNS/wide.pt

The state is one of `speak.py` that knows the first features of each cell only. The others enter with weight zero, and
the losses against masks and captions' words train their weights, everything else fixed; `speak.py --start` goes on.
"""

import argparse
import pathlib
import random
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ground import Cases, WordHead, grounding
from material import Material, add_folders
from neuronwise.architectures.builtin import builtin_folder
from speak import stored_projector
from views import Store
from words import Vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--store", type=pathlib.Path, required=True, help="folder of the views' features")
    parser.add_argument("--start", type=pathlib.Path, required=True, help="state of a projector of the first features")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the state to write")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=2e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    state = torch.load(options.start, weights_only=True)
    folder = builtin_folder("builtin-text")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    table = model.get_input_embeddings().weight.detach()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(" " + word, add_special_tokens=False).input_ids for word in state["words"]]
    vocabulary = Vocabulary(state["words"], torch.stack([table[row].float().mean(0) for row in ids]))
    cases, head = Cases(Material(options), Store(options.store), vocabulary), WordHead(vocabulary)
    head.load_state_dict(state["head"])
    pools = [cases.crops("flickr"), cases.crops("coco"), cases.of("coco", "objects"), cases.crops("classes")]
    chance, dev = random.Random(options.seed), cases.of("coco_dev", "0")

    def drawn(count: int) -> dict[str, torch.Tensor]:
        kinds = chance.choices(range(4), (0.3, 0.3, 0.2, 0.2), k=count)
        return cases.batch([chance.choice(pools[kind]) for kind in kinds])

    narrow = stored_projector(state)
    old = len(narrow.mean)
    further = drawn(300)["features"][..., old:].flatten(0, 1)
    projector = narrow.widened(further.mean(0), further.std().expand(further.shape[1]))
    print("before", grounding(head, projector, cases, dev), flush=True)
    optimizer, began = torch.optim.Adam([projector.linear_1.weight], lr=options.rate), time.time()
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.rate * min((step + 1) / 30, 1, 2 * (1 - step / options.steps))
        batch = drawn(32)
        projected = projector(batch["features"], 0.1).float()
        loss = 5 * head.cell_loss(projected, batch["coverage"], batch["annotated"])
        loss = loss + head.bag_loss(projected, batch["bags"], batch["known"]) + 3 * head.length_loss(projected)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        projector.linear_1.weight.grad[:, :old] = 0  # type: ignore[index]
        optimizer.step()
        if step % 100 == 99:
            print(step + 1, loss.item(), f"{time.time() - began:.0f} s", flush=True)
    print("after", grounding(head, projector, cases, dev), flush=True)
    torch.save({**state, "projector": projector.state_dict(), "averaged": projector.state_dict()}, options.out)


if __name__ == "__main__":
    main()
