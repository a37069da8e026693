"""Rows 10, 11 and 12: several ranks of which one, or the one that started them, is struck."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import attrs

from tests.faults import ranks
from tests.faults.endings import Whole, amiss, ending
from tests.faults.experiments import result
from tests.faults.interrupts import USUAL, saved
from tests.faults.kills import SETTINGS
from tests.faults.outcome import Outcome

SLOW = (
    *USUAL,
    "callbacks.slow={use='fault_signal', process=0, number=0, step=0}",
    "callbacks.checkpoint.every_steps=3",
)
PATIENCE, GONE = 10.0, 15.0
"""Seconds for all to leave after a signal, and after one was killed."""
STEPS = 15
MANY = 10
"""Rounds from which on what needs new interpreters is done more often than once."""


@attrs.define
class Struck:
    """Runs on two ranks that are struck, and go on."""

    folder: Path
    rng: random.Random
    wholes: dict[tuple[str, ...], Whole] = attrs.field(factory=dict)
    runs: int = 0
    longest: float = 0.0
    """Seconds that the last of them took to leave."""

    def whole(self, sets: tuple[str, ...]) -> Whole:
        """What an undisturbed run of these settings left."""
        if sets not in self.wholes:
            begun = time.monotonic()
            run, _ = ranks.ran(self.folder / f"whole-{len(self.wholes)}", 2, *sets)
            self.wholes[sets] = Whole(run, ending(run), time.monotonic() - begun)
        return self.wholes[sets]

    def place(self) -> Path:
        """A folder for the next run."""
        self.runs += 1
        return self.folder / str(self.runs)

    def late(self, sent: float, limit: float) -> list[str]:
        """What is wrong with how long it took since a signal."""
        took = time.monotonic() - sent
        self.longest = max(self.longest, took)
        return [f"it took {took:.1f} s to leave"] * (took > limit)

    def on(self, here: Path, sets: tuple[str, ...]) -> list[str]:
        """Go on, on two ranks; what is wrong with what they leave."""
        ended = ranks.started(here, 2, *sets, resume=True).wait()
        wrong = [f"rank 1 ended with {ended[1].code}: {ended[1].last}"] * bool(ended[1].code)
        return wrong + amiss(here, ended[0], self.whole(sets))

    def one(self, sets: tuple[str, ...]) -> list[str]:
        """Terminate rank 1 at a random moment; what is wrong with what all do then."""
        spent = result(self.whole(sets).run)["timing"]
        early = False
        while not early:
            here = self.place()
            pair = ranks.started(here, 2, *sets)
            ranks.reached(here, 2, "run_start", 1, pair.processes)
            time.sleep(self.rng.uniform(0, spent["total"] - spent["start"]))
            sent = time.monotonic()
            pair.processes[1].kill(signal.SIGTERM)
            ended = pair.wait()
            wrong = self.late(sent, PATIENCE)
            (run,) = here.glob("runs/fault/*")
            # one that was over by then is no round
            early = result(run)["status"] != "completed"
        codes = [end.code for end in ended]
        wrong += [f"exit codes {codes}: {ended[0].last}"] * (codes != [143, 143])
        return wrong + saved(run) + self.on(here, sets)

    def under(self, *, rank: bool) -> list[str]:
        """Terminate torchrun, or rank 1 under it; what is wrong with what all do then."""
        here = self.place()
        process = ranks.torchrun(here, 2, *SLOW)
        step = self.rng.randint(2, STEPS - 5)
        ranks.reached(here, 2, "step_end", step, [process])
        sent = time.monotonic()
        struck = ranks.noted(here, "run_start", 1)[0]["process"] if rank else process.pid
        os.kill(struck, signal.SIGTERM)
        ended = process.wait()
        wrong = self.late(sent, PATIENCE)
        wrong += ["torchrun says that all went well"] * (ended.code == 0)
        (run,) = here.glob("runs/fault/*")
        return wrong + saved(run) + self.on(here, SLOW)

    def alone(self) -> list[str]:
        """Kill rank 1 of two that nobody starts again; what is wrong with what rank 0 does."""
        here = self.place()
        pair = ranks.started(here, 2, *SLOW)
        step = self.rng.randint(4, STEPS - 1)
        ranks.reached(here, 2, "step_end", step, pair.processes)
        sent = time.monotonic()
        pair.processes[1].kill()
        ended = pair.wait()[0]
        wrong = self.late(sent, GONE)
        (run,) = here.glob("runs/fault/*")
        told, found = "another rank is gone", result(run)
        wrong += [f"exit code {ended.code}: {ended.last}"] * (ended.code != 1)
        wrong += [f"it says: {ended.err[-200:]}"] * (told not in ended.err)
        wrong += [f"result: {found['reason']}"] * (told not in found["reason"])
        return wrong + self.on(here, SLOW)

    def again(self, restarts: int) -> list[str]:
        """Kill rank 1 under torchrun, which starts both again, or not; what is wrong."""
        here = self.place()
        process = ranks.torchrun(here, 2, *SLOW, restarts=restarts)
        step = self.rng.randint(4, STEPS - 5)
        ranks.reached(here, 2, "step_end", step, [process])
        (struck,) = ranks.noted(here, "run_start", 1)
        os.kill(struck["process"], signal.SIGKILL)
        sent = time.monotonic()
        ended = process.wait()
        if not restarts:
            wrong = [f"torchrun ended with {ended.code}"] * (ended.code == 0)
            return wrong + self.late(sent, GONE) + self.on(here, SLOW)
        (run,) = here.glob("runs/fault/*")
        again = "going on from step" in (run / "run.log").read_text()
        return ["nobody has gone on"] * (not again) + amiss(here, ended, self.whole(SLOW))


def one(folder: Path, rounds: int) -> Outcome:
    """Row 10: all save and leave, and go on to the same end."""
    made, failures = Struck(folder, random.Random(10)), []  # noqa: S311 - draws of a test
    for number in range(rounds):
        failures += made.one((*USUAL, *SETTINGS[number % len(SETTINGS)]))
    for _ in range(rounds // MANY):
        failures += [f"under torchrun: {what}" for what in made.under(rank=True)]
    said = (
        f"{rounds}/{rounds} saved, both ranks left with 143, identical after going on; at most"
        f" {made.longest:.1f} s from signal to exit"
    )
    return Outcome.of(said, failures)


def torchrun(folder: Path, rounds: int) -> Outcome:
    """Row 11: so they do where torchrun is asked to end."""
    made, failures = Struck(folder, random.Random(11)), []  # noqa: S311 - draws of a test
    count = 1 + rounds // MANY
    for _ in range(count):
        failures += made.under(rank=False)
    said = (
        f"{count}/{count} saved and identical after going on; at most {made.longest:.1f} s from"
        " signal to exit"
    )
    return Outcome.of(said, failures)


def killed(folder: Path, rounds: int) -> Outcome:
    """Row 12: all end, or, where torchrun starts them again, go on to the same end."""
    made, failures = Struck(folder, random.Random(12)), []  # noqa: S311 - draws of a test
    count = 1 + rounds // MANY
    for _ in range(count):
        failures += [f"with restarts: {what}" for what in made.again(3)]
        failures += [f"by themselves: {what}" for what in made.alone()]
    for _ in range(rounds // MANY):
        failures += [f"without restarts: {what}" for what in made.again(0)]
    said = (
        f"{count}/{count} restarted by torchrun ended identical; without restarts all ended, at"
        f" most {made.longest:.1f} s after the kill, and went on to the same end"
    )
    return Outcome.of(said, failures)
