"""Rows 6 and 7: a disk that is full, and folders that can't be written."""

from __future__ import annotations

import os
import random
import resource
import shutil
from collections import Counter
from pathlib import Path

import attrs

from tests.faults import mounts
from tests.faults.endings import amiss, numbered, sound, undisturbed
from tests.faults.experiments import TEXT, result, started
from tests.faults.outcome import Outcome
from tests.faults.processes import Ended, finished

SIZE = 3_000_000
NEEDED = 2_400_000
"""Bytes that the run needs at most; less is left at random."""
EVERY = ("--set", "callbacks.checkpoint.every_steps=2")
WIDE = (
    "model={use='fault_net', width=11_000}",  # checkpoints of about 600 kB
    "callbacks.watch=false",
    "callbacks.checkpoint.every_steps=2",
)


def full(folder: Path, rounds: int) -> Outcome:
    """Row 6: it fails and names a path; what it saved is whole, and goes on once there is room."""
    rng = random.Random(6)  # noqa: S311 - draws of a test
    whole = undisturbed(folder / "whole", *WIDE)
    place = folder / "small"
    place.mkdir()
    real = mounts.possible()
    if real:
        mounts.mount(place, SIZE)
    failures, saved = [], Counter[int]()
    while saved.total() < max(3, rounds):
        here = place / "here"
        here.mkdir()
        (here / "fault.toml").write_text(TEXT)
        left = rng.randrange(NEEDED) if real else rng.randrange(NEEDED // 5)
        ended = _starved(here, left, mounted=real)
        if ended.code:
            steps, wrong = _failed(here, ended)
            again = started(here, *WIDE, resume=True).wait()
            before = f"going on from step {steps[-1]}\n" if steps else "starting"
            wrong += [f"it didn't go on from {steps}"] * (before not in again.err)
            wrong += amiss(here, again, whole)
            failures += [f"{left} bytes left: {what}" for what in wrong]
            saved[len(steps)] += 1
        shutil.rmtree(here)
    most, none = saved.total(), saved[0]
    said = (
        f"{most}/{most} failed, named the path, and with room again went on to the same end, {none}"
        f" of them from the start and {most - none} from the newest of their whole checkpoints; "
    )
    said += f"{SIZE / 1e6:.0f} MB file system" if real else "not mountable here: RLIMIT_FSIZE"
    return Outcome.of(said, failures)


def _starved(here: Path, left: int, *, mounted: bool) -> Ended:
    """Run with so many bytes left on the disk, or, without a disk of its own, for a file."""
    if not mounted:
        limit = (left, resource.RLIM_INFINITY)
        return started(
            here, *WIDE, first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        ).wait()
    disk = os.statvfs(here)
    filler = here / "filler"
    filler.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - left)))
    ended = started(here, *WIDE).wait()
    filler.unlink()
    return ended


def _failed(here: Path, ended: Ended) -> tuple[list[int], list[str]]:
    """The whole checkpoints of a run that had no room, and what is wrong with how it ended."""
    runs = [*here.glob("runs/fault/*")]
    wrong = [f"exit code {ended.code}"] * (ended.code != (1 if runs else 2))
    last = ended.err.strip().splitlines()[-1]
    wrong += [f"it says: {last}"] * (str(here) not in last or "Traceback" in ended.err)
    for run in runs:
        told = "can't write result.json" in ended.err
        wrong += ["the status isn't failed"] * (not told and result(run)["status"] != "failed")
        steps, there = sound(run / "checkpoints"), numbered(run / "checkpoints")
        wrong += [f"only {steps} of {there} are whole"] * (len(steps) != len(there))
        return steps, wrong
    return [], wrong


@attrs.define
class Places:
    """Commands in places where something can't be written."""

    folder: Path
    tried: list[str] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)

    def place(self, *, begun: bool) -> tuple[Path, Path]:
        """A new folder to run in, and itself, or a run in it that has no checkpoint."""
        here = self.folder / f"place-{len(self.tried)}"
        here.mkdir()
        if not begun:
            return here, here
        shutil.copytree(self.folder / "runs", here / "runs", symlinks=True)
        return here, next(here.glob("runs/fault/*"))

    def run(self, way: str, here: Path, path: Path, code: int) -> None:
        """Run, or go on; it is to end with a code, and to name the path."""
        resume = ["--resume"] * (path != here and here / "runs" != path)
        ended = finished("run", self.folder / "fault.toml", *EVERY, *resume, cwd=here)
        last = ended.err.strip().splitlines()[-1]
        wrong = [f"exit code {ended.code}"] * (ended.code != code)
        wrong += [f"it says: {last}"] * (str(path) not in last or "Traceback" in ended.err)
        if code == 1:
            found = result(next(here.glob("runs/fault/*")))
            # told at once, or before the next one is written
            late = found["status"] != "failed" or found["steps"] > 4
            wrong += [f"{found['status']} at step {found['steps']}"] * late
        self.tried.append(way)
        self.failures += [f"{way}: {what}" for what in wrong]


def closed(folder: Path, rounds: int) -> Outcome:
    """Row 7: an error at the first save, or, where nothing at all can be written, at once."""
    (folder / "fault.toml").write_text(TEXT)
    fall = "callbacks.fall={use='fault_fall', hook='step_end', step=1}"
    finished("run", "fault.toml", *EVERY, "--set", fall, cwd=folder)
    places = Places(folder)
    here, run = places.place(begun=True)
    (run / "checkpoints").write_text("")
    places.run("a file is in its place", here, run / "checkpoints", 1)
    here, _ = places.place(begun=False)
    (here / "runs").write_text("")
    places.run("a file is in the place of all runs", here, here / "runs", 2)
    can = mounts.possible()
    if can:
        here, run = places.place(begun=True)
        (run / "checkpoints").mkdir()
        _close(run / "checkpoints")
        places.run("it is read-only", here, run / "checkpoints", 1)
        here, run = places.place(begun=True)
        _close(run)
        places.run("the run folder is", here, run, 2)
        here, _ = places.place(begun=False)
        _close(here)
        places.run("the current folder is", here, here, 2)
    said = (
        f"exit 1 at the first save or 2 at once, naming the path, where {', '.join(places.tried)}"
    )
    return Outcome.of(said + "; read-only ones can't be mounted here" * (not can), places.failures)


def _close(folder: Path) -> None:
    """Have what a folder holds on a file system that is read-only."""
    kept = [(file.name, file.read_bytes()) for file in folder.iterdir() if file.is_file()]
    mounts.mount(folder, SIZE)
    for name, content in kept:
        (folder / name).write_bytes(content)
    mounts.close(folder)
