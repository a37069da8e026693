"""Row 9: signals that ask a run to end, or to save."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from framework.commands import _checkpoints
from framework.errors import UserError
from tests.faults.endings import Whole, amiss, numbered, undisturbed
from tests.faults.experiments import notes, result, started
from tests.faults.kills import COMMON, SETTINGS
from tests.faults.outcome import Outcome
from tests.faults.processes import TICK, Ended, Process

USUAL = (*COMMON, "model={use='fault_net', dropout=0.3, noise=0.3}")
SLOW = "callbacks.slow={use='fault_signal', process=0, number=0, step=0}"
ASLEEP = "callbacks.fall={use='fault_fall', hook='step_end', step=7, seconds=60}"
PATIENCE = 5.0
"""Seconds that a process may take to save and leave."""


@attrs.define
class Interrupts:
    """Runs that are sent signals, and go on."""

    folder: Path
    rng: random.Random
    wholes: dict[Sequence[str], Whole] = attrs.field(factory=dict)
    runs: int = 0
    longest: float = 0.0
    """Seconds that a process took to leave."""

    def whole(self, sets: Sequence[str]) -> Whole:
        """What an undisturbed run of these settings left."""
        if sets not in self.wholes:
            self.wholes[sets] = undisturbed(self.folder / f"whole-{len(self.wholes)}", *sets)
        return self.wholes[sets]

    def place(self) -> Path:
        """A folder for the next run."""
        self.runs += 1
        return self.folder / str(self.runs)

    def left(self, here: Path, ended: Ended, sent: float, code: int) -> list[str]:
        """What is wrong with how a process has left."""
        took = time.monotonic() - sent
        self.longest = max(self.longest, took)
        wrong = [f"exit code {ended.code}: {ended.last}"] * (ended.code != code)
        return wrong + [f"it took {took:.1f} s to leave"] * (took > PATIENCE)

    def ending(self, sets: Sequence[str], number: signal.Signals, *, group: bool) -> list[str]:
        """Interrupt a run at a random moment; what is wrong with what it leaves and goes on to."""
        whole = self.whole(sets)
        spent = result(whole.run)["timing"]
        early = False
        while not early:
            here = self.place()
            process = started(here, *sets, group=group)
            run = noted(process, here, "run_start")
            time.sleep(self.rng.uniform(0, spent["total"] - spent["start"]))
            sent = time.monotonic()
            if process.alive():
                (os.killpg if group else os.kill)(process.pid, number)
            ended = process.wait()
            # one that was over by then is no round
            early = result(run)["status"] != "completed" or "finishing this step" in ended.err
        wrong = self.left(here, ended, sent, 128 + number)
        wrong += saved(run)
        return wrong + amiss(here, started(here, *sets, resume=True).wait(), whole)

    def saving(self) -> list[str]:
        """Ask a run to save; what is wrong."""
        sets = (*USUAL, SLOW, "callbacks.checkpoint.keep=9")
        here = self.place()
        process = started(here, *sets)
        run = noted(process, here, "step_end")
        process.kill(signal.SIGUSR1)
        ended = process.wait()
        more = {path.name for path in numbered(run / "checkpoints")}
        more -= {path.name for path in numbered(self.whole(sets).run / "checkpoints")}
        return amiss(here, ended, self.whole(sets)) + ["nothing was saved"] * (not more)

    def twice(self) -> list[str]:
        """Interrupt a run twice in a step that doesn't end; what is wrong."""
        here = self.place()
        process = started(here, *USUAL, ASLEEP)
        noted(process, here, "step_end", 6)
        time.sleep(0.2)
        process.kill(signal.SIGTERM)
        _wait(process, lambda: "finishing" in (process.said / "err").read_text())
        sent = time.monotonic()
        process.kill(signal.SIGTERM)
        wrong = self.left(here, process.wait(), sent, 143)
        return wrong + amiss(here, started(here, *USUAL, resume=True).wait(), self.whole(USUAL))


def check(folder: Path, rounds: int) -> Outcome:
    """Row 9: it saves and leaves with the signal's code, and goes on to the same end."""
    made = Interrupts(folder, random.Random(9))  # noqa: S311 - draws of a test
    failures: list[str] = []
    repeats, more = rounds, 1 + rounds // 10
    for number in range(repeats):
        sets = (*USUAL, *SETTINGS[number % len(SETTINGS)])
        failures += [f"SIGTERM: {w}" for w in made.ending(sets, signal.SIGTERM, group=False)]
    for _ in range(more):
        failures += [f"SIGINT: {w}" for w in made.ending(USUAL, signal.SIGINT, group=False)]
        group = made.ending((*USUAL, *SETTINGS[-1]), signal.SIGTERM, group=True)
        failures += [f"SIGTERM to the group: {what}" for what in group]
        failures += [f"SIGUSR1: {what}" for what in made.saving()]
        failures += [f"SIGTERM twice: {what}" for what in made.twice()]
    said = (
        f"{repeats}/{repeats} saved, exit 143 and identical after going on; so for SIGINT (130),"
        f" SIGTERM to the group with workers, SIGTERM twice, SIGUSR1 (goes on), {more}/{more} each;"
        f" at most {made.longest:.1f} s from signal to exit"
    )
    return Outcome.of(said, failures)


def saved(run: Path) -> list[str]:
    """What is wrong with what an interrupted process has left."""
    found, taken = result(run), len(notes(run, "step_end"))
    try:
        counters = _checkpoints.read(run / "checkpoints" / "last")["counters"]
    except UserError as error:
        return [f"status {found['status']}, {error}"]
    wrong = [f"status {found['status']}"] * (found["status"] != "interrupted")
    steps = {found["steps"], counters["step"], taken}
    return wrong + [f"of {taken} steps step {counters['step']} is saved"] * (len(steps) != 1)


def noted(process: Process, here: Path, hook: str, times: int = 1) -> Path:
    """Wait until a hook was called so many times; the run folder."""

    def runs() -> list[Path]:
        files = here.glob("runs/fault/*/watch.jsonl")
        return [f.parent for f in files if f.read_text().count(f'"{hook}"') >= times]

    _wait(process, lambda: bool(runs()))
    return runs()[0]


def _wait(process: Process, true: Callable[[], bool]) -> None:
    while process.alive() and not true():
        time.sleep(TICK)
    if not true():
        raise RuntimeError(f"it ended too early: {process.wait().last}")
