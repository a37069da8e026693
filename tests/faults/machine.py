"""Rows 13 and 14: a process that is killed, and memory that runs out."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from framework import checkpoint
from tests.faults.endings import amiss, numbered, sound, undisturbed
from tests.faults.experiments import notes, result, started
from tests.faults.interrupts import noted
from tests.faults.outcome import Outcome
from tests.faults.processes import TICK, Ended, Process

MANY = (
    "dataset={use='fault_texts', count=690}",
    "model={use='fault_net', dropout=0.3, noise=0.3}",
    "trainer.workers=2",
    "trainer.epochs=3",
    "callbacks.checkpoint.every_steps=10",
)
EIGHTS = ("trainer.micro_batch=8", "callbacks.checkpoint={every_steps=1, keep=99}")
PATIENCE = 10.0
"""Seconds until a run must have said that one of its processes is dead."""


def worker(folder: Path, rounds: int) -> Outcome:
    """Row 13: a run whose loader process dies fails with its name, and can go on."""
    rng = random.Random(13)  # noqa: S311 - draws of a test
    whole = undisturbed(folder / "whole", *MANY)
    spent = result(whole.run)["timing"]
    failures, longest, done, draws = [], 0.0, 0, 0
    while done < max(1, rounds // 2):
        draws += 1
        here = folder / str(draws)
        process = started(here, *MANY)
        run = noted(process, here, "run_start")
        time.sleep(rng.uniform(0, spent["total"] - spent["start"]))
        if not _strike(process, rng):
            process.wait()
            continue
        struck = time.monotonic()
        ended = process.wait()
        took = time.monotonic() - struck
        if not ended.code:  # it had nothing left to load
            continue
        done, longest = done + 1, max(longest, took)
        wrong = [f"{took:.1f} s until it ended"] * (took > PATIENCE)
        wrong += _failed(run, ended, "a process that loads batches was killed")
        wrong += amiss(here, started(here, *MANY, resume=True).wait(), whole)
        failures += wrong
    said = (
        f"{done}/{done} failed at most {longest:.1f} s later, saying that a loader process was"
        " killed, and went on to the same end"
    )
    return Outcome.of(said, failures)


def _strike(process: Process, rng: random.Random) -> bool:
    """Kill one of a process's children, when it has some; whether it ever had."""
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.alive():
        with suppress(OSError):
            children = file.read_text().split()
            if children:
                os.kill(int(rng.choice(children)), signal.SIGKILL)
                return True
        time.sleep(TICK)
    return False


def _failed(run: Path, ended: Ended, words: str) -> list[str]:
    """What is wrong with a run that should have failed, saying some words in its last line."""
    lines = ended.err.strip().splitlines()
    wrong = [f"exit code {ended.code}"] * (ended.code != 1)
    wrong += [f"it says: {lines[-1]}"] * (words not in lines[-1] or "Traceback" in ended.err)
    found, root = result(run), run / "checkpoints"
    wrong += [f"status {found['status']}: {found['reason']}"] * (
        found["status"] != "failed" or words not in found["reason"]
    )
    return wrong + ["a checkpoint is damaged"] * (len(sound(root)) != len(numbered(root)))


def memory(folder: Path, rounds: int) -> Outcome:
    """Row 14: batches get smaller, or the run stops; nothing of the attempt is kept."""
    rng = random.Random(14)  # noqa: S311 - draws of a test
    plain = undisturbed(folder / "plain", *EIGHTS)
    wanted = _weights(undisturbed(folder / "fours", "trainer.micro_batch=4").run, "last")
    windows = [note["ids"] for note in notes(plain.run, "step_start")][:4]  # the fifth is short
    failures, worst, exact, repeats = [], 0.0, 0, max(1, rounds // 2)
    for number in range(repeats):
        here = folder / str(number)
        # the second micro-batch of the first step, then any
        step = rng.randrange(len(windows)) if number else 0
        micro = rng.randrange(len(windows[step])) if number else 1
        model = f"use='fault_hungry', record='{rng.choice(windows[step][micro])}'"
        sets = (*EIGHTS, "trainer.on_oom=split")
        whole = undisturbed(here / "split", *sets, f"model={{{model}, most=4}}")
        off = _distance(wanted, _weights(whole.run, "last"))
        worst, exact = max(worst, off), exact + (off == 0)
        wrong = [f"{off:.1e} off"] * (off > 1e-6)
        wrong += _killed(here, (*sets, f"model={{{model}, most=4, dropout=0.3}}"), rng)
        stopped = started(here / "stop", *EIGHTS, f"model={{{model}, most=4}}").wait()
        (run,) = here.glob("stop/runs/fault/*")
        words = f"step {step + 1}: out of memory with 8 items at once; set trainer.micro_batch to 4"
        wrong += _failed(run, stopped, words)
        if step:
            off = _distance(_weights(run, "last"), _weights(plain.run, f"step-{step}"))
            wrong += [f"the step before is {off:.1e} off"] * (off > 0)
        failures += [f"step {step + 1}, micro-batch {micro + 1}: {what}" for what in wrong]
    for record, most, words in (
        ("train0", 0, "out of memory with 1 items at once; the model or its longest record"),
        ("val0", 4, "out of memory; lower trainer.micro_batch"),
    ):
        here = folder / record
        model = f"model={{use='fault_hungry', record='{record}', most={most}}}"
        ended = started(here, *EIGHTS, "trainer.on_oom=split", model).wait()
        failures += _failed(next(here.glob("runs/fault/*")), ended, words)
    said = (
        f"{repeats} runs split the batch: weights at most {worst:.1e} from a run with the smaller"
        f" one from the start ({exact} with the same bits), {repeats}/{repeats} identical when"
        f" killed and resumed; {repeats} stopped with one sentence, keeping the step before"
    )
    return Outcome.of(said, failures)


def _killed(here: Path, sets: Sequence[str], rng: random.Random) -> list[str]:
    """What is wrong when such a run is killed, before or after it split, and goes on."""
    whole = undisturbed(here / "whole", *sets)
    fall = f"callbacks.fall={{use='fault_fall', hook='step_end', step={rng.randint(1, 10)}}}"
    started(here / "killed", *sets, fall).wait()
    ended = started(here / "killed", *sets, resume=True).wait()
    return [f"killed and resumed, {what}" for what in amiss(here / "killed", ended, whole)]


def _weights(run: Path, name: str) -> list[torch.Tensor]:
    found = load_file(run / "checkpoints" / name / checkpoint.WEIGHTS)
    return [found[key] for key in sorted(found)]


def _distance(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    pairs = zip(some, others, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)
