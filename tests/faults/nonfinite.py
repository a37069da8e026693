"""Rows 15 and 21: losses, gradients and metrics that aren't finite."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from framework import checkpoint
from framework.commands import _checkpoints
from tests.faults.endings import Whole, amiss, ending, numbered, undisturbed
from tests.faults.experiments import notes, result, started
from tests.faults.outcome import Outcome
from tests.support import points

SETS = (
    "optimizer={use='adamw', lr=0.01}",
    "trainer.micro_batch=6",
    "trainer.log_every=1",
    "callbacks.checkpoint={every_steps=1, keep=99}",
)
Point = dict[str, Any]
PRECISIONS = ("fp32", "bf16", "fp16")
STOPPING = (
    "metrics=['fault_moody']",
    "trainer.epochs=20",
    "trainer.eval_every=2",
    "callbacks.early_stopping={monitor='val/fault_moody', mode='max', patience=3}",
    "callbacks.checkpoint={monitor='val/fault_moody', mode='max'}",
)
HOOKS = ("step_end", "evaluate_start", "evaluate_end", "log")


def poisoned(folder: Path, rounds: int) -> Outcome:
    """Row 15: it stops before the update, or leaves it out; nothing that is kept is poisoned."""
    rng = random.Random(15)  # noqa: S311 - draws of a test
    ways = list(itertools.product(("loss", "gradient"), ("nan", "inf"), PRECISIONS))
    rng.shuffle(ways)
    plain = {
        name: undisturbed(folder / name, *SETS, f"precision={name}").run for name in PRECISIONS
    }
    failures, count = [], max(2, rounds // 2)
    for number in range(count):
        where, value, precision = ways[number % len(ways)]
        windows = [
            list(itertools.chain(*note["ids"])) for note in notes(plain[precision], "step_start")
        ]
        step = rng.randint(1, 5)
        ids = windows[step - 1]
        poison = f"use='fault_poison', record='{rng.choice(ids)}', value={value}, where='{where}'"
        sets = (*SETS, f"loss={{{poison}}}", f"precision={precision}")
        clean = points(plain[precision])
        # a scale that overflows is float16's daily work, and stops no run
        stops = (where, precision) != ("gradient", "fp16")
        skipping, stopping = folder / f"{number}-skip", folder / f"{number}-stop"
        wrong = _skipped(skipping, sets, step, where, clean)
        if stops:
            wrong += _stopped(stopping, sets, step, ids, clean)
            again = [started(stopping, *sets, resume=True).wait() for _ in range(2)]
            run = next(skipping.glob("runs/fault/*"))
            wrong += amiss(stopping, again[-1], Whole(run, ending(run), 0.0))
        failures += [f"{value} {where}, {precision}, step {step}: {what}" for what in wrong]
    said = (
        f"{count} of each: stopped with step, parts and ids, or left the step out, identical after"
        " going on; every weight and state of every checkpoint finite, no 0.0 where there was none"
    )
    return Outcome.of(said, failures)


def _stopped(
    here: Path, sets: Sequence[str], step: int, ids: Sequence[str], clean: Sequence[Point]
) -> list[str]:
    """What is wrong with a run that is to stop at a step, its update left out."""
    ended = started(here, *sets).wait()
    (run,) = here.glob("runs/fault/*")
    last, found = ended.err.strip().splitlines()[-1], result(run)
    wrong = [f"exit code {ended.code}"] * (ended.code != 1)
    told = last.startswith(f"step {step}: loss (ce ") and all(name in last for name in ids)
    wrong += [f"it says: {last}"] * (not told or "Traceback" in ended.err)
    wrong += [f"status {found['status']}"] * (found["status"] != "failed")
    return wrong + _unpoisoned(run, step, clean)


def _skipped(
    here: Path, sets: Sequence[str], step: int, where: str, clean: Sequence[Point]
) -> list[str]:
    """What is wrong with a run that is to leave a step out."""
    ended = started(here, *sets, "trainer.on_nonfinite=skip").wait()
    (run,) = here.glob("runs/fault/*")
    skipped = notes(run, "step_end")[-1]["skipped"]
    wrong = [f"exit code {ended.code}: {ended.last}"] * (ended.code != 0)
    # the record comes once an epoch
    wrong += [f"{skipped} steps left out"] * (skipped != 2)
    (point,) = (p for p in points(run) if p["step"] == step and "train/loss" in p)
    key = "train/loss" if where == "loss" else "train/grad_norm"
    wrong += [f"{key} is {point[key]}"] * (point[key] is not None)
    return wrong + _unpoisoned(run, step, clean)


def _unpoisoned(run: Path, step: int, clean: Sequence[Point]) -> list[str]:
    """What of a run's points before a step, and of its checkpoints, has been touched."""
    root, sums = run / "checkpoints", {}
    before = [point for point in points(run) if point["step"] < step]
    wrong = ["other points before"] * (before != [p for p in clean if p["step"] < step])
    for folder in numbered(root):
        saved, file = _checkpoints.read(folder), folder / checkpoint.WEIGHTS
        sums[folder.name] = checkpoint.digest(file)
        kept = [load_file(file), saved["optimizer"], saved["precision"]]
        wrong += [f"{folder.name} isn't finite"] * (not all(map(_finite, kept)))
    moved = step > 1 and sums[f"step-{step}"] != sums[f"step-{step - 1}"]
    return wrong + ["the step moved the weights"] * moved


def _finite(item: Any) -> bool:
    if isinstance(item, Mapping):
        return all(map(_finite, item.values()))
    if isinstance(item, (list, tuple)):
        return all(map(_finite, item))
    if isinstance(item, torch.Tensor):
        return bool(item.isfinite().all())
    return not isinstance(item, float) or math.isfinite(item)


def patience(folder: Path, rounds: int) -> Outcome:
    """Row 21: a metric that is undefined at times, and a run that dies while it is waited for."""
    rng = random.Random(21)  # noqa: S311 - draws of a test
    failures, alike, undefined, seeds = [], 0, 0, itertools.count(1)
    count = max(1, rounds // 5)
    for number in range(count):
        while True:
            seed = next(seeds)
            sets = (*STOPPING, f"seed={seed}")
            whole = undisturbed(folder / f"whole-{seed}", *sets)
            values = [p["val/fault_moody"] for p in points(whole.run) if "val/fault_moody" in p]
            found = result(whole.run)
            if found["status"] == "stopped_early" and None in values:
                break
        undefined += values.count(None)
        best, stop = found["best"], found["steps"]
        wrong = [f"the best is {best['value']}"] * (not math.isfinite(best["value"]))
        wrong += _waited(values, 3, stop)
        here = folder / f"killed-{seed}"
        hook = HOOKS[number % len(HOOKS)]
        step = rng.randint(best["step"] + 3, stop)  # it has waited for one at least
        fall = f"callbacks.fall={{use='fault_fall', hook='{hook}', step={step}}}"
        died = started(here, *sets, fall).wait()
        wrong += ["it was not killed"] * (died.code >= 0)
        ended = started(here, *sets, resume=True).wait()
        wrong += amiss(here, ended, whole)
        (run,) = here.glob("runs/fault/*")
        alike += result(run)["steps"] == stop
        failures += [f"seed {seed}, killed in {hook} of step {step}: {what}" for what in wrong]
    said = (
        f"{alike}/{count} stopped at the same step and identical after a kill in mid-patience,"
        f" {undefined} of the evaluations undefined, never the best"
    )
    return Outcome.of(said, failures)


def _waited(values: list[float | None], patience: int, stop: int) -> list[str]:
    """What is wrong with the evaluations of a run, every two steps, that stopped early."""
    best, waited = -math.inf, 0
    for at, value in enumerate(values, 1):
        best, waited = (value, 0) if value is not None and value > best else (best, waited + 1)
        if waited == patience:
            return [f"stopped at {stop}, not at {2 * at}"] * (stop != 2 * at)
    return [f"stopped at {stop} without reason"]
