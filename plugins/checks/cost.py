"""Check cost: what a step takes, what a whole run will, and whether memory stays."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

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
        if why := probe.failed("loss", "gradient"):
            for row in rows:
                probe.skips(row, why)
            return
        with probe.trial() as trainer:
            seconds, kept = _timed(probe, trainer)
        _time(probe, seconds)
        _stays(probe, kept)
        with probe.trial() as trainer:
            _memory(probe, trainer)
        if probe.tune_speed:
            _speed(probe)


def _timed(probe: Any, trainer: Any) -> tuple[list[float], list[tuple[int, int]]]:
    """Return the seconds of each step with its batches, and what tensors there are after it."""
    seconds, kept = [], []
    windows = probe.windows(trainer)
    begun = time.perf_counter()
    for number, window in enumerate(itertools.islice(windows, _WARM + _STEPS)):
        trainer.update(window, number)
        _synchronise(trainer)
        seconds.append(time.perf_counter() - begun)
        del window
        kept.append(_alive())
        begun = time.perf_counter()
    windows.close()
    return seconds[_WARM:], kept[_WARM:]


def _synchronise(trainer: Any) -> None:
    if trainer.update.forward.strategy.device.type == "cuda":
        torch.cuda.synchronize()


def _alive() -> tuple[int, int]:
    """Return how many tensors with a graph there are that nobody has let go of, and their bytes."""
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
    parts = []
    for times in _SIZES:
        size = max(1, int(len(window[0]["id"]) * times))
        batch = probe.collate(probe.features(probe.records(size)))
        parts.append(f"{_saved(trainer, batch) / _MIB:.1f} MiB for {len(batch['id'])}")
    told = f"kept for the backward pass: {', '.join(parts)} at once"
    probe.passes(MEMORY, f"{told}; weights {weights / _MIB:.1f} MiB, with AdamW four times that")


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
    """Train a few steps in each way; the most items a second wins."""
    found: list[tuple[float, str]] = []
    for words, change in _ways(probe):
        trainer = probe.build(change)
        seconds, _ = _timed(probe, trainer)
        items = change.trainer.batch_size
        found.append((items / statistics.median(seconds), words))
    rate, words = max(found)
    tried = "; ".join(f"{words} {rate:.1f}/s" for rate, words in found)
    probe.passes(SPEED, f"{rate:.1f} items/s with [trainer] {words} (of {tried})")


def _ways(probe: Any) -> Iterator[tuple[str, Any]]:
    experiment = probe.experiment
    for times in (1, 2, 4):
        for workers in (0, _WORKERS):
            size = experiment.trainer.batch_size * times
            training = attrs.evolve(experiment.trainer, batch_size=size, workers=workers)
            yield (
                f"batch_size = {size}, workers = {workers}",
                attrs.evolve(experiment, trainer=training),
            )
