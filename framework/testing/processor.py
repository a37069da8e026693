"""What the suite of kind model runs on, and its checks of the processor."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, overload

import attrs
import numpy as np
import torch
from torch import Tensor

from framework.protocols import Batch, Features, Info, LiveModel, Record
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


@attrs.frozen
class Lazy(Sequence[Record]):
    """Records as a dataset may give them: made when asked for, a slice as lazy as the whole."""

    records: Sequence[Record]

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Lazy: ...
    def __getitem__(self, at: int | slice) -> Record | Lazy:
        found = self.records[at]
        return Lazy(found) if isinstance(found, Sequence) else dict(found)


def encoded(live: LiveModel, records: Sequence[Record]) -> list[Features]:
    """Encode, and make a list of what may be lazy."""
    found = live.processor.encode(records)
    kind = f"encode returns a {type(found).__name__}"
    for name in ("__len__", "__getitem__"):
        require(hasattr(found, name), f"{kind}, no sequence: it lacks {name}")
    require(
        len(found) == len(records), f"{kind} of {len(found)} features for {len(records)} records"
    )
    return [found[at] for at in range(len(found))]


def batch_of(live: LiveModel, records: Sequence[Record]) -> Batch:
    """Encode and collate."""
    return live.processor.collate(encoded(live, records))


def outputs_of(live: LiveModel, records: Sequence[Record]) -> dict[str, Tensor]:
    """Return what the module makes of them, without gradients."""
    with torch.no_grad():
        return dict(live.module(**batch_of(live, records)))


def features_have_id_and_length(case: ModelCase) -> None:
    """Features are as many as the records, in their order, each with its `id` and `length`."""
    live = case.build()
    found = encoded(live, case.records)
    ids = [features.get("id") for features in found]
    require(ids == [r["id"] for r in case.records], "encode gives other ids, or another order")
    for features in found:
        length = features.get("length")
        require(
            type(length) is int and length > 0,
            f"the length of {features['id']!r} is {length!r}; it must be a whole number above 0",
        )
    known = getattr(live.processor.encode(case.records), "lengths", None)
    if known is not None:
        listed = [features["length"] for features in found]
        same = np.asarray(known).tolist() == listed
        require(same, f"the features' 'lengths' are {known}, and their own {listed}")


def features_are_a_sequence(case: ModelCase) -> None:
    """Features are the same read in order, backwards and again, and end at their length."""
    found = case.build().processor.encode(case.records)
    count = len(found)
    backwards = [plain(found[at]) for at in reversed(range(count))][::-1]
    walked = [plain(features) for features in itertools.islice(iter(found), count + 1)]
    require(
        len(walked) == count,
        f"{count} features give {'more' if len(walked) > count else len(walked)} when they are"
        " walked; raise IndexError at the end",
    )
    for at, (one, other) in enumerate(zip(walked, backwards, strict=True)):
        same = equal(one, other) and equal(one, plain(found[at]))
        require(same, f"the features of {one.get('id')!r} are others when they are read again")


def encode_takes_lazy_records(case: ModelCase) -> None:
    """Records that are made when asked for, as those of a split, give the features of a list."""
    live = case.build()
    listed, lazy = encoded(live, list(case.records)), encoded(live, Lazy(case.records))
    require(equal(plain(listed), plain(lazy)), "lazy records are encoded to others than a list")


def encode_is_pure(case: ModelCase) -> None:
    """Encoding gives the same again, one by one or together, and leaves the records alone."""
    live, before = case.build(), plain(case.records)
    together = plain(encoded(live, case.records))
    require(equal(before, plain(case.records)), "encode changes the records")
    again = plain(encoded(live, case.records))
    require(equal(together, again), "encoding a second time gives another")
    for record, features in zip(case.records, together, strict=True):
        (alone,) = encoded(live, [record])
        differ = [key for key in features if not equal(features[key], plain(alone.get(key)))]
        require(
            not differ and alone.keys() == features.keys(),
            f"{record['id']!r} alone has other features than among the others, in {differ}",
        )


def features_stay_as_they_are(case: ModelCase) -> None:
    """Neither `augment` nor `collate` changes the features: they are used in every epoch."""
    live = case.build()
    processor, features = live.processor, encoded(live, case.few)
    before = plain(features)
    for item in features:
        processor.augment(item, np.random.default_rng(5))
    require(equal(before, plain(features)), "augment changes the features; copy them first")
    processor.collate(features)
    require(equal(before, plain(features)), "collate changes the features; copy them first")


def augment_follows_its_generator(case: ModelCase) -> None:
    """`augment` is random by the generator it gets alone, and keeps the `id`."""
    live = case.build()
    processor = live.processor
    for features in encoded(live, case.few):
        found = []
        for other in (1, 2, 3):
            with seeded(other):
                found.append(processor.augment(features, np.random.default_rng(5)))
        same = all(equal(plain(found[0]), plain(item)) for item in found)
        require(same, "augment gives another for a generator of the same seed; draw from it alone")
        require(found[0].get("id") == features["id"], "augment changes the id")


def collate_keeps_ids_in_order(case: ModelCase) -> None:
    """A batch has the ids of its features under `id`, in their order."""
    live = case.build()
    for records in (case.few, case.few[::-1], case.few[:1]):
        ids = batch_of(live, records).get("id")
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
    here, other = ([made[at] for at in range(len(case.few))] for made in (features, taken))
    same = equal(plain(processor.collate(here)), plain(there.collate(other)))
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
