"""Options: each has an effect or is refused, before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from shell import refused, shell

TEXT = ("find", "--text", "the cat")
FACT = ("edit", "fact", "--prompt", "the {} is", "--subject", "cat", "--target", "dog")
REFUSED = {
    "photos without a folder": ((*TEXT, "--photos", 3), "--photos has no effect"),
    "photos beside one photo": (("find", "{photo}", "--concept", "cat", "--box", "1,1,5,5", "--photos", 3), "--photos"),
    "inpainting without a mask": (("find", "{photo}", "--inpainting", "foo"), "--inpainting has no effect"),
    "dilation of finished photos": (
        (
            "find",
            "{photo}",
            "--concept",
            "cat",
            "--method",
            "two_stage",
            "--inpainting",
            "folder:{tmp}",
            "--dilation",
            2,
        ),
        "--dilation has no effect with --inpainting folder:",
    ),
    "a box without two_stage": (
        ("find", "{photo}", "--concept", "cat", "--method", "contribution", "--box", "1,1,5,5"),
        "--box has no effect with --method contribution",
    ),
    "a target over photos": (("find", "--data", "{tmp}", "--concept", "cat", "--target", " cat"), "--target has no"),
    "no template over photos": (("find", "--data", "{tmp}", "--concept", "cat", "--no-chat"), "--chat has no effect"),
    "heads over photos": (("find", "--data", "{tmp}", "--concept", "cat", "--heads", 3), "--heads has no effect"),
    "a position of a concept": ((*TEXT, "--concept", "cat", "--position", 1), "--position has no effect without"),
    "a question beside a text": ((*TEXT, "--prompt", "what is it"), "--prompt has no effect with --text"),
    "a question beside a circuit's text": (("circuit", "--text", "the cat", "--prompt", "x"), "--prompt has no effect"),
    "an empty text": (("find", "--text", " "), "--text is empty"),
    "a circuit of an empty text": (("circuit", "--text", ""), "--text is empty"),
    "a setting twice": ((*TEXT, "--set", "direct=1", "--set", "direct=2"), "--set direct is given twice"),
    "two targets of a circuit": (("circuit", "--text", "the", "--target", " a", "--target", " b"), "--target is given"),
    "two models": ((*TEXT, "--model", "a", "-m", "b"), "--model is given twice"),
    "too many neurons": ((*TEXT, "--top", 99_999_999), "10000"),
    "too many neurons to suppress": (("suppress", "{photo}", "--concept", "cat", "--top", 99_999_999), "10000"),
    "a box beside the photo": (("find", "{photo}", "--concept", "cat", "--box", "60,60,20,20"), "reaches outside"),
    "a box below the photo": (("find", "{photo}", "--concept", "cat", "--box", "1,90,5,5"), "reaches outside"),
    "a negative setting": ((*FACT, "--set", "alpha=-1"), "alpha is -1"),
    "an endless setting": ((*FACT, "--set", "alpha=1e400"), "alpha is inf"),
    "a negative setting of a swap": (
        ("edit", "swap", "{photo}", "--source", "cat", "--target", "dog", "--set", "growth=-1"),
        "growth",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_option_without_effect_is_refused_before_a_model_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("neuronwise.model.load", load)
    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "photo.png")
    arguments, words = REFUSED[case]
    names = {"photo": str(tmp_path / "photo.png"), "tmp": str(tmp_path)}
    assert words in refused(*(str(one).format(**names) if "{photo" in str(one) or "{tmp" in str(one) else one
                              for one in arguments))  # fmt: skip


def test_flags_may_be_typed_twice(tiny_folder: Path) -> None:
    assert shell(*TEXT, "-m", tiny_folder, "--json", "--json", "--target", " dog", "--target", " cat").stdout


def test_a_contrast_of_several_tokens_is_noted_wherever_it_is_used(tiny_folder: Path) -> None:
    for command in ("find", "circuit"):
        done = shell(
            command, "--text", "the cat", "--target", " dog", "--contrast", " graffezi", "-m", tiny_folder, "--json"
        )
        assert "The contrast ' graffezi' is 3 tokens; scored is the first." in done.stderr
        assert "The contrast" in done.stdout


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("photo.png", (), "not a text by its name"),
        ("script.py", (), "not a text by its name"),
        ("notes", (), "not a text by its name"),
        ("notes.txt", ("--field", "body"), "--field has no effect"),
        ("notes.txt", ("--split", "test"), "--split has no effect"),
    ],
)
def test_statistics_are_of_texts(tmp_path: Path, name: str, options: tuple[str, ...], words: str) -> None:
    (tmp_path / name).write_text("the cat sits")
    assert words in refused("statistics", tmp_path / name, "--layers", 1, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
