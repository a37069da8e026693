"""The suite of kind model. Legend of shapes: B items of a batch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framework import checkpoint
from framework.protocols import Info, LiveModel, Outputs, Record
from framework.testing.processor import (
    TEXTS,
    ModelCase,
    augment_follows_its_generator,
    batch_of,
    collate_keeps_ids_in_order,
    encode_is_pure,
    features_have_id_and_length,
    features_stay_as_they_are,
    outputs_of,
    plain,
    processor_travels_to_workers,
    rows_are_of_items,
)
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require
from framework.testing.values import close, equal, frozen_copy, seeded

TOLERANCE = 1e-5
"""Of float32 sums that are the same numbers added in another order."""
SHAKE = 0.05
"""Standard deviation of what is added to parameters."""
WILDEST = 16.0
"""How many times as far they are moved where no gradient reaches some otherwise."""
PASSES = 64
"""Forward passes in one of which, at the latest, a gradient must reach each parameter."""
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
        cuts = [
            together[tuple(slice(size) for size in alone.shape)],
            together[tuple(slice(max(0, w - n), w) for n, w in zip(alone.shape, together.shape))],
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


def _shake(live: LiveModel, seed: int, scale: float = 1.0) -> None:
    """Move every parameter a little, as if trained: away from zeros, and from what was read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in live.module.parameters():
            moved = SHAKE * scale * torch.randn(parameter.shape, generator=generator)
            parameter.add_(moved.to(parameter))


def has_the_protocol(case: ModelCase) -> None:
    """It has a module, a processor of four methods, `labelled` and `save_assets`, and it runs."""
    live = case.build()
    lacking = missing(live, "module", "processor", "labelled", "save_assets")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(isinstance(live.module, nn.Module), f"'module' is a {type(live.module).__name__}")
    lacking = missing(live.processor, "encode", "augment", "collate", "decode")
    require(not lacking, f"its processor lacks {', '.join(lacking)}")
    outputs_of(live, case.few)


def labels_every_parameter_once(case: ModelCase) -> None:
    """`labelled` gives each trainable parameter once, with its name, part and depth."""
    live = case.build()
    named, seen = dict(live.module.named_parameters()), set()
    for name, parameter, part, depth in live.labelled():
        require(
            named.get(name) is parameter, f"'{name}' is not the module's parameter of that name"
        )
        require(parameter.requires_grad, f"'{name}' is not trainable; leave it out")
        require(name not in seen, f"'{name}' is given twice")
        require(part in ("base", "head"), f"the part of '{name}' is {part!r}; 'base' or 'head'")
        require(
            type(depth) is int and depth >= 0,
            f"the depth of '{name}' is {depth!r}; count from 0, the embeddings",
        )
        seen.add(name)
    left = [name for name, p in named.items() if p.requires_grad and name not in seen]
    require(not left, f"it leaves {left[:3]} out, which no optimizer will then train")


def same_seed_same_model(case: ModelCase) -> None:
    """Two builds after one seed give the same weights and features, bit for bit."""
    builds = []
    for _ in range(2):
        with seeded(3):
            live = case.build()
            builds.append((live.module.state_dict(), plain(live.processor.encode(case.few))))
    (weights, features), (others, again) = builds
    differ = [name for name in weights if not equal(weights[name], others.get(name))]
    require(not differ, f"after the same seed it starts with other weights in {differ[:3]}")
    require(equal(features, again), "built again, its processor encodes records otherwise")


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
    found = live.processor.encode([*case.few, *longer])
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


def gradients_reach_every_parameter(case: ModelCase) -> None:
    """In training each trainable parameter gets a gradient that is not zero, a frozen one none."""
    live = case.build()
    frozen = {n for n, p in live.module.named_parameters() if not p.requires_grad}
    live.module.train()
    start = frozen_copy(dict(live.module.named_parameters()))
    for attempt in range(PASSES):  # for what starts at zero, sleeps by chance or by the record
        with torch.no_grad():
            for name, parameter in live.module.named_parameters():
                parameter.copy_(start[name])
        _shake(live, attempt, min(1.0 + attempt, WILDEST))
        _backward(live, case, attempt)
        asleep = [
            name
            for name, parameter in live.module.named_parameters()
            if name not in frozen and (parameter.grad is None or not parameter.grad.any())
        ]
        if not asleep:
            break
    for name, parameter in live.module.named_parameters():
        gradient = parameter.grad
        if name in frozen:
            require(gradient is None, f"'{name}' is frozen and gets a gradient")
        else:
            finite = gradient is None or gradient.isfinite().all()
            require(finite, f"the gradient of '{name}' is not finite")
    for name in asleep:
        unused = live.module.get_parameter(name).grad is None
        raise Failure(
            (f"no gradient reaches '{name}'" if unused else f"the gradient of '{name}' is zero")
            + f" in {PASSES} passes of moved parameters; use it, or freeze it; what only other"
            " records can wake belongs into expected_failures"
        )


def _backward(live: LiveModel, case: ModelCase, seed: int) -> None:
    """Add the gradients of a random sum of the outputs, in a batch of all records."""
    processor = live.processor
    features = processor.encode(case.records)
    draw = np.random.default_rng(seed)
    batch = processor.collate([processor.augment(item, draw) for item in features])
    generator = torch.Generator().manual_seed(seed)
    parts = [
        (value * torch.randn(value.shape, generator=generator)).sum()
        for value in live.module(**batch).values()
        if value.is_floating_point()
    ]
    total = torch.stack(parts).sum()
    require(total.requires_grad, "no gradient reaches the outputs; are they detached?")
    torch.autograd.backward(total)


def survives_saving(case: ModelCase) -> None:
    """Built again from its assets and weights, without training records, it is bit for bit it."""
    live = case.build()
    _shake(live, PASSES)
    live.module.train()
    outputs_of(live, case.few)  # statistics of training are kept, too
    live.module.eval()
    before = outputs_of(live, case.few)
    info = json.loads(json.dumps({k: v for k, v in case.info.items() if k != "train"}))
    with tempfile.TemporaryDirectory() as folder, seeded(9):
        file = Path(folder) / "model.safetensors"
        live.save_assets(Path(folder))
        require(not file.exists(), f"save_assets writes {file.name}; the weights are the core's")
        checkpoint.save_weights(live.module, file)
        again: LiveModel = case.options.build(info, Path(folder))
        checkpoint.load_weights(again.module, file)
        again.module.eval()
        after = outputs_of(again, case.few)
    for name, value in before.items():
        require(
            equal(value, after.get(name)),
            f"'{name}' is another when it is loaded again; keep all it needs in parameters,"
            " persistent buffers or assets",
        )


SUITE = Suite(
    "model",
    ModelCase,
    (
        has_the_protocol,
        labels_every_parameter_once,
        same_seed_same_model,
        features_have_id_and_length,
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
