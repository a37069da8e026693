"""Check loss: what an untrained model's is, what it depends on, and whether it adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from plugins.checks import _losses
from plugins.checks.input import TARGETS
from plugins.checks.reading import ENDS, WORDS

_RECORDS = 8
_HIGH, _LOW = 2.0, 0.5
"""Times the loss of knowing nothing, between which an untrained model's is."""
_ROUNDING = 1e-3
"""Of sums in float32 over batches that are padded otherwise."""
UNREAD = (WORDS, ENDS)
"""Rows of the data that say whether records can be told from each other."""
FINITE = "finite and not 0"
THEORY = "near that of knowing nothing"
DIFFERS = "differs between labels"
ADDS = "adds up over parts of a batch"
NOBODY = "of nobody it is no NaN"


@attrs.frozen
class LossCheck:
    """The loss is finite, near its theoretical start, and depends on labels; its sums add up."""

    area = "loss"

    def observe(self, probe: Any) -> None:
        """Compute losses of a few records, without dropout and in float32."""
        if why := probe.failed(TARGETS):
            for row in (FINITE, THEORY, DIFFERS, ADDS, NOBODY):
                probe.skips(row, why)
            return
        with probe.trial() as trainer:
            trainer.update.forward.module.eval()
            records = probe.records(_RECORDS)
            batch = probe.collate(probe.features(records))
            outputs, placed = _losses.exact(trainer, batch)
            loss = trainer.update.loss
            found = _losses.means(loss, outputs, placed)
            if not _finite(probe, found, loss.counts(placed)):
                for row in (THEORY, DIFFERS, ADDS, NOBODY):
                    probe.skips(row, f"see {self.area}: {FINITE}")
                return
            _theory(probe, loss, outputs, placed, sum(found.values()))
            if why := probe.failed(*UNREAD):
                probe.skips(DIFFERS, why)
            else:
                _differs(probe, trainer, outputs, placed, records)
            _adds(probe, trainer, records)
            _nobody(probe, loss, outputs, placed)


def _finite(probe: Any, found: Mapping[str, float], counts: Mapping[str, int]) -> bool:
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    if not all(map(math.isfinite, found.values())):
        probe.fails(FINITE, told, "look for a logarithm or a quotient of 0 in the loss")
    elif not any(counts.values()):
        told = f"of {_RECORDS} records nobody counts"
        probe.fails(FINITE, told, "let the processor give targets to what is trained on")
    elif sum(found.values()) == 0:
        probe.fails(FINITE, f"{told}: there is nothing to learn", "see what the loss is given")
    else:
        of = ", ".join(f"{count} of {name}" for name, count in counts.items())
        probe.passes(FINITE, f"{told} (mean over {of})")
        return True
    return False


def _theory(
    probe: Any, loss: Any, outputs: dict[str, Tensor], batch: dict[str, Any], found: float
) -> None:
    names = _losses.logits(outputs)
    if not names:
        probe.skips(THEORY, "no output is logits, whose loss could be known")
        return
    ignorant = outputs | {name: torch.zeros_like(outputs[name]) for name in names}
    known = sum(_losses.means(loss, ignorant, batch).values())
    told = f"{found:.4g}; {known:.4g} where all classes are as likely"
    if known <= 0 or _LOW * known <= found <= _HIGH * known:
        probe.passes(THEORY, told)
    elif found > known:
        probe.fails(THEORY, told, "start the last layer with smaller weights")
    else:
        probe.warns(THEORY, told, "is it trained already? otherwise it sees its targets")


def _differs(
    probe: Any, trainer: Any, outputs: dict[str, Tensor], batch: dict[str, Any], records: list[Any]
) -> None:
    loss = trainer.update.loss
    advice = "let it compare the outputs with the targets of each item"
    many, own = _losses.classes(probe), [r.get("label") for r in records]
    if any(map(_losses.labelled, records)) and many > 1:
        labels = [(at + 1) % many if isinstance(at, int) else 0 for at in own]
        other = probe.collate(probe.features(_losses.relabelled(records, labels)))
        if not _changed(batch, other):
            told = "records with other labels make the very same batch"
            probe.fails(DIFFERS, told, "let collate put the labels into the batch")
            return
        given = (outputs, _losses.placed(other, outputs))
        if not _alike(batch, other):  # a text that shows its label, which is told elsewhere
            given = _losses.exact(trainer, other)
        if _losses.means(loss, *given) != _losses.means(loss, outputs, batch):
            probe.passes(DIFFERS, "other labels of the same records give another loss")
            return
    names = _losses.logits(outputs)
    if not names:
        probe.skips(DIFFERS, "records have no labels, and no output is logits")
        return
    rolled = outputs | {name: outputs[name].roll(1, -1) for name in names}
    if _losses.means(loss, rolled, batch) == _losses.means(loss, outputs, batch):
        told = "it is the same whichever class the outputs speak of"
        probe.fails(DIFFERS, told, advice)
    else:
        probe.passes(DIFFERS, "the same outputs for other classes give another loss")


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether tensors have the same shapes."""
    shapes = [{k: v.shape for k, v in x.items() if isinstance(v, Tensor)} for x in (one, other)]
    return shapes[0] == shapes[1]


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.shape == b.shape and bool(torch.equal(a, b))
        return bool(a == b)

    return not all(same(value, other.get(name)) for name, value in one.items())


def _adds(probe: Any, trainer: Any, records: list[Any]) -> None:
    loss = trainer.update.loss
    if loss.coupled:
        probe.skips(ADDS, "it says that it compares the items of a batch (coupled)")
        return
    features = probe.features(records)
    half = len(features) // 2
    whole, first, second = (
        _summed(loss, *_losses.exact(trainer, probe.collate(part)))
        for part in (features, features[:half], features[half:])
    )
    for part, (value, count) in whole.items():
        both = first[part][0] + second[part][0], first[part][1] + second[part][1]
        if count != both[1]:
            told = f"{part} counts {count} in a batch and {both[1]} in its halves"
            probe.fails(ADDS, told, "count each item by itself")
            return
        if abs(value - both[0]) > _ROUNDING * max(abs(value), abs(both[0]), _ROUNDING):
            told = f"{part} is {value:.4g} of a batch and {both[0]:.4g} of its halves"
            probe.fails(ADDS, told, "return sums and not means, or say coupled = True")
            return
    probe.passes(ADDS, f"{len(features)} items at once give the sums of their halves")


def _summed(loss: Any, outputs: Any, batch: Any) -> dict[str, tuple[float, int]]:
    with torch.no_grad():
        sums, counts = loss(outputs, batch), loss.counts(batch)
    return {name: (float(value), counts.get(name, 0)) for name, value in sums.items()}


def _nobody(probe: Any, loss: Any, outputs: dict[str, Tensor], batch: dict[str, Any]) -> None:
    names = _losses.targets(loss, batch)
    empty = {**batch, **{n: torch.full_like(batch[n], _losses.IGNORED) for n in names}}
    if not names or any(loss.counts(empty).values()):
        probe.skips(NOBODY, f"no target can be ignored by {_losses.IGNORED}")
        return
    leaves = {
        name: value.detach().float().requires_grad_() if value.is_floating_point() else value
        for name, value in outputs.items()
    }
    total = sum(loss(leaves, empty).values())
    if isinstance(total, Tensor) and total.requires_grad:
        torch.autograd.backward(total)
    value = float(total.detach()) if isinstance(total, Tensor) else float(total)
    slopes = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    if not math.isfinite(value) or not all(bool(slope.isfinite().all()) for slope in slopes):
        told = f"where every target is ignored it is {value:.4g}, or its gradient no number"
        probe.fails(NOBODY, told, "sum over the items that count, and divide by nothing")
    elif value or any(bool(slope.any()) for slope in slopes):
        told = f"where every target is ignored it is {value:.4g}, or still has a gradient"
        probe.fails(NOBODY, told, "leave out the items that are ignored")
    else:
        probe.passes(NOBODY, f"0, without a gradient, where all of {', '.join(names)} is ignored")
