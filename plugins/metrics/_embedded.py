"""Documents and queries of a split as Gaussians, collected to be compared all with all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Outputs
from plugins._gaussian import Gaussians, Similarity, similarity


class Space(NamedTuple):
    """What was seen: queries in the order of their ids, documents in the opposite one."""

    kind: Similarity
    names: Sequence[str]
    """Ids of the documents."""
    documents: Gaussians
    queries: Gaussians
    relevant: Sequence[Mapping[str, int]]
    """Grades of what answers each query."""


@attrs.define(eq=False)
class Embedded:
    """Keeps each document and query once; what is neither, or both, counts for nothing."""

    kind: Similarity = "cosine"
    documents: dict[str, tuple[Tensor, Tensor]] = attrs.field(factory=dict)
    queries: dict[str, tuple[Tensor, Tensor]] = attrs.field(factory=dict)
    relevant: dict[str, Mapping[str, int]] = attrs.field(factory=dict)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch: `mean` and `log_variance` [B, S, D], the first of S being the text."""
        self.kind = similarity(outputs)
        wide = Gaussians(outputs["mean"][:, 0], outputs["log_variance"][:, 0]).wide()
        rows = zip(*(x.detach().cpu().unbind() for x in wide), strict=True)
        columns = (batch["queries"], batch["documents"], batch["relevant"])
        for query, document, relevant, row in zip(*columns, rows, strict=True):
            if document and not query:
                self.documents[document] = row
            elif query and not document:
                self.queries[query], self.relevant[query] = row, relevant

    def merge(self, others: Sequence[Embedded]) -> None:
        """Take in what other ranks kept."""
        for other in others:
            if other.documents or other.queries:
                self.kind = other.kind
            self.documents |= other.documents
            self.queries |= other.queries
            self.relevant |= other.relevant

    def space(self) -> Space:
        """Return all in one order, whatever order it came in."""
        names, asked = sorted(self.documents, reverse=True), sorted(self.queries)
        return Space(
            self.kind,
            names,
            _stacked([self.documents[name] for name in names]),
            _stacked([self.queries[name] for name in asked]),
            [self.relevant[name] for name in asked],
        )


def _stacked(rows: Sequence[tuple[Tensor, Tensor]]) -> Gaussians:
    if not rows:
        return Gaussians(torch.empty(0, 0), torch.empty(0, 0))
    return Gaussians(*(torch.stack(column) for column in zip(*rows, strict=True)))
