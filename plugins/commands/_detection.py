"""Telling abnormal items by a score: thresholds, and what they reach.

Legend of shapes: N items, M different counts of events in training.
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
from plugins._sessions import digest

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def threshold(scores_N: Floats, abnormal_N: Flags, quantile: float) -> float:
    """Return what a score must exceed to be called abnormal, for the highest F1 of these items.

    It lies in the middle between two scores that there are. Where not both kinds of items are
    there, it is the scores' quantile.
    """
    if not both(abnormal_N):
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


def both(abnormal_N: Flags) -> bool:
    """Return whether there are items of both kinds."""
    return bool(abnormal_N.any() and not abnormal_N.all())


def reached(scores_N: Floats, abnormal_N: Flags, above: float) -> dict[str, float]:
    """Return what scores reach: areas of the ranking, and counts at a threshold."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    called_N = scores_N > above
    hits = int((called_N & abnormal_N).sum())
    two = both(abnormal_N)
    return {
        "sessions": len(scores_N),
        "abnormal": int(abnormal_N.sum()),
        "auroc": float(roc_auc_score(abnormal_N, scores_N)) if two else math.nan,
        "average_precision": (
            float(average_precision_score(abnormal_N, scores_N)) if two else math.nan
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
        """Keep every different vector of counts, of each name where it isn't 0."""
        different = {frozenset(Counter(_names(record)).items()) for record in train}
        rows: dict[str, list[tuple[int, int]]] = {}
        for row, vector in enumerate(different):
            for name, count in vector:
                rows.setdefault(name, []).append((row, count))
        self.having: Mapping[str, NDArray[np.int64]] = {
            name: np.asarray(pairs).T for name, pairs in rows.items()
        }
        self.totals_M = np.asarray([sum(count for _, count in vector) for vector in different])

    def score(self, records: Iterable[Record]) -> Floats:
        """Return the sum of differences to the nearest vector, for each."""
        return np.asarray([self._nearest(Counter(_names(r))) for r in records], np.float64)

    def _nearest(self, counts: Mapping[str, int]) -> int:
        # |a - b| is a + b without twice what they share
        apart_M = self.totals_M + sum(counts.values())
        for name, count in counts.items():
            if name in self.having:
                rows, known = self.having[name]
                apart_M[rows] -= 2 * np.minimum(known, count)
        return int(apart_M.min())


class Orders:
    """Whether training has a session with the same names of events in the same order."""

    def __init__(self, train: Iterable[Record]) -> None:
        """Keep a digest of every order."""
        self.known = {self._digest(record) for record in train}

    def score(self, records: Iterable[Record]) -> Floats:
        """Return 1 for each that training doesn't have, 0 for others."""
        return np.asarray([self._digest(r) not in self.known for r in records], np.float64)

    def _digest(self, record: Record) -> bytes:
        return digest([{"event": name} for name in _names(record)])


def _names(record: Record) -> Sequence[str]:
    events: Sequence[Mapping[str, Any]] = record["events"]
    return [str(event["event"]) for event in events]
