"""Which preset a model gets: families told by their shapes, published numbers, layers that exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import families
import neuronwise as nw
from neuronwise.architectures import mplug_owl2  # noqa: F401, its architecture is registered by import
from neuronwise.edit import EDITORS, Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.keys import critical_layers
from neuronwise.edit.presets import (
    DEPTHS,
    SHAPES,
    SMALL,
    Preset,
    chosen,
    family,
    layers_of,
    lineage,
    resolved,
    text_parameters,
)  # fmt: skip
from neuronwise.edit.settings import SIGNED
from neuronwise.errors import MethodError
from neuronwise.model.model import Model

DOCS = Path(__file__).resolve().parents[2] / "docs"
PRESETS: dict[str, Any] = {name: editor.presets for name, editor in EDITORS.items()}


def llama(**changes: Any) -> dict[str, Any]:
    return {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000} | changes  # fmt: skip


def qwen(kind: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": kind, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064} | changes  # fmt: skip


LLAMA_3 = llama(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256)
VICUNA = llama()  # a LLaMA of its shape
CLIP = {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
QFORMER = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
           "encoder_hidden_size": 64}  # fmt: skip
# The published shapes of each; an image encoder is as small as can be, it does not count.
REAL: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "GPT-2": ({"model_type": "gpt2"}, ("small",)),
    "GPT-2 medium": ({"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16}, ("gpt2-medium", "small")),
    "GPT-2 large": ({"model_type": "gpt2", "n_layer": 36, "n_embd": 1280, "n_head": 20}, ("gpt2-large", "small")),
    "GPT-2 XL": ({"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25}, ("gpt2-xl", "gpt2")),
    "GPT-J": ({"model_type": "gptj"}, ("gptj",)),
    "GPT-NeoX": ({"model_type": "gpt_neox"}, ("gpt_neox",)),
    "Llama 2 7B": (llama(), ("llama-2",)),
    "Llama 2 13B": (llama(num_hidden_layers=40, hidden_size=5120, intermediate_size=13824, num_attention_heads=40,
                          num_key_value_heads=40), ("llama-2",)),
    "Vicuna": (VICUNA, ("llama-2",)),
    "Llama 3 8B": (LLAMA_3, ("llama-3",)),
    "Llama 3.2 1B": (LLAMA_3 | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
                     ("llama-3",)),
    "Llama 3.2 3B": (LLAMA_3 | {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                                "num_attention_heads": 24}, ("llama-3.2-3b", "llama-3")),
    "SmolLM2 1.7B": (llama(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, vocab_size=49152),
                     ("llama",)),
    "Mistral": (LLAMA_3 | {"model_type": "mistral", "vocab_size": 32000}, ("mistral",)),
    "Qwen2": (qwen("qwen2"), ("qwen2",)),
    "Qwen2.5 0.5B": (qwen("qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                          num_attention_heads=14, num_key_value_heads=2), ("small",)),
    "Qwen3": (qwen("qwen3", num_hidden_layers=36), ("qwen3",)),
    "Gemma": ({"model_type": "gemma"}, ("gemma",)),
    "LLaVA 1.5": ({"model_type": "llava", "text_config": VICUNA | {"vocab_size": 32064}, "vision_config": CLIP},
                  ("llama-2",)),
    "LLaVA-NeXT, Mistral": ({"model_type": "llava_next", "vision_config": CLIP,
                             "text_config": LLAMA_3 | {"model_type": "mistral", "vocab_size": 32064}}, ("mistral",)),
    "InstructBLIP": ({"model_type": "instructblip", "text_config": VICUNA | {"vocab_size": 32001},
                      "vision_config": CLIP | {"model_type": "instructblip_vision_model"}, "qformer_config": QFORMER},
                     ("llama-2",)),
    "MiniGPT-4": ({"model_type": "blip-2", "text_config": VICUNA, "qformer_config": QFORMER,
                   "vision_config": CLIP | {"model_type": "blip_2_vision_model"}}, ("llama-2",)),
    "mPLUG-Owl2": ({"model_type": "mplug_owl2", "num_hidden_layers": 32}, ("llama-2",)),
    "BLIP-2, OPT": ({"model_type": "blip-2", "qformer_config": QFORMER,
                     "text_config": {"model_type": "opt", "hidden_size": 2560, "num_hidden_layers": 32,
                                     "ffn_dim": 10240, "num_attention_heads": 32, "word_embed_proj_dim": 2560},
                     "vision_config": CLIP | {"model_type": "blip_2_vision_model"}}, ("opt",)),
    "Qwen2-VL": ({"model_type": "qwen2_vl", "text_config": qwen("qwen2_vl_text"),
                  "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 3584}}, ("qwen2",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def shaped() -> Callable[[str], Model]:
    """A model of a published shape, without memory for its weights; each is built once."""
    built: dict[str, Model] = {}

    def one(name: str) -> Model:
        if name not in built:
            settings = dict(REAL[name][0])
            config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
            many = any("vision" in name for name in config.sub_configs)
            auto = transformers.AutoModelForImageTextToText if many else transformers.AutoModelForCausalLM
            with torch.device("meta"):
                built[name] = Model(auto.from_config(config), name=name, check=False)
        return built[name]

    return one


@pytest.mark.parametrize("name", REAL)
def test_families_are_told_by_their_shapes(name: str, shaped: Callable[[str], Model]) -> None:
    model = shaped(name)
    assert lineage(model) == REAL[name][1]
    assert family(model) == REAL[name][1][0]


@pytest.mark.parametrize("name", REAL)
def test_every_preset_resolves_to_layers_that_exist(name: str, shaped: Callable[[str], Model]) -> None:
    model = shaped(name)
    for editor, presets in PRESETS.items():
        found = chosen(model, presets)
        assert found.name in (*lineage(model), "default")
        assert found.settings == resolved(model, None, presets, {})
        named = list(layers_of(found.settings))
        assert not named or critical_layers(model, named, (0, 0)) == named, editor


def layers(model: Model, editor: str) -> Any:
    settings: Any = chosen(model, PRESETS[editor]).settings
    return settings.layer if editor == "fine_tune" else settings.layers


def test_published_numbers_stand_as_they_are(shaped: Callable[[str], Model]) -> None:
    """Read off the files that the presets name as their sources."""
    memit = {"GPT-J": (3, 4, 5, 6, 7, 8), "GPT-2 XL": (13, 14, 15, 16, 17), "Llama 2 7B": (4, 5, 6, 7, 8),
             "LLaVA 1.5": (4, 5, 6, 7, 8), "GPT-NeoX": (6, 7, 8, 9, 10), "Llama 3 8B": (4, 5, 6, 7, 8),
             "Qwen2": (4, 5, 6, 7, 8), "Llama 3.2 3B": (4, 5, 6, 7, 8)}  # fmt: skip
    for name, published in memit.items():
        assert layers(shaped(name), "memit") == published
        assert chosen(shaped(name), PRESETS["memit"]).depth is None
    rome = {"GPT-2 medium": 8, "GPT-2 large": 12, "GPT-2 XL": 17, "GPT-J": 5, "GPT-NeoX": 15, "Vicuna": 5, "Qwen2": 5}
    assert {name: layers(shaped(name), "rome") for name in rome} == {name: (at,) for name, at in rome.items()}
    rates = {"GPT-J": 1e-3, "Llama 2 7B": 5e-3, "InstructBLIP": 5e-3, "Llama 3 8B": 1e-3, "GPT-2": 5e-3, "Gemma": 1e-3}
    assert {name: resolved(shaped(name), None, PRESETS["fine"], {}).rate for name in rates} == rates
    assert resolved(shaped("GPT-2 medium"), None, PRESETS["rome"], {}).clamp_norm_factor == 3
    assert resolved(shaped("GPT-NeoX"), None, PRESETS["memit"], {}).mom2_update_weight == 6000
    assert resolved(shaped("Llama 3 8B"), None, PRESETS["memit"], {}).v_lr == 0.1
    assert resolved(shaped("Llama 3.2 3B"), None, PRESETS["memit"], {}).v_lr == 0.5


def test_layers_go_along_where_a_family_is_deeper_or_shallower(shaped: Callable[[str], Model]) -> None:
    """Layers 4 to 8 of 32 are 5 to 10 of 40 and 2 to 4 of 16; the last of 28 stays the last."""
    assert layers(shaped("Llama 2 13B"), "memit") == (5, 6, 7, 8, 9, 10)
    assert layers(shaped("Llama 3.2 1B"), "memit") == (2, 3, 4)
    assert layers(shaped("Llama 2 13B"), "rome") == (6,)
    assert layers(shaped("Llama 2 13B"), "fine_tune") == 26
    assert layers(shaped("Qwen2"), "fine_tune") == 27
    found = chosen(shaped("Llama 2 13B"), PRESETS["memit"])
    assert (found.name, found.depth) == ("llama-2", 32)
    assert chosen(shaped("Llama 2 13B"), PRESETS["fine"]).depth is None  # which names no layers
    # What a user asks for is taken as it is.
    assert resolved(shaped("Llama 2 13B"), None, PRESETS["memit"], {"layers": [4, 5]}).layers == (4, 5)


def test_every_preset_says_where_it_was_published() -> None:
    named = {name for shapes in SHAPES.values() for name in shapes.values()}
    for editor, presets in PRESETS.items():
        assert "default" in presets
        assert {type(preset.settings) for preset in presets.values()} == {EDITORS[editor].settings}
        for name, preset in presets.items():
            assert preset.source
            assert name in {*DEPTHS, "default"} or not layers_of(preset.settings), (
                f"{editor}: whose layers are those of {name}?"
            )
    assert named <= set(DEPTHS)


def test_the_page_of_the_documentation_is_in_step() -> None:
    page = (DOCS / "presets.md").read_text(encoding="utf-8")
    assert "\n".join(editor.table() for editor in EDITORS.values()).strip() in page


@dataclass(frozen=True)
class Last:
    layer: int = field(default=-1, metadata=SIGNED)


@dataclass(frozen=True)
class Unsigned:
    layer: int = -1


def editor(settings: type[Any], **presets: Any) -> Editor[Any]:
    presets = {name: Preset(one, "ours") for name, one in {"default": settings(), **presets}.items()}
    return Editor("mine", lambda *_, **__: Edit(()), settings, presets, layers="the last", says="nothing", cites="")


def test_layers_of_a_preset_for_no_known_depth_stand_as_they_are(tiny_model: Model) -> None:
    last = editor(Last, **{"llama-2": Last(-2), "phi": Last(5)})
    assert "| default | -1 |" in last.table()
    assert "| phi | 5 |" in last.table()
    assert "| llama-2 | -2 of 32 |" in last.table()
    assert resolved(tiny_model, None, last.presets, {}) == Last(-1)


def test_negative_layers_go_along_too(shaped: Callable[[str], Model]) -> None:
    deeper = shaped("Llama 2 13B")  # 40 layers instead of 32: 31 is at 39, 24 at 30
    for layer, moved in ((-1, 39), (-8, 30), (24, 30)):
        assert chosen(deeper, editor(Last, **{"llama-2": Last(layer)}).presets).settings == Last(moved)


def test_a_preset_that_its_own_settings_would_refuse_is_named_at_once() -> None:
    with pytest.raises(MethodError, match=r"preset 'default' of the editor 'mine': layer is -1; .*metadata=SIGNED"):
        editor(Unsigned)


def test_what_is_small_is_counted_in_the_language_model(tiny_tokenizer: Any) -> None:
    """An image encoder does not make a small model large, and quantizing does not make a large one small."""
    module, _ = families.tiny("llava")
    model = Model(module, tiny_tokenizer, name="llava")
    text: Any = module.model.language_model  # type: ignore[union-attr]
    own = {id(p): p.numel() for p in (*text.parameters(), *module.lm_head.parameters())}  # type: ignore[union-attr]
    assert text_parameters(model) == sum(own.values()) - text.norm.weight.numel()
    assert family(model) == "small"
    weight: Any = module.lm_head.weight  # type: ignore[union-attr]
    before = text_parameters(model)
    weight.quant_state = type("State", (), {"shape": torch.Size([int(SMALL), 1])})()
    assert text_parameters(model) == before - weight.numel() + SMALL


def test_the_command_shows_presets_without_reading_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from neuronwise.cli import app

    settings = llama(num_hidden_layers=40, hidden_size=5120, intermediate_size=13824, num_attention_heads=40)
    kind = settings.pop("model_type")
    transformers.AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path)
    app(["presets", str(tmp_path), "--json"], standalone_mode=False)
    content = json.loads(capsys.readouterr().out)
    assert (content["schema"], content["layers"], content["families"]) == ("neuronwise.presets/1", 40, ["llama-2"])
    rows = {row["editor"]: row for row in content["editors"]}
    assert set(rows) == set(EDITORS)
    assert rows["memit"]["source"] == "EasyEdit hparams/MEMIT/llama-7b.yaml"
    assert (rows["memit"]["settings"]["layers"], rows["memit"]["depth"]) == ([5, 6, 7, 8, 9, 10], 32)
    app(["presets", str(tmp_path), "--editor", "rome"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "'llama-2'" in shown
    assert "carried over from a model of 32" in shown
    with pytest.raises(nw.NeuronwiseError, match="no editor 'roma'"):
        app(["presets", str(tmp_path), "--editor", "roma"], standalone_mode=False)


def test_settings_of_another_editor_are_refused(tiny_model: Model) -> None:
    with pytest.raises(MethodError, match="RomeSettings; this editor takes MemitSettings"):
        resolved(tiny_model, PRESETS["rome"]["default"].settings, PRESETS["memit"], {})
