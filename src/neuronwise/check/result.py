"""What a check found: passed, failed or not applicable, with numbers and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

PASSED = "passed"
FAILED = "failed"
NOT_APPLICABLE = "not applicable"
SCHEMA = "neuronwise.check/1"


class NotApplicable(Exception):
    """This model has nothing that the check could look at; the message says why."""


class Deviation(Exception):
    """What was measured is not what it must be."""

    def __init__(self, detail: str, **numbers: float) -> None:
        super().__init__(detail)
        self.numbers = numbers


@dataclass(frozen=True)
class Measured:
    """What a passed check measured: one line for a reader, and the numbers in it."""

    detail: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One line of the table: ``outcome`` is "passed", "failed" or "not applicable"."""

    name: str
    title: str
    outcome: str
    detail: str
    numbers: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Report:
    """All checks of one model, in their order, with what they were run on."""

    model: str
    results: tuple[Result, ...]
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not any(result.outcome == FAILED for result in self.results)

    def count(self, outcome: str) -> int:
        """The number of checks with an outcome."""
        return sum(result.outcome == outcome for result in self.results)

    def __getitem__(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the form ``neuronwise.check/1``."""
        checks = [
            {
                "name": one.name, "title": one.title, "outcome": one.outcome, "detail": one.detail,
                "numbers": dict(one.numbers), "seconds": round(one.seconds, 3),
            }
            for one in self.results
        ]  # fmt: skip
        return {"schema": SCHEMA, "model": self.model, "passed": self.passed, **dict(self.record), "checks": checks}


def difference(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖, infinite where either is not finite."""
    left, right = found.detach().double().flatten().cpu(), wanted.detach().double().flatten().cpu()
    share = float((left - right).norm() / right.norm().clamp_min(1e-30))
    return share if share == share else float("inf")


def within(name: str, worst: float, allowed: float, what: str, **numbers: float) -> Measured:
    """Passed when ``worst`` is at most ``allowed``, else raises ``Deviation``; ``what`` names what was compared."""
    numbers = {name: worst, "allowed": allowed, **numbers}
    line = f"{what}: largest {name} {worst:.1e}, allowed {allowed:.0e}"
    if worst <= allowed:
        return Measured(line, numbers)
    raise Deviation(line, **numbers)
