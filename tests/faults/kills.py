"""Rows 1, 2 and 3: runs that are killed, and go on as if nothing had happened."""

from __future__ import annotations

import itertools
import random
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.faults.endings import Whole, amiss, undisturbed
from tests.faults.experiments import started
from tests.faults.outcome import Outcome
from tests.faults.processes import Ended

THREE = "trainer.micro_batch=6"  # micro-batches a step, of 6, 6 and 4
HALF = "precision={use='fault_fp16', growth=3}"  # the scale grows until windows overflow
SETTINGS = (
    ("precision=fp32",),
    ("precision=bf16", "trainer.workers=2", THREE),
    (HALF, THREE),
    ("precision=fp32", "trainer.workers=2", THREE),
    ("precision=bf16", "trainer.deterministic=true"),
    (HALF, "trainer.workers=2"),
)
COMMON = (
    "optimizer={use='adamw', lr=0.01}",
    "scheduler=linear",
    "trainer.epochs=3",
    "trainer.eval_every=7",
    "trainer.log_every=3",
)


@attrs.define
class Tally:
    """What the rounds of a row came to."""

    rounds: int = 0
    alike: dict[str, int] = attrs.field(factory=lambda: {"weights": 0, "metrics.jsonl": 0})
    kills: int = 0
    torn: int = 0
    """Kills that fell into the writing of a checkpoint."""
    early: int = 0
    """Kills before there was a run folder."""
    lost: int = 0
    """The most steps that a kill has cost."""
    failures: list[str] = attrs.field(factory=list)

    def add(self, setting: Sequence[str], wrong: Sequence[str]) -> None:
        """Count a round."""
        self.rounds += 1
        for name in self.alike:
            whole = not any(what.startswith("ended") for what in wrong)
            self.alike[name] += whole and f"{name} differs" not in wrong
        self.failures += [f"{what} ({' '.join(setting)})" for what in wrong]


def moments(folder: Path, rounds: int) -> Outcome:
    """Row 1: at random moments, with a checkpoint every three steps."""
    return _killed(folder, rounds, 10, 3, "model={use='fault_net', dropout=0.3}")


def augmented(folder: Path, rounds: int) -> Outcome:
    """Row 2: with letters dropped at random too."""
    return _killed(folder, rounds, 5, 3, "model={use='fault_net', dropout=0.3, noise=0.3}")


def saving(folder: Path, rounds: int) -> Outcome:
    """Row 3: with a checkpoint every step, so that many kills fall into writing one."""
    return _killed(folder, rounds, 9, 1, "model={use='fault_net', dropout=0.3, noise=0.3}")


def _killed(folder: Path, rounds: int, seed: int, every: int, *sets: str) -> Outcome:
    # these seeds' first moments fall into training: one round is all that some have time for
    rng = random.Random(seed)  # noqa: S311 - draws of a test
    tally, wholes = Tally(), {}
    for number in range(rounds):
        setting = SETTINGS[number % len(SETTINGS)]
        given = (*COMMON, *setting, f"callbacks.checkpoint.every_steps={every}", *sets)
        if setting not in wholes:
            wholes[setting] = undisturbed(folder / f"whole-{number}", *given)
        kills = 2 if number % 3 == 2 else 1
        tally.add(setting, _round(folder / str(number), given, wholes[setting], rng, tally, kills))
    # one interval, and the one in which the checkpoint was still being written
    if tally.lost > 2 * every:
        tally.failures.append(f"{tally.lost} steps lost with a checkpoint every {every}")
    rounds = tally.rounds
    said = (
        f"{tally.alike['weights']}/{rounds} bit-identical weights (and optimizer, scaler, random"
        f" states), {tally.alike['metrics.jsonl']}/{rounds} identical metrics.jsonl (but for time);"
        f" {tally.kills} kills, {tally.torn} while a checkpoint was written, {tally.early} before"
        f" there was a folder; at most {tally.lost} steps lost with a checkpoint every {every}"
    )
    return Outcome.of(said, tally.failures)


@attrs.define
class Chain:
    """Processes that take a run up one after the other, and the steps that were lost between."""

    folder: Path
    given: Sequence[str]
    tally: Tally
    began: bool = False
    done: int = 0
    """Steps taken when the newest process ended."""

    def go_on(self, strike: float | None = None) -> Ended:
        """Run or resume; some seconds later the process is killed, if it still runs."""
        process = started(self.folder, *self.given, resume=self.began)
        if strike is not None:
            time.sleep(strike)
            process.kill()
        ended, self.began = process.wait(), True
        begun = re.search(r"going on from step (\d+)$|(starting)", ended.err, re.MULTILINE)
        if begun:
            step = int(begun[1] or 0)
            self.tally.lost = max(self.tally.lost, self.done - step)
            self.done = step
        for notes in self.folder.glob("runs/fault/*/watch.jsonl"):
            self.done += notes.read_text().count('"step_end"')
            notes.unlink()
        if ended.code == -signal.SIGKILL:
            self.tally.kills += 1
            self.tally.torn += any(self.folder.glob("runs/fault/*/checkpoints/.step-*.part"))
            self.tally.early += not any(self.folder.glob("runs/fault/*/experiment.toml"))
        return ended


def _round(
    folder: Path, given: Sequence[str], whole: Whole, rng: random.Random, tally: Tally, kills: int
) -> list[str]:
    """Kill a run, perhaps the one that goes on too, and go on to the end."""
    for draw in itertools.count():
        chain = Chain(folder / str(draw), given, tally)
        # one that was faster than the moment drawn is no round
        if chain.go_on(rng.uniform(0, whole.seconds)).code == -signal.SIGKILL:
            break
    for _ in range(kills - 1):
        chain.go_on(rng.uniform(0, whole.seconds))
    ended = chain.go_on()
    return amiss(chain.folder, ended, whole)
