"""Sums over even steps from few values, against the sums themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuronwise.locate.quadrature import every, radau

STEPS = 20


def whole(function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS).sum()


@pytest.mark.parametrize("nodes", [6, 7, 9])
def test_exact_up_to_its_degree_and_no_further(nodes: int) -> None:
    rule = radau(STEPS, nodes)
    assert float(rule.at[-1]) == pytest.approx(1, abs=1e-6)
    for degree in range(2 * nodes - 1):
        found = rule.rows[0].double() @ rule.at.double() ** degree
        torch.testing.assert_close(found, whole(lambda x, n=degree: x**n), rtol=1e-5, atol=1e-5)

    def zero_at_its_points(x: Tensor) -> Tensor:
        return torch.stack([(x - at) ** 2 for at in rule.at.double()[:-1]]).prod(0) * (rule.at[-1].double() - x)

    assert float(rule.rows[0].double() @ zero_at_its_points(rule.at.double())) == 0 < float(whole(zero_at_its_points))


def test_what_it_may_miss_is_told() -> None:
    """Smooth functions are let through and others are not; no error is more than thrice the estimate."""
    rule = radau(STEPS, 7)
    functions: list[Callable[[Tensor], Tensor]] = [
        torch.exp, torch.sin, lambda x: 1 / (0.3 + x), lambda x: torch.tanh(3 * x),
        lambda x: torch.sigmoid(60 * (x - 0.4)), lambda x: (x > 0.5).double(),
    ]  # fmt: skip
    told = []
    for function in functions:
        sizes = (rule.rows.double() @ function(rule.at.double())).abs()
        error = float(rule.error(sizes))
        missed = abs(float(rule.rows[0].double() @ function(rule.at.double()) - whole(function)))
        assert missed <= 3 * error + 1e-5 * float(sizes[0])
        told.append(error / float(sizes[0]))
    assert max(told[:2]) < 1e-5 < min(told[-2:])


def test_every_step_is_the_sum() -> None:
    rule = every(STEPS)
    assert float(rule.rows[0] @ rule.at) == pytest.approx(10.5)
    assert not bool(rule.error(torch.ones(1, 3)).any())
