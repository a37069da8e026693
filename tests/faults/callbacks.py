"""Callbacks: one writes down what happens, the others raise, signal, die or fall asleep."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from safetensors.torch import save_file

from framework.hooks import NAMES, hookimpl
from framework.protocols import option
from framework.state import State
from tests.faults.parts import Scaler


@attrs.frozen
class Watch:
    """Writes down what happened to the run folder, one object a line; each rank in its own file."""

    file: str = option("watch.jsonl", help="its name")

    def build(self) -> LiveWatch:
        """Build it."""
        return LiveWatch(self.file)


@attrs.frozen
class LiveWatch:
    """Opens the file for each line."""

    file: str

    def _note(self, state: State, **what: Any) -> None:
        rank = state.strategy.rank
        with (state.folder / (f"{rank}-{self.file}" if rank else self.file)).open("a") as stream:
            stream.write(json.dumps(what) + "\n")

    @hookimpl
    def run_start(self, state: State) -> None:
        """Keep the weights that training starts from."""
        if not state.strategy.rank:
            found = state.model.module.state_dict()
            # where ranks have a part each: this one's
            parts = {k: getattr(v, "to_local", lambda v=v: v)() for k, v in found.items()}
            save_file(parts, str(state.folder / "initial.safetensors"))
        self._note(state, hook="run_start", process=os.getpid())

    @hookimpl
    def step_start(self, state: State, window: Sequence[Mapping[str, Any]]) -> None:
        """Who is in the window."""
        self._note(state, hook="step_start", ids=[batch["id"] for batch in window])

    @hookimpl
    def step_end(self, state: State) -> None:
        """How the step went."""
        rate, skipped = state.learning_rate, state.skipped
        self._note(state, hook="step_end", rate=rate, skipped=skipped, unscaled=len(Scaler.calls))

    @hookimpl
    def run_end(self, state: State) -> None:
        """How the run went."""
        self._note(state, hook="run_end", status=state.status)


@attrs.frozen
class Raise:
    """A callback that raises in one hook."""

    hook: str = option(help="which", validator=attrs.validators.in_(NAMES))
    file: Path | None = option(None, help="a file whose text it says then")
    sink: bool = option(False, help="whether the run may go on without it")
    rank: int = option(-1, help="the rank on which it raises; -1: all")

    def build(self) -> object:
        """Build an object with that hook alone."""

        def fail(_: object, state: State) -> None:
            if self.rank not in (-1, state.strategy.rank):
                return
            raise RuntimeError(self.file.read_text() if self.file else f"raised in {self.hook}")

        fail.__name__ = self.hook
        return type("Raising", (), {self.hook: hookimpl(fail), "sink": self.sink})()


@attrs.frozen
class Signal:
    """Sends a signal to another process after a step, in a run that takes its time."""

    process: int = option(help="its id; 0: its own")
    number: int = option(help="the signal")
    step: int = option(help="after which step")
    pause: float = option(0.05, help="seconds that each step takes more")
    rank: int = option(0, help="the rank that sends it")

    def build(self) -> LiveSignal:
        """Build it."""
        return LiveSignal(self)


@attrs.frozen
class LiveSignal:
    """Does so."""

    options: Signal

    @hookimpl
    def step_end(self, state: State) -> None:
        """Wait, and signal at the step."""
        time.sleep(self.options.pause)
        if state.step == self.options.step and state.strategy.rank == self.options.rank:
            os.kill(self.options.process or os.getpid(), self.options.number)


@attrs.frozen
class Fall:
    """Kills its own process, or falls asleep, once in one hook."""

    hook: str = option(help="which", validator=attrs.validators.in_(NAMES))
    step: int = option(help="from which step on")
    seconds: float = option(0.0, help="how long it sleeps; 0: it kills")

    def build(self) -> object:
        """Build an object with that hook alone."""
        options = self

        def fall(self: Any, state: State) -> None:
            if state.step >= options.step and not self.fallen:
                self.fallen = True
                if options.seconds:
                    time.sleep(options.seconds)
                else:
                    os.kill(os.getpid(), signal.SIGKILL)

        fall.__name__ = self.hook
        # a sink: the resumed run may do without it; and it dies before old checkpoints are deleted
        settings = {"sink": True, "before": ("checkpoint",), "fallen": False}
        return type("Falling", (), {self.hook: hookimpl(fall), **settings})()
