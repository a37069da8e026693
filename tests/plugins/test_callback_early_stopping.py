"""The callback `early_stopping`, called through the hooks of a run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.hooks import Hooks
from framework.state import State
from plugins.callbacks.early_stopping import EarlyStopping

Make = Callable[[], State]
NAN = math.nan


def evaluate(live: Any, state: State, value: float, split: str = "val") -> bool:
    """One evaluation of a split; whether a stop is now asked for."""
    call = Hooks({"early_stopping": live}).call
    call.evaluate_end(state=state, split=split, metrics={"f1": value, "by_symptom/mood/f1": value})
    return state.stopping


def stopped_at(live: Any, state: State, values: Sequence[float]) -> int | None:
    """The number of the evaluation that asks for a stop, from 1."""
    return next((n for n, value in enumerate(values, 1) if evaluate(live, state, value)), None)


@pytest.mark.parametrize(
    ("mode", "patience", "min_delta", "values", "expected"),
    [
        ("max", 2, 0.0, [0.5, 0.6, 0.6, 0.6], 4),
        ("max", 2, 0.0, [0.5, 0.4, 0.6, 0.5, 0.55, 0.7], 5),
        ("max", 1, 0.0, [0.5, 0.6, 0.7], None),
        ("min", 2, 0.0, [0.5, 0.6, 0.4, 0.4, 0.41], 5),
        ("min", 3, 0.0, [0.5, 0.6, 0.6, 0.6], 4),
        ("max", 2, 0.1, [0.5, 0.55, 0.59, 0.7], 3),
        ("max", 3, 0.1, [0.5, 0.55, 0.59, 0.61, 0.62], None),
        ("min", 1, 0.1, [0.5, 0.3, 0.25], 3),
        ("max", 2, 0.0, [NAN, 0.1, NAN, NAN], 4),
        ("max", 2, 0.0, [NAN, NAN, 0.5], 2),
        ("min", 2, 0.0, [0.5, NAN, 0.4, NAN, 0.3], None),
        ("max", 2, 0.0, [-math.inf, 0.0, math.inf, 1.0, math.inf], 5),
    ],
)
def test_when_it_stops(
    mode: Any,
    patience: int,
    min_delta: float,
    values: list[float],
    expected: int | None,
    state: Make,
) -> None:
    """It stops after `patience` evaluations in a row without a gain of more than `min_delta`.

    NaN is no gain, and any number is one over NaN.
    """
    options = EarlyStopping(monitor="val/f1", mode=mode, patience=patience, min_delta=min_delta)
    assert stopped_at(options.build(), state(), values) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=12), patience=st.integers(1, 4))
@pytest.mark.parametrize("mode", ["max", "min"])
def test_patience_is_over_when_the_best_is_that_old(
    values: list[int], patience: int, mode: Any, state: Make
) -> None:
    """The stop comes first when the best of the last `patience` values beats none before them."""
    best = max if mode == "max" else min
    expected = next(
        (
            end
            for end in range(patience + 1, len(values) + 1)
            if best(values[:end]) == best(values[: end - patience])
        ),
        None,
    )
    options = EarlyStopping(monitor="val/f1", mode=mode, patience=patience)
    assert stopped_at(options.build(), state(), [float(value) for value in values]) == expected


def test_the_reason_names_the_metric(state: Make) -> None:
    """The run's record says which metric had not improved, and for how long."""
    now = state()
    options = EarlyStopping(monitor="val/f1", mode="max", patience=2)
    stopped_at(options.build(), now, [0.5, 0.5, 0.5])
    assert (now.status, now.stopping) == ("stopped_early", True)
    assert now.reason == "val/f1 has not improved for 2 evaluations"


def test_other_splits_do_not_count(state: Make) -> None:
    """Evaluations of another split than the metric's neither stop nor spend patience."""
    now, live = state(), EarlyStopping(monitor="val/f1", mode="max", patience=1).build()
    assert not evaluate(live, now, 0.5)
    assert not any(evaluate(live, now, 0.1, split="test") for _ in range(3))
    assert evaluate(live, now, 0.4)


def test_a_metric_of_a_group(state: Make) -> None:
    """A metric with slashes in its own name can be watched."""
    options = EarlyStopping(monitor="val/by_symptom/mood/f1", mode="max", patience=1)
    assert stopped_at(options.build(), state(), [0.5, 0.4]) == 2


def test_what_it_reads() -> None:
    """It says which metric it needs, so that a misspelt one is found before anything runs."""
    assert EarlyStopping(monitor="val/f1", mode="max").build().reads == ("val/f1",)


@pytest.mark.parametrize("cut", range(7))
def test_resumed_in_the_middle_of_its_patience(cut: int, state: Make) -> None:
    """Saved and resumed at any point, it stops at the evaluation where it would have anyway."""
    values = [NAN, 0.5, 0.4, 0.6, 0.6, NAN, 0.6, 0.9]
    options = EarlyStopping(monitor="val/f1", mode="max", patience=3)
    assert stopped_at(options.build(), state(), values) == 7
    first = options.build()
    assert stopped_at(first, state(), values[:cut]) is None
    stream = io.BytesIO()
    torch.save(Hooks({"early_stopping": first}).state_dict(), stream)
    stream.seek(0)
    second = options.build()
    second.load_state_dict(torch.load(stream, weights_only=True)["early_stopping"])
    assert stopped_at(second, state(), values[cut:]) == 7 - cut


@pytest.mark.parametrize("settings", [{"patience": 0}, {"min_delta": -0.1}])
def test_options_out_of_range(settings: dict[str, Any]) -> None:
    """No patience at all, and a negative improvement, are refused."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        EarlyStopping(monitor="val/f1", mode="max", **settings)
