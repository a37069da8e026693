"""How a run ended, down to the last bit, and what of it differs from another's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from framework import checkpoint
from framework.commands import _checkpoints
from framework.errors import UserError
from tests.faults.experiments import result, started
from tests.faults.processes import Ended
from tests.support import points

LEFT = ("timing", "elapsed", "due", "metrics", "best", "epoch", "batch", "over")
"""Counters that aren't compared: times, and what follows the last step, its validation and the end
of its epoch. An interrupt before these has saved that step already, and a checkpoint is never
changed; `result.json` has them in any case."""


@attrs.frozen
class Ending:
    """What two runs that are the same have in common, by name."""

    parts: Mapping[str, object]

    def differing(self, other: Ending) -> list[str]:
        """Names of what differs."""
        return [name for name, part in self.parts.items() if part != other.parts[name]]


def ending(run: Path) -> Ending:
    """Read a run folder; the checkpoint is its last one."""
    last = run / "checkpoints" / "last"
    saved = _checkpoints.read(last)
    saved["counters"] = {k: v for k, v in saved["counters"].items() if k not in LEFT}
    # the first holds when it was saved last, and the sizes of files with times; the other is LEFT
    del saved["hooks"], saved["best"]
    parts: dict[str, object] = {f"its {name}": digest(part) for name, part in saved.items()}
    parts["weights"] = checkpoint.digest(last / checkpoint.WEIGHTS)
    parts["metrics.jsonl"] = points(run)
    parts["result.json"] = {k: v for k, v in result(run).items() if k != "timing"}
    parts["predictions"] = (run / "predictions" / "test.csv").read_bytes()
    return Ending(parts)


def digest(value: Any) -> str:
    """Hash a state: every number with its type, every tensor with its bits."""
    found = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            found.update(f"{item.dtype}{tuple(item.shape)}".encode())
            found.update(item.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            add([*item.items()])
        elif isinstance(item, (list, tuple)):
            found.update(f"[{len(item)}".encode())
            for each in item:
                add(each)
        else:
            found.update(f"{type(item).__name__}:{item!r};".encode())

    add(value)
    return found.hexdigest()


@attrs.frozen
class Whole:
    """A run that nothing disturbed."""

    run: Path
    ending: Ending
    seconds: float


def undisturbed(folder: Path, *sets: str) -> Whole:
    """Run to the end; `RuntimeError` where that fails."""
    ended = started(folder, *sets).wait()
    run = told(ended, folder)
    if ended.code or run is None:
        raise RuntimeError(f"the run that nobody disturbed ended with {ended.code}: {ended.last}")
    return Whole(run, ending(run), ended.seconds)


def told(ended: Ended, folder: Path) -> Path | None:
    """The run folder that a process says it has written."""
    found = re.search(r"^run folder: (.*)$", ended.out, re.MULTILINE)
    return folder / found[1] if found else None


def amiss(folder: Path, ended: Ended, whole: Whole) -> list[str]:
    """What is wrong with a process that should have left in a folder what another run left."""
    run = told(ended, folder)
    if ended.code or run is None:
        return [f"ended with {ended.code}: {ended.last}"]
    try:
        found = ending(run)
    except (OSError, UserError) as error:
        return [f"ended well, but {error}"]
    return [f"{name} differs" for name in whole.ending.differing(found)]


def sound(root: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    steps = []
    for folder in numbered(root):
        try:
            _checkpoints.verify(folder)
        except UserError:
            continue
        steps.append(int(folder.name[5:]))
    return sorted(steps)


def numbered(root: Path) -> list[Path]:
    """The folders that are called what a checkpoint is called."""
    return [path for path in root.glob("step-*") if path.name[5:].isdecimal()]
