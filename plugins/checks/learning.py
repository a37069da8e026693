"""Check learning: a batch can be overfitted, chance can't, and the rate moves as it should."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np

from plugins.checks import _losses
from plugins.checks.gradient import DEAD, NORMS
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE, UNREAD

_ITEMS = 8
_STEPS = 60
_ENOUGH = 0.1
"""Share of its start at which a loss has fallen far enough to stop looking."""
_PATIENCE = 40.0
"""Seconds after which no more steps are taken with a large model."""
_FALLS = 0.8
"""Share of its start below which a loss has learned; what it can't fall below is not known."""
_CHANCE = 0.6
"""Share of the loss of knowing nothing, below which nobody comes who guesses."""
_UNSEEN = 32
_EXAMPLES = 64
_PAIR = (0, 1)
"""Two ways of drawing labels, by which it is seen what of a loss depends on them."""
_ASKED = 5000
"""Steps that a schedule is asked for at most, evenly spread from the first to the last."""
_COLUMNS = 40
_BARS = "▁▂▃▄▅▆▇█"
OVERFIT = "one batch can be overfitted"
SHUFFLED = "labels by chance can't be learned"
RATE = "the rate over the whole training"


@attrs.frozen
class LearningCheck:
    """The parts together learn what can be learned, and nothing else; the rate is as planned."""

    area = "learning"

    def observe(self, probe: Any) -> None:
        """Train on a few records again and again, then on labels by chance; ask the schedule."""
        if why := probe.failed(*UNREAD, TARGETS, FINITE, NORMS, DEAD):
            probe.skips(OVERFIT, why)
            probe.skips(SHUFFLED, why)
        else:
            _overfit(probe)
            _shuffled(probe)
        _rate(probe)


def _steady(trainer: Any) -> Any:
    """Return the trainer's update at its full rate, without dropout."""
    trainer.update.forward.module.eval()
    return attrs.evolve(trainer.update, factor=lambda _: 1.0)


def _overfit(probe: Any) -> None:
    batch = probe.collate(probe.features(probe.records(_ITEMS)))
    with probe.trial() as trainer:
        update = _steady(trainer)
        losses: list[float] = []
        begun, number = time.monotonic(), 0
        while number < _STEPS and time.monotonic() - begun < _PATIENCE:
            found, _, _ = update([dict(batch)], number)
            losses.append(sum(map(float, found.values())))
            if losses[-1] < _ENOUGH * losses[0]:
                break
            number += 1
    told = f"{len(batch['id'])} records: {losses[0]:.4g} → {losses[-1]:.4g} in {len(losses)} steps"
    learns = all(map(math.isfinite, losses)) and losses[-1] < _FALLS * losses[0]
    if not learns and len(losses) < _STEPS and losses[-1] < losses[0]:
        probe.skips(OVERFIT, f"{told}, which took {_PATIENCE:.0f} s: too slow here to tell")
    elif not learns:
        advice = "raise the learning rate, or see whether inputs and targets belong together"
        probe.fails(OVERFIT, told, advice)
    else:
        probe.passes(OVERFIT, told)


def _shuffled(probe: Any) -> None:
    """Train on labels by chance; no model can know those of records that it hasn't seen."""
    many = _losses.classes(probe)
    records = probe.records(_EXAMPLES + _UNSEEN)
    unseen = records[::3]
    seen = [record for at, record in enumerate(records) if at % 3]
    if many < len(_PAIR) or not all(map(_losses.labelled, records)) or len(unseen) < _ITEMS:
        probe.skips(SHUFFLED, "records have no labels, or there are too few of them")
        return
    rng = np.random.default_rng(probe.experiment.seed)

    def drawn(chosen: list[Any], start: int) -> list[Any]:
        labels = (start + rng.permutation(len(chosen))) % many
        found: list[Any] = probe.features(_losses.relabelled(chosen, labels.tolist()))
        return found

    asked = [probe.collate(drawn(unseen, start)) for start in _PAIR]
    with probe.trial() as trainer:
        loss = trainer.update.loss
        parts = _guessed(trainer, loss, asked)
        if not parts:
            probe.skips(SHUFFLED, "the loss doesn't depend on the records' labels")
            return
        update = _steady(trainer)
        for number, batch in zip(range(_STEPS // 2), _batches(probe, drawn(seen, 0)), strict=False):
            update([dict(batch)], number)
        outputs, placed = _losses.exact(trainer, asked[0])
        after = _losses.means(loss, outputs, placed)
    found, known = sum(after[name] for name in parts), sum(parts.values())
    told = f"{len(unseen)} records that were not trained on: {found:.4g}, guessing {known:.4g}"
    if found < _CHANCE * known:
        probe.fails(SHUFFLED, told, "the model sees the label: look at what it is given")
    else:
        probe.passes(SHUFFLED, told)


def _guessed(trainer: Any, loss: Any, asked: list[Any]) -> dict[str, float]:
    """Return what guessing gives of the parts of a loss that depend on labels."""
    trainer.update.forward.module.eval()
    outputs, placed = _losses.exact(trainer, asked[0])
    names = _losses.logits(outputs)
    ignorant = outputs | {name: outputs[name] * 0 for name in names}
    other = _losses.placed(asked[1], outputs)
    one, two = (_losses.means(loss, outputs, batch) for batch in (placed, other))
    known = _losses.means(loss, ignorant, placed)
    return {name: known[name] for name in one if names and one[name] != two[name]}


def _batches(probe: Any, features: list[Any]) -> Iterator[Any]:
    while True:
        for at in range(0, len(features), _ITEMS):
            yield probe.collate(features[at : at + _ITEMS])


def _rate(probe: Any) -> None:
    """Ask the schedule for every step, and hold what steps were given against it."""
    trainer, row = probe.trainer, RATE
    state = trainer.state
    total, steady = state.total_steps, getattr(state.schedule, "steady", False)
    asked = np.unique(np.linspace(0, max(total - 1, 0), min(total, _ASKED)).astype(int)).tolist()
    factors = [float(state.schedule(step)) for step in asked]
    peak = max(factors, default=0.0)
    highest = max(group["initial_lr"] for group in trainer.update.optimizer.param_groups)
    told = f"{plotted(factors)} up to {peak * highest:.3g} over {total} steps"
    advice = "let the scheduler rise to 1 within the planned steps, and come down by their end"
    if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
        probe.fails(row, f"{told}: a factor is negative or no number", advice)
    elif peak < 0.99:  # noqa: PLR2004 - of 1, but for rounding
        probe.fails(row, f"{told}: only {peak:.2f} of the rate is ever reached", advice)
    elif not steady and total > _ITEMS and factors[-1] > peak / 2:
        probe.fails(row, f"{told}: at the end it is still {factors[-1]:.2f} of it", advice)
    elif (wrong := _taken(probe, min(2, total))) and not probe.failed(TARGETS, FINITE, NORMS):
        probe.fails(row, f"{told}: {wrong}", "let the optimizer step by its groups' lr")
    else:
        probe.passes(row, told)


def _taken(probe: Any, count: int) -> str:
    """Say where the rates of the first steps differ from the schedule's."""
    with probe.trial() as trainer:
        groups = trainer.update.optimizer.param_groups
        for step in probe.steps(trainer, probe.windows(), count):
            for group in groups:
                due = group["initial_lr"] * trainer.state.schedule(step.number)
                if not math.isclose(group["lr"], due, rel_tol=1e-6):
                    return f"step {step.number + 1} was taken at {group['lr']:.3g}, not {due:.3g}"
    return ""


def plotted(values: list[float]) -> str:
    """Return values as a line of bars."""
    count, top = min(_COLUMNS, len(values)), max([*values, 1e-12])
    chosen = [values[at * (len(values) - 1) // max(count - 1, 1)] for at in range(count)]
    last = len(_BARS) - 1
    finite = (value if math.isfinite(value) else 0.0 for value in chosen)
    return "".join(_BARS[max(0, round(last * value / top))] for value in finite)
