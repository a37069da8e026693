"""Records of a retriever: triples to train on, and pools of documents with queries to rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, overload

import attrs

from framework.protocols import Record

Relevant = Mapping[str, Mapping[str, int]]
"""Of each query the grades of its documents."""


class Maker(Protocol):
    """Makes records."""

    def __len__(self) -> int:
        """Count the records."""

    def record(self, at: int) -> Record:
        """Make one record."""


@attrs.frozen(eq=False)
class Made(Sequence[Record]):
    """Records of a split, each made when it is asked for."""

    maker: Maker = attrs.field(repr=False)

    def __len__(self) -> int:
        """Count the records."""
        return len(self.maker)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        """Make one record, or some."""
        if isinstance(at, slice):
            return [self.maker.record(index) for index in range(*at.indices(len(self)))]
        return self.maker.record(range(len(self))[at])


@attrs.frozen(eq=False)
class Texts:
    """Texts by their ids."""

    queries: Mapping[str, str]
    documents: Mapping[str, str]


@attrs.frozen(eq=False)
class Triplets:
    """A record for each pair of a query and a document that answers it.

    `text` is the query, `positive` the document, `negatives` documents that don't answer it; their
    ids stand under `query`, `document` and `wrong`, and under `relevant` those of all answers.
    """

    texts: Texts
    pairs: Sequence[tuple[str, str]]
    relevant: Relevant
    negatives: Mapping[str, Sequence[str]]
    groups: Mapping[str, str]

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.pairs)

    def record(self, at: int) -> Record:
        """Make one record."""
        query, document = self.pairs[at]
        wrong = [*self.negatives.get(query, ())]
        documents = self.texts.documents
        return {
            "id": f"train/{query}/{document}",
            "text": self.texts.queries[query],
            "positive": documents[document],
            "negatives": [documents[name] for name in wrong],
            "query": query,
            "document": document,
            "wrong": wrong,
            "relevant": dict(self.relevant[query]),
            "group": self.groups[query],
        }


@attrs.frozen(eq=False)
class Pool:
    """A record for each document of a pool, and for each query that ranks them.

    `document` or `query` has its id; a query's `relevant` has the grades of what answers it, and
    each text is under `text`. All documents are one group: they are ranked together.
    """

    texts: Texts
    split: str
    documents: Sequence[str]
    queries: Sequence[str]
    relevant: Relevant
    groups: Mapping[str, str]

    def __len__(self) -> int:
        """Count documents and queries."""
        return len(self.documents) + len(self.queries)

    def record(self, at: int) -> Record:
        """Make one record: documents come first."""
        made: dict[str, Any]
        if at < len(self.documents):
            name = self.documents[at]
            made = {"text": self.texts.documents[name], "document": name}
            return {"id": f"{self.split}/document/{name}", **made, "group": f"{self.split}/corpus"}
        name = self.queries[at - len(self.documents)]
        made = {"text": self.texts.queries[name], "query": name}
        made |= {"relevant": dict(self.relevant[name])}
        # of a split with judgements of its own a query is known by itself
        group = self.groups.get(name, f"{self.split}/{name}")
        return {"id": f"{self.split}/query/{name}", **made, "group": group}
