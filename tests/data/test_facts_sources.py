"""Where facts are read from, and what happens with sources and records that are broken."""

import copy
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuronwise as nw
from fact_records import COUNTERFACT, FLAT, KNOWEDIT, KNOWN, ZSRE
from neuronwise.data.facts import FactCase, Facts, load_facts
from neuronwise.data.facts.fields import RecordError, template
from neuronwise.data.facts.rows import read_rows
from neuronwise.errors import DataError


def fact(name: str, **changes: Any) -> dict[str, Any]:
    return {"prompt": f"The home of {name} is", "subject": name, "target_new": "Bern", **changes}


def lines(*records: Any) -> bytes:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in records).encode()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# Sources


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "A.JSONL"])
def test_lines_in_any_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b"\xef\xbb\xbf" + lines(fact("Ann"), "", fact("Bo")) + b"\r\n")
    facts = load_facts(path)
    assert [case.fact.subject for case in facts] == ["Ann", "Bo"]
    assert [case.id for case in facts] == ["1", "3"]  # lines are counted as an editor shows them
    assert facts.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.source == str(path)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"data": x}, lambda x: {"version": 1, "data": x}])
@pytest.mark.parametrize("indent", [None, 1])
def test_lists_of_records(tmp_path: Path, wrap: Any, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(wrap([fact("Ann"), fact("Bo")]), indent=indent), encoding="utf-8")
    assert [row.where for row in read_rows(path).rows] == ["a.json, record 1", "a.json, record 2"]
    assert len(load_facts(path)) == 2


@pytest.mark.parametrize("record", [COUNTERFACT, FLAT, ZSRE, KNOWEDIT])
def test_one_record_alone_is_a_file_too(tmp_path: Path, record: Any) -> None:
    assert len(load_facts(written(tmp_path / "a.json", json.dumps(record, indent=2).encode()))) == 1


def test_a_folder_of_several_forms(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    written(tmp_path / "zsre.json.gz", lines([ZSRE]))
    written(tmp_path / "deep" / "cf.jsonl", lines(COUNTERFACT, {**FLAT, "case_id": 7}))
    written(tmp_path / "deep" / ".hidden" / "x.json", b"no")
    written(tmp_path / "notes.json", b'[{"title": "nothing of ours"}]')
    written(tmp_path / "broken.json.gz", b"")
    (tmp_path / "broken.json.gz").write_bytes(b"\x1f\x8b\x08\x00abc")
    (tmp_path / "readme.txt").write_text("no facts")
    facts = load_facts(tmp_path)
    assert [case.id for case in facts] == ["deep-cf-7", "deep-cf-7-2", "zsre-1"]
    assert facts.form == "counterfact+zsre"
    assert [(problem.where, problem.kept) for problem in facts.problems] == [
        ("broken.json.gz", False),
        ("deep/cf.jsonl, line 2", True),
        ("notes.json", False),
    ]
    assert "was already used" in facts.problems[1].reason
    before = facts.digest
    written(tmp_path / "deep" / "cf.jsonl", lines(COUNTERFACT))
    assert load_facts(tmp_path).digest != before


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for name, words in {
        "gone.json": "no file or folder", "empty": "has no file that ends in .json", "notes.txt": "should end in .json",
    }.items():  # fmt: skip
        with pytest.raises(nw.NeuronwiseError, match=words):
            load_facts(tmp_path / name)
    for data, words in {
        b"": "is empty", b" \n": "is empty", b"[]": "empty list", b"3": "not hold a list", b"{": "is not JSON",
        b'{"prompt": "x"}': "the fields of no form", b"\xff\xfe[": "not text in UTF-8", b"[1, 2]": "fields of no form",
        b'{"a": ' + b"[" * 100000: "nested too deeply",
    }.items():  # fmt: skip
        with pytest.raises(nw.NeuronwiseError, match=words):
            load_facts(written(tmp_path / "a.json", data))


# Broken records


def test_broken_lines_are_named_and_the_others_stay(tmp_path: Path) -> None:
    bad = {
        "{'prompt': 1}": "not JSON",
        '{"prompt": "cut': "not JSON",
        "[1]": "not a record with fields",
        "null": "not a record with fields",
        json.dumps(fact("Ann", target_new=" ")): "target_new is empty",
        json.dumps(fact("Ann", target_new=4)): "target_new is a number",
        json.dumps(fact("Ann", target_new=["Bern"])): "target_new is a list",
        json.dumps(fact("Ann", subject="ann")): "lacks its subject 'ann' .it is written 'Ann' there",
        json.dumps(fact("Ann", subject="")): "subject is empty",
        json.dumps(fact("Ann", prompt="{} and {}")): "several places",
        json.dumps(fact("Ann", prompt="\ud800 Ann")): "surrogate",
        json.dumps({"prompt": "The home of Ann is", "subject": "Ann"}): "no field 'target_new'",
        "1" * 5000: "not JSON",
    }
    data = lines(fact("Ann"), *bad, fact("Bo")) + b'\n{"prompt": "\xff"}\n'
    facts = load_facts(written(tmp_path / "a.jsonl", data))
    assert [case.fact.subject for case in facts] == ["Ann", "Bo"]
    named = {problem.where: problem.reason for problem in facts.left_out}
    assert len(named) == len(facts.problems) == len(bad) + 1
    for number, words in enumerate(bad.values(), 2):
        assert re.search(words, named[f"a.jsonl, line {number}"])
    assert "UTF-8" in named[f"a.jsonl, line {len(bad) + 3}"]
    assert f"{len(bad) + 1} left out" in str(facts)
    assert "line 2" in str(facts)
    assert "more in .problems" in str(facts)


def test_a_list_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    text = json.dumps([fact("Ann"), fact("Bo"), fact("Cy")], indent=1)
    cut = text[: text.index("Cy")]
    facts = load_facts(written(tmp_path / "a.json", cut.encode()))
    assert [case.fact.subject for case in facts] == ["Ann", "Bo"]
    (problem,) = facts.left_out
    assert problem.where == f"a.json, line {cut.count(chr(10)) + 1}"
    assert "nothing after record 2 was read" in problem.reason
    inside = text.replace('"Bo"', "Bo", 1)
    facts = load_facts(written(tmp_path / "a.json", inside.encode()))
    assert [case.fact.subject for case in facts] == ["Ann"]
    assert facts.problems[0].where == f"a.json, line {inside[: inside.index(' Bo,')].count(chr(10)) + 1}"


def test_strict_raises_at_the_first_problem(tmp_path: Path) -> None:
    for bad, words in (("{", "line 2: it is not JSON"), (fact("Bo", target_new=""), "line 2: its target_new is empty")):
        path = written(tmp_path / "a.jsonl", lines(fact("Ann"), bad, fact("Cy", subject=3)))
        with pytest.raises(nw.NeuronwiseError, match=words):
            load_facts(path, strict=True)
    assert len(load_facts(written(tmp_path / "a.jsonl", lines(fact("Ann"))), strict=True)) == 1


def test_nothing_to_use_says_the_first_problem(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", lines(fact("Ann", subject="Bo"), fact("Ann", target_new="")))
    with pytest.raises(nw.NeuronwiseError, match=r"first of 2 problems: a.jsonl, line 1: its prompt .* lacks"):
        load_facts(path)


def test_ids_become_unique(tmp_path: Path) -> None:
    records = [fact("Ann", case_id=name) for name in (5, 5, "5-2", 5, None)]
    facts = load_facts(written(tmp_path / "a.jsonl", lines(*records)))
    assert [case.id for case in facts] == ["5", "5-2", "5-2-2", "5-3", "5-4"]
    assert [problem.kept for problem in facts.problems] == [True] * 4
    assert facts.left_out == ()


# Prompts as templates


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("The twin city of Lyon? It is", "Lyon", "The twin city of {}? It is"),
        ("Romeo went to Rome, and Rome lies in", "Rome", "Romeo went to Rome, and {} lies in"),
        ("Rome's mayor, Romero, lives in", "Rome", "{}'s mayor, Romero, lives in"),
        ("中国的首都是", "中国", "{}的首都是"),
        ("C++ (like C) was made by", "C++", "{} (like C) was made by"),
        ("The home of {} is", "Rome", "The home of {} is"),
        ("The home of {0} is", "Rome", "The home of {} is"),
        ("São Tomé lies in", "São Tomé", "{} lies in"),
        ("A\u2028B lies in", "A\u2028B", "{} lies in"),
    ],
)
def test_template(prompt: str, subject: str, expected: str) -> None:
    assert template(prompt, subject) == expected


@pytest.mark.parametrize(("prompt", "subject"), [("The home of Ann", "Bo"), ("{} {}", "A"), ("x {} y", "{}")])
def test_template_without_one_place(prompt: str, subject: str) -> None:
    with pytest.raises(RecordError):
        template(prompt, subject)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), min_size=1).filter(str.strip)


@given(words, words, words)
def test_a_template_gives_its_prompt_back(before: str, subject: str, after: str) -> None:
    prompt = before + subject + after
    assert template(prompt, subject).replace("{}", subject) == prompt


# Whatever stands in a record, it becomes a case or a problem.

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["Rhine", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompt", "str", "x"]), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in places(one, (*path, key))]


@settings(max_examples=200)
@given(st.sampled_from([COUNTERFACT, FLAT, ZSRE, KNOWEDIT, KNOWN[0]]), st.data())
def test_no_value_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, record: Any, data: Any) -> None:
    changed = copy.deepcopy(record)
    *path, last = data.draw(st.sampled_from(places(record)))
    inner = changed
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(anything)
    file = tmp_path_factory.getbasetemp() / "changed.jsonl"
    file.write_text(json.dumps(record) + "\n" + json.dumps(changed), encoding="utf-8")
    form = "known_facts" if record is KNOWN[0] else None
    try:
        facts = load_facts(file, form)
    except nw.NeuronwiseError:
        assert form  # a known fact alone has no other target; all others keep their first record
        return
    assert len(facts) + len(facts.left_out) == 2
    for case in facts:
        assert isinstance(case, FactCase)
        probes = [probe for group in (case.portability, case.locality) for kind in group.values() for probe in kind]
        for text in (case.fact.text, case.fact.target_new, *case.paraphrases, *(probe.prompt for probe in probes)):
            assert text.strip()
        assert all(isinstance(answer, str) for probe in probes for answer in probe.answers)


# The hub


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = tmp_path / "saved"
    portability = {"Reasoning": [{"prompt": "The country of Mira Holt is", "ground_truth": [["Norway"]]}]}
    record = {**KNOWEDIT, "portability": portability}  # Arrow has no room for answers of several kinds
    records = [record, {**record, "locality": {}, "rephrase": None, "subject": "nobody"}]
    datasets.Dataset.from_list(records).save_to_disk(saved)
    facts = load_facts(saved)
    assert facts.cases[0] == load_facts(written(tmp_path / "a.json", lines([record]))).cases[0]
    assert [problem.where for problem in facts.problems] == [f"{saved}, row 2"]
    assert load_facts(saved).digest == facts.digest


def test_a_folder_that_datasets_opens_like_one_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    records = [{**FLAT, "case_id": number} for number in range(3)]
    written(tmp_path / "set" / "test.jsonl", lines(*records, {"case_id": 4, "subject": "Rhine"}))
    facts = load_facts(f"hub:{tmp_path / 'set'}::test")
    assert [case.id for case in facts] == ["0", "1", "2"]
    assert facts.cases[0] == load_facts(written(tmp_path / "a.json", lines([FLAT | {"case_id": 0}]))).cases[0]
    assert "no field 'prompt'" in facts.problems[0].reason  # Arrow's null for a missing field is no field


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[Any]]) -> list[Any]:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, config: str | None = None, *, revision: str | None = None) -> Any:
        asked.append((name, config, revision))
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_hub_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, {"train": [fact("Ann")], "test": [fact("Bo"), fact("Cy", subject="x")]})
    facts: Facts = load_facts("hub:who/facts@v1:main:test")
    assert asked == [("who/facts", "main", "v1")]
    assert [case.fact.subject for case in facts] == ["Bo"]
    assert facts.problems[0].where == "hub:who/facts@v1:main:test, row 2"
    assert [case.fact.subject for case in load_facts("hub:who/facts::train")] == ["Ann"]
    with pytest.raises(nw.NeuronwiseError, match="several splits; name one of train, test"):
        load_facts("hub:who/facts")
    with pytest.raises(nw.NeuronwiseError, match="no split 'dev'; name one of train, test"):
        load_facts("hub:who/facts::dev")
    hub(monkeypatch, {"train": [fact("Ann")]})
    assert len(load_facts("hub:who/facts")) == 1


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'who/facts' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(nw.NeuronwiseError, match=r"Couldn't reach 'who/facts' on the Hub\); check .* the network"):
        load_facts("hub:who/facts")
    for name in ("hub:", "hub:a:b:c:d"):
        with pytest.raises(nw.NeuronwiseError, match="does not name a dataset; write hub:OWNER/NAME"):
            load_facts(name)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(nw.NeuronwiseError, match=r"pip install 'neuronwise\[datasets\]'"):
        load_facts("hub:who/facts")


def test_tables_are_read_by_their_first_row(tmp_path: Path) -> None:
    table = (
        "\ufeffprompt,subject,target_new,ground_truth,rephrase_prompt\r\n"
        '"The home of {}, born ""there"",\nis",Ann,Oslo,Bergen,"[""Ann lives in"", ""Ann\'s home is""]"\r\n'
        "\r\n"
        "{} is in,Rome,Italy,,[not JSON\r\n"
        "{} is in,Bonn,Germany,,,too many\r\n"
        "{} is in,,Peru,,\r\n"
    )
    facts = load_facts(written(tmp_path / "A.CSV", table.encode()))
    first, second = facts
    assert (first.fact.prompt, first.fact.target_true) == ('The home of {}, born "there",\nis', "Bergen")
    assert first.paraphrases == ("Ann lives in", "Ann's home is")
    assert (second.fact.target_true, second.paraphrases) == (None, ("[not JSON",))
    assert {problem.where: problem.kept for problem in facts.problems} == {
        "A.CSV, line 6": False, "A.CSV, line 7": False,
    }  # fmt: skip
    with pytest.raises(DataError, match="two columns of one name"):
        load_facts(written(tmp_path / "b.csv", b"prompt,prompt\n1,2\n"))
    for between in (";", "\t"):
        rows = "prompt,subject,target_new\n{} is in,Rome,Italy\n".replace(",", between)
        assert load_facts(written(tmp_path / "d.csv", rows.encode()))[0].fact.target_new == "Italy"
    begun = b'prompt,subject,target_new\n{} is in,Rome,Italy\n{} is in,Bonn,"Germany\n'
    broken = load_facts(written(tmp_path / "c.csv", begun))
    assert ([case.fact.subject for case in broken], len(broken.problems)) == (["Rome"], 1)
    assert "c.csv, line 3: it is not CSV" in str(broken.problems[0])
