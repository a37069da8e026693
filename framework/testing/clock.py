"""A clock that moves by the work of a run, not by how long that takes: the same in every run."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs

BEGIN = 1_900_000_000.0
"""What every clock says at first: in the year 2030."""
TICK = 0.125
"""Seconds of a forward pass."""
NANO = 1_000_000_000
SECONDS = ("time", "monotonic", "perf_counter", "process_time")


@attrs.define
class Clock:
    """Says the time, in seconds; its rate is that of the hands."""

    rate: float = 1.0
    now: float = BEGIN

    def tick(self, seconds: float = TICK) -> None:
        """Move on."""
        self.now += self.rate * seconds


@contextmanager
def clocked(owner: object, rate: float = 1.0) -> Iterator[Clock]:
    """Let `time`, and what the module of an object's class took from it, follow a clock of ours.

    `datetime` stays as it is. Sleeping moves the clock, too, so that waiting for a time ends.
    """
    clock, sleep = Clock(rate, BEGIN * rate), time.sleep

    def asleep(seconds: float) -> None:
        sleep(seconds)
        if threading.current_thread() is threading.main_thread():
            clock.tick(seconds)

    made: dict[str, Any] = {name: lambda: clock.now for name in SECONDS}
    made |= {f"{name}_ns": lambda: round(clock.now * NANO) for name in SECONDS}
    made["sleep"] = asleep
    names = {id(getattr(time, name)): name for name in made}
    modules = [sys.modules.get(cls.__module__) for cls in type(owner).__mro__]
    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys([time, *filter(None, modules)]):
            taken = {k: names[id(v)] for k, v in vars(module).items() if id(v) in names}
            for key, name in taken.items():
                stack.enter_context(mock.patch.object(module, key, made[name]))
        yield clock


def timeless(state: Any, one: Any, other: Any) -> Any:
    """Return a state without its times: numbers that are not the same after runs by two clocks."""
    if isinstance(state, Mapping) and isinstance(one, Mapping) and isinstance(other, Mapping):
        return {key: timeless(state[key], one.get(key), other.get(key)) for key in state}
    lists = [value for value in (state, one, other) if isinstance(value, (list, tuple))]
    if len(lists) == len((state, one, other)) and len(set(map(len, lists))) == 1:
        return [timeless(*items) for items in zip(*lists, strict=True)]
    numbers = all(type(value) in (int, float) for value in (state, one, other))
    return "a time" if numbers and one != other else state
