"""Record what the published mPLUG-Owl2 modules answer to the tiny model and inputs of `tests/parity/mplug_owl2.py`.

    PYTHONPATH=tests python tools/published/record_mplug_owl2.py FOLDER/mPLUG-Owl2

`FOLDER` is a copy of https://github.com/X-PLUG/mPLUG-Owl (Apache-2.0); the environment needs what it pins:
transformers 4.31.0 with tokenizers 0.13, and einops, numpy<2, sentencepiece, pillow. Writes the three fixtures in
tests/parity. Nothing of the published code is kept, only the numbers that it computes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from parity import mplug_owl2 as tiny

CORPUS = """The capital of France is Paris. Describe the image. What is in the picture? A red house and a blue dog.
USER: ASSISTANT: the first of the two is red, the second is not. Why? Because words follow words and pictures."""


def published_modules(folder: str) -> Any:
    sys.modules["icecream"] = types.SimpleNamespace(ic=lambda *_: None)  # type: ignore[assignment]
    sys.path.insert(0, folder)
    try:
        mm_utils, model = (import_module(f"mplug_owl2.{name}") for name in ("mm_utils", "model"))
    finally:
        sys.path.remove(folder)
    return model, mm_utils


def model_of(modules: Any) -> Any:
    config = modules.MPLUGOwl2Config(
        visual_config={
            "visual_model": modules.configuration_mplug_owl2.MplugOwlVisionConfig(**tiny.VISION).to_dict(),
            "visual_abstractor": modules.configuration_mplug_owl2.MplugOwlVisualAbstractorConfig(
                **tiny.ABSTRACTOR
            ).to_dict(),
        },
        **tiny.SIZES,
    )
    model = modules.MPLUGOwl2LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tiny.filled(name, parameter.shape))
    return model


@torch.no_grad()
def answers(model: Any) -> dict[str, torch.Tensor]:
    out = {"features": model.model.vision_model(tiny.pixels(2)).last_hidden_state}
    out["tokens"] = model.encode_images(tiny.pixels(2))
    for name, case in tiny.CASES.items():
        ids, images = torch.tensor(case["ids"]), tiny.pixels(case["images"]) if case["images"] else None
        if images is None:
            out[name] = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        elif "padded" not in name:
            out[name] = model(input_ids=ids, images=images).logits
        else:
            # The published forward lengthens the mask on its left, wherever padding and image are; here the layers
            # get the embeddings that it makes and the mask that was meant.
            _, indicators, _, _, embeds, _ = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, images)
            mask = tiny.expanded(case["ids"], tiny.SIZES["vocab_size"])[1]
            hidden = model.model(
                input_ids=None, inputs_embeds=embeds, modality_indicators=indicators, attention_mask=mask
            ).last_hidden_state
            out[name] = model.lm_head(hidden)
    ids = torch.tensor(tiny.CASES["image"]["ids"][:1])
    said = model.generate(
        ids, images=tiny.pixels(1), do_sample=False, use_cache=True, max_new_tokens=12, eos_token_id=None
    )
    out["generated"] = said[:, ids.shape[1] :]
    return out


def trained_vocabulary() -> None:
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_text(" ".join(CORPUS.split() * 40).replace(". ", ".\n"))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{folder}/m", vocab_size=tiny.SIZES["vocab_size"], model_type="bpe",
            byte_fallback=True, character_coverage=1.0, add_dummy_prefix=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        )  # fmt: skip
        tiny.SENTENCEPIECE.write_bytes((Path(folder) / "m.model").read_bytes())


def main(folder: str) -> None:
    from PIL import Image

    model_modules, mm_utils = published_modules(folder)
    from transformers import CLIPImageProcessor, LlamaTokenizer

    model = model_of(model_modules)
    out = answers(model)
    side = tiny.VISION["image_size"]
    clip = CLIPImageProcessor(size=side, crop_size=side)
    out["photo"] = mm_utils.process_images([Image.fromarray(tiny.photo())], clip)
    save_file({name: value.contiguous() for name, value in out.items()}, tiny.EXPECTED)
    trained_vocabulary()
    with tempfile.TemporaryDirectory() as saved:
        model.config.save_pretrained(saved)
        clip.save_pretrained(saved)
        LlamaTokenizer(str(tiny.SENTENCEPIECE)).save_pretrained(saved)
        tokenizer = LlamaTokenizer.from_pretrained(saved)  # as a folder is opened: its special tokens are known
        files = {file.name: json.loads(file.read_text()) for file in sorted(Path(saved).glob("*.json"))}
    record = {
        "files": files,
        "parameters": {name: list(value.shape) for name, value in model.named_parameters()},
        "buffers": {name: list(value.shape) for name, value in model.named_buffers() if name in model.state_dict()},
        "prompts": {prompt: mm_utils.tokenizer_image_token(prompt, tokenizer) for prompt in tiny.PROMPTS},
    }
    tiny.PUBLISHED.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
