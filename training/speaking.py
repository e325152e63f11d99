"""The language model at work: image tokens to a loss or to captions."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from captions import PROMPT, Packer, Sample
from neuronwise.architectures.builtin import IMAGE_TOKEN, builtin_folder, merged


class Speaker:
    """SmolLM2, as published or with an adapter's tensors; training and choosing read it in bfloat16."""

    def __init__(self, precision: torch.dtype = torch.bfloat16, adapter: Mapping[str, torch.Tensor] | None = None):
        # The cached folder opens in a second, the published file in half a minute.
        folder = builtin_folder("builtin-text")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if adapter:
            self.model.model.load_state_dict(merged(self.model.model.state_dict(), adapter))
        self.model = self.model.to(precision).requires_grad_(False)
        # On a CPU the fused attention's backward pass is slower than the plain one at these lengths.
        self.model.set_attn_implementation("eager")

    def packed_loss(self, projected: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted mean loss of a packed batch whose photos are projected to (B, cells, 576)."""
        embeddings = self.model.get_input_embeddings()
        is_image = batch["ids"] == self.image_token_id
        hidden = embeddings(batch["ids"].masked_fill(is_image, 0))
        hidden = hidden.masked_scatter(is_image[..., None], projected.to(hidden.dtype))
        hidden = self.model.model(
            inputs_embeds=hidden, attention_mask=batch["mask"], position_ids=batch["positions"], use_cache=False
        ).last_hidden_state
        # Only rows that predict an answer meet the vocabulary.
        logits = self.model.lm_head(hidden.flatten(0, 1)[batch["rows"]]).float()
        losses = nn.functional.cross_entropy(logits, batch["targets"], reduction="none")
        weights = batch["weights"]
        # What must not be said has a negative weight: -log(1 - p), in place of -log p.
        unlikely = -torch.log1p(-(-losses).exp().clamp(max=1 - 1e-4))
        losses = torch.where(weights < 0, unlikely, losses)
        return (losses * weights.abs()).sum() / weights.abs().sum()

    @torch.no_grad()
    def loss(
        self, projector: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor, samples: list[Sample]
    ) -> torch.Tensor:
        """Return the mean loss of answers, objects weighing as much as other words."""
        packer = Packer(self.tokenizer, features.shape[1], self.image_token_id, 1.0)
        return self.packed_loss(projector(features), packer.pack(samples))

    @torch.no_grad()
    def describe(
        self,
        projector: Callable[[torch.Tensor], torch.Tensor],
        features: torch.Tensor,
        prompt: str = PROMPT,
        longest: int = 30,
    ) -> list[str]:
        """Return the greedy caption of each photo's features (B, cells, width)."""
        packer = Packer(self.tokenizer, features.shape[1], self.image_token_id, 1.0)
        ids = torch.tensor(packer.shared(Sample(prompt, [])))
        at = (ids == self.image_token_id).nonzero().flatten()
        texts = []
        for part in projector(features).split(30):
            embedded = self.model.get_input_embeddings()(ids.masked_fill(ids == self.image_token_id, 0))
            embedded = embedded[None].repeat(len(part), 1, 1)
            embedded[:, at] = part.to(embedded.dtype)
            attended = torch.ones(embedded.shape[:2], dtype=torch.long)
            written = self.model.generate(
                inputs_embeds=embedded, attention_mask=attended, max_new_tokens=longest, do_sample=False
            )
            texts += self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]
