"""Record what the published MiniGPT-4 computes on the tiny parts of tests/parity/minigpt4.py.

The code is https://github.com/Vision-CAIR/MiniGPT-4 (revision d94738a), with transformers 4.30.0 and peft 0.2.0, which
it pins; nothing of it is kept here. Run as ``PYTHONPATH=tests python tools/published/record_minigpt4.py CHECKOUT``;
what it computes is written to minigpt4.safetensors and minigpt4.json in tests/parity.

The published sizes are built in, so three things are put in their place: the image encoder's constructor (tiny, with
the same classes), the Q-Former's configuration, and float32 where the code says float16.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch

from parity.minigpt4 import QFORMER, RECORDED, RECORDED_TEXT, VISION, drawn, write_parts

QUESTION = "Describe the image in few words."
VARIANTS = ("vicuna", "llama2", "v2")


def published(checkout: Path) -> Any:
    """The published package, with stand-ins for what only its training and its demonstration import."""
    import peft  # noqa: F401 (it and transformers look for the packages that stand-ins are made for)
    from transformers import BertConfig, LlamaForCausalLM, LlamaTokenizer, TextIteratorStreamer  # noqa: F401

    del sys.modules["minigpt4"]
    sys.path.insert(0, str(checkout))
    for name in (
        "decord", "webdataset", "cv2", "torchvision", "torchvision.transforms", "torchvision.transforms.functional",
        "torchvision.datasets", "torchvision.datasets.folder", "torchvision.datasets.utils", "skimage", "skimage.io",
        "matplotlib", "matplotlib.pyplot", "pycocotools", "pycocotools.coco", "wandb", "visual_genome", "scipy",
        "scipy.ndimage", "pandas", "moviepy", "moviepy.editor", "opencv", "minigpt4.datasets.builders",
    ):  # fmt: skip
        sys.modules.setdefault(name, MagicMock())
    layers: Any = MagicMock(to_2tuple=lambda size: (size, size), trunc_normal_=torch.nn.init.trunc_normal_)
    for name in ("timm", "timm.models", "timm.models.hub", "timm.models.registry"):  # used by unused branches alone
        sys.modules[name] = MagicMock()
    sys.modules["timm.models.layers"] = layers
    from minigpt4.conversation import conversation
    from minigpt4.models import base_model, eva_vit, minigpt4, minigpt_v2

    return conversation, base_model, eva_vit, minigpt4, minigpt_v2


def build(modules: Any, folder: Path, variant: str) -> Any:
    from functools import partial

    from transformers import BertConfig

    _, base_model, eva_vit, minigpt4, minigpt_v2 = modules
    parts = {path.name: path for path in write_parts(folder, variant)}
    size = VISION["side"] * VISION["patch"] * (2 if variant == "v2" else 1)

    def tiny_vit(*_: Any) -> Any:
        model = eva_vit.VisionTransformer(
            img_size=size, patch_size=VISION["patch"], use_mean_pooling=False, embed_dim=VISION["width"],
            depth=VISION["blocks"], num_heads=VISION["width"] // 88, mlp_ratio=VISION["hidden"] / VISION["width"],
            qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        )  # fmt: skip
        state = torch.load(parts["eva_vit_g.pth"])
        eva_vit.interpolate_pos_embed(model, state)
        model.load_state_dict(state)
        return model

    base_model.create_eva_vit_g = tiny_vit
    llama = base_model.LlamaForCausalLM

    class Exact:
        @staticmethod
        def from_pretrained(path: str, **_: Any) -> Any:
            return llama.from_pretrained(path, torch_dtype=torch.float32)

    base_model.LlamaForCausalLM = Exact
    minigpt4.BertConfig = type(
        "Tiny", (), {"from_pretrained": staticmethod(lambda _: BertConfig(
            hidden_size=QFORMER["width"], num_hidden_layers=QFORMER["layers"], intermediate_size=QFORMER["hidden"],
            num_attention_heads=QFORMER["width"] // 64,
        ))},
    )  # fmt: skip
    language = str(next(path for path in parts.values() if path.is_dir()))
    if variant == "v2":
        model = minigpt_v2.MiniGPTv2(img_size=size, vit_precision="fp32", llama_model=language, lora_r=4)
    else:
        model = minigpt4.MiniGPT4(
            q_former_model=str(parts.get("blip2_pretrained_flant5xxl.pth")), img_size=size, vit_precision="fp32",
            has_qformer=variant == "vicuna", num_query_token=QFORMER["queries"], llama_model=language,
        )  # fmt: skip
    base_model.LlamaForCausalLM = llama
    state = torch.load(parts["pretrained_minigpt4.pth"])["model"]
    said = model.load_state_dict(state, strict=False)
    assert not said.unexpected_keys, said.unexpected_keys
    return model.float().eval()


def asked(conversation: Any, variant: str) -> str:
    """The prompt as the published demonstration lays it out."""
    template = {
        "vicuna": conversation.CONV_VISION_Vicuna0,
        "llama2": conversation.CONV_VISION_LLama2,
        "v2": conversation.CONV_VISION_minigptv2,
    }[variant]
    talk = template.copy()
    chat = conversation.Chat.__new__(conversation.Chat)
    chat.upload_img(None, talk, [])
    chat.ask(QUESTION, talk)
    talk.append_message(talk.roles[1], None)
    return talk.get_prompt()


def main(checkout: Path) -> None:
    modules = published(checkout)
    tensors, texts = {}, {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            model = build(modules, Path(folder) / variant, variant)
            size = VISION["side"] * VISION["patch"] * (2 if variant == "v2" else 1)
            pixels = drawn(f"pixels of {variant}", (1, 3, size, size))
            features, _ = model.encode_img(pixels)
            prompt = asked(modules[0], variant)
            embedded = model.get_context_emb(prompt, [features])
            logits = model.llama_model(inputs_embeds=embedded).logits[0]
            said = model.llama_model.generate(
                inputs_embeds=embedded, max_new_tokens=6, do_sample=False, min_length=1, eos_token_id=None
            )
            before, after = prompt.split("<ImageHere>")
            tensors[f"{variant}.features"] = features[0].contiguous()
            tensors[f"{variant}.logits"] = logits[-8:].contiguous()
            texts[variant] = {
                "question": QUESTION,
                "prompt": prompt,
                "before": model.llama_tokenizer(before).input_ids,
                "after": model.llama_tokenizer(after, add_special_tokens=False).input_ids,
                "said": said[0].tolist(),
                "length": embedded.shape[1],
            }
    from safetensors.torch import save_file

    save_file(tensors, RECORDED)
    RECORDED_TEXT.write_text(json.dumps(texts, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
