"""Queries, documents and triples as token ids. Legend: B records, M documents, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins.models._text_pairs import TextPairs

if TYPE_CHECKING:
    from numpy.random import Generator

_HEAD = ("query", "document", "wrong", "relevant")
"""What features have of their record: ids and grades, never a text."""


@attrs.frozen(eq=False)
class Encoded(Sequence[Features]):
    """Features of records, each made when it is asked for; a text is tokenised once."""

    heads: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    places: Sequence[tuple[int, int | None, tuple[int, ...]]] = attrs.field(repr=False)
    """Where in `texts` each record's own stands, its positive and its negatives."""
    texts: Any = attrs.field(repr=False)
    """Features of every different text."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each record, with its longest negative."""
        sizes = self.texts.lengths
        found = (
            sizes[own]
            + (0 if positive is None else sizes[positive])
            + max((sizes[at] for at in negatives), default=0)
            for own, positive, negatives in self.places
        )
        return np.fromiter(found, np.int64, len(self.places))

    def __len__(self) -> int:
        """Count the records."""
        return len(self.places)

    @overload
    def __getitem__(self, at: int) -> Features: ...
    @overload
    def __getitem__(self, at: slice) -> list[Features]: ...
    def __getitem__(self, at: int | slice) -> Features | list[Features]:
        """Make the features of one record, or of some."""
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        own, positive, negatives = self.places[at]
        query = self._ids(own)
        made: dict[str, Any] = {**self.heads[at], "length": len(query), "input_ids": query}
        if positive is not None:
            made["positive"] = self._ids(positive)
            made["negatives"] = [self._ids(place) for place in negatives]
            longest = max(map(len, made["negatives"]), default=0)
            made["length"] += len(made["positive"]) + longest
        return made

    def _ids(self, at: int) -> Any:
        return self.texts[at]["input_ids"]


@attrs.frozen
class TripleTexts:
    """The processor of an encoder of single texts."""

    pairs: TextPairs
    """Makes tokens of texts."""
    augments: bool = True

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Tokenise many at once, each different text once."""
        numbers: dict[Any, int] = {}
        texts: list[Record] = []

        def number(record: Record, text: Any) -> int:
            at = numbers.setdefault(text, len(numbers))
            if at == len(texts):
                texts.append({"id": record["id"], "text": text})
            return at

        heads, places = [], []
        for record in records:
            heads.append({"id": record["id"]} | {k: record[k] for k in _HEAD if k in record})
            own = number(record, record["text"])
            positive = number(record, record["positive"]) if "positive" in record else None
            wrong = record.get("negatives", ()) if positive is not None else ()
            places.append((own, positive, tuple(number(record, text) for text in wrong)))
        return Encoded(heads, places, self.pairs.encode(texts))

    def augment(self, features: Features, rng: Generator) -> Features:
        """Take one of the negatives."""
        if len(features.get("negatives", ())) <= 1:
            return features
        at = int(rng.integers(len(features["negatives"])))
        chosen = {name: [features[name][at]] for name in ("negatives", "wrong")}
        return {**features, **chosen}

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad each record's own text: `input_ids`, `attention_mask` [B, T].

        Of triples also the documents: `document_ids`, `document_mask` [M, T], positives before
        negatives, and `slots` [M]: twice the number of the record, and 1 more for a negative.
        `queries`, `documents`, `negatives` are ids, empty where there is none, and `relevant` are
        the grades of all that answers a query.
        """
        batch: Batch = {
            "id": [item["id"] for item in features],
            "queries": [item.get("query", "") for item in features],
            "documents": [item.get("document", "") for item in features],
            "negatives": [next(iter(item.get("wrong", ())), "") for item in features],
            "relevant": [item.get("relevant", {}) for item in features],
        }
        own = [item["input_ids"] for item in features]
        batch["input_ids"], batch["attention_mask"] = self._padded(own)
        every = [*enumerate(features)]
        slots = {2 * at: item["positive"] for at, item in every if "positive" in item}
        slots |= {2 * at + 1: item["negatives"][0] for at, item in every if item.get("negatives")}
        if slots:
            batch["document_ids"], batch["document_mask"] = self._padded([*slots.values()])
            batch["slots"] = torch.tensor([*slots])
        return batch

    def _padded(self, texts: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(text) for text in texts])
        longest = int(lengths.max())
        padded = np.full((len(texts), longest), self.pairs.tokenizer.pad_token_id, np.int64)
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        mask = torch.arange(longest) < lengths.unsqueeze(1)
        return torch.from_numpy(padded), mask.long()

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per record the ids that it has and the mean variance of its own text."""
        variances = outputs["log_variance"][:, 0].double().exp().mean(-1).tolist()
        columns = (batch["id"], batch["queries"], batch["documents"], variances)
        return [
            {"id": name, "query": query, "document": document, "variance": variance}
            for name, query, document, variance in zip(*columns, strict=True)
        ]
