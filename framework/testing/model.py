"""The suite of kind model. Legend of shapes: B items of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from framework.protocols import Info, Outputs, Record
from framework.testing.processor import (
    TEXTS,
    ModelCase,
    augment_follows_its_generator,
    batch_of,
    collate_keeps_ids_in_order,
    encode_is_pure,
    encode_takes_lazy_records,
    encoded,
    features_are_a_sequence,
    features_have_id_and_length,
    features_stay_as_they_are,
    outputs_of,
    plain,
    processor_travels_to_workers,
    rows_are_of_items,
)
from framework.testing.suite import Report, Skip, Suite, missing, require
from framework.testing.values import close, equal
from framework.testing.weights import (
    gradients_reach_every_parameter,
    labels_every_parameter_once,
    same_seed_same_model,
    survives_saving,
)

TOLERANCE = 1e-5
"""Of float32 sums that are the same numbers added in another order."""
LONGER = 12
"""How many times over a text stands in the longest record."""


def _alike(one: Outputs, other: Outputs, at: int, what: str) -> None:
    """Require that the item of a batch of its own is item `at` of another, padded or not."""
    require(one.keys() == other.keys(), f"{what}: outputs {sorted(one)}, and {sorted(other)}")
    for name, alone in one.items():
        if not alone.ndim:
            continue  # it belongs to no item
        together = other[name][at : at + 1]
        # padding stands to the right or to the left of what the item has alone
        sizes = list(zip(alone.shape, together.shape, strict=False))
        cuts = [
            together[tuple(slice(own) for own, _ in sizes)],
            together[tuple(slice(max(0, padded - own), padded) for own, padded in sizes)],
        ]
        shapes = f"{list(alone.shape)}, and {list(together.shape)}"
        fits = alone.ndim == together.ndim and all(cut.shape == alone.shape for cut in cuts)
        require(fits, f"'{name}' of a record {what} has the shapes {shapes}")
        off = min(
            float((alone.double() - cut.double()).abs().max()) if alone.numel() else 0.0
            for cut in cuts
        )
        same = any(close(alone, cut, TOLERANCE) for cut in cuts)
        require(same, f"'{name}' of a record {what} is off by {off:.3g}")


def has_the_protocol(case: ModelCase) -> None:
    """It has a module, a processor of four methods, `labelled` and `save_assets`, and it runs."""
    live = case.build()
    lacking = missing(live, "module", "processor", "labelled", "save_assets")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(isinstance(live.module, nn.Module), f"'module' is a {type(live.module).__name__}")
    lacking = missing(live.processor, "encode", "augment", "collate", "decode")
    require(not lacking, f"its processor lacks {', '.join(lacking)}")
    outputs_of(live, case.few)


def outputs_are_of_items(case: ModelCase) -> None:
    """Outputs are finite tensors of items, also of one, or numbers of the whole batch."""
    live = case.build()
    for records in (case.few, case.few[:1]):
        found = outputs_of(live, records)
        for name, value in found.items():
            require(isinstance(value, Tensor), f"'{name}' is a {type(value).__name__}, no tensor")
            require(
                not value.ndim or len(value) == len(records),
                f"'{name}' of {len(records)} items has the shape {tuple(value.shape)}",
            )
            require(value.isfinite().all(), f"'{name}' is not finite")
        require(any(v.ndim for v in found.values()), f"its outputs {sorted(found)} are of no item")


def forward_takes_any_batch(case: ModelCase) -> None:
    """The module ignores keys that it doesn't know, and leaves the batch as it is."""
    live = case.build()
    batch = batch_of(live, case.few)
    before = plain(batch)
    with torch.no_grad():
        usual = dict(live.module(**batch))
        more = dict(live.module(**batch, unknown_key=["x"] * len(batch["id"])))
    require(equal(before, plain(batch)), "the forward pass changes the batch")
    require(equal(usual, more), "a key that it doesn't know changes its outputs")


def evaluation_repeats_itself(case: ModelCase) -> None:
    """In evaluation mode a second forward pass gives the same outputs, bit for bit."""
    live = case.build()
    first, second = outputs_of(live, case.few), outputs_of(live, case.few)
    require(equal(first, second), "the outputs differ; is something random, or kept between calls?")


def company_does_not_matter(case: ModelCase) -> None:
    """A record's outputs are the same alone, in a batch, and in the same batch turned round."""
    live = case.build()
    together, turned = outputs_of(live, case.few), outputs_of(live, case.few[::-1])
    for at, record in enumerate(case.few):
        alone = outputs_of(live, [record])
        _alike(alone, together, at, "alone and in a batch")
        _alike(alone, turned, len(case.few) - 1 - at, "alone and in the batch turned round")


def padding_does_not_matter(case: ModelCase) -> None:
    """A short record's outputs are the same alone and beside a much longer one."""
    live = case.build()
    longer = [_with_texts(record, LONGER) for record in case.few]
    found = encoded(live, [*case.few, *longer])
    pairs = sorted(zip((f["length"] for f in found), range(len(found)), strict=True))
    (short, first), (long, last) = pairs[0], pairs[-1]
    if short == long:
        raise Skip(f"all its records have the length {short}")
    short_one, long_one = ([*case.few, *longer][at] for at in (first, last))
    what = f"of length {short}, alone and beside one of {long},"
    _alike(outputs_of(live, [short_one]), outputs_of(live, [short_one, long_one]), 0, what)


def _with_texts(record: Record, times: int) -> Record:
    texts = {key: " ".join([record[key]] * times) for key in TEXTS if key in record}
    return {**record, **texts, "id": f"{record['id']}-{times}"}


def empty_texts_are_taken(case: ModelCase) -> None:
    """A record whose texts are empty is encoded and gives finite outputs."""
    if not any("text" in record for record in case.few):
        raise Skip("its records have no text")
    live = case.build()
    found = outputs_of(live, [_with_texts(case.few[0], 0), *case.few])
    for name, value in found.items():
        require(value.isfinite().all(), f"'{name}' of an empty text is not finite")


def labels_are_not_needed(case: ModelCase) -> None:
    """Records without label and group, as for prediction, give the same outputs, and rows."""
    live = case.build()
    bare = [{k: v for k, v in r.items() if k not in ("label", "group")} for r in case.few]
    batch = batch_of(live, bare)
    with torch.no_grad():
        found = dict(live.module(**batch))
    require(equal(found, outputs_of(live, case.few)), "the outputs depend on labels or groups")
    live.processor.decode(found, batch)


SUITE = Suite(
    "model",
    ModelCase,
    (
        has_the_protocol,
        labels_every_parameter_once,
        same_seed_same_model,
        features_have_id_and_length,
        features_are_a_sequence,
        encode_takes_lazy_records,
        encode_is_pure,
        features_stay_as_they_are,
        augment_follows_its_generator,
        collate_keeps_ids_in_order,
        processor_travels_to_workers,
        outputs_are_of_items,
        forward_takes_any_batch,
        evaluation_repeats_itself,
        company_does_not_matter,
        padding_does_not_matter,
        empty_texts_are_taken,
        labels_are_not_needed,
        gradients_reach_every_parameter,
        survives_saving,
        rows_are_of_items,
    ),
)


def check_model(
    options: Any,
    *,
    info: Info | None = None,
    records: Sequence[Record] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a model against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyModel(size=64)`.
        info: What its dataset would say, with the training records under `train`; by default of
            three classes.
        records: Records of that dataset, five or more; by default made-up texts with labels.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, info=info, records=records)
