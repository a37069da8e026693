"""Models whose processor is wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from broken import Defect
from broken.tiny_model import Live, Model, Net, Words, each, one, then
from framework.protocols import Batch, Features, Info, Outputs, Record, Row


def counted(self: Words, records: Sequence[Record]) -> list[Any]:
    """Encode by the number of calls."""
    self.calls = getattr(self, "calls", 0) + 1
    return [{**item, "calls": self.calls} for item in Words.encode(self, records)]


def marked(self: Words, records: Any) -> list[Any]:
    """Leave a mark on the records."""
    for record in records:
        record["seen"] = True
    return Words.encode(self, records)


def masked(self: Words, features: Any, rng: np.random.Generator) -> Any:
    """Mask in place."""
    features["tokens"][rng.integers(features["length"])] = 7
    return features


def popped(self: Words, features: Any) -> Any:
    """Take the labels out of the features."""
    batch = Words.collate(self, features)
    for item in features:
        item.pop("label", None)
    return batch


def with_a_function(self: Words) -> None:
    """Hold a function without a name."""
    self.number = lambda word: len(word) % 30


def with_texts(self: Words, outputs: Outputs, batch: Batch) -> list[Row]:
    """Write the words into the rows."""
    rows = Words.decode(self, outputs, batch)
    return [{**row, "input": text} for row, text in zip(rows, batch["texts"], strict=True)]


def keeping_texts(self: Words, features: Sequence[Features]) -> Batch:
    """Keep the texts in the batch."""
    return {**Words.collate(self, features), "texts": [item["text"] for item in features]}


def in_place(self: Words, outputs: Any, batch: Batch) -> list[Row]:
    """Turn the logits into probabilities in place."""
    outputs["logits"].copy_(outputs["logits"].softmax(-1))
    return Words.decode(self, outputs, batch)


class Forgetful(Words):
    """It travels without what it learned."""

    start = 0

    def __reduce__(self) -> Any:
        return Words, ()

    def collate(self, features: Sequence[Features]) -> Batch:
        """Collate, with what it learned."""
        return {**Words.collate(self, features), "start": self.start}


class TextRows(Model):
    """Its rows hold the texts."""

    def build(self, info: Info, assets: Path | None = None) -> Any:
        """Build it."""
        methods = {
            "encode": lambda _, records: [{**Words().one(r), "text": r["text"]} for r in records],
            "collate": keeping_texts,
            "decode": with_texts,
        }
        return Live(Net(), type("Words", (Words,), methods)())


class Lazily:
    """Features that are made when they are asked for, without an end."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Keep the records."""
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: int) -> Any:
        return Words().one(self.records[at % len(self.records)])


class Drawn(Lazily):
    """Features that are others each time."""

    def __iter__(self) -> Any:
        return (self[at] for at in range(len(self)))

    def __getitem__(self, at: int) -> Any:
        features = super().__getitem__(at)
        return {**features, "draw": torch.rand(1)}


class Guessed(list[Any]):
    """Features with lengths of their texts."""

    @property
    def lengths(self) -> Any:
        """One for each."""
        return np.array([item["length"] + 1 for item in self])


def walked(self: Words, records: Sequence[Record]) -> Any:
    """Encode while it is walked."""
    yield from Words.encode(self, records)


def shortened(self: Words, records: Sequence[Record]) -> list[Any]:
    """Leave out what has been there, by text."""
    return list({item["length"]: item for item in Words.encode(self, records)}.values())


DEFECTS = [
    one(
        "has_the_protocol",
        "Generates",
        "encode returns a generator, no sequence",
        Words,
        encode=walked,
    ),
    one(
        "features_have_id_and_length", "Merges", "features for 12 records", Words, encode=shortened
    ),
    one(
        "features_have_id_and_length",
        "Guesses",
        "the features' 'lengths' are",
        Words,
        encode=then(Words, "encode", Guessed),
    ),
    one(
        "features_are_a_sequence",
        "Endless",
        "raise IndexError at the end",
        Words,
        encode=lambda _, records: Lazily(records),
    ),
    one(
        "features_are_a_sequence",
        "DrawsWhenRead",
        "are others when they are read again",
        Words,
        encode=lambda _, records: Drawn(records),
    ),
    one(
        "encode_takes_lazy_records",
        "WantsAList",
        "AttributeError",
        Words,
        encode=lambda self, records: Words.encode(self, records.copy()),
    ),
    one("has_the_protocol", "NoDecode", "its processor lacks decode", Words, decode=property()),
    one(
        "features_have_id_and_length",
        "NoLength",
        "'train0' is None",
        Words,
        encode=each(lambda x: {**x, "length": None}),
    ),
    one(
        "features_have_id_and_length",
        "Turned",
        "or another order",
        Words,
        encode=then(Words, "encode", lambda x: x[::-1]),
    ),
    one("encode_is_pure", "Marks", "encode changes the records", Words, encode=marked),
    one("encode_is_pure", "Counts", "a second time gives another", Words, encode=counted),
    one(
        "encode_is_pure",
        "KnowsHowMany",
        "than among the others, in ['of']",
        Words,
        encode=then(Words, "encode", lambda x: [{**y, "of": len(x)} for y in x]),
    ),
    one(
        "features_stay_as_they_are",
        "MasksInPlace",
        "augment changes the features",
        Words,
        augment=masked,
    ),
    one(
        "features_stay_as_they_are",
        "TakesLabels",
        "collate changes the features",
        Words,
        collate=popped,
    ),
    one(
        "augment_follows_its_generator",
        "DrawsElsewhere",
        "draw from it alone",
        Words,
        augment=lambda _, x, __: {**x, "at": torch.rand(1)},
    ),
    one(
        "augment_follows_its_generator",
        "Renames",
        "augment changes the id",
        Words,
        augment=lambda _, x, __: {**x, "id": "augmented"},
    ),
    one(
        "collate_keeps_ids_in_order",
        "Sorts",
        "has under 'id'",
        Words,
        collate=lambda self, x: Words.collate(self, sorted(x, key=lambda y: y["length"])),
    ),
    one(
        "processor_travels_to_workers",
        "HoldsAFunction",
        "can't be pickled",
        Words,
        __init__=with_a_function,
    ),
    Defect("processor_travels_to_workers", Model(words=Forgetful), "makes another batch"),
    one(
        "rows_are_of_items", "DecodesInPlace", "decode changes the outputs", Words, decode=in_place
    ),
    one(
        "rows_are_of_items",
        "IdLast",
        "does not begin with its id",
        Words,
        decode=then(Words, "decode", lambda x: [dict(reversed(y.items())) for y in x]),
    ),
    one(
        "empty_texts_are_taken",
        "NoStart",
        "of an empty text is not finite",
        Words,
        encode=each(lambda x: {**x, "tokens": x["tokens"][1:], "length": x["length"] - 1}),
    ),
    Defect("rows_are_of_items", TextRows(), "'input' of 'train0' holds the record's text"),
    one(
        "rows_are_of_items",
        "TurnedRows",
        "the rows have other ids",
        Words,
        decode=then(Words, "decode", lambda x: x[::-1]),
    ),
    one(
        "rows_are_of_items",
        "TensorRows",
        "is a Tensor, which is no JSON",
        Words,
        decode=then(Words, "decode", lambda x: [{**y, "score": torch.ones(1)} for y in x]),
    ),
]
