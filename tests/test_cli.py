"""The command line: one result on standard output, one sentence on standard error, exit status 2 for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from schema_guard import validated
from shell import refused, shell


def test_a_real_shell_keeps_its_streams_apart(tiny_folder: Path) -> None:
    command = [sys.executable, "-m", "neuronwise", "decode", "-m", str(tiny_folder)]
    good = subprocess.run([*command, "L1.U5", "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["neurons"][0]["unit"] == 5
    bad = subprocess.run([*command, "L1.U99"], capture_output=True, text=True, timeout=300, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "neuronwise: There is no neuron L1.U99: layer 1 has units 0 to 47.\n"


def test_find_in_a_text_prints_one_object(tiny_folder: Path) -> None:
    done = shell(
        "find", "--text", "the capital of France is", "--target", " Paris", "-m", tiny_folder, "--json", "--top", 7
    )
    content = json.loads(done.stdout)
    assert validated(content)["schema"] == "neuronwise.find/2"
    assert (content["method"], content["activation"], content["chat"]) == ("contribution", "ffn", False)
    assert set(content["versions"]) == {"neuronwise", "torch", "transformers", "python"}
    (concept,) = content["concepts"]
    assert (concept["word"], concept["token"].strip(), concept["position"]) == (" Paris", "Paris", None)
    assert len(concept["neurons"]) == 7
    for neuron in concept["neurons"]:
        assert neuron["tokens"] == neuron["raises"]
        assert len(neuron["raises"]) == len(neuron["lowers"]) == 10
        assert neuron["expert"] is None
    scores = [neuron["score"] for neuron in concept["neurons"]]
    assert scores == sorted(scores, reverse=True)


def test_the_shell_and_python_agree(tiny_folder: Path, tiny_model: Any) -> None:
    import neuronwise as nw

    asked = ("find", "--text", "a dog sits on the", "-m", tiny_folder, "--json", "--top", 5)
    content = json.loads(shell(*asked, "--method", "contribution", "--normalize").stdout)
    concept = content["concepts"][0]
    run = tiny_model.run(prompt="a dog sits on the", max_new_tokens=0)
    found = nw.locate(tiny_model, run, target=concept["token_id"], top=5, normalize=True)
    assert content["options"] == {"normalize": True}
    assert [(n["layer"], n["unit"]) for n in concept["neurons"]] == [(n.layer, n.unit) for n in found.neurons]
    assert [n["score"] for n in concept["neurons"]] == pytest.approx([m.score for m in found], rel=1e-4)
    assert [n["tokens"] for n in concept["neurons"]] == [nw.decode(tiny_model, member) for member in found]


def test_what_find_does_by_default(tiny_folder: Path, tiny_model: Any, tmp_path: Path) -> None:
    """Surpluses in exact shares against ten alternatives; single options change one of these."""
    import neuronwise as nw

    asked = ("find", "--text", "a dog sits on the", "-m", tiny_folder, "--json", "--top", 5)
    content = json.loads(shell(*asked).stdout)
    assert content["options"] == {"contrast": 10, "normalize": True, "baseline": "self", "focus": 3.5}
    assert "beyond what it usually adds" in content["meaning"]
    run = tiny_model.run(prompt="a dog sits on the", max_new_tokens=0)
    found = nw.find(tiny_model, run, targets=[content["concepts"][0]["token_id"]], top=5)
    assert json.loads(json.dumps(found.to_dict()["concepts"])) == content["concepts"]
    other = json.loads(shell(*asked, "--baseline", "none", "--contrast", "none").stdout)
    assert other["options"] == {"contrast": None, "normalize": True, "baseline": None, "focus": 3.5}
    assert all(neuron["baseline"] is None for neuron in other["concepts"][0]["neurons"])
    nw.Baseline.gather(tiny_model, texts=["the cat sits on the mat"]).save(tmp_path / "usual")
    own = json.loads(shell(*asked, "--baseline", tmp_path / "usual").stdout)
    assert own["concepts"][0]["neurons"] != content["concepts"][0]["neurons"]
    assert "There is no baseline" in refused(*asked, "--baseline", tmp_path / "nothing")


def test_the_published_procedure(tiny_folder: Path, tiny_model: Any) -> None:
    import neuronwise as nw

    asked = ("find", "--text", "a dog sits on the", "-m", tiny_folder, "--json", "--top", 5, "--published")
    content = json.loads(shell(*asked).stdout)
    run = tiny_model.run(prompt="a dog sits on the", max_new_tokens=0)
    found = nw.locate(tiny_model, run, target=content["concepts"][0]["token_id"], top=5)
    rows = content["concepts"][0]["neurons"]
    assert (content["method"], content["options"], content["form"]) == ("contribution", {}, "logits")
    assert [(row["layer"], row["unit"]) for row in rows] == [(n.layer, n.unit) for n in found.neurons]
    assert [row["tokens"] for row in rows] == [nw.decode(tiny_model, n, form="logits") for n in found.neurons]
    assert [row["raises"] for row in rows] == [nw.decode(tiny_model, member) for member in found]
    assert "procedure of its own" in refused(*asked, "--normalize")
    assert "procedure of its own" in refused(*asked, "--method", "contribution")


def test_a_target_of_several_tokens_is_said(tiny_folder: Path) -> None:
    done = shell("find", "--text", "the", "--target", " graffezi", "-m", tiny_folder, "--json")
    assert "3 tokens; scored is the first" in done.stderr
    assert "3 tokens" in json.loads(done.stdout)["concepts"][0]["note"]


def test_out_writes_a_page_and_the_object(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = shell("find", "--text", "the cat sits", "-m", tiny_folder, "--out", out, "--json", "--top", 3, "--lens")
    assert sorted(path.name for path in out.iterdir()) == ["finding.json", "index.html"]
    content = validated(json.loads(done.stdout))
    assert json.loads((out / "finding.json").read_text()) == content
    assert len(content["concepts"][0]["lens"]["log_probs"]) == content["num_layers"]


def test_the_same_seed_gives_the_same(tiny_folder: Path) -> None:
    arguments = ("find", "--text", "the cat", "-m", tiny_folder, "--method", "random", "--json", "--seed")
    first, again, other = (shell(*arguments, seed).stdout for seed in (3, 3, 4))
    assert first == again
    assert json.loads(first)["concepts"] != json.loads(other)["concepts"]


def test_a_target_that_was_not_said_is_noted(tiny_folder: Path) -> None:
    arguments = ("find", "--text", "the cat", "-m", tiny_folder, "--max-new-tokens", 3, "--json", "--target", " graffe")
    done = shell(*arguments)
    (concept,) = json.loads(done.stdout)["concepts"]
    assert concept["position"] == 0
    assert "was not generated" in concept["note"]
    assert "was not generated" in done.stderr
    (concept,) = json.loads(shell(*arguments, "--position", 2).stdout)["concepts"]
    assert concept["position"] == 2


def test_decode(tiny_folder: Path) -> None:
    done = shell("decode", "L1.U5", "L0.U0", "-m", tiny_folder, "--json", "-k", 4)
    rows = json.loads(done.stdout)["neurons"]
    assert [(row["layer"], row["unit"], len(row["tokens"])) for row in rows] == [(1, 5, 4), (0, 0, 4)]
    assert "L1.U5" in shell("decode", "L1.U5", "-m", tiny_folder).stdout


def test_find_prints_a_table_for_people(tiny_folder: Path) -> None:
    done = shell("find", "--text", "the cat", "-m", tiny_folder, "--target", " dog")
    assert "score" in done.stdout
    assert "L" in done.stdout
    assert done.stderr == ""


BAD = {
    "neither photo nor text": (["find"], "either a photo or --text"),
    "both photo and text": (["find", "{photo}", "--text", "the"], "either a photo or --text"),
    "a missing photo": (["find", "{tmp}/none.jpg"], "There is no file"),
    "a text as photo": (["find", "{tmp}/text.jpg"], "not an image"),
    "a truncated photo": (["find", "{tmp}/half.png"], "truncated"),
    "an empty path": (["index", "locate", "", "dog"], "INDEX is empty; name a file or folder."),
    "an empty prompt": (["find", "--text", " ", "-m", "{model}"], "--text is empty"),
    "an unknown activation": (["find", "--text", "the", "-m", "{model}", "--activation", "foo"], "ffn, gate"),
    "shares of a gate": (["find", "--text", "the", "-m", "{model}", "--activation", "gate", "--normalize"], "only"),
    "a negative contrast": (["find", "--text", "the", "-m", "{model}", "--contrast", "-3"], "whole number from 1"),
    "a broken contrast": (["find", "--text", "the", "-m", "{model}", "--contrast", "1.5"], "whole number from 1"),
    "a contrast with itself": (
        ["find", "--text", "the", "-m", "{model}", "--target", " cat", "--contrast", " cat"],
        "itself",
    ),
    "a position outside": (
        ["find", "--text", "the", "-m", "{model}", "--target", " cat", "--position", "7"],
        "outside",
    ),
    "no name of a model": (["decode", "L0.U1", "-m", ""], "does not name a model"),
    "a device that is not there": (["decode", "L0.U1", "-m", "{model}", "--device-map", "cuda:7"], "cannot be opened"),
    "an unknown method": (
        ["find", "--text", "the", "-m", "{model}", "--method", "magic"],
        "the methods are contribution",
    ),
    "a concept not said": (["find", "--text", "the", "-m", "{model}", "--concept", "zebra"], "its nouns are"),
    "a target outside of the vocabulary": (
        ["find", "--text", "the", "-m", "{model}", "--target", "日本"],
        "vocabulary",
    ),
    "an empty target": (["find", "--text", "the", "-m", "{model}", "--target", ""], "target is empty"),
    "a photo for a text model": (["find", "{photo}", "-m", "{model}"], "image"),
    "a neuron out of range": (["decode", "L7.U1", "-m", "{model}"], "layers 0 to 2"),
    "no neuron": (["decode", "L7U1", "-m", "{model}"], "not a neuron's address"),
    "no checkpoint": (["decode", "L0.U1", "-m", "{tmp}"], "no config.json"),
    "no such folder": (["decode", "L0.U1", "-m", "{tmp}/nothing"], "neither a folder with a checkpoint"),
    "no GGUF": (["decode", "L0.U1", "-m", "{tmp}/text.gguf"], "not a GGUF file"),
    "a damaged config": (["decode", "L0.U1", "-m", "{tmp}/damaged"], "damaged"),
    "no weights": (["decode", "L0.U1", "-m", "{tmp}/empty"], "no weights"),
    "a model that writes nothing": (["decode", "L0.U1", "-m", "{tmp}/vit"], "writes no text"),
    "a model without such neurons": (["decode", "L0.U1", "-m", "{tmp}/mamba"], "no addressable feed-forward neurons"),
    "an unknown dtype": (["decode", "L0.U1", "-m", "{model}", "--dtype", "float7"], "no dtype"),
    "out is a file": (["find", "--text", "the", "-m", "{model}", "--out", "{tmp}/text.jpg"], "is a file"),
    "an unknown architecture": (["models", "no-such-model"], "no-such-model"),
    "a misspelled command": (["fnd", "photo.jpg"], "Did you mean 'find'? See "),
}


@pytest.fixture(scope="module")
def bad_input(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_tokenizer: Any) -> dict[str, str]:
    from transformers import MambaConfig, MambaForCausalLM, ViTConfig, ViTModel

    tmp = tmp_path_factory.mktemp("bad")
    Image.linear_gradient("L").save(tmp / "photo.png")
    (tmp / "half.png").write_bytes((tmp / "photo.png").read_bytes()[:300])
    (tmp / "text.jpg").write_text("no photo")
    (tmp / "text.gguf").write_text("no model")
    for name, content in (("damaged", "{"), ("empty", '{"model_type": "llama"}')):
        (tmp / name).mkdir()
        (tmp / name / "config.json").write_text(content)
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(tmp / "vit")
    mamba = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=len(tiny_tokenizer), state_size=4)
    MambaForCausalLM(mamba).save_pretrained(tmp / "mamba")
    tiny_tokenizer.save_pretrained(tmp / "mamba")
    return {"tmp": str(tmp), "model": str(tiny_folder), "photo": str(tmp / "photo.png")}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case: str, bad_input: dict[str, str], tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    filled = [argument.format(**bad_input) for argument in arguments]
    if filled[0] == "find" and "--out" not in filled:
        filled += ["--out", str(tmp_path / "out")]
    assert expected in refused(*filled)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuronwise.model.load", stop)
    done = shell("decode", "L1.U5", expect=130)
    assert (done.stdout, done.stderr) == ("", "neuronwise: interrupted\n")
