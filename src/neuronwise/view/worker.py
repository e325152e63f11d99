"""One thread owns the model: work waits in a queue, tells how far it is, and stops when nobody waits for it."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeAlias

from neuronwise.errors import NeuronwiseError, is_out_of_memory, one_line

Event: TypeAlias = dict[str, Any]
Work: TypeAlias = "Callable[[Job], Event]"
PING = 5.0  # seconds: a sign of life to a page that waits


class Cancelled(BaseException):
    """Nobody waits for this work any more. Not an ``Exception``: no boundary to another library takes it for one."""


class Tells(Protocol):
    """Whoever is told how far work is."""

    def tell(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done and how far it is."""
        ...


class Clock:
    """How far work is, and how long the rest of its stage takes at the speed so far."""

    def __init__(self) -> None:
        self._begun: tuple[str, float] | None = None

    def progress(self, stage: str, done: int, total: int) -> Event:
        """``left`` is in seconds, None where it is not known."""
        now = time.monotonic()
        if self._begun is None or self._begun[0] != stage:
            self._begun = (stage, now)
        left = (now - self._begun[1]) / done * (total - done) if 0 < done < total else None
        return {"stage": stage, "done": done, "total": total, "left": left}


class Job:
    """One piece of work. ``tell`` says how far it is; what it says and its end arrive in ``events``."""

    def __init__(self, name: str, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.work, self._loop = name, work, loop
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._given_up = threading.Event()
        self._clock = Clock()

    def send(self, event: Event) -> None:
        """Give an event to the page, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the server has ended
            self._given_up.set()

    def tell(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done, how far it is, and how long the rest takes; raises ``Cancelled`` if nobody waits."""
        self.require_wanted()
        self.send({"event": "progress", **self._clock.progress(stage, done, total)})

    def require_wanted(self) -> None:
        """Raise ``Cancelled`` where the page that asked is closed."""
        if self._given_up.is_set():
            raise Cancelled

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._given_up.is_set()

    async def events(self) -> AsyncIterator[Event]:
        """What the job tells until its end; who stops listening gives it up."""
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._events.get(), PING)
                except TimeoutError:
                    event = {"event": "waiting"}
                yield event
                if event["event"] in ("result", "error"):
                    return
        finally:
            self.give_up()


class Worker:
    """The thread that owns the model, with its queue."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="neuronwise-view", daemon=True)
        self._thread.start()

    def submit(self, name: str, work: Work, loop: asyncio.AbstractEventLoop) -> Job:
        """Put work at the end of the queue, and say how many are before it."""
        job = Job(name, work, loop)
        with self._lock:
            self._waiting.append(job)
            self._say_places()
        self._queue.put(job)
        return job

    def close(self) -> None:
        """End the thread behind what it is doing now; the rest is given up."""
        with self._lock:
            for job in self._waiting:
                job.give_up()
        self._queue.put(None)

    def _say_places(self) -> None:
        wanted = [job for job in self._waiting if not job.given_up]
        for place, job in enumerate(wanted):
            if place:
                job.send({"event": "queued", "before": place, "behind": wanted[0].name})

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.given_up:
                job.send(_done(job))
            with self._lock:
                self._waiting.remove(job)
                self._say_places()


def _done(job: Job) -> Event:
    """Do the work: its result, or what went wrong in a sentence. Whatever happens, the thread goes on."""
    try:
        return {"event": "result", **job.work(job)}
    except Cancelled:
        return {"event": "error", "message": "Stopped: the page that asked was closed."}
    except Exception as error:
        message, full = failure(error), is_out_of_memory(error)
    if full:  # the error, which held the tensors, is gone by now
        free_memory()
        message += " The viewer goes on."
    return {"event": "error", "message": message}


def failure(error: Exception) -> str:
    """What went wrong, in a sentence."""
    if isinstance(error, NeuronwiseError):
        return str(error)
    if is_out_of_memory(error):
        return "Out of memory: take a smaller photo, a shorter text or a smaller model, or open it in bfloat16."
    return one_line(f"This failed unexpectedly ({type(error).__name__}: {error}).")


def free_memory() -> None:
    """Give back what nothing holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
