"""What checks know of losses: targets by what they count, and outputs that know nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""What a target is that counts for nobody, by the convention of torch's own losses."""


def exact(trainer: Any, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return outputs in the weights' own precision, without a graph, and the batch beside them."""
    forward = trainer.update.forward
    device = forward.strategy.device
    placed = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    with torch.no_grad():
        return dict(forward.module(**placed)), placed


def placed(batch: Mapping[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a batch on the device of outputs."""
    device = next(iter(outputs.values())).device
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def means(loss: Any, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> dict[str, float]:
    """Return the mean of each part of a loss; 0 where nobody counts."""
    with torch.no_grad():
        sums, counts = loss(outputs, batch), loss.counts(batch)
    return {name: float(value) / max(counts.get(name, 0), 1) for name, value in sums.items()}


def of_window(update: Any, window: Any) -> Tensor:
    """Return the loss of a step, as training divides it, with its graph."""
    counts: Counter[str] = Counter()
    for batch in window:
        counts.update(update.loss.counts(batch))
    values = [
        value / max(counts[name], 1)
        for batch in window
        for name, value in update.loss(*update.forward(batch)).items()
    ]
    return torch.stack(values).sum()


def logits(outputs: Mapping[str, Tensor]) -> list[str]:
    """Return the names of outputs that are logits."""
    return [name for name in outputs if name == "logits" or name.endswith("_logits")]


def targets(loss: Any, batch: dict[str, Any]) -> list[str]:
    """Return the names of tensors of whom fewer count where they are ignored."""
    counts = loss.counts(batch)
    found = []
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim:
            fewer = loss.counts({**batch, name: torch.full_like(value, IGNORED)})
            if any(fewer.get(part, 0) < count for part, count in counts.items()):
                found.append(name)
    return found


def classes(probe: Any) -> int:
    """Return how many labels the dataset names; 0 where it names none."""
    return len(probe.splits.info.get("labels", ()))


def relabelled(records: list[Any], labels: list[int]) -> list[dict[str, Any]]:
    """Return records with other labels, those that have none left as they are."""
    pairs = zip(records, labels, strict=True)
    return [{**r, "label": label} if labelled(r) else dict(r) for r, label in pairs]


def labelled(record: Mapping[str, Any]) -> bool:
    """Return whether a record has a label that counts."""
    label = record.get("label")
    return isinstance(label, int) and label >= 0
