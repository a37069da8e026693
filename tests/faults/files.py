"""Rows 4 and 5: checkpoints whose files were damaged."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from framework import checkpoint
from framework.commands import _checkpoints
from framework.errors import UserError
from tests.faults.endings import Whole, amiss, numbered, undisturbed
from tests.faults.experiments import started
from tests.faults.outcome import Outcome

HF = (
    "model={use='hf_classifier', max_length=32, config={model_type='bert', hidden_size=16,"
    " num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,"
    " max_position_embeddings=32, vocab_size=300}}"
)
SETS = (HF, "optimizer={use='adamw', lr=0.01}", "callbacks.checkpoint.every_steps=2")
ENDS = (9, 8, 7)
"""Steps at which the run was killed that goes on; some have their best checkpoint before."""


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES: Sequence[tuple[str, Callable[[Path], None]]] = (
    ("truncated", _cut),
    ("zeroed", _zero),
    ("deleted", Path.unlink),
)


def damaged(folder: Path, rounds: int) -> Outcome:
    """Row 4: it goes on from the checkpoint before, says why, and ends identical."""
    whole = undisturbed(folder / "whole", *SETS)
    failures, done = [], 0
    for number in range(min(rounds, len(DAMAGES))):
        base = killed(folder / f"base-{number}", ENDS[number], *SETS)
        inside = names(newest(base))
        for at, name in enumerate(inside):
            word, damage = DAMAGES[(number + at) % len(DAMAGES)]
            here = folder / f"{number}-{at}"
            shutil.copytree(base, here, symlinks=True)
            damage(newest(here) / name)
            failures += [f"{name} {word}: {what}" for what in _fell_back(here, name, SETS, whole)]
            done += 1
    said = f"{done}/{done} fell back to the checkpoint before, named the file and ended identical"
    return Outcome.of(f"{said}; each of {len(inside)} files", failures)


def flipped(folder: Path, rounds: int) -> Outcome:
    """Row 5: the manifest catches every flipped bit, its own too."""
    rng = random.Random(5)  # noqa: S311 - draws of a test
    whole = undisturbed(folder / "whole", *SETS)
    base = killed(folder / "base", ENDS[0], *SETS)
    root, flips = newest(base), 2 * rounds
    inside, failures = names(root), []
    for name in inside:
        file, kept = root / name, (root / name).read_bytes()
        for _ in range(flips):
            at = rng.randrange(8 * len(kept))
            _flip(file, at)
            if not _caught(root, name):
                failures.append(f"bit {at} of {name} was not caught")
            file.write_bytes(kept)
    _checkpoints.verify(root)
    resumed = rng.sample(inside, min(len(inside), 1 + rounds))
    for name in resumed:
        here = folder / name.replace("/", "-")
        shutil.copytree(base, here, symlinks=True)
        file = newest(here) / name
        _flip(file, rng.randrange(8 * file.stat().st_size))
        failures += [f"bit of {name}: {what}" for what in _fell_back(here, name, SETS, whole)]
    said = (
        f"caught {flips}/{flips} in each of {len(inside)} files; {len(resumed)} runs went on from"
    )
    return Outcome.of(f"{said} the checkpoint before and ended identical", failures)


def killed(folder: Path, step: int, *sets: str) -> Path:
    """Run until a step, in a folder; the folder."""
    fall = f"callbacks.fall={{use='fault_fall', hook='step_end', step={step}}}"
    ended = started(folder, *sets, fall).wait()
    if ended.code >= 0 or len(numbered(next(folder.glob("runs/*/*/checkpoints")))) < 2:
        raise RuntimeError(f"it was not killed with two checkpoints: {ended.code}, {ended.last}")
    return folder


def newest(folder: Path) -> Path:
    """The newest checkpoint of the one run in a folder."""
    (root,) = folder.glob("runs/*/*/checkpoints")
    return max(numbered(root), key=lambda path: int(path.name[5:]))


def names(step: Path) -> list[str]:
    """The files of a checkpoint."""
    return sorted(str(file.relative_to(step)) for file in step.rglob("*") if file.is_file())


def _flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def _caught(root: Path, name: str) -> bool:
    try:
        _checkpoints.read(root)
    except UserError as error:
        return name in str(error) or name == checkpoint.MANIFEST
    return False


def _fell_back(here: Path, name: str, sets: Sequence[str], whole: Whole) -> list[str]:
    """What is wrong with a run that goes on beside a newest checkpoint with a damaged file."""
    step = newest(here)
    ended = started(here, *sets, resume=True).wait()
    lines = [line for line in ended.err.splitlines() if str(step) in line]
    # of a checkpoint without a manifest, there is only itself to name
    told = any(name in line or "never finished" in line for line in lines)
    wrong = ["it isn't told"] * (not told or "taking the one before" not in ended.err)
    wrong += ["it went on from there"] * (f"from step {step.name[5:]}\n" in ended.err)
    return wrong + amiss(here, ended, whole)
