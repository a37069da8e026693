"""The callback `checkpoint`: which evaluations ask for which checkpoints."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from framework.hooks import Hooks
from framework.state import State
from plugins.callbacks.checkpoint import Checkpoint

Make = Callable[[], State]
NAN = math.nan


def asked(live: Any, state: State, values: Sequence[float], split: str = "val") -> list[str]:
    """The tags that each evaluation asks for, met by the trainer after each."""
    call = Hooks({"checkpoint": live}).call
    found = []
    for value in values:
        call.evaluate_end(state=state, split=split, metrics={"loss": value, "f1": value})
        found.append("+".join(state.saves))
        state.saves = {}
    return found


@pytest.mark.parametrize(
    ("options", "values", "best"),
    [
        (Checkpoint(), [0.5, 0.4, 0.45, 0.4, 0.3], [1, 2, 5]),
        (Checkpoint(monitor="val/f1", mode="max"), [0.5, 0.4, 0.6, 0.6, 0.7], [1, 3, 5]),
        (Checkpoint(), [NAN, 0.5, NAN, 0.4], [2, 4]),
        (Checkpoint(), [NAN, NAN], []),
        (Checkpoint(monitor="val/f1", mode="max"), [-math.inf, 0.0], [1, 2]),
    ],
)
def test_requests(options: Checkpoint, values: list[float], best: list[int], state: Make) -> None:
    """Every evaluation asks for `last`, a strictly better one for `best`; NaN is never better."""
    expected = ["last+best" if n in best else "last" for n in range(1, len(values) + 1)]
    assert asked(options.build(), state(), values) == expected


def test_the_best_says_why(state: Make) -> None:
    """The request for the best checkpoint holds the metric and its value."""
    now = state()
    call = Hooks({"checkpoint": Checkpoint(monitor="val/f1", mode="max").build()}).call
    call.evaluate_end(state=now, split="val", metrics={"f1": 0.75, "loss": 0.1})
    assert now.saves["best"] == {"metric": "val/f1", "value": 0.75}


def test_other_splits_ask_for_nothing(state: Make) -> None:
    """The test split, evaluated with the best weights, asks for no checkpoint."""
    assert asked(Checkpoint().build(), state(), [0.5, 0.4], split="test") == ["", ""]


def test_resumed_it_remembers_the_best(state: Make) -> None:
    """A resumed run doesn't call a worse checkpoint the best."""
    options = Checkpoint()
    first = options.build()
    asked(first, state(), [0.5, 0.3])
    stream = io.BytesIO()
    torch.save(Hooks({"checkpoint": first}).state_dict(), stream)
    stream.seek(0)
    second = options.build()
    second.load_state_dict(torch.load(stream, weights_only=True)["checkpoint"])
    assert asked(second, state(), [0.4, 0.2]) == ["last", "last+best"]
    assert asked(options.build(), state(), [0.4]) == ["last+best"]


def test_what_it_reads() -> None:
    """It says which metric it needs; without options that is the validation loss, the lower."""
    assert Checkpoint().build().reads == ("val/loss",)
    assert Checkpoint(monitor="val/f1", mode="max").build().reads == ("val/f1",)
