"""What the checks watch a plugin with: its hooks, the weights, the global random generators."""

from __future__ import annotations

import functools
import gc
import inspect
import io
import logging
import random
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import attrs
import numpy as np
import torch

from framework.errors import RunError
from framework.hooks import NAMES, hookimpl
from framework.state import State, Status
from framework.testing.suite import reloaded, said
from framework.testing.values import equal, frozen_copy

LABEL = "callback"
"""Of the callback under watch."""
TEXT = "amber birch and cloud, said to nobody else"
"""What every item of a batch holds, and no callback may pass on."""


class Planned(RunError):  # noqa: N818 - it is planned, and no error
    """An error that the kit raises, to see how a callback takes the end of a failed run."""


def randomness() -> dict[str, Any]:
    """Return the states of the global random generators, by whose they are."""
    of_numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what third parties draw from
    return {
        "torch": torch.get_rng_state(),
        "NumPy": (of_numpy[1].tolist(), of_numpy[2:]),
        "Python": random.getstate(),
    }


@contextmanager
def overheard() -> Iterator[dict[str, io.StringIO]]:
    """Take down whatever is said in this context, by where: to a log at any level, or printed."""
    places = {place: io.StringIO() for place in ("the log", "stdout", "stderr")}
    stream = places["the log"]
    handler = logging.StreamHandler(stream)
    # both: the command line keeps what is said to the second from the first
    loggers = [logging.getLogger(), logging.getLogger("framework")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        with redirect_stdout(places["stdout"]), redirect_stderr(places["stderr"]):
            yield places
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Give what measures bytes since this context began: those still held, and their peak."""
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()

    def measure() -> tuple[int, int]:
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - begun, peak - begun

    try:
        gc.collect()
        tracemalloc.reset_peak()
        begun = tracemalloc.get_traced_memory()[0]
        yield measure
    finally:
        if ours:
            tracemalloc.stop()


class Watch:
    """Passes every hook on to a callback, and keeps what that asked for, changed and raised."""

    def __init__(self, live: Any) -> None:
        """Take on the hooks that the callback implements."""
        self.live = live
        self.sink = getattr(live, "sink", False)
        self.requests: list[tuple[Any, ...]] = []
        self.changes: list[str] = []
        self.errors: list[str] = []
        for name in NAMES:
            if hasattr(inspect.getattr_static(live, name, None), "framework_impl"):
                setattr(self, name, self._passing(name))

    def _passing(self, name: str) -> Callable[..., None]:
        method = getattr(self.live, name)
        arguments = list(inspect.signature(method).parameters)

        @functools.wraps(method)
        def call(*values: Any) -> None:
            given = dict(zip(arguments, values, strict=True))
            state = given.pop("state", None)
            before, kept = _standing(state), frozen_copy(given)
            try:
                getattr(self.live, name)(*values)
            except Exception as error:
                self.errors.append(f"{name}: {said(error)}")
                raise
            after = _standing(state)
            for key in (key for key in given if not equal(kept[key], frozen_copy(given[key]))):
                self.changes.append(f"{name} changes '{key}', which others read; copy it first")
            for key in (key for key in before["counters"] if not _same(before, after, key)):
                self.changes.append(f"{name} changes state.{key}; only the trainer writes it")
            if after["stop"] != before["stop"]:
                self.requests.append((before["counters"]["step"], name, *after["stop"]))
            for tag, reason in after["saves"].items():
                if not equal(before["saves"].get(tag), reason):
                    self.requests.append((before["counters"]["step"], name, tag, reason))

        return call

    def restart(self, fresh: Any, state: State) -> None:
        """Let a fresh callback go on, as in a process that takes an interrupted run up again."""
        saved = reloaded(self.live.state_dict()) if hasattr(self.live, "state_dict") else None
        # on a state of its own: what the process that ends still asks for is lost
        self._call("run_end", attrs.evolve(state, status="interrupted", saves={}))
        self.live = fresh
        if saved is not None:
            fresh.load_state_dict(saved)
        self._call("run_start", state)

    def _call(self, name: str, state: State) -> None:
        if hasattr(self, name):
            method = getattr(self.live, name)
            method(*[state][: len(inspect.signature(method).parameters)])


def _standing(state: State | None) -> dict[str, Any]:
    if state is None:
        return {"stop": (), "saves": {}, "counters": {}}
    stop = (state.reason, state.status) if state.stopping else ()
    # `stop` writes one of these for a callback, and time the other
    names = state.counters().keys() - {"ended", "elapsed"}
    counters = frozen_copy({name: state.counters()[name] for name in names})
    return {"stop": stop, "saves": dict(state.saves), "counters": counters}


def _same(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> bool:
    return equal(before["counters"][key], after["counters"][key])


@attrs.define(eq=False)
class Probe:
    """Keeps, before each step, the weights and the random generators; may act before one step."""

    at: int = -1
    act: Callable[[State], None] = lambda _: None
    weights: dict[int, dict[str, torch.Tensor]] = attrs.field(factory=dict)
    randomness: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    before: Sequence[str] = (LABEL,)

    @hookimpl
    def step_start(self, state: State) -> None:
        """Look, before the callback does anything in this step."""
        self.weights[state.step] = frozen_copy(state.model.module.state_dict())
        self.randomness[state.step] = randomness()
        if state.step == self.at:
            self.act(state)


class Bystander:
    """A callback that does nothing, for labels that another wants to stand before or after."""

    @hookimpl
    def run_start(self) -> None:
        """Do nothing."""


@attrs.define(eq=False)
class Ending:
    """Ends the run with a status, in its third step or at its start."""

    status: Status
    at: str
    before: Sequence[str] = ()
    after: Sequence[str] = ()

    @hookimpl
    def run_start(self, state: State) -> None:
        """End it here, if that was asked."""
        if self.at == "run_start":
            self._end(state)

    @hookimpl
    def step_end(self, state: State) -> None:
        """End it in the third step, if that was asked."""
        if self.at == "step_end" and state.step == 3:  # noqa: PLR2004 - as its name says
            self._end(state)

    def _end(self, state: State) -> None:
        if self.status == "failed":
            raise Planned("the kit ends this run")
        state.stop("the kit ends this run", self.status)


@attrs.define(eq=False)
class Searcher:
    """Looks for a record's text in all that stands in the run folder when the run ends."""

    after: Sequence[str] = (LABEL,)
    found: list[str] = attrs.field(factory=list)

    @hookimpl
    def run_end(self, state: State) -> None:
        """Look into every file."""
        for file in (path for path in state.folder.rglob("*") if path.is_file()):
            if TEXT.encode() in file.read_bytes():
                self.found.append(str(file.relative_to(state.folder)))
