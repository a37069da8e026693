"""Check cost: what a step takes, what a whole run will, and whether memory stays."""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import time
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.errors import ExperimentError, RunError, UserError
from plugins.checks.gradient import NORMS
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE

_WARM, _STEPS = 1, 4
_SIZES = (0.5, 1, 2)
"""Times the batch size, whose memory is told."""
_WORKERS = 2
_MIB = 2**20
TIME = "time of a step and of the run"
MEMORY = "memory by batch size"
STAYS = "memory stays from step to step"
SPEED = "the fastest of what was tried"


@attrs.frozen
class CostCheck:
    """Time and memory are measured on real steps."""

    area = "cost"

    def observe(self, probe: Any) -> None:
        """Take steps and time them; keep account of what they keep."""
        rows = (TIME, STAYS, MEMORY, *((SPEED,) if probe.tune_speed else ()))
        if why := probe.failed(TARGETS, FINITE, NORMS):
            for row in rows:
                probe.skips(row, why)
            return
        with probe.trial() as trainer:
            seconds, kept = _timed(probe, trainer)
            _time(probe, seconds)
            _stays(probe, kept)
            _memory(probe, trainer)
        if probe.tune_speed:
            _speed(probe)


def _timed(probe: Any, trainer: Any) -> tuple[list[float], list[tuple[int, int]]]:
    """Return the seconds of each step with its batches, and what tensors there are after it."""
    seconds, kept = [], []
    gc.freeze()  # what was there before is neither looked at nor collected
    windows = probe.windows(trainer)
    begun = time.perf_counter()
    try:
        for step in probe.steps(trainer, windows, _WARM + _STEPS):
            del step
            _synchronise(trainer)
            seconds.append(time.perf_counter() - begun)
            kept.append(_alive())
            begun = time.perf_counter()
    finally:
        windows.close()
        gc.unfreeze()
    return seconds[_WARM:], kept[_WARM:]


def _synchronise(trainer: Any) -> None:
    if trainer.update.forward.strategy.device.type == "cuda":
        torch.cuda.synchronize()


def _alive() -> tuple[int, int]:
    """Return how many tensors there are that nobody has let go of, and their bytes."""
    gc.collect()
    found = [x for x in gc.get_objects() if type(x) is Tensor and x.numel() > 1]
    return len(found), sum(x.numel() * x.element_size() for x in found)


def _time(probe: Any, seconds: list[float]) -> None:
    state, step = probe.trainer.state, statistics.median(seconds)
    epoch, run = step * state.steps_per_epoch, step * state.total_steps
    device = probe.trainer.update.forward.strategy.device.type
    told = f"{1e3 * step:.0f} ms on {device}; {_shown(epoch)} an epoch of {state.steps_per_epoch}"
    probe.passes(
        TIME, f"{told} steps, {_shown(run)} for all {state.total_steps}, without validation"
    )


def _shown(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _stays(probe: Any, kept: list[tuple[int, int]]) -> None:
    counts = [count for count, _ in kept]
    grown = kept[-1][1] - kept[0][1]
    told = f"{counts[0]} tensors after step {_WARM + 1}, {counts[-1]} after step {_WARM + _STEPS}"
    if all(one < other for one, other in itertools.pairwise(counts)):
        each = grown / (len(kept) - 1) / _MIB
        advice = "keep numbers (float(x)) or detached copies, and not tensors of a step"
        probe.fails(STAYS, f"{told}: {each:.3g} MiB more with each", advice)
    else:
        probe.passes(STAYS, told)


def _memory(probe: Any, trainer: Any) -> None:
    """Count what forward passes keep for backward ones, beside weights, gradients and states."""
    window = probe.window()
    held = trainer.update.forward.module.parameters()
    weights = sum(p.numel() * p.element_size() for p in held)
    states = getattr(trainer.update.optimizer, "state", {}).values()
    tensors = [x for state in states for x in state.values() if isinstance(x, Tensor)]
    moments = sum(x.numel() * x.element_size() for x in tensors)
    parts = []
    for times in _SIZES:
        size = max(1, int(len(window[0]["id"]) * times))
        batch = probe.collate(probe.features(probe.records(size)))
        parts.append(f"{_saved(trainer, batch) / _MIB:.1f} MiB for {len(batch['id'])}")
    told = f"kept for the backward pass: {', '.join(parts)} at once"
    told += f"; weights and gradients {2 * weights / _MIB:.1f} MiB"
    probe.passes(MEMORY, f"{told}, the optimizer's states {moments / _MIB:.1f} MiB")


def _saved(trainer: Any, batch: dict[str, Any]) -> int:
    """Return the bytes of what a forward pass keeps, each storage once, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in trainer.update.forward.module.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs, placed = trainer.update.forward(batch)
        total = [*trainer.update.loss(outputs, placed).values()]
    del outputs, total
    return sum(seen.values())


def _speed(probe: Any) -> None:
    """Try precisions, then batch sizes, then workers, each with the best so far."""
    size = probe.experiment.trainer.batch_size
    axes = [
        [f"precision={name}" for name in probe.offered("precision")],
        [f"trainer.batch_size={size * times}" for times in (1, 2, 4)],
        [f"trainer.workers={workers}" for workers in (0, _WORKERS)],
    ]
    best: list[str] = []
    tried, rate = [], 0.0
    for axis in axes:
        rates = {word: _items(probe, [*best, word]) for word in axis}
        tried += [f"{word} {found:.1f}" for word, found in rates.items() if found]
        rate = max(rates.values())
        best.append(max(rates, key=lambda word: rates[word]))
    probe.passes(SPEED, f"{rate:.1f} items a second (tried: {', '.join(tried)})")
    probe.pasted.extend(_toml(best))


def _toml(words: list[str]) -> list[str]:
    """Return lines to paste: keys of the experiment itself, then those of its trainer."""
    lines: list[str] = []
    table: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        name = key.removeprefix("trainer.")
        line = f"{name} = {value if value.isdecimal() else json.dumps(value)}"
        (lines if name == key else table).append(line)
    return [*lines, "[trainer]", *table]


def _items(probe: Any, sets: list[str]) -> float:
    """Return how many items a second are trained on in some way; 0 where that can't be."""
    try:
        trainer = probe.build(probe.changed(sets))
        seconds, _ = _timed(probe, trainer)
    except (UserError, ExperimentError, RunError, RuntimeError):
        return 0.0  # the device can't do this, or has no memory for it
    return float(trainer.state.training.batch_size / statistics.median(seconds))
