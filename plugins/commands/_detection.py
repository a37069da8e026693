"""Telling abnormal items by a score: thresholds, and what they reach.

Legend of shapes: N items, D names of events.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.protocols import Record

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def threshold(scores_N: Floats, abnormal_N: Flags, quantile: float) -> float:
    """Return what a score must exceed to be called abnormal, for the highest F1 of these items.

    It lies in the middle between two scores that there are. Where not both kinds of items are
    there, it is the scores' quantile.
    """
    if abnormal_N.all() or not abnormal_N.any():
        return float(np.quantile(scores_N, quantile))
    known = np.unique(scores_N)
    middles = [(a + b) / 2 for a, b in itertools.pairwise(known)]
    # all are abnormal, or none: the first is where a score says nothing
    choices = [-math.inf, *middles, math.inf]
    order = np.argsort(scores_N, kind="stable")
    sorted_N, hits_N = scores_N[order], np.append(np.cumsum(abnormal_N[order][::-1])[::-1], 0)
    first = np.searchsorted(sorted_N, choices, "right")
    hits, called = hits_N[first], len(scores_N) - first
    f1 = 2 * hits / (called + abnormal_N.sum())
    return float(choices[int(len(f1) - 1 - np.argmax(f1[::-1]))])


def reached(scores_N: Floats, abnormal_N: Flags, above: float) -> dict[str, float]:
    """Return what scores reach: areas of the ranking, and counts at a threshold."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    called_N = scores_N > above
    hits = int((called_N & abnormal_N).sum())
    both = bool(abnormal_N.any() and not abnormal_N.all())
    return {
        "sessions": len(scores_N),
        "abnormal": int(abnormal_N.sum()),
        "auroc": float(roc_auc_score(abnormal_N, scores_N)) if both else math.nan,
        "average_precision": (
            float(average_precision_score(abnormal_N, scores_N)) if both else math.nan
        ),
        "precision": hits / int(called_N.sum()) if called_N.any() else math.nan,
        "recall": hits / int(abnormal_N.sum()) if abnormal_N.any() else math.nan,
        "f1": (
            2 * hits / int(called_N.sum() + abnormal_N.sum())
            if called_N.any() or abnormal_N.any()
            else math.nan
        ),
    }


class Counts:
    """How far a session's counts of events are from those of the nearest one in training."""

    def __init__(self, train: Iterable[Record]) -> None:
        """Keep every different vector of counts."""
        different = {tuple(sorted(Counter(_names(record)).items())) for record in train}
        names = sorted({name for vector in different for name, _ in vector})
        self.index: Mapping[str, int] = {name: at for at, name in enumerate(names)}
        self.known = np.stack([self._vector(dict(vector)) for vector in sorted(different)])

    def score(self, records: Iterable[Record]) -> Floats:
        """Return the sum of differences to the nearest vector, for each."""
        found = [self._vector(Counter(_names(record))) for record in records]
        return np.asarray([np.abs(self.known - one).sum(1).min() for one in found])

    def _vector(self, counts: Mapping[str, int]) -> Floats:
        """Return counts [D + 1]: the last is of names that training doesn't have."""
        vector = np.zeros(len(self.index) + 1)
        for name, count in counts.items():
            vector[self.index.get(name, -1)] += count
        return vector


def _names(record: Record) -> Sequence[str]:
    events: Sequence[Mapping[str, Any]] = record["events"]
    return [str(event["event"]) for event in events]
