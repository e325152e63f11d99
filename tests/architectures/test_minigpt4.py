"""MiniGPT-4 against what the published code computes, its prompts and places, and the parts that do not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import neuronwise as nw
from neuronwise.answers.free import continuations
from neuronwise.architectures.convert import CONVERTERS, convert
from neuronwise.architectures.convert.minigpt4 import _patches, _vicuna
from neuronwise.architectures.convert.minigpt4.language import open_language
from neuronwise.architectures.convert.minigpt4.names import joined_bias, resized, vision
from neuronwise.architectures.convert.minigpt4.parts import Parts, tell_parts, tell_variant
from neuronwise.architectures.convert.minigpt4.prompt import MEAN, STD
from neuronwise.architectures.convert.plan import outputs
from neuronwise.architectures.convert.weights import Stored, Weights
from neuronwise.errors import ModelError, PromptError
from neuronwise.model.grid import image_grid
from parity import minigpt4 as tiny

VARIANTS = ("vicuna", "llama2", "v2")
GRIDS = {"vicuna": (4, 4), "llama2": (4, 1), "v2": (8, 2)}  # rows and columns of what a heatmap has
COUNTS = {"vicuna": 8, "llama2": 4, "v2": 16}


@pytest.fixture(scope="module")
def recorded() -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_file(tiny.RECORDED), json.loads(tiny.RECORDED_TEXT.read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three variants, converted once."""
    root = tmp_path_factory.mktemp("minigpt4")
    for variant in VARIANTS:
        convert("minigpt4", tiny.write_parts(root / f"{variant}-parts", variant)[::-1], root / variant)
    return {variant: root / variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {variant: nw.load(folder) for variant, folder in folders.items()}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 255, (60, 90, 3), dtype=np.uint8))


def size_of(variant: str) -> int:
    return tiny.VISION["side"] * tiny.VISION["patch"] * (2 if variant == "v2" else 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_published_code_computes_the_same(models: dict[str, Any], recorded: Any, variant: str) -> None:
    """Image features, logits, and six tokens generated with the cache."""
    tensors, texts = recorded
    model, said = models[variant], texts[variant]
    pixels = tiny.drawn(f"pixels of {variant}", (1, 3, size_of(variant), size_of(variant)))
    image = [model.image_token_id] * COUNTS[variant]
    ids = torch.tensor([said["before"] + image + said["after"]])
    assert ids.shape[1] == said["length"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    with torch.no_grad():
        features = model.module.get_image_features(pixel_values=pixels).pooler_output[0]
        logits = model.module(**inputs).logits[0, -8:]
        made = model.module.generate(
            **inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, stop_strings=None
        )[0, -6:]  # fmt: skip
    assert tensors[f"{variant}.logits"].std() > 1
    torch.testing.assert_close(features, tensors[f"{variant}.features"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[:, : tiny.VOCABULARY], tensors[f"{variant}.logits"], atol=1e-4, rtol=0)
    assert made.tolist() == said["said"][1:]
    assert torch.equal(logits[:, tiny.VOCABULARY], logits[:, 0])  # the image's token is like <unk>, never said either


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_has_the_published_tokens(models: dict[str, Any], recorded: Any, photo: Any, variant: str) -> None:
    said = recorded[1][variant]
    prompted, _ = models[variant].prepare(photo, said["question"])
    image = [models[variant].image_token_id] * COUNTS[variant]
    assert prompted.input_ids == said["before"] + image + said["after"]
    grid = image_grid(models[variant].run(photo, max_new_tokens=0))
    assert (grid.height, grid.width, grid.box) == (*GRIDS[variant], (0, 0, 90, 60))
    assert models[variant].prepare(photo)[0].prompt == "Describe the image in few words."
    pixels = photo.convert("RGB").resize((size_of(variant),) * 2, Image.Resampling.BICUBIC)
    values = (np.asarray(pixels, dtype=np.float64) / 255 - MEAN) / STD
    expected = torch.from_numpy(values).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(prompted.inputs["pixel_values"], expected, atol=1e-5, rtol=0)


def test_a_conversation_of_two_turns_is_wrapped_as_published(models: dict[str, Any]) -> None:
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "red?"},
    ]
    written = models["vicuna"].processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    turns = "###Human: <Img><image></Img> what is this?###Assistant: a cat###Human: red?###Assistant: "
    assert written.endswith("Please answer my questions." + turns)
    written = models["llama2"].processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    turns = "<s>[INST] <Img><image></Img> what is this? [/INST] a cat<s>[INST] red? [/INST] "
    assert written.endswith("Please answer my questions." + turns)


def test_the_tensors_are_those_of_the_parts(folders: dict[str, Path]) -> None:
    made = load_file(folders["vicuna"] / "model.safetensors")
    eva = tiny.weights(tiny.eva_shapes())
    bias = made["vision_model.encoder.layers.1.self_attn.qkv.bias"].chunk(3)
    assert torch.equal(bias[0], eva["blocks.1.attn.q_bias"])
    assert not bias[1].any()
    assert torch.equal(bias[2], eva["blocks.1.attn.v_bias"])
    words = made["language_model.model.embed_tokens.weight"]
    assert torch.equal(words[:-1], tiny.weights(tiny.language_shapes())["model.embed_tokens.weight"])
    assert not any("intermediate.dense" in name or "t5_proj" in name for name in made)  # the Q-Former's text side
    changed = load_file(folders["v2"] / "model.safetensors")
    own = tiny.weights(tiny.own_shapes("v2"))
    path = "layers.2.self_attn.v_proj"
    down, up = (own[f"llama_model.base_model.model.model.{path}.lora_{side}.weight"].double() for side in "AB")
    plain = tiny.weights(tiny.language_shapes())[f"model.{path}.weight"].double()
    expected = plain + 16 / tiny.LORA * up @ down
    torch.testing.assert_close(changed[f"model.language_model.{path}.weight"].double(), expected, atol=1e-5, rtol=0)
    norm = changed["model.vision_tower.post_layernorm.weight"]  # without a Q-Former's file it is as it was made
    assert torch.equal(norm, torch.ones_like(norm))


def test_a_later_file_replaces_what_an_earlier_one_says(tmp_path: Path, folders: dict[str, Path]) -> None:
    """As the published code loads them: its own .pth may hold a Q-Former that was trained on."""
    eva, qformer, own, language = tiny.write_parts(tmp_path / "parts", "vicuna")
    queries = torch.full((1, tiny.QFORMER["queries"], tiny.QFORMER["width"]), 0.5)
    torch.save({"model": {**tiny.weights(tiny.own_shapes("vicuna")), "query_tokens": queries}}, own)
    convert("minigpt4", [eva, qformer, own, language], tmp_path / "out")
    made, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", folders["vicuna"]))
    assert {name for name in made if not torch.equal(made[name], before[name])} == {"query_tokens"}
    assert torch.equal(made["query_tokens"], queries)


def test_the_encoder_ends_before_its_last_block(tmp_path: Path) -> None:
    """EVA's file has forty blocks and a head; BLIP-2 reads what the thirty-ninth says."""
    eva, qformer, own, language = tiny.write_parts(tmp_path / "parts", "vicuna")
    state = tiny.weights(tiny.eva_shapes())
    first = {name.removeprefix("blocks.0."): t for name, t in state.items() if name.startswith("blocks.0.")}
    state |= {f"blocks.{i}.{name}": tensor for i in range(40) for name, tensor in first.items()}
    torch.save({**state, "norm.weight": torch.ones(3), "head.weight": torch.ones(3, 3)}, eva)
    plan = CONVERTERS["minigpt4"]([eva, qformer, own, language])
    assert plan.config.vision_config.num_hidden_layers == 39
    assert len(outputs(plan)) > 39 * 12


def test_position_embeddings_of_another_size() -> None:
    torch.manual_seed(0)
    positions = torch.randn(1, 17, 3)
    assert resized(positions, 4) is positions
    grown = resized(positions, 8)
    assert grown.shape == (1, 65, 3)
    assert torch.equal(grown[:, 0], positions[:, 0])
    even = torch.cat([torch.zeros(1, 1, 3), torch.full((1, 16, 3), 2.5)], dim=1)
    torch.testing.assert_close(resized(even, 8)[:, 1:], torch.full((1, 64, 3), 2.5))
    assert joined_bias(torch.ones(2), torch.full((2,), 3.0)).tolist() == [1, 1, 0, 0, 3, 3]


def test_heat_through_the_qformer_lies_where_its_queries_looked(models: dict[str, Any], photo: Image.Image) -> None:
    model = models["vicuna"]
    run = model.run(photo, max_new_tokens=2)
    grid = image_grid(run)
    assert grid.mixing is not None
    assert grid.mixing.shape == (16, 8)
    assert "Q-Former" in str(grid.note)
    torch.testing.assert_close(grid.mixing, attended(model, run), atol=1e-5, rtol=1e-4)


def attended(model: Any, run: Any) -> Tensor:
    """(patches, queries): the mean cross-attention that transformers itself puts out, without the class token."""
    module = model.module
    module.qformer.set_attn_implementation("eager")
    with torch.no_grad():
        seen = module.vision_model(run.prompted.inputs["pixel_values"]).last_hidden_state
        said = module.qformer(query_embeds=module.query_tokens, encoder_hidden_states=seen, output_attentions=True)
    return torch.stack(said.cross_attentions).mean(0)[0].mean(0)[:, 1:].T


def test_text_alone_is_read_by_the_decoder(models: dict[str, Any], photo: Image.Image) -> None:
    """BLIP-2's class asks for an image; a text, such as a fact to edit, needs none."""
    for variant in VARIANTS:
        model = models[variant]
        run = model.run(prompt="a cat sits on", chat=False, max_new_tokens=3)
        logits = model.forward(run.prompted.inputs)
        decoder = getattr(model.module, "language_model", model.module)
        with torch.no_grad():
            plain = decoder(input_ids=run.prompted.inputs["input_ids"]).logits
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
        assert int(plain[0, -1].argmax()) == run.output_ids[0]
    with pytest.raises(PromptError, match="no image is given"):
        models["vicuna"].run(prompt="<Img><image></Img> what is this?", chat=False)
    with pytest.raises(PromptError, match=r"has <image>, whose place is in the chat template; leave <image> out"):
        models["vicuna"].run(photo, "<image> ", chat=True)
    with pytest.raises(PromptError, match=r"has 2 <image> and 1 image is given; .*leave <image> out"):
        models["vicuna"].run(photo, "<image> <image> ", chat=False)


def test_an_answer_ends_where_the_person_would_speak(models: dict[str, Any], photo: Image.Image) -> None:
    """### is no single token; the prompt's own does not end anything, nor does it in the other variants."""
    model = models["vicuna"]
    tokenizer = model.tokenizer
    prompt = model.prepare(photo, "what is this?")[0].input_ids
    assert "###" in tokenizer.decode(prompt)
    stop: Any = transformers.StopStringCriteria(tokenizer, ["###"])
    answer = tokenizer("a cat ### red", add_special_tokens=False)["input_ids"]
    ended = [bool(stop(torch.tensor([prompt + answer[: i + 1]]), torch.empty(0))[0]) for i in range(len(answer))]
    assert ended.count(True) >= 1
    first = ended.index(True)
    assert tokenizer.decode(answer[: first + 1]).endswith("###")
    assert tokenizer.decode(model.stop.before(answer)).strip() == "a cat"
    assert model.stop.before(answer[:4]) == answer[:4]
    assert models["llama2"].stop.before(answer) == answer
    # Generation itself: the model is made to say what the answer says.
    with saying(model, answer) as left:
        run = model.run(photo, "what is this?", max_new_tokens=len(answer))
    assert run.text == "a cat"
    assert len(list(left)) == len(answer) - 1 - first  # it stopped there
    with saying(model, answer) as left:
        (ids,) = continuations(model, run.prompted.inputs, len(answer))
    assert ids == run.output_ids
    assert len(list(left)) == len(answer) - 1 - first


@contextlib.contextmanager
def saying(model: Any, ids: list[int]) -> Iterator[Iterator[int]]:
    """Within the body the model says these tokens; what is yielded are those that it has not come to."""
    words = iter(ids)

    def say(module: Any, args: Any, output: Tensor) -> Tensor:
        forced = torch.full_like(output, -1e4)
        forced[..., next(words)] = 0
        return forced

    hook = model.head.register_forward_hook(say)
    try:
        yield words
    finally:
        hook.remove()


def test_the_folder_needs_no_neuronwise_for_vicuna(folders: dict[str, Path], photo: Image.Image) -> None:
    opened = transformers.AutoModelForImageTextToText.from_pretrained(folders["vicuna"])
    processor = transformers.AutoProcessor.from_pretrained(folders["vicuna"])
    assert (type(opened).__name__, type(processor).__name__) == ("Blip2ForConditionalGeneration", "LlavaProcessor")
    assert opened.generation_config.stop_strings == ["###"]
    ids = processor(images=photo, text="<Img><image></Img>", return_tensors="pt")["input_ids"][0].tolist()
    assert ids.count(opened.config.image_token_id) == 8


class TestPartsThatDoNotFit:
    """One sentence each, and nothing written."""

    @pytest.fixture
    def parts(self, tmp_path: Path) -> dict[str, Path]:
        names = ("eva", "qformer", "own", "language")
        return dict(zip(names, tiny.write_parts(tmp_path / "parts", "vicuna"), strict=True))

    def refused(self, parts: list[Path], tmp_path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            convert("minigpt4", parts, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
        return str(caught.value)

    def rewritten(self, file: Path, **changes: Any) -> Path:
        """The file with tensors added, or taken away where the change is None."""
        loaded = torch.load(file, weights_only=True)
        state = loaded.get("model", loaded)
        for name, tensor in changes.items():
            if tensor is None:
                state.pop(name)
            else:
                state[name] = tensor
        torch.save(loaded, file)
        return file

    def test_tensors(self, parts: dict[str, Path], tmp_path: Path) -> None:
        self.rewritten(parts["eva"], **{"pos_embed": None, "blocks.1.attn.q_bias": None, "blocks.2.attn.q_bias": None})
        self.rewritten(parts["qformer"], **{"ln_vision.bias": None, "adapter.weight": torch.ones(2)})
        self.rewritten(parts["own"], **{"llama_proj.bias": torch.ones(31)})
        said = self.refused(list(parts.values()), tmp_path)
        assert "eva_vit_g.pth lacks pos_embed, blocks.1-2.attn.q_bias;" in said
        assert "blip2_pretrained_flant5xxl.pth lacks ln_vision.bias;" in said
        assert "blip2_pretrained_flant5xxl.pth has, unexpected, adapter.weight;" in said
        assert "in pretrained_minigpt4.pth llama_proj.bias is 31 instead of 32" in said

    def test_variants(self, parts: dict[str, Path], tmp_path: Path) -> None:
        eva, qformer, own, language = parts.values()
        assert "looks like the Vicuna variant, which has a Q-Former" in self.refused([eva, own, language], tmp_path)
        joined, *_ = tiny.write_parts(tmp_path / "two", "llama2")[1:]
        said = self.refused([eva, qformer, joined, language], tmp_path)
        assert "looks like the Llama-2 variant, which has no Q-Former: leave blip2_pretrained_flant5xxl.pth out" in said
        lora, *_ = tiny.write_parts(tmp_path / "three", "v2")[1:]
        assert "looks like MiniGPT-v2" in self.refused([eva, qformer, lora, language], tmp_path)
        self.rewritten(own, **{"llama_proj.weight": torch.ones(5120, 128), "llama_proj.bias": torch.ones(5120)})
        said = self.refused([eva, qformer, own, language], tmp_path)
        assert "projects to 5120 features, but vicuna-v0 has a hidden size of 32: it looks like the 13B variant" in said

    def test_files_of_other_models(self, parts: dict[str, Path], tmp_path: Path) -> None:
        eva, qformer, own, language = parts.values()
        said = self.refused([eva, own], tmp_path)
        assert "MiniGPT-4 lacks the language model's folder; it takes eva_vit_g.pth" in said
        assert "two parts that are the image encoder" in self.refused([eva, eva, qformer, own, language], tmp_path)
        other = tmp_path / "other.bin"
        torch.save({"model.mm_projector.0.weight": torch.ones(2)}, other)
        assert "it looks like LLaVA's projector" in self.refused([eva, qformer, other, language], tmp_path)
        self.rewritten(qformer, **{"llm_proj.weight": torch.ones(2)})
        assert "looks like InstructBLIP's Q-Former" in self.refused([eva, qformer, own, language], tmp_path)

    def test_language_models(self, parts: dict[str, Path], tmp_path: Path) -> None:
        eva, qformer, own, language = parts.values()
        second = language / "pytorch_model-00002-of-00002.bin"
        state = torch.load(second, weights_only=True)
        name = "model.norm.weight"
        file = second if name in state else language / "pytorch_model-00001-of-00002.bin"
        norm = torch.load(file, weights_only=True)[name]
        self.rewritten(file, **{name: norm * 0.001})
        assert "looks like delta weights" in self.refused([eva, qformer, own, language], tmp_path)
        second.unlink()
        said = self.refused([eva, qformer, own, language], tmp_path)
        assert "downloaded in part: 1 of its 2 files of weights is not there (pytorch_model-00002-of-00002.bin)" in said
        settings = json.loads((language / "config.json").read_text())
        (language / "config.json").write_text(json.dumps({**settings, "model_type": "gptj"}))
        assert "looks like a model of type 'gptj'" in self.refused([eva, qformer, own, language], tmp_path)
        (language / "config.json").unlink()
        assert "has no config.json" in self.refused([eva, qformer, own, language], tmp_path)

    def test_a_folder_without_a_tokenizer(self, parts: dict[str, Path], tmp_path: Path) -> None:
        (parts["language"] / "tokenizer.model").unlink()
        assert "has no tokenizer" in self.refused(list(parts.values()), tmp_path)

    def test_a_doubtful_language_model_is_noted(self, parts: dict[str, Path], tmp_path: Path) -> None:
        config = parts["language"] / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 4096}))
        (note,) = convert("minigpt4", list(parts.values()), tmp_path / "out")["notes"]
        assert note == "vicuna-v0 reads 4096 tokens, as Llama-2 does; this projector was trained on Vicuna v0."


def test_a_tokenizer_with_a_spare_row_needs_no_new_one(tmp_path: Path) -> None:
    """Where the embeddings have a row that no token uses, the image's token takes it, and nothing grows."""
    parts = tiny.write_parts(tmp_path / "parts", "vicuna")
    language = parts[-1]
    for file in language.glob("*.bin"):
        state = torch.load(file, weights_only=True)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in state:
                state[name] = torch.cat([state[name], torch.full((8, 32), 0.25)])
        torch.save(state, file)
    config = language / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 408, "pad_token_id": -1}))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    convert("minigpt4", parts, tmp_path / "out")
    opened = json.loads((tmp_path / "out/config.json").read_text())
    assert (opened["image_token_index"], opened["text_config"]["vocab_size"]) == (400, 408)
    assert opened["text_config"]["pad_token_id"] is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_published_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: str) -> None:
    """MiniGPT-4 7B as published, every tensor by its shape alone: nothing is missing, nothing is left over."""
    tiny.write_language(tmp_path / "language")  # for its tokenizer
    monkeypatch.setattr(tiny, "VISION", {"width": 1408, "hidden": 6144, "blocks": 40, "patch": 14, "side": 16})
    monkeypatch.setattr(tiny, "QFORMER", {"width": 768, "hidden": 3072, "layers": 12, "queries": 32})
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    sizes |= {"num_key_value_heads": 32, "vocab_size": 32000}
    monkeypatch.setattr(tiny, "LANGUAGE", tiny.LANGUAGE | sizes)
    monkeypatch.setattr(tiny, "VOCABULARY", 32000)

    def stored(name: str, shapes: tiny.Shapes, prefix: str = "") -> Weights:
        tensors = {prefix + n: Stored(shape, torch.float16, lambda: torch.empty(0)) for n, shape in shapes.items()}
        return Weights(tmp_path / name, (), tensors, prefix)

    small = open_language(tmp_path / "language")
    published = transformers.LlamaConfig(**tiny.LANGUAGE)
    language = dataclasses.replace(
        small, config=published, weights=stored("vicuna-7b", tiny.language_shapes()), image_token_id=32000
    )
    qformer = stored("qformer", tiny.qformer_shapes()) if variant == "vicuna" else None
    eva = stored("eva", tiny.eva_shapes(16), "visual_encoder.")
    parts = Parts(eva, qformer, stored("own", tiny.own_shapes(variant)), language)
    assert tell_variant(parts) == variant
    plan = _vicuna(parts) if variant == "vicuna" else _patches(parts, lora=variant == "v2")
    made = {output.name: int(np.prod(output.shape)) for output in outputs(plan)}
    parameters = {head: sum(n for name, n in made.items() if head in name) for head in ("vision", "qformer")}
    side = 32 if variant == "v2" else 16
    keys, norm = 39 * 1408, 2 * 1408  # a key's bias for each block, the norm after the encoder
    encoder = {n: shape for n, shape in tiny.eva_shapes(side).items() if not n.startswith("blocks.39.")}
    assert parameters["vision"] == sum(int(np.prod(shape)) for shape in encoder.values()) + keys + norm
    assert plan.config.vision_config.num_attention_heads == 16
    if variant == "vicuna":
        d, f = 768, 3072
        own = 4 * (d * d + d) + 2 * d + 2 * d * f + f + d + 2 * d  # attention and feed-forward, each with its norm
        across = 2 * (d * d + d) + 2 * (d * 1408 + d) + 2 * d  # in every other layer
        assert parameters["qformer"] == 12 * own + 6 * across + 2 * d
        q = plan.config.qformer_config
        assert (q.num_attention_heads, q.cross_attention_frequency, q.num_hidden_layers) == (12, 2, 12)
        assert plan.config.num_query_tokens == 32
    else:
        assert plan.config.image_token_grid == ((32, 8) if variant == "v2" else (16, 4))
        assert plan.config.image_seq_length == side * side // 4
    assert plan.config.text_config.vocab_size == 32001


def test_the_names_of_all_encoder_tensors_are_told(tmp_path: Path) -> None:
    parts = tell_parts(tiny.write_parts(tmp_path / "parts", "vicuna"))
    assert vision(parts, "encoder.layers.2.mlp.fc1.weight").parts[0][1] == "visual_encoder.blocks.2.mlp.fc1.weight"
    assert vision(parts, "post_layernorm.bias").parts[0][1] == "ln_vision.bias"
