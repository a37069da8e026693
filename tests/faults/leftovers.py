"""Row 8: a process that dies between, or in the middle of, what it does to its files."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import attrs

from tests.faults.endings import Whole, amiss, numbered, sound, told, undisturbed
from tests.faults.experiments import result, started
from tests.faults.outcome import Outcome
from tests.faults.processes import Process

EVERY, TOTAL = 2, 15
SETS = (
    "trainer.epochs=3",
    "trainer.eval_every=4",
    f"callbacks.checkpoint={{every_steps={EVERY}, monitor='val/accuracy', mode='max'}}",
)
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.truncate")


@attrs.define
class Operations:
    """Counts what its process changes under `runs/`; dies just before one of the changes.

    Where that is to write a file anew, it dies with the file emptied.
    """

    last: int = 0
    """Which one it dies at; 0: none."""
    count: Any = attrs.field(factory=lambda: multiprocessing.RawValue("i"))
    """Shared with the process that has forked it."""

    def __call__(self) -> None:
        """Begin."""
        sys.addaudithook(self._look)

    def _look(self, event: str, given: tuple[Any, ...]) -> None:
        if event not in EVENTS or self.count.value == self.last > 0:
            return
        flags = given[2] if event == "open" else os.O_WRONLY
        within = event in {"os.remove", "os.rmdir"} and given[1] != -1  # of a folder that is open
        if not flags & (os.O_WRONLY | os.O_RDWR) or not (within or "/runs/" in str(given[0])):
            return
        self.count.value += 1
        if self.count.value == self.last:
            if event == "open" and flags & os.O_TRUNC:
                os.close(os.open(given[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os.kill(os.getpid(), signal.SIGKILL)


def check(folder: Path, rounds: int) -> Outcome:
    """Row 8: dead before old checkpoints are deleted, and before any other change of a file."""
    rng = random.Random(8)  # noqa: S311 - draws of a test
    whole = undisturbed(folder / "whole", *SETS)
    counted = Operations()
    started(folder / "counted", *SETS, first=counted).wait()
    changes = counted.count.value
    # the first ones make the run folder, and going on makes some of it anew
    drawn = [*range(1, min(rounds, 8)), *rng.sample(range(8, changes + 1), min(rounds, 100))]
    failures = _kept(whole.run)
    for number in range(rounds):
        step = rng.randint(3 * EVERY, TOTAL)
        fall = f"callbacks.fall={{use='fault_fall', hook='save_end', step={step}}}"
        here = folder / f"save-{number}"
        wrong = _dead(here, started(here, *SETS, fall), least=2)
        wrong += _gone_on(here, whole, int(changes ** rng.random()) if number % 2 else 0)
        failures += [f"dead after a save from step {step} on: {what}" for what in wrong]
    for number, change in enumerate(drawn):
        here = folder / f"change-{change}"
        wrong = _dead(here, started(here, *SETS, first=Operations(change)))
        wrong += _gone_on(here, whole, int(changes ** rng.random()) if number % 2 else 0)
        failures += [f"dead at change {change} of a file: {what}" for what in wrong]
    said = (
        f"{rounds} times dead between save and prune, {len(drawn)} times at another of {changes}"
        f" changes of a file, every other one again on resuming amid litter: at least two whole"
        f" checkpoints after the second, the best among them; {rounds + len(drawn)} ended identical"
    )
    return Outcome.of(said, failures)


def _dead(here: Path, process: Process, least: int = 0) -> list[str]:
    """What is wrong with what a process has left, once it is dead."""
    ended = process.wait()
    wrong = [] if ended.code == -signal.SIGKILL or not least else ["it was not killed"]
    for root in here.glob("runs/fault/*/checkpoints"):
        steps, there = sound(root), [path for path in numbered(root) if not _stale(path)]
        # the first one is alone until the second is written
        if len(steps) < 2 and (least or steps != [EVERY]) and there:
            wrong.append(f"only {steps} of {len(there)} checkpoints whole")
        if (root / "best").is_symlink() and _step(root / "best") not in steps:
            wrong.append("the best checkpoint is not whole")
    return wrong


def _gone_on(here: Path, whole: Whole, change: int) -> list[str]:
    """What is wrong when it goes on; with `change` amid litter, and dead again at that change."""
    wrong = []
    if change:
        for root in here.glob("runs/fault/*/checkpoints"):
            _litter(root)
        wrong = _dead(here, started(here, *SETS, resume=True, first=Operations(change)))
    ended = started(here, *SETS, resume=True).wait()
    wrong += amiss(here, ended, whole)
    return wrong or _kept(told(ended, here) or here)


def _litter(root: Path) -> None:
    """Leave what an earlier process, or a person, may have left."""
    newest = max(numbered(root), key=_step, default=None)
    if newest:
        shutil.copytree(newest, root / f"{newest.name}.bak")
    for name in (".step-98.part", ".step-4.part", f"step-{TOTAL}", f"unused-step-{TOTAL}"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "state.pt").write_text("stale")
    for name, target in (("last", "step-98"), (".last.link", "step-98"), (".best.link", "nowhere")):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)


def _stale(step: Path) -> bool:
    """Whether it is litter, which was there before the process."""
    file = step / "state.pt"
    return file.is_file() and file.read_bytes() == b"stale"


def _kept(run: Path) -> list[str]:
    """What is wrong with the checkpoints of a run that has ended."""
    root, best = run / "checkpoints", result(run)["best"]["step"]
    steps = sound(root)
    # a process that dies over the last ones it deletes leaves them
    wrong = [f"{steps} kept"] * (not {best, TOTAL - 1, TOTAL} <= {*steps} or len(steps) > 4)
    wrong += ["the link of the best is wrong"] * (_step(root / "best") != best)
    parts = [path.name for path in root.glob(".*.part")]
    return wrong + [f"{parts} left"] * bool(parts)


def _step(path: Path) -> int:
    return int(path.resolve().name.removeprefix("step-"))
