"""Options: each has an effect or is refused, before a model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

import neuronwise as nw
from neuronwise.cli.options import parse_positions
from neuronwise.data.facts.load import FORMS
from neuronwise.edit.editors import EDITORS
from neuronwise.images.inpaint.table import INPAINTERS
from neuronwise.locate.methods import METHODS
from neuronwise.model.sources import SOURCES
from neuronwise.read.evidence.table import EVIDENCE
from neuronwise.study.kinds import KINDS, shipped
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
    "a lens over photos": (("find", "--data", "{tmp}", "--concept", "cat", "--lens"), "--lens has no effect"),
    "a position of a concept": ((*TEXT, "--concept", "cat", "--position", 1), "--position has no effect without"),
    "a question beside a text": ((*TEXT, "--prompt", "what is it"), "--prompt has no effect with --text"),
    "a question beside a circuit's text": (("circuit", "--text", "the cat", "--prompt", "x"), "--prompt has no effect"),
    "a figure in a missing folder": (("lens", "--text", "the cat", "--out", "{tmp}/no/a.svg"), "make it first"),
    "a trace for a missing folder": (
        ("trace", "--text", "the cat", "--subject", "cat", "--out", "{tmp}/no/a.json"),
        "make it first",
    ),
    "evidence for a missing folder": (
        ("evidence", "{photo}", "--concept", "cat", "--out", "{tmp}/no/a.png"),
        "make it first",
    ),
    "evidence in no image": (("evidence", "{photo}", "--concept", "cat", "--out", "{tmp}/a.txt"), "write .png"),
    "a page without a name": ((*TEXT, "--out", ""), "--out is empty"),
    "a photo as text": (("lens", "--text", "{photo}"), "give a photo without --text"),
    "a photo as the text of find": (("find", "--text", "{photo}"), "give a photo without --text"),
    "positions without end": (("lens", "--text", "the cat", "--positions", "0-999999999"), "no model has 10000000"),
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


def test_positions_are_numbers_and_ranges() -> None:
    assert parse_positions("3") == [3]
    assert parse_positions("7, 0-2") == [0, 1, 2, 7]
    assert [parse_positions(word) for word in ("text", "-1", "3-1", "")] == ["text", "-1", "3-1", ""]


def test_unknown_positions_of_a_lens_are_refused_by_what_it_takes(tiny_folder: Path) -> None:
    assert "text, predicting, image, all, or a number" in refused(
        "lens", "--text", "the cat", "--positions", "foo", "-m", tiny_folder
    )


def test_photos_that_share_no_word_or_have_no_noun_are_said(
    tiny_model: nw.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"a": " the cat", "b": " the dog", "c": " the"}
    for name in said:
        Image.linear_gradient("L").resize((64, 64)).save(tmp_path / f"{name}.png")

    class Speaks:
        def run_many(self, photos: list[Path], *_: object, **__: object) -> list[nw.Run]:
            return [tiny_model.run(prompt="the", text=said[photo.stem], chat=False) for photo in photos]

    monkeypatch.setattr("neuronwise.model.load", lambda *_, **__: Speaks())
    done = shell("find", *(tmp_path / f"{name}.png" for name in said), "--published")
    assert done.stdout.splitlines() == ["a: the cat", "b: the dog"]
    assert "c is left out: its caption has no noun to look for: 'the'" in done.stderr
    assert "share no word" in done.stderr


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


@pytest.mark.parametrize("columns", [40, 80, 160])
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["find"], [*METHODS, *EVIDENCE, *INPAINTERS, *SOURCES]),
        (["evidence"], EVIDENCE),
        (["suppress"], METHODS),
        (["edit", "fact"], EDITORS),
        (["evaluate"], [*FORMS, *EDITORS]),
        (["study", "run"], [*KINDS, *shipped()]),
    ],
)
def test_help_has_every_name_whole_at_any_width(
    command: list[str], names: Iterable[str], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = re.split(r"[\s,.]+", shell(*command, "--help").stdout)
    assert set(names) <= set(shown)


def test_a_circuits_table_says_which_token_is_at_a_position(tiny_folder: Path) -> None:
    asked = ("circuit", "--text", "the cat", "--target", " dog", "--nodes", 2, "-m", tiny_folder)
    leaves = {leaf["position"]: leaf["label"] for leaf in json.loads(shell(*asked, "--json").stdout)["leaves"]}
    named = re.findall(r"^@(\d+) (\S+)", shell(*asked).stdout, re.MULTILINE)
    assert named
    assert all(leaves[int(position)].replace(" ", "·") == token for position, token in named)
