"""The frozen parts at work: photos to features, features through a projector to a loss or to captions."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from captions import PROMPT, Packer, Sample
from neuronwise.architectures.builtin import IMAGE_TOKEN, read_image_encoder, read_language_model
from neuronwise.architectures.efficientnet_lite import ConvNorm


class Fused(nn.Module):
    """A convolution that has taken its frozen batch norm in: the same numbers, faster."""

    def __init__(self, published: ConvNorm):
        super().__init__()
        self.conv, norm = copy.deepcopy(published.conv), published.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            self.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.conv.weight, self.conv.bias, self.activate = weight, bias, published.activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return nn.functional.relu6(x) if self.activate else x


def fused(encoder: nn.Module) -> nn.Module:
    """Return a copy of the encoder with its batch norms taken into the convolutions, in channels-last order."""
    encoder = copy.deepcopy(encoder)
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvNorm):
                setattr(module, name, Fused(child))
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Speaker:
    """SmolLM2 and EfficientNet-Lite2, frozen; the language model in bfloat16."""

    def __init__(self, precise: bool = False):
        self.model, self.tokenizer = read_language_model()
        self.tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.model = self.model.to(torch.bfloat16).requires_grad_(False)
        # On a CPU the fused attention's backward pass is slower than the plain one at these lengths.
        self.model.set_attn_implementation("eager")
        encoder, self.classifier = read_image_encoder()
        self.encoder = fused(encoder).requires_grad_(False)
        self.precision = torch.float32 if precise else torch.bfloat16
        self.encoder.to(self.precision)

    @torch.no_grad()
    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features (B, 49, 1280) of pixels (B, 3, 224, 224)."""
        done = []
        for part in pixel_values.to(self.precision).split(16):
            done.append(self.encoder(part.to(memory_format=torch.channels_last)).last_hidden_state)
        return torch.cat(done).float()

    def packed_loss(self, projected: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted mean loss of a packed batch whose photos are projected to (B, 49, 576)."""
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
        return (losses * batch["weights"]).sum() / batch["weights"].sum()

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
        """Return the greedy caption of each photo's features (B, 49, 1280)."""
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
