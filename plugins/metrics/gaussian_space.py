"""The metric gaussian_space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from framework.protocols import Batch, Info, Outputs
from plugins._gaussian import Gaussians, distances
from plugins.metrics._embedded import Embedded

_NAMES = ("positive_distance", "corpus_distance", "standard_deviation", "variance")


@attrs.frozen
class GaussianSpace:
    """How documents and queries of a split lie: whether answers are near, and all is not one point.

    `positive_distance` is the mean distance of a query to what answers it, `corpus_distance` to any
    document, `standard_deviation` that of the documents' means in each dimension, averaged over
    these, and `variance` the mean of the documents' own variances.
    """

    def build(self, info: Info) -> LiveGaussianSpace:  # noqa: ARG002 - not needed here
        """Build it."""
        return LiveGaussianSpace()


@attrs.define(eq=False)
class LiveGaussianSpace:
    """Measures when all is there."""

    seen: Embedded = attrs.field(factory=Embedded)

    def names(self) -> Sequence[str]:
        """The four."""
        return _NAMES

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch of documents and queries."""
        self.seen.update(outputs, batch)

    def merge(self, others: Sequence[LiveGaussianSpace]) -> None:
        """Take in what other ranks saw."""
        self.seen.merge([other.seen for other in others])

    def compute(self) -> dict[str, float]:
        """Measure; NaN where there is no document, or no query with an answer."""
        space = self.seen.space()
        if not space.names:
            return dict.fromkeys(_NAMES, math.nan)
        number = {name: at for at, name in enumerate(space.names)}
        near, far = [], []
        for at, grades in enumerate(space.relevant):
            query = Gaussians(*(x[at : at + 1] for x in space.queries))
            row_N = distances(space.kind, query, space.documents)[0].double()
            far.append(float(row_N.mean()))
            near += [float(row_N[number[name]]) for name in grades if name in number]
        means_ND, logs_ND = (x.double() for x in space.documents)
        values = (
            math.fsum(near) / len(near) if near else math.nan,
            math.fsum(far) / len(far) if far else math.nan,
            float(means_ND.std(0, correction=0).mean()),
            float(logs_ND.exp().mean()),
        )
        return dict(zip(_NAMES, values, strict=True))
