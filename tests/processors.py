"""Configurations of tiny models of many image-text families, each with its real processor, built in memory.

``BUILDERS["internvl"]() -> (configuration, processor, a prompt that holds the photo's mark)``. In the configuration,
special tokens go by their text (``image_token``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import transformers

import families
from processor_parts import (
    CLIP,
    NORMAL,
    PATCH,
    PINPOINTS,
    QUESTION,
    SIDE,
    SIGLIP,
    SQUARE,
    VOCABULARY,
    pil,
    text,
    tokenizer,
)
from processors_codes import chameleon, emu3
from processors_own import minigpt4_patches, mplug_owl2
from processors_queries import aria, blip_2, idefics2, idefics2_whole, instructblip, kosmos_2

Built = tuple[dict[str, Any], Any, str]  # configuration, processor, the prompt


def _llava(processing: dict[str, Any], kind: str = "llava") -> Built:
    tokens = tokenizer(image_token="<image>")
    processor = transformers.LlavaProcessor(
        pil("llava" if "do_pad" in processing else "clip")(**NORMAL, **processing), tokens, patch_size=PATCH,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    config = {"model_type": kind, "text_config": text("llama"), "vision_config": CLIP, "image_token": "<image>"}
    if kind == "llava":
        config["vision_feature_layer"] = -1
    else:
        config["vision_feature_layers"] = [-1, -2]
    return config, processor, f"<image> {QUESTION}"


def squashed() -> Built:
    return _llava({"size": SQUARE, "do_center_crop": False})


def cropped() -> Built:
    return _llava({"size": {"shortest_edge": SIDE}, "crop_size": SQUARE})


def padded() -> Built:
    return _llava({"size": SQUARE, "crop_size": SQUARE, "do_pad": True, "do_center_crop": False})


def vipllava() -> Built:
    return _llava({"size": SQUARE, "do_center_crop": False}, "vipllava")


def llava_next() -> Built:
    tokens = tokenizer(image_token="<image>")
    images = pil("llava_next")(
        size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS, **NORMAL
    )  # fmt: skip
    processor = transformers.LlavaNextProcessor(
        images, tokens, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    config = {"model_type": "llava_next", "text_config": text("llama"), "vision_config": CLIP, "image_token": "<image>",
              "vision_feature_layer": -1, "image_grid_pinpoints": PINPOINTS}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def llava_onevision(most: int = 9) -> Built:
    tokens = tokenizer(image_token="<image>", video_token="<video>")
    images = pil("llava_onevision")(size=SQUARE, image_grid_pinpoints=PINPOINTS, **NORMAL)
    processor = transformers.LlavaOnevisionProcessor(
        images, tokens, None, num_image_tokens=(SIDE // PATCH) ** 2, vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{most}",
    )  # fmt: skip
    config = {"model_type": "llava_onevision", "text_config": text("qwen2"), "vision_config": SIGLIP,
              "image_token": "<image>", "vision_feature_layer": -1, "image_grid_pinpoints": PINPOINTS,
              "vision_feature_select_strategy": "full", "vision_aspect_ratio": f"anyres_max_{most}"}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def llava_onevision_shrunk() -> Built:
    return llava_onevision(most=1)


def _qwen(name: str, vision: dict[str, Any], **more: Any) -> Built:
    marks = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    tokens = tokenizer(**marks)
    images = pil("qwen2_vl")(
        size={"shortest_edge": 16 * 64, "longest_edge": 200 * 64}, patch_size=PATCH, merge_size=2,
        temporal_patch_size=2, **NORMAL,
    )  # fmt: skip
    kind = transformers.Qwen3VLProcessor if "qwen3" in name else transformers.Qwen2VLProcessor
    processor = kind(images, tokens, None)
    config = {"model_type": name, "text_config": text(f"{name}_text", rope_parameters=families.MROPE, **more),
              "vision_config": {"depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2,
                                "temporal_patch_size": 2, **vision},
              **marks, "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}  # fmt: skip
    return config, processor, f"<|vision_start|><|image_pad|><|vision_end|> {QUESTION}"


def qwen2_vl() -> Built:
    return _qwen("qwen2_vl", {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2})


def qwen2_5_vl() -> Built:
    return _qwen("qwen2_5_vl", {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "window_size": 16,
                                "fullatt_block_indexes": [1]})  # fmt: skip


DEEPSTACK = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_position_embeddings": 16,
             "deepstack_visual_indexes": [0, 1]}  # fmt: skip


def qwen3_vl() -> Built:
    return _qwen("qwen3_vl", DEEPSTACK, head_dim=8)


def qwen3_vl_moe() -> Built:
    return _qwen("qwen3_vl_moe", DEEPSTACK, head_dim=8, **families.QWEN_EXPERTS)


def internvl() -> Built:
    tokens = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    images = pil("got_ocr2")(size=SQUARE, min_patches=1, max_patches=6, crop_to_patches=True, **NORMAL)
    processor = transformers.InternVLProcessor(images, tokens, None, image_seq_length=(SIDE // PATCH // 2) ** 2)
    config = {"model_type": "internvl", "text_config": text("qwen2"), "image_token": "<IMG_CONTEXT>",
              "vision_config": {**CLIP, "model_type": "internvl_vision", "image_size": [SIDE, SIDE],
                                "patch_size": [PATCH, PATCH]}}  # fmt: skip
    return config, processor, f"<IMG_CONTEXT> {QUESTION}"


def _idefics3(name: str) -> Built:
    tokens = tokenizer(image_token="<image>")
    images = pil(name)(
        size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=True, **NORMAL
    )
    length = (SIDE // PATCH // 2) ** 2
    if name == "smolvlm":
        from transformers.models.smolvlm import processing_smolvlm

        with mock.patch.object(processing_smolvlm, "num2words", str):  # which it needs for films alone
            processor = processing_smolvlm.SmolVLMProcessor(images, tokens, None, image_seq_len=length)
    else:
        processor = transformers.Idefics3Processor(images, tokens, image_seq_len=length)
    config = {"model_type": name, "text_config": text("llama"), "scale_factor": 2, "image_token": "<image>",
              "vision_config": {**CLIP, "model_type": f"{name}_vision"}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def idefics3() -> Built:
    return _idefics3("idefics3")


def smolvlm() -> Built:
    return _idefics3("smolvlm")


def paligemma() -> Built:
    images = pil("siglip")(size=SQUARE, **NORMAL)
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = transformers.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))
    config = {"model_type": "paligemma", "text_config": text("gemma", head_dim=8, vocab_size=2000),
              "projection_dim": 32, "vision_config": SIGLIP, "image_token": "<image>"}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def gemma3(scan: bool = False) -> Built:
    tokens = tokenizer(boi_token="<boi>", eoi_token="<eoi>", image_token="<soft>")
    images = pil("gemma3")(
        size=SQUARE, do_pan_and_scan=scan, pan_and_scan_min_crop_size=16, pan_and_scan_max_num_crops=4,
        pan_and_scan_min_ratio_to_activate=1.2, **NORMAL,
    )  # fmt: skip
    processor: Any = transformers.Gemma3Processor(images, tokens, image_seq_length=(SIDE // PATCH // 2) ** 2)
    # Its defaults would overrule what the image processor was saved with.
    processor.images_kwargs = {**processor.images_kwargs, "do_pan_and_scan": scan, "pan_and_scan_min_crop_size": 16}
    config = {"model_type": "gemma3", "text_config": text("gemma3_text", head_dim=8), "vision_config": SIGLIP,
              "mm_tokens_per_image": (SIDE // PATCH // 2) ** 2, "boi_token": "<boi>", "eoi_token": "<eoi>",
              "image_token": "<soft>"}  # fmt: skip
    return config, processor, f"<boi> {QUESTION}"


def gemma3_scanned() -> Built:
    return gemma3(scan=True)


def mllama() -> Built:
    tokens = tokenizer(image_token="<|image|>")
    images = pil("mllama")(size=SQUARE, max_image_tiles=4, **NORMAL)
    processor = transformers.MllamaProcessor(images, tokens)
    config = {"model_type": "mllama", "image_token": "<|image|>",
              "text_config": text("mllama_text_model", cross_attention_layers=[1],
                                  rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
              "vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1,
                                "attention_heads": 2, "intermediate_size": 24, "image_size": SIDE, "patch_size": PATCH,
                                "max_num_tiles": 4, "vision_output_dim": 32, "intermediate_layers_indices": [0],
                                "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1],
                                                            [4, 1]]}}  # fmt: skip
    return config, processor, f"<|image|> {QUESTION}"


def aya_vision() -> Built:
    tokens = tokenizer(image_token="<image>")
    images = pil("got_ocr2")(size=SQUARE, min_patches=1, max_patches=6, crop_to_patches=True, **NORMAL)
    processor = transformers.AyaVisionProcessor(images, tokens, patch_size=PATCH, img_size=SIDE, downsample_factor=2)
    config = {"model_type": "aya_vision", "text_config": text("cohere2", head_dim=8), "vision_config": SIGLIP,
              "downsample_factor": 2, "adapter_layer_norm_eps": 1e-6, "vision_feature_layer": -1,
              "image_token": "<|IMG_PATCH|>"}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def _pixtral_processor() -> Any:
    """Its file asks for torchvision, for one function that the file for PIL has too."""
    import sys

    from transformers.models.pixtral import image_processing_pil_pixtral

    name = "transformers.models.pixtral.image_processing_pixtral"
    with mock.patch.dict(sys.modules, {name: sys.modules.get(name, image_processing_pil_pixtral)}):
        from transformers.models.pixtral.processing_pixtral import PixtralProcessor
    return PixtralProcessor


def mistral3() -> Built:
    tokens = tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    images = pil("pixtral")(size={"longest_edge": 2 * SIDE}, patch_size=PATCH, **NORMAL)
    processor = _pixtral_processor()(images, tokens, patch_size=PATCH, spatial_merge_size=2)
    vision = {"model_type": "pixtral", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": 2 * SIDE, "patch_size": PATCH, "head_dim": 12}  # fmt: skip
    config = {"model_type": "mistral3", "text_config": text("mistral"), "vision_config": vision, "image_token": "[IMG]",
              "spatial_merge_size": 2, "vision_feature_layer": -1}  # fmt: skip
    return config, processor, f"[IMG] {QUESTION}"


def pixtral() -> Built:
    config, processor, prompt = mistral3()
    processor.spatial_merge_size = 1
    config = {**config, "model_type": "llava", "vision_feature_select_strategy": "full"}
    del config["spatial_merge_size"]
    return config, processor, prompt


def ovis2() -> Built:
    marks = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokens = tokenizer(image_token="<image>")
    images = pil("ovis2")(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=6, **NORMAL)
    processor = transformers.Ovis2Processor(images, tokens, image_seq_length=(SIDE // PATCH // 2) ** 2)
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": SIDE, "patch_size": PATCH, "hidden_stride": 2, "vocab_size": 64,
              "num_visual_indicator_tokens": 5}  # fmt: skip
    config = {"model_type": "ovis2", "text_config": text("qwen2"), "vision_config": vision, "image_token": "<IMG_ATOM>",
              "visual_indicator_token_ids": tokens.convert_tokens_to_ids(marks), "vocab_size": VOCABULARY,
              "hidden_size": 32}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def glm4v() -> Built:
    marks = {"image_token": "<|image|>", "video_token": "<|video|>"}
    images = pil("glm4v")(
        size={"shortest_edge": 16 * 64, "longest_edge": 400 * 64}, patch_size=PATCH, merge_size=2,
        temporal_patch_size=2, **NORMAL,
    )  # fmt: skip
    processor = transformers.Glm4vProcessor(images, tokenizer(**marks), None)
    config = {"model_type": "glm4v", "text_config": text("glm4v_text", rope_parameters={
                  "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2],
                  "partial_rotary_factor": 1.0}, head_dim=8),
              "vision_config": {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": PATCH, "image_size": SIDE,
                                "intermediate_size": 24, "out_hidden_size": 32, "spatial_merge_size": 2,
                                "temporal_patch_size": 2},
              "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>", **marks}  # fmt: skip
    return config, processor, f"<|vision_start|><|image|><|vision_end|> {QUESTION}"


def janus() -> Built:
    tokens = tokenizer(image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    images = pil("janus")(size=SQUARE, **NORMAL)
    processor = transformers.JanusProcessor(images, tokens, num_image_tokens=(SIDE // PATCH) ** 2)
    vision = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
              "patch_size": PATCH, "projection_dim": 32, "num_image_tokens": (SIDE // PATCH) ** 2}  # fmt: skip
    codes = {"base_channels": 32, "num_embeddings": 16, "latent_channels": 32, "channel_multiplier": [1, 1],
             "num_res_blocks": 1, "projection_dim": 32, "image_token_embed_dim": 32}  # fmt: skip
    config = {"model_type": "janus", "text_config": text("llama"), "vision_config": vision, "vq_config": codes,
              "image_token": "<image>"}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def deepseek_vl() -> Built:
    images = pil("deepseek_vl")(size=SQUARE, **NORMAL)
    processor = transformers.DeepseekVLProcessor(
        images, tokenizer(image_token="<image>"), num_image_tokens=(SIDE // PATCH) ** 2
    )
    config = {"model_type": "deepseek_vl", "text_config": text("llama"), "vision_config": SIGLIP,
              "image_token": "<image>"}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


BUILDERS: dict[str, Callable[[], Built]] = {
    "llava": squashed,
    "llava, cropped": cropped,
    "llava, padded": padded,
    "vipllava": vipllava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "llava_onevision, shrunk": llava_onevision_shrunk,
    "blip-2": blip_2,
    "instructblip": instructblip,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "internvl": internvl,
    "idefics2": idefics2,
    "idefics2, whole": idefics2_whole,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "gemma3, pan and scan": gemma3_scanned,
    "mllama": mllama,
    "aya_vision": aya_vision,
    "mistral3": mistral3,
    "pixtral": pixtral,
    "ovis2": ovis2,
    "glm4v": glm4v,
    "janus": janus,
    "deepseek_vl": deepseek_vl,
    "aria": aria,
    "kosmos-2": kosmos_2,
    "chameleon": chameleon,
    "emu3": emu3,
    "minigpt4_patches": minigpt4_patches,
    "mplug_owl2": mplug_owl2,
}
