"""Measures of one query's ranking, from the places of the documents that answer it.

Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), with the gain of
a document its grade and the discount log2(place + 1), as trec_eval computes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Places = Mapping[str, int]
"""Where documents stand in a ranking, counted from 1; those that weren't retrieved are missing."""
Grades = Mapping[str, int]
"""Grades above 0 of the documents that answer a query."""
_NAME = re.compile(r"(recall|ndcg|mrr)(?:@([1-9][0-9]*))?")


def recall(places: Places, grades: Grades, depth: int) -> float:
    """Return the share of the answers that stand among the first; of all answers, found or not."""
    return sum(places.get(name, math.inf) <= depth for name in grades) / len(grades)


def mrr(places: Places, grades: Grades, depth: int) -> float:
    """Return 1 over the place of the first answer; 0 where none stands among the first."""
    first = min((places.get(name, math.inf) for name in grades), default=math.inf)
    return 1 / first if first <= depth else 0.0


def ndcg(places: Places, grades: Grades, depth: int) -> float:
    """Return the discounted gain of the first places, over that of the best ranking there is."""
    found = [(places.get(name, math.inf), grade) for name, grade in grades.items()]
    gain = math.fsum(grade / math.log2(place + 1) for place, grade in found if place <= depth)
    best = sorted(grades.values(), reverse=True)[:depth]
    return gain / math.fsum(grade / math.log2(at + 1) for at, grade in enumerate(best, 1))


MEASURES: Mapping[str, Callable[[Places, Grades, int], float]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
}


def parsed(name: str) -> tuple[Callable[[Places, Grades, int], float], int]:
    """Return the measure that a name such as `ndcg@10` means, and its depth; `ValueError`."""
    match = _NAME.fullmatch(name)
    if not match or (match[2] is None and match[1] == "recall"):
        raise ValueError(f"'{name}' is no measure; write recall@K, ndcg@K, mrr@K, ndcg or mrr")
    return MEASURES[match[1]], int(match[2]) if match[2] else 2**62


def measures(_: Any, field: Any, value: Sequence[str]) -> None:
    """Validate names of measures; raises `ValueError`."""
    for name in value:
        parsed(name)
    if not value or len(set(value)) < len(value):
        raise ValueError(f"'{field.name}' must name one measure at least, and none twice")
