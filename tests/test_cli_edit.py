"""`neuronwise edit`: texts before and after, an edit in a folder, one sentence for what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import neuronwise as nw
from neuronwise.edit import load_edit
from shell import refused, shell

FACT = ("edit", "fact", "--prompt", "the capital of {} is", "--subject", "France", "--target", "house")
QUICK = ("--set", "freeze_last=1", "--set", "rate=0.1", "--set", "alpha=0.0", "--set", "gamma=0.0")


def test_a_fact_is_edited_saved_and_tried(tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    out, adapter, merged = tmp_path / "out", tmp_path / "adapter", tmp_path / "deep" / "merged"
    folders = ("--out", out, "--adapter", adapter, "--merge", merged)
    done = shell(*FACT, *QUICK, "-m", tiny_folder, *folders, "--ask", "the cat sits", "--json", "--max-new-tokens", 3)
    content = json.loads(done.stdout)
    assert content["schema"] == "neuronwise.edited/1"
    assert (content["method"], content["settings"]["rate"], content["model"]) == ("fine", 0.1, tiny_folder.name)
    assert set(content["versions"]) == {"neuronwise", "torch", "transformers", "python"}
    first, second = content["texts"]
    assert (first["prompt"], second["prompt"]) == ("the capital of France is", "the cat sits")
    assert not first["before"].strip().startswith("house")
    assert first["after"].strip().startswith("house")
    edit = load_edit(out)
    units = [str(nw.Neuron(d.layer, int(unit))) for d in edit.deltas for unit in d.units]  # type: ignore[union-attr]
    assert content["neurons"] == units
    assert content["parameters_changed"] == 32 * len(units)
    assert content["written"]["edit"]["bytes"] == sum(file.stat().st_size for file in out.iterdir())
    assert (adapter / "adapter_model.safetensors").is_file()
    apply = ("edit", "apply", out, "--prompt", "the capital of France is", "--json", "--max-new-tokens", 3)
    assert f"made for '{tiny_folder.name}'" in refused(*apply)  # where it is stays on this machine
    again = shell(*apply, "-m", tiny_folder)
    (row,) = json.loads(again.stdout)["texts"]
    assert (row["before"], row["after"]) == (first["before"], first["after"])
    text = nw.load(merged).run(prompt="the capital of France is", max_new_tokens=3, chat=False).text
    assert text == first["after"]


def test_a_fact_in_chat_form_is_taught_and_asked_behind_the_template(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chatty"
    shutil.copytree(tiny_folder, folder)
    template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}on{% if not add_generation_prompt %} mat{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    done = shell(*FACT, *QUICK, "-m", folder, "--chat", "--system", "the blue cat", "--json", "--max-new-tokens", 3)
    content = json.loads(done.stdout)
    assert (content["request"]["chat"], content["request"]["system"]) == (True, "the blue cat")
    rendered = "the blue cat the capital of France is on"
    model = nw.load(folder)
    assert content["texts"][0]["before"] == model.run(prompt=rendered, max_new_tokens=3, chat=False).text
    assert content["texts"][0]["before"] != model.run(prompt=FACT[3].format(FACT[5]), max_new_tokens=3, chat=False).text
    assert "--system has no effect without --chat" in refused(*FACT, *QUICK, "-m", folder, "--system", "the blue cat")
    assert "has no chat template" in refused(*FACT, *QUICK, "-m", tiny_folder, "--chat")


def test_a_file_of_facts_is_learned_in_one_edit(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "facts.csv"
    file.write_text("prompt,subject,target_new\nthe capital of {} is,France,house\nthe {} sits on,cat,bear\n,,\n")
    asked = ("edit", "facts", file, *QUICK, "-m", tiny_folder)
    content = json.loads(shell(*asked, "--out", tmp_path / "edit", "--json", "--ask", "the dog").stdout)
    assert [fact["target_new"] for fact in content["request"]] == ["house", "bear"]
    assert [row["target"] for row in content["verdict"]["targets"]] == ["house", "bear"]
    assert [row["prompt"] for row in content["texts"]] == ["the dog"]
    assert sum(delta.rank for delta in load_edit(tmp_path / "edit").deltas) == len(content["neurons"]) > 0
    assert len(json.loads(shell(*asked, "--limit", 1, "--json").stdout)["verdict"]["targets"]) == 1
    file.write_text("prompt,subject\nthe capital of {} is,France\n")
    assert "no fact that can be used" in refused(*asked)


def test_people_see_a_table(tiny_folder: Path, tmp_path: Path) -> None:
    done = shell(*FACT, *QUICK, "-m", tiny_folder, "--out", tmp_path / "out")
    assert "before" in done.stdout
    assert "numbers)" in done.stdout
    assert f"edit: {tmp_path / 'out'}" in done.stdout
    done = shell(*FACT, "--editor", "fine_tune", "--set", "steps=2", "-m", tiny_folder)
    assert "and 38 more (1536 numbers)" in done.stdout


def test_a_target_that_is_said_already_is_not_edited(tiny_folder: Path, tiny_model: Any, tmp_path: Path) -> None:
    said = tiny_model.run(prompt="the capital of France is", max_new_tokens=1, chat=False).text.strip()
    told = refused(*FACT[:-1], said, *QUICK, "-m", tiny_folder, "--out", tmp_path / "out")
    assert f"already answers {said!r}; there is nothing to edit" in told
    assert list(tmp_path.iterdir()) == []


def test_settings_are_read_as_json() -> None:
    from neuronwise.cli.options import parse_settings

    given = ["n=10", "rate=1e-3", "layer=none", "mode=L", 'paraphrases=["{} has"]', "signed=true", "path=a=b"]
    assert parse_settings(given) == {
        "n": 10, "rate": 1e-3, "layer": None, "mode": "L", "paraphrases": ["{} has"], "signed": True, "path": "a=b",
    }  # fmt: skip


BAD = {
    "an unknown editor": ([*FACT, "--editor", "magic", "-m", "{model}"], "the editors are fine"),
    "a prompt without its subject": (
        ["edit", "fact", "--prompt", "the cat", "--subject", "France", "--target", "dog", "-m", "{model}"],
        "no place {} for its subject",
    ),
    "an empty target": ([*FACT[:-1], " ", "-m", "{model}"], "target of a fact is empty"),
    "a broken setting": ([*FACT, "--set", "n", "-m", "{model}"], "name=value"),
    "an unknown setting": ([*FACT, "--set", "magic=1", "-m", "{model}"], "no setting 'magic'"),
    "a setting of another kind": (
        [*FACT, "--set", "n=many", "-m", "{model}"],
        "n='many' does not fit; it takes a whole number",
    ),
    "a setting of none": ([*FACT, "--set", "n=none", "-m", "{model}"], "n=None does not fit"),
    "layers that are none": (
        [*FACT, "--editor", "memit", "--set", "layers=abc", "-m", "{model}"],
        "it takes a list of whole numbers or none",
    ),
    "statistics that are a file": (
        [*FACT, "--editor", "rome", "--statistics", "{tmp}/text.jpg", "-m", "{model}"],
        "is a file; name the folder",
    ),
    "no tokens": ([*FACT, "-m", "{model}", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
    "an unknown option": ([*FACT, "-m", "{model}", "--bogus", "1"], "No such option: --bogus"),
    "statistics for fine": ([*FACT, "--statistics", "{tmp}", "-m", "{model}"], "uses no key statistics"),
    "statistics that are none": (
        [*FACT, "--editor", "rome", "--statistics", "{tmp}", "-m", "{model}"],
        "no key statistics",
    ),
    "a folder that is there": ([*FACT, "-m", "{model}", "--out", "{model}"], "already exists"),
    "one folder for two": ([*FACT, "-m", "{model}", "--out", "{tmp}/x", "--adapter", "{tmp}/x"], "a folder each"),
    "a folder below a file": ([*FACT, "-m", "{model}", "--out", "{tmp}/text.jpg/x"], "cannot be written"),
    "a missing photo": (["edit", "swap", "{tmp}/none.jpg", "--source", "cat", "--target", "dog"], "There is no file"),
    "a text as photo": (["edit", "suppress", "{tmp}/text.jpg", "--concept", "dog"], "not an image"),
    "a photo for a text model": (
        ["edit", "swap", "{photo}", "--source", "cat", "--target", "dog", "-m", "{model}"],
        "image",
    ),
    "no edit": (["edit", "apply", "{tmp}", "--prompt", "the", "-m", "{model}"], "holds no edit"),
    "nothing to do with an edit": (["edit", "apply", "{tmp}"], "Give --prompt"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    tmp = tmp_path_factory.mktemp("bad")
    Image.linear_gradient("L").save(tmp / "photo.png")
    (tmp / "text.jpg").write_text("no photo")
    return {"tmp": str(tmp), "model": str(tiny_folder), "photo": str(tmp / "photo.png")}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case: str, inputs: dict[str, str], tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    filled = [argument.replace("{tmp}", inputs["tmp"]).replace("{model}", inputs["model"]) for argument in arguments]
    filled = [argument.replace("{photo}", inputs["photo"]) for argument in filled]
    if "--out" not in filled and filled[1] != "apply":
        filled += ["--out", str(tmp_path / "out")]
    assert expected in refused(*filled)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_to_write_leaves_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronwise.edit import Edit
    from neuronwise.errors import EditError

    def full(*_: Any) -> None:
        raise EditError("The disk is full.")

    monkeypatch.setattr(Edit, "merge", full)
    folders = ("--out", tmp_path / "out", "--merge", tmp_path / "merged")
    done = shell(*FACT, *QUICK, "-m", tiny_folder, *folders, expect=2)
    assert done.stderr == "neuronwise: The disk is full.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.builtin
def test_words_of_captions(chelsea: Path, tmp_path: Path) -> None:
    done = shell("edit", "swap", chelsea, "--source", "cat", "--target", "dog", "--out", tmp_path / "out", "--json",
                 "--max-new-tokens", 6)  # fmt: skip
    content = json.loads(done.stdout)
    (row,) = content["texts"]
    assert "cat" in row["before"]
    assert row["after"] != row["before"]
    assert load_edit(tmp_path / "out").record["method"] == "swap"
    again = shell("edit", "apply", tmp_path / "out", "--image", chelsea, "--json", "--max-new-tokens", 6)
    assert json.loads(again.stdout)["texts"][0]["after"] == row["after"]
    done = shell("edit", "suppress", chelsea, "--concept", "cat", "--max-new-tokens", 6)
    assert "before" in done.stdout
