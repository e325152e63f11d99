"""mPLUG-Owl2 against what the published modules answer, and from a published folder through all of neuronwise."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import neuronwise as nw
from neuronwise.architectures.mplug_owl2 import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, MPLUGOwl2Processor
from neuronwise.errors import ImageError, ModelError, PromptError, TargetError
from neuronwise.model.anatomy import dissect
from parity import mplug_owl2 as tiny
from shell import shell

EDIT = {"freeze_last": 0, "rate": 0.05, "alpha": 0.0, "gamma": 0.0, "steps": 30}


def write_published(folder: Path, shards: int = 3) -> Path:
    """The tiny model as the published checkpoint lies: numbered .bin files with an index, constants among them."""
    record = tiny.published()
    for name, content in record["files"].items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(tiny.SENTENCEPIECE.read_bytes())
    state = {name: tiny.filled(name, shape) for name, shape in record["parameters"].items()}
    state |= {name: torch.full(shape, 9.0) for name, shape in record["buffers"].items()}
    where = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1}-of-{shards}.bin"
        part = dict(list(state.items())[number::shards])
        torch.save(part, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("mplug-owl2"))


@pytest.fixture(scope="module")
def model(folder: Path) -> nw.Model:
    return nw.load(folder)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(tiny.EXPECTED)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(tiny.photo())


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def answer(model: nw.Model, name: str) -> tuple[Tensor, Tensor]:
    """Logits of one recorded case, and the mask of what is no padding."""
    case = tiny.CASES[name]
    ids, mask = tiny.expanded(case["ids"], model.config.image_token_index)
    pixels = tiny.pixels(case["images"]) if case["images"] else None
    with torch.no_grad():
        return model.module(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits, mask.bool()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", tiny.CASES)
def test_logits_are_those_of_the_published_code(
    model: nw.Model, expected: dict[str, Tensor], name: str, attention: str
) -> None:
    model.module.set_attn_implementation(attention)
    try:
        logits, mask = answer(model, name)
    finally:
        model.module.set_attn_implementation("sdpa")
    torch.testing.assert_close(logits[mask], expected[name][mask], rtol=0, atol=1e-4)
    assert expected[name][mask].std() > 1  # nothing is hidden in numbers near zero


def test_image_parts_are_those_of_the_published_code(model: nw.Model, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        features = model.module.model.vision_model(tiny.pixels(2))
        tokens = model.module.get_image_features(tiny.pixels(2))
    torch.testing.assert_close(features, expected["features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(tokens, expected["tokens"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("cache", [True, False])
def test_generation_is_that_of_the_published_code(model: nw.Model, expected: dict[str, Tensor], cache: bool) -> None:
    ids, _ = tiny.expanded(tiny.CASES["image"]["ids"][:1], model.config.image_token_index)
    said = model.module.generate(
        ids, pixel_values=tiny.pixels(1), do_sample=False, max_new_tokens=12, eos_token_id=None, use_cache=cache
    )
    assert said[:, ids.shape[1] :].tolist() == expected["generated"].tolist()


def test_a_batch_padded_on_the_left_generates_as_each_row_alone(model: nw.Model) -> None:
    ids, mask = tiny.expanded([[1, 9, 8, 7, tiny.IMAGE, 121, 7], [0, 0, 1, tiny.IMAGE, 66, 5, 7]], 300)
    pixels = tiny.pixels(2)
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    both = model.module.generate(ids, attention_mask=mask, pixel_values=pixels, **settings)
    for row in range(2):
        own = ids[row : row + 1][:, mask[row].bool()]
        alone = model.module.generate(own, pixel_values=pixels[row : row + 1], **settings)
        assert both[row, -6:].tolist() == alone[0, -6:].tolist()


def test_names_and_shapes_are_the_published_ones(model: nw.Model) -> None:
    record = tiny.published()
    assert {name: list(value.shape) for name, value in model.module.state_dict().items()} == record["parameters"]
    assert model.config.to_dict()["visual_config"] == record["files"]["config.json"]["visual_config"]
    with torch.device("meta"):
        whole = MPLUGOwl2ForConditionalGeneration(MPLUGOwl2Config())
    names = set(whole.state_dict())
    for name in (
        "model.layers.31.self_attn.v_proj.multiway.1.weight",
        "model.layers.31.post_attention_layernorm.multiway.0.weight",
        "model.vision_model.encoder.layers.23.self_attn.query_key_value.bias",
        "model.visual_abstractor.encoder.layers.5.crossattention.output.mlp.ffn_ln.weight",
        "model.visual_abstractor.vit_eos",
        "lm_head.weight",
    ):
        assert name in names
    assert sum(p.numel() for p in whole.parameters()) == pytest.approx(8.2e9, rel=0.01)  # as the paper says
    assert whole.config.image_tokens == 65
    assert dissect(whole).num_neurons == 32 * 11008


def test_words_and_images_have_ways_of_their_own(model: nw.Model, expected: dict[str, Tensor]) -> None:
    kept = {n: p.clone() for n, p in model.module.named_parameters() if ".multiway.1." in n}
    assert len(kept) == 4 * model.num_layers
    words, image = answer(model, "words")[0], answer(model, "image")[0]
    try:
        with torch.no_grad():
            for name in kept:
                model.module.get_parameter(name).mul_(1.5)
        assert torch.equal(answer(model, "words")[0], words)
        assert (answer(model, "image")[0] - image).abs().max() > 0.1
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                model.module.get_parameter(name).copy_(value)


def test_prompts_and_photos_are_laid_out_as_published(
    model: nw.Model, expected: dict[str, Tensor], photo: Image.Image
) -> None:
    processor = model.processor
    for prompt, ids in tiny.published()["prompts"].items():
        wanted, _ = tiny.expanded([ids], processor.image_token_id)
        given = processor(images=[photo] * prompt.count("<|image|>"), text=prompt)
        assert given["input_ids"].tolist() == wanted.tolist()
    assert torch.equal(processor.image_processor(photo, return_tensors="pt")["pixel_values"], expected["photo"])
    padded = processor(text=["a", "What is the capital?"])
    assert padded["attention_mask"][0].tolist() == sorted(padded["attention_mask"][0].tolist())


def test_the_chat_template_is_the_published_one(model: nw.Model, photo: Image.Image) -> None:
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The red one."}]},
        {"role": "user", "content": "Why?"},
    ]
    text = model.processor.apply_chat_template(turns, add_generation_prompt=True)
    assert text == "USER: <|image|>Which? ASSISTANT: The red one.</s>USER: Why? ASSISTANT:"
    prompt = "Describe the image."
    run = model.run(image=photo, prompt=prompt, max_new_tokens=0)
    published, _ = tiny.expanded([tiny.published()["prompts"][tiny.PROMPTS[0]]], model.config.image_token_index)
    assert run.prompted.input_ids == published[0].tolist()
    assert run.image_positions.tolist() == list(range(8, 8 + tiny.QUERIES + 1))
    assert model.prepare(photo, prompt, chat=False)[0].input_ids == published[0].tolist()
    words = model.prepare(prompt="What is the capital of France?")[0].input_ids
    assert words == tiny.published()["prompts"][tiny.PROMPTS[1]]


def test_half_precision_and_a_saved_copy(model: nw.Model, folder: Path, tmp_path: Path, photo: Image.Image) -> None:
    half = nw.load(folder, dtype=torch.bfloat16)
    assert half.module.model.visual_abstractor.visual_fc.weight.dtype == torch.bfloat16
    exact, rounded = answer(model, "image")[0], answer(half, "image")[0].float()
    assert torch.nn.functional.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99
    model.module.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    again = nw.load(tmp_path)
    assert torch.equal(answer(again, "image")[0], exact)
    assert again.prepare(photo)[0].input_ids == model.prepare(photo)[0].input_ids


def test_from_a_published_folder_to_a_saved_edit_by_the_command_line(
    folder: Path, tmp_path: Path, photo: Image.Image, model: nw.Model
) -> None:
    made, page, edit, merged = (tmp_path / name for name in ("made", "page", "edit", "merged"))
    photo.save(tmp_path / "photo.png")
    done = json.loads(shell("convert", "mplug_owl2", folder, "--out", made, "--json").stdout)
    assert (done["schema"], done["variant"], done["dtype"]) == ("neuronwise.convert/1", "mPLUG-Owl2", "float32")
    assert torch.equal(answer(nw.load(made), "two images")[0], answer(model, "two images")[0])
    assert not list(made.glob("*.bin"))
    processor = MPLUGOwl2Processor.from_pretrained(made)
    for prompt in tiny.PROMPTS:
        images = [photo] * prompt.count("<|image|>")
        assert torch.equal(processor(images, prompt)["input_ids"], model.processor(images, prompt)["input_ids"])
    target = model.decode_ids([283])
    found = shell("find", tmp_path / "photo.png", "-m", made, "--target", target, "--out", page, "--top", 5, "--json")
    (concept,) = json.loads(found.stdout)["concepts"]
    assert len(concept["neurons"]) == 5
    assert (page / "index.html").is_file()
    settings = [part for name, value in EDIT.items() for part in ("--set", f"{name}={value}")]
    asked = ("--prompt", "What is in the {}?", "--subject", "picture", "--target", "dog", "--image")
    out = ("-m", made, "--out", edit, "--merge", merged, "--json", "--max-new-tokens", 4)
    edited = json.loads(shell("edit", "fact", *asked, tmp_path / "photo.png", *settings, *out).stdout)
    assert edited["texts"][0]["after"].startswith("dog")
    again = nw.load(merged).run(image=photo, prompt="What is in the picture?", max_new_tokens=4, chat=False)
    assert again.text == edited["texts"][0]["after"]


def changed(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    file = folder / "pytorch_model-2-of-3.bin"
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


def lose(state: dict[str, Tensor]) -> None:
    lost = [name for name in state if "multiway.1" in name]
    assert len(lost) > 2
    for name in lost:
        del state[name]
    state["model.extra.weight"] = torch.zeros(2)
    state["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(2)


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | changes))


def test_all_missing_and_unexpected_tensors_are_listed_at_once(copy: Path, tmp_path: Path) -> None:
    changed(copy, lose)
    index = copy / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    state = torch.load(copy / "pytorch_model-2-of-3.bin", weights_only=True)
    content["weight_map"] |= dict.fromkeys(state, "pytorch_model-2-of-3.bin")
    lost = [n for n, f in content["weight_map"].items() if f == "pytorch_model-2-of-3.bin" and n not in state]
    content["weight_map"] = {n: f for n, f in content["weight_map"].items() if n not in lost}
    index.write_text(json.dumps(content))
    for attempt in (lambda: nw.load(copy), lambda: convert(copy, tmp_path)):
        with pytest.raises(ModelError) as refused:
            attempt()
        said = str(refused.value)
        assert "model.extra.weight" in said
        for name in lost:
            assert name.rpartition("layers.")[2][1:] in said  # the layers' numbers are joined
    with pytest.raises(ModelError, match="looks like a LLaMA without modality-adaptive parts"):
        nw.load(copy)
    assert not (tmp_path / "made").exists()


def convert(folder: Path, tmp_path: Path) -> None:
    from neuronwise.architectures.convert import convert

    convert("mplug_owl2", [folder], tmp_path / "made")


def as_owl21(folder: Path) -> None:
    rewrite(folder, "config.json", model_type="mplug_owl2_1")


def misshapen(folder: Path) -> None:
    rewrite(folder, "config.json", intermediate_size=44)


def truncated(folder: Path) -> None:
    file = folder / "pytorch_model-1-of-3.bin"
    file.write_bytes(file.read_bytes()[:3000])


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another member of the family": (as_owl21, r"looks like mPLUG-Owl2\.1 \(built on Qwen\)"),
    "mPLUG-Owl3": (lambda f: rewrite(f, "config.json", model_type="mplugowl3"), "looks like mPLUG-Owl3"),
    "an absent shard": (
        lambda f: (f / "pytorch_model-3-of-3.bin").unlink(), r"in part: .*3.*pytorch_model-3-of-3\.bin"),
    "a truncated shard": (truncated, "damaged|cannot be opened|corrupt"),
    "a damaged index": (lambda f: (f / "pytorch_model.bin.index.json").write_text("{"), "index.json.* is damaged"),
    "no image settings": (lambda f: (f / "preprocessor_config.json").unlink(), "has no image settings"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer"),
    "another tokenizer": (lambda f: rewrite(f, "config.json", image_token_index=299), "do not belong together"),
    "shapes of another size": (misshapen, r"down_proj\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_gets_one_sentence_and_nothing_is_written(what: str, copy: Path, tmp_path: Path) -> None:
    spoil, sentence = BROKEN[what]
    spoil(copy)
    with pytest.raises(ModelError, match=sentence):
        nw.load(copy)
    with pytest.raises(ModelError, match=sentence):
        convert(copy, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_the_packages_that_read_its_tokenizer_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelError, match=r"pip install 'neuronwise\[convert\]'"):
        nw.load(folder)


def test_the_converter_takes_one_folder_of_this_model(tiny_folder: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="looks like a plain LLaMA"):
        convert(tiny_folder, tmp_path)
    done = shell("convert", "mplug_owl2", folder, folder, "--out", tmp_path / "made", expect=2)
    assert "one folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_images_and_their_places_must_match(model: nw.Model, photo: Image.Image) -> None:
    with pytest.raises(PromptError, match="no image is given"):
        model.run(prompt="USER: <|image|>Which? ASSISTANT:", chat=False)
    with pytest.raises(PromptError, match=r"has 2 <\|image\|> and 1 image"):
        model.run(image=photo, prompt="<|image|> and <|image|>", chat=False)
    with pytest.raises(PromptError, match="a prompt is needed"):
        model.run()
    with pytest.raises(TargetError, match="vocabulary"):
        nw.locate(model, model.run(image=photo, max_new_tokens=0), target="<|image|>")
    ids, _ = tiny.expanded([[1, tiny.IMAGE, 5]], model.config.image_token_index)
    with pytest.raises(PromptError, match="places for 7 image tokens, but the 2 image"):
        model.module(input_ids=ids, pixel_values=tiny.pixels(2))
    with pytest.raises(PromptError, match="0 image"):
        model.module(input_ids=ids)
    with pytest.raises(ImageError, match="56"):
        model.module(input_ids=ids, pixel_values=tiny.pixels(1)[..., :28, :28])


def test_the_encoder_of_another_variant_is_refused() -> None:
    parts = tiny.published()["files"]["config.json"]["visual_config"]
    with pytest.raises(ModelError, match=r"mPLUG-Owl2\.1"):
        MPLUGOwl2Config(visual_config={**parts, "visual_model": {**parts["visual_model"], "use_cls_token": False}})
    with pytest.raises(ModelError, match="32 × 32"):
        MPLUGOwl2Config(visual_config={**parts, "visual_abstractor": {}})


def test_a_folder_opens_by_the_auto_classes(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert isinstance(AutoModelForImageTextToText.from_pretrained(folder), MPLUGOwl2ForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(folder), MPLUGOwl2Processor)


def test_parts_on_disk_give_the_same(model: nw.Model, folder: Path, tmp_path: Path) -> None:
    placement: dict[str, str] = dict.fromkeys(
        ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu"
    )
    placement |= {"model.vision_model.embeddings": "cpu", "model.vision_model.encoder.layers.0": "cpu"}
    placement |= {"model.vision_model.encoder.layers.1": "disk", "model.vision_model.post_layernorm": "disk"}
    placement |= {"model.visual_abstractor": "disk", "model.layers.0": "cpu", "model.layers.1": "disk"}
    away = nw.load(folder, device_map={**placement, "model.layers.2": "cpu"}, offload_folder=tmp_path)
    assert any(parameter.is_meta for parameter in away.module.parameters())
    assert torch.equal(answer(away, "image")[0], answer(model, "image")[0])
