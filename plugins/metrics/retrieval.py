"""The metric retrieval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, option
from plugins._gaussian import Gaussians, distances
from plugins.metrics._embedded import Embedded
from plugins.metrics._ranks import measures, parsed

_CHUNK = 64
"""Queries whose distances to all documents are held at once."""


@attrs.frozen
class Retrieval:
    """Recall@K, MRR and nDCG@K of every query's ranking of all documents of the split.

    Means over the queries that something answers, as trec_eval has them; NaN where there is none.
    A K beyond the number of documents is a K all the same. Of equal distances the document with the
    greater id comes first, as there.
    """

    measures: list[str] = option(
        ["ndcg@10", "recall@10", "recall@100", "mrr@10"],
        help="recall@K, ndcg@K, mrr@K for any K; ndcg and mrr of whole rankings",
        validator=measures,
    )

    def build(self, info: Info) -> LiveRetrieval:  # noqa: ARG002 - not needed here
        """Build it."""
        return LiveRetrieval(self.measures)


@attrs.define(eq=False)
class LiveRetrieval:
    """Ranks when all is there."""

    measures: Sequence[str]
    seen: Embedded = attrs.field(factory=Embedded)

    def names(self) -> Sequence[str]:
        """The measures, by the K that was asked for."""
        return self.measures

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch of documents and queries."""
        self.seen.update(outputs, batch)

    def merge(self, others: Sequence[LiveRetrieval]) -> None:
        """Take in what other ranks saw."""
        self.seen.merge([other.seen for other in others])

    def compute(self) -> dict[str, float]:
        """Rank, and return the means."""
        found: dict[str, list[float]] = {name: [] for name in self.measures}
        for places, grades in self._rankings():
            for name, values in found.items():
                measure, depth = parsed(name)
                values.append(math.nan if places is None else measure(places, grades, depth))
        return {
            name: math.fsum(values) / len(values) if values else math.nan
            for name, values in found.items()
        }

    def _rankings(self) -> list[tuple[dict[str, int] | None, Mapping[str, int]]]:
        """Return for each query where its answers stand, and their grades; None: no ranking."""
        space = self.seen.space()
        answered = [at for at, grades in enumerate(space.relevant) if grades]
        number = {name: at for at, name in enumerate(space.names)}
        made: list[tuple[dict[str, int] | None, Mapping[str, int]]] = []
        for begin in range(0, len(answered), _CHUNK):
            chosen = answered[begin : begin + _CHUNK]
            if not number:
                made += [({}, space.relevant[at]) for at in chosen]
                continue
            queries = Gaussians(*(x[chosen] for x in space.queries))
            rows_QN = distances(space.kind, queries, space.documents)
            for at, row_N in zip(chosen, rows_QN, strict=True):
                grades = space.relevant[at]
                own = {name: number[name] for name in grades if name in number}
                made.append((_places(row_N, own), grades))
        return made


def _places(row_N: Tensor, own: Mapping[str, int]) -> dict[str, int] | None:
    """Return where documents stand, by distance and then by number; None for what is no number."""
    if not row_N.isfinite().all():
        return None
    return {
        name: 1 + int((row_N < row_N[at]).sum()) + int((row_N[:at] == row_N[at]).sum())
        for name, at in own.items()
    }
