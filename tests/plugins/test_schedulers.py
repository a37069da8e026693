"""The schedules, against their closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plugins.schedulers.constant import Constant
from plugins.schedulers.cosine import Cosine
from plugins.schedulers.linear import Linear

Curve = Callable[[int, int], float]
CURVES: dict[Any, Curve] = {
    Linear: lambda step, span: (span - step) / span,
    Cosine: lambda step, span: math.cos(math.pi * step / span / 2) ** 2,
    Constant: lambda step, span: 1.0,
}
"""After warm-up: the factor of the n-th of so many steps."""
schedules = pytest.mark.parametrize("kind", CURVES)
warmups = st.one_of(st.integers(0, 80), st.floats(0, 0.999))


def steps_of(warmup: float, total: int) -> int:
    """Steps of the rise: a whole number as it is, a fraction of all rounded up; all at most."""
    return min(warmup if isinstance(warmup, int) else math.ceil(warmup * total), total)


@schedules
@pytest.mark.parametrize("total", [1, 2, 7, 100, 1563])
@pytest.mark.parametrize("warmup", [0, 0.0, 1, 3, 0.1, 0.5, 5000])
def test_closed_form(kind: Any, warmup: float, total: int) -> None:
    """At every step the factor is the closed form's, to 1e-12, and the last one too."""
    factor = kind(warmup=warmup).build(total)
    rise = steps_of(warmup, total)
    expected = [
        (step + 1) / rise if step < rise else CURVES[kind](step - rise, total - rise)
        for step in range(total)
    ]
    assert [factor(step) for step in range(total)] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@schedules
@given(warmup=warmups, total=st.integers(1, 60))
def test_shape(kind: Any, warmup: float, total: int) -> None:
    """The factor is in (0, 1], rises to exactly 1 at the end of warm-up, and never after."""
    factor = kind(warmup=warmup).build(total)
    found = [factor(step) for step in range(total)]
    rise = steps_of(warmup, total)
    assert all(0 < value <= 1 for value in found)
    assert all(a < b for a, b in itertools.pairwise(found[:rise]))
    assert found[max(rise - 1, 0)] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(found[rise:]))


@schedules
def test_pure(kind: Any) -> None:
    """A factor depends on the step alone: asked again in any order, the answer is the same."""
    factor = kind(warmup=0.2).build(50)
    forward = [factor(step) for step in range(50)]
    assert [factor(step) for step in reversed(range(50))] == forward[::-1]
    assert [kind(warmup=0.2).build(50)(step) for step in range(50)] == forward


@schedules
def test_a_fraction_is_not_a_number_of_steps(kind: Any) -> None:
    """A warm-up of 0.1 is a tenth of all steps, one of 10 is ten steps."""
    tenth, ten = kind(warmup=0.1).build(200), kind(warmup=10).build(200)
    assert [tenth(step) for step in (0, 18, 19)] == [1 / 20, 19 / 20, 1.0]
    assert [ten(step) for step in (0, 8, 9)] == [1 / 10, 9 / 10, 1.0]


def test_linear_is_transformers_own_one_step_ahead() -> None:
    """The linear schedule is transformers' but for its first step, which has a rate above 0."""
    from transformers import get_linear_schedule_with_warmup

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimizer, 10, 50)
    theirs = []
    for _ in range(50):
        optimizer.step()
        reference.step()
        theirs.append(optimizer.param_groups[0]["lr"])
    factor = Linear(warmup=10).build(50)
    assert [factor(step) for step in range(10)] == pytest.approx(theirs[:10], rel=1e-12)
    assert [factor(step) for step in range(11, 50)] == pytest.approx(theirs[10:49], rel=1e-12)


@schedules
@pytest.mark.parametrize("warmup", [-1, -0.1, 1.0, 2.5])
def test_warmups_that_are_neither(kind: Any, warmup: float) -> None:
    """A warm-up below 0, or a fraction of 1 and more, is refused."""
    with pytest.raises(ValueError, match="'warmup'"):
        kind(warmup=warmup)
