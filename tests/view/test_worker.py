"""The queue in front of the model: one at a time, told what is before, and never stopped by a failure."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neuronwise.cli import app
from neuronwise.errors import NeuronwiseError
from neuronwise.view.serve import bound
from neuronwise.view.worker import Event, Job, Worker


def run(*works: Callable[[Job], Event]) -> list[list[Event]]:
    """All events of some jobs that are asked for at once."""

    async def asked() -> list[list[Event]]:
        worker = Worker()
        jobs = [worker.submit(f"job {n}", work, asyncio.get_running_loop()) for n, work in enumerate(works)]

        async def listen(job: Job) -> list[Event]:
            return [event async for event in job.events()]

        found = await asyncio.gather(*map(listen, jobs))
        worker.close()
        return list(found)

    return asyncio.run(asked())


def raising(error: BaseException) -> Callable[[Job], Event]:
    def work(job: Job) -> Event:
        raise error

    return work


def test_what_fails_is_told_in_a_sentence_and_the_next_goes_on() -> None:
    found = run(
        raising(NeuronwiseError("The photo is red.")), raising(RuntimeError("CUDA out of memory. Tried to allocate")),
        raising(MemoryError()), raising(ValueError("odd")), lambda job: {"answer": 42},
    )  # fmt: skip
    last = [events[-1] for events in found]
    assert [one["event"] for one in last] == ["error"] * 4 + ["result"]
    assert last[0]["message"] == "The photo is red."
    assert "Out of memory" in last[1]["message"]
    assert "The viewer goes on" in last[2]["message"]
    assert "ValueError: odd" in last[3]["message"]
    assert last[4]["answer"] == 42


def test_who_waits_is_told_how_many_are_before() -> None:
    begun = threading.Event()

    def first(job: Job) -> Event:
        begun.wait(10)
        for done in range(4):
            job.tell("counting", done, 4)
        return {}

    def second(job: Job) -> Event:
        return {}

    async def asked() -> tuple[list[Event], list[Event]]:
        worker = Worker()
        jobs = [
            worker.submit(name, work, asyncio.get_running_loop()) for name, work in (("one", first), ("two", second))
        ]
        begun.set()
        found = [[event async for event in job.events()] for job in jobs]
        worker.close()
        return found[0], found[1]

    one, two = asyncio.run(asked())
    assert [(event["done"], event["total"]) for event in one if event["event"] == "progress"] == [
        (n, 4) for n in range(4)
    ]
    assert one[-2]["left"] is not None
    assert two[0] == {"event": "queued", "before": 1, "behind": "one"}


def test_what_nobody_waits_for_is_not_done_and_what_runs_stops() -> None:
    async def asked() -> list[str]:
        worker, happened, running = Worker(), list[str](), threading.Event()

        def endless(job: Job) -> Event:
            running.set()
            try:
                while True:
                    job.tell("running")
            finally:
                happened.append("stopped")

        first = worker.submit("endless", endless, asyncio.get_running_loop())
        second = worker.submit("never", lambda job: happened.append("done") or {}, asyncio.get_running_loop())
        await asyncio.to_thread(running.wait, 10)
        second.give_up()
        async for _ in first.events():
            break  # as a closed tab does
        first.give_up()
        third = worker.submit("last", lambda job: {}, asyncio.get_running_loop())
        assert [event["event"] async for event in third.events()][-1] == "result"
        worker.close()
        return happened

    assert asyncio.run(asked()) == ["stopped"]


def test_a_port_in_use_gives_the_next_one() -> None:
    taken = bound(0)
    port = taken.getsockname()[1]
    other = bound(port)
    assert other.getsockname()[1] > port
    assert other.getsockname()[0] == "127.0.0.1"
    other.close()
    taken.close()


def test_the_last_port_in_use_is_told() -> None:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", 65535))
        except OSError:
            pytest.skip("it is in use here")
        one.listen()
        with pytest.raises(NeuronwiseError, match="No port from 65535 on"):
            bound(65535)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["EMPTY"], "holds nothing that neuronwise wrote"),
        (["MISSING"], "is not there"),
        (["FILE"], "is a file"),
        (["EMPTY", "--photos", "MISSING"], "--photos"),
        (["--index", "EMPTY"], "index"),
    ],
)
def test_the_shell_refuses_in_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("x")
    named = [one if one.startswith("-") else str(tmp_path / one) for one in arguments]
    result: Any = CliRunner().invoke(app, ["view", *named, "--no-browser"])
    assert isinstance(result.exception, NeuronwiseError)
    assert sentence in str(result.exception)
