"""Check metrics: monitored names exist and have their direction; perfect outputs score best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.errors import nearest
from plugins.checks import _losses
from plugins.checks.classes import RANGE

_BATCHES = 8
"""Batches of validation that outputs are made up for."""
_LEVELS = ("perfect", "a quarter wrong", "half wrong", "a quarter right", "wrong")
"""Outputs that are made up, ever fewer of them right."""
_SURE = 20.0
"""A logit that leaves no other class a chance."""
NAMES = "monitored names exist"
PERFECT = "perfect outputs are told from others"
DIRECTION = "monitored names go the way they are said to"
Values = Mapping[str, float]


@attrs.frozen
class MetricsCheck:
    """What callbacks read is computed; made-up outputs score as they must."""

    area = "metrics"

    def observe(self, probe: Any) -> None:
        """Score outputs that are perfect, say nothing, are drawn, and are all wrong."""
        if why := probe.failed(RANGE):
            for row in (NAMES, PERFECT, DIRECTION):
                probe.skips(row, why)
            return
        scores = _scores(probe)
        names = _monitored(probe, scores.get("nothing", {}))
        if isinstance(scores.get("perfect"), dict):
            _perfect(probe, scores)
            _direction(probe, names, scores)
        else:
            probe.skips(PERFECT, "outputs and targets aren't logits and classes")
            _direction(probe, names, {})


def _scores(probe: Any) -> dict[str, Values]:
    """Return the values of all metrics on what is made up; of `nothing` always."""
    trainer = probe.trainer
    windows = trainer.feeds["val"].whole()
    batches = [b for w in itertools.islice(windows, _BATCHES) for b in w][:_BATCHES]
    windows.close()
    metrics = {k: trainer.metrics() for k in (*_LEVELS, "nothing", "drawn")}
    draw = torch.Generator().manual_seed(probe.experiment.seed)
    known = True
    with probe.trial() as lent, torch.no_grad():
        lent.update.forward.module.eval()
        for batch in batches:
            batch.pop("_index", None)
            outputs, placed = _losses.exact(lent, batch)
            made = _made(lent.update.loss, outputs, placed, draw)
            known = known and bool(made)
            made = made or {"nothing": outputs}
            for kind, values in made.items():
                for metric in metrics[kind].values():
                    metric.update(values, placed)
    kinds = metrics if known and batches else ("nothing",)
    return {kind: _values(metrics[kind]) for kind in kinds}


def _made(
    loss: Any, outputs: dict[str, Tensor], batch: dict[str, Any], draw: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Return outputs made up for a batch's targets; nothing where these aren't known."""
    right, chance = {}, {}
    for name in _losses.logits(outputs):
        beside = name.replace("logits", "labels")
        labels = batch.get(beside if beside in _losses.targets(loss, batch) else "")
        logits = outputs[name]
        if labels is None or labels.shape != logits.shape[:-1]:
            continue
        kept = labels.clamp(min=0)
        right[name] = _SURE * torch.nn.functional.one_hot(kept, logits.shape[-1]).to(logits)
        chance[name] = torch.rand(labels.shape, generator=draw).to(logits).unsqueeze(-1)
    if not right:
        return {}
    made = {
        level: {n: torch.where(chance[n] < at / 4, -v, v) for n, v in right.items()}
        for at, level in enumerate(_LEVELS)
    }
    made["nothing"] = {name: 0 * value for name, value in right.items()}
    made["drawn"] = {n: torch.randn(v.shape, generator=draw).to(v) for n, v in right.items()}
    return {kind: outputs | values for kind, values in made.items()}


def _values(metrics: Mapping[str, Any]) -> Values:
    return {
        f"{label}/{name}" if name else label: float(value)
        for label, metric in metrics.items()
        for name, value in metric.compute().items()
    }


def _monitored(probe: Any, values: Values) -> list[tuple[str, str, str]]:
    """Tell names that nobody computes; those that are, each with its callback and mode."""
    losses = probe.trainer.update.loss.counts(probe.window()[0])
    known = ["val/loss", *(f"val/loss/{part}" for part in losses if len(losses) > 1)]
    known += [f"val/{name}" for name in values]
    found, lacking = [], []
    for label, part in probe.experiment.callbacks.items():
        for field in attrs.fields(type(part.options)):
            if not field.metadata.get("metric"):
                continue
            given = getattr(part.options, field.name)
            for name in [given] if isinstance(given, str) else given:
                if name and name.startswith("val/") and name not in known:
                    lacking.append(f"'{name}' of {label}{nearest(name, known)}")
                elif name:
                    found.append((label, name, getattr(part.options, "mode", "")))
    if lacking:
        told = f"nothing computes {'; '.join(lacking)}"
        probe.fails(NAMES, told, "monitor a name that is computed")
    elif found:
        told = ", ".join(f"{name} ({label}, {mode or 'no mode'})" for label, name, mode in found)
        probe.passes(NAMES, told)
    else:
        probe.passes(NAMES, f"nothing is monitored; {len(known)} names are computed")
    return found


def _perfect(probe: Any, scores: Mapping[str, Values]) -> None:
    """Each metric has some value that tells perfect outputs from all others."""
    blind, best = [], []
    for label in probe.experiment.metrics:
        own = [n for n in scores["perfect"] if n == label or n.startswith(f"{label}/")]
        told = [n for n in own if _tells(n, scores)]
        if own and not told:
            blind.append(label)
        elif told and not math.isnan(scores["perfect"][told[0]]):
            best.append(f"{told[0]} {scores['perfect'][told[0]]:.4g}")
    if blind:
        told_blind = f"{', '.join(blind)}: the same whatever the outputs are"
        probe.fails(PERFECT, told_blind, "let update() compare the outputs with the targets")
    elif best:
        probe.passes(PERFECT, ", ".join(best[:3]) + (", …" if len(best) > 3 else ""))  # noqa: PLR2004
    else:
        probe.skips(PERFECT, "there is no metric, or none is defined on these records")


def _tells(name: str, scores: Mapping[str, Values]) -> bool:
    """Whether a value is not the same of all outputs; one that is undefined may be."""
    values = [each[name] for each in scores.values() if name in each]
    defined = {value for value in values if not math.isnan(value)}
    return len(defined) != 1


def _way(name: str, scores: Mapping[str, Values]) -> str:
    """Return `max` or `min`, whichever perfect outputs show; nothing where it can't be seen."""
    if name == "loss" or name.startswith("loss/"):
        return "min"
    steps = [*itertools.pairwise(scores.get(k, {}).get(name, math.nan) for k in _LEVELS)]
    if all(better > worse for better, worse in steps):
        return "max"
    return "min" if all(better < worse for better, worse in steps) else ""


def _direction(probe: Any, names: list[tuple[str, str, str]], scores: Mapping[str, Values]) -> None:
    seen: list[str] = []
    unseen: list[str] = []
    for label, monitored, mode in names:
        name = monitored.partition("/")[2]
        way = _way(name, scores)
        if mode and way and way != mode:
            told = f"callback '{label}' takes the {mode} of {monitored}, whose best is the {way}"
            probe.fails(DIRECTION, told, f'write mode = "{way}"')
            return
        (seen if mode and way else unseen).append(f"{monitored} {way or mode}".strip())
    if seen:
        probe.passes(DIRECTION, ", ".join(dict.fromkeys(seen)))
    elif unseen:
        told = f"perfect outputs don't show which way {', '.join(dict.fromkeys(unseen))} goes"
        probe.skips(DIRECTION, told)
    else:
        probe.skips(DIRECTION, "nothing is monitored")
