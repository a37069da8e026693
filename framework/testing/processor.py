"""What the suite of kind model runs on, and its checks of the processor."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from framework.protocols import Batch, Info, LiveModel, Record
from framework.testing import samples
from framework.testing.suite import Failure, require
from framework.testing.values import equal, frozen_copy, seeded

TEXTS = ("text", "text_pair")
"""Keys of a record that hold texts."""


@attrs.frozen(kw_only=True)
class ModelCase:
    """A model, what its dataset says, and records for it; the longer ones are made of texts."""

    options: Any
    info: Info = attrs.field(factory=samples.info)
    records: Sequence[Record] = attrs.field(factory=samples.records)

    def build(self) -> LiveModel:
        """Build the model, and switch dropout and the like off."""
        live: LiveModel = self.options.build(self.info)
        live.module.eval()
        return live

    @property
    def few(self) -> list[Record]:
        """Five records, or as many as there are."""
        return list(self.records[:5])


def plain(value: Any) -> Any:
    """Return a copy in which arrays are tensors, for `equal`."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return frozen_copy(value)


def batch_of(live: LiveModel, records: Sequence[Record]) -> Batch:
    """Encode and collate."""
    return live.processor.collate(live.processor.encode(records))


def outputs_of(live: LiveModel, records: Sequence[Record]) -> dict[str, Tensor]:
    """Return what the module makes of them, without gradients."""
    with torch.no_grad():
        return dict(live.module(**batch_of(live, records)))


def features_have_id_and_length(case: ModelCase) -> None:
    """Features are as many as the records, in their order, each with its `id` and `length`."""
    found = case.build().processor.encode(case.records)
    ids = [features.get("id") for features in found]
    require(ids == [r["id"] for r in case.records], "encode gives other ids, or another order")
    for features in found:
        length = features.get("length")
        require(
            type(length) is int and length > 0,
            f"the length of {features['id']!r} is {length!r}; it must be a whole number above 0",
        )


def encode_is_pure(case: ModelCase) -> None:
    """Encoding gives the same again, one by one or together, and leaves the records alone."""
    encode, before = case.build().processor.encode, plain(case.records)
    together = plain(encode(case.records))
    require(equal(before, plain(case.records)), "encode changes the records")
    require(equal(together, plain(encode(case.records))), "encoding a second time gives another")
    for record, features in zip(case.records, together, strict=True):
        (alone,) = encode([record])
        differ = [key for key in features if not equal(features[key], plain(alone.get(key)))]
        require(
            not differ and alone.keys() == features.keys(),
            f"{record['id']!r} alone has other features than among the others, in {differ}",
        )


def features_stay_as_they_are(case: ModelCase) -> None:
    """Neither `augment` nor `collate` changes the features: they are used in every epoch."""
    processor = case.build().processor
    features = processor.encode(case.few)
    before = plain(features)
    for item in features:
        processor.augment(item, np.random.default_rng(5))
    require(equal(before, plain(features)), "augment changes the features; copy them first")
    processor.collate(features)
    require(equal(before, plain(features)), "collate changes the features; copy them first")


def augment_follows_its_generator(case: ModelCase) -> None:
    """`augment` is random by the generator it gets alone, and keeps the `id`."""
    processor = case.build().processor
    for features in processor.encode(case.few):
        found = []
        for other in (1, 2, 3):
            with seeded(other):
                found.append(processor.augment(features, np.random.default_rng(5)))
        same = all(equal(plain(found[0]), plain(item)) for item in found)
        require(same, "augment gives another for a generator of the same seed; draw from it alone")
        require(found[0].get("id") == features["id"], "augment changes the id")


def collate_keeps_ids_in_order(case: ModelCase) -> None:
    """A batch has the ids of its features under `id`, in their order."""
    processor = case.build().processor
    for records in (case.few, case.few[::-1], case.few[:1]):
        ids = processor.collate(processor.encode(records)).get("id")
        wanted = [record["id"] for record in records]
        require(ids == wanted, f"the batch of {wanted} has under 'id' {ids}")


def processor_travels_to_workers(case: ModelCase) -> None:
    """Processor and features can be pickled, and make the same batch in a worker process."""
    processor = case.build().processor
    features = processor.encode(case.few)
    try:
        there, taken = pickle.loads(pickle.dumps((processor, features)))  # noqa: S301 - our own
    except Exception as error:
        kind = type(error).__name__
        raise Failure(f"processor or features can't be pickled ({kind})") from error
    same = equal(plain(processor.collate(features)), plain(there.collate(taken)))
    require(same, "pickled and read back, the processor makes another batch")


def rows_are_of_items(case: ModelCase) -> None:
    """`decode` gives a row per item in their order, `id` first, as JSON, and never the text."""
    live = case.build()
    batch, outputs = batch_of(live, case.few), outputs_of(live, case.few)
    before = plain((outputs, batch))
    rows = live.processor.decode(outputs, batch)
    require(equal(before, plain((outputs, batch))), "decode changes the outputs or the batch")
    ids = [record["id"] for record in case.few]
    require([row.get("id") for row in rows] == ids, "the rows have other ids, or another order")
    for row, record in zip(rows, case.few, strict=True):
        require(next(iter(row)) == "id", f"the row of {row['id']!r} does not begin with its id")
        for key, value in row.items():
            try:
                shown = json.dumps(value, ensure_ascii=False)
            except TypeError as error:
                raise Failure(f"'{key}' is a {type(value).__name__}, which is no JSON") from error
            texts = (json.dumps(record[t], ensure_ascii=False)[1:-1] for t in TEXTS if t in record)
            leaks = key != "id" and any(text and text in shown for text in texts)
            require(not leaks, f"'{key}' of {row['id']!r} holds the record's text")
