"""The suite of kind dataset. A record's text may be private: messages name ids alone."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framework.testing.reading import (
    DatasetCase,
    named,
    order_is_stable,
    reading_is_lazy,
    reading_keeps_nothing,
    records_of,
    splits_of,
    travels_to_workers,
)
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require, require_takes
from framework.testing.values import digest, equal, seeded
from framework.testing.watching import randomness


def has_the_protocol(case: DatasetCase) -> None:
    """It has `info`, `files`, `manifest` and `keys`, and gives a sequence for each key."""
    live = case.live
    lacking = ", ".join(missing(live, "info", "files", "manifest", "keys", "__getitem__"))
    require(not lacking, f"{type(live).__qualname__} lacks {lacking}")
    for split, records in splits_of(live).items():
        lacking = ", ".join(missing(records, "__len__", "__getitem__"))
        require(not lacking, f"the split {split!r} lacks {lacking}")


def train_and_val_have_records(case: DatasetCase) -> None:
    """There are splits `train` and `val`, and none is empty."""
    splits = splits_of(case.live)
    for split in ("train", "val"):
        require(split in splits, f"there is no split '{split}', only {sorted(splits)}")
    for split, records in splits.items():
        require(len(records), f"the split '{split}' is empty; leave it out of keys()")


def ids_are_unique(case: DatasetCase) -> None:
    """Every record has an `id`, a text that no other record of any split has."""
    seen: dict[str, str] = {}
    for split, at, record in case.records():
        name, here = record.get("id"), f"{split}[{at}]"
        require(isinstance(name, str) and name, f"the id of {here} is {name!r}; it must be a text")
        before = seen.setdefault(str(name), here)
        require(before == here, f"{before} and {here} have the same id, {name!r}")


def texts_and_labels_fit(case: DatasetCase) -> None:
    """`text` and `text_pair` are texts, and `label` is the index of one of `info`'s labels."""
    names = case.live.info.get("labels")
    for split, at, record in case.records():
        for key in ("text", "text_pair"):
            kind = type(record.get(key, "")).__name__
            require(kind == "str", f"'{key}' of {named(split, at, record)} is a {kind}, no text")
        if names is None or "label" not in record:
            continue
        label = record["label"]
        shown = str(label) if type(label) in (int, float, bool) else f"a {type(label).__name__}"
        require(
            type(label) is int and 0 <= label < len(names),
            f"the label of {named(split, at, record)} is {shown}, no index of info['labels']",
        )


def info_is_json(case: DatasetCase) -> None:
    """`info` is written as JSON and read back the same; it goes into every checkpoint."""
    info = case.live.info
    try:
        read = json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Failure(f"'info' is no JSON: {error}") from error
    differ = [key for key in info if not equal(read.get(key), info[key])]
    require(not differ, f"JSON reads info{differ} back otherwise; keep to texts as keys, and lists")


def class_counts_are_those_of_train(case: DatasetCase) -> None:
    """`info['class_counts']`, which losses weigh by, counts the labels of the training split."""
    counts = case.live.info.get("class_counts")
    if counts is None:
        raise Skip("its info has no class_counts")
    train = Counter(record.get("label") for split, _, record in case.records() if split == "train")
    found = [train[label] for label in range(len(counts))]
    require(list(counts) == found, f"class_counts are {counts}, and train has {found}")


def files_are_there(case: DatasetCase) -> None:
    """`files` are paths of files that can be read: their hashes go into the run's record."""
    for file in case.live.files:
        require(isinstance(file, Path), f"'files' holds {file!r}, which is no Path")
        require(file.is_file(), f"'files' holds {file}, which is no file")


def check_finds_no_fault(case: DatasetCase) -> None:
    """`check` raises nothing for an input that can be built."""
    if not hasattr(case.options, "check"):
        raise Skip("it has no method 'check'")
    require_takes(case.options.check, "check")
    case.build()
    case.options.check()


def unlabelled_files_can_be_read(case: DatasetCase) -> None:
    """Its options have `read(file, info)`, for records without labels: predict calls it."""
    read: Any = getattr(case.options, "read", None)
    name = type(case.options).__qualname__
    require(callable(read), f"{name} has no method read(file, info); predict needs it")
    require_takes(read, "read", "file", "info")


def same_seed_same_splits(case: DatasetCase) -> None:
    """Two builds with one seed give equal records in the same order, whatever else is random."""
    builds = []
    for other in (1, 2):
        with seeded(other):
            live = case.build()
            found = [(f"{r.get('id')!r} ({s}[{at}])", digest(r)) for s, at, r in records_of(live)]
            builds.append((found, {split: list(ids) for split, ids in live.manifest.items()}))
    (first, manifest), (second, again) = builds
    require(
        [name for name, _ in first] == [name for name, _ in second],
        f"built again with the seed {case.seed}, its splits have other ids, or another order; take"
        " order and chance from the seed alone",
    )
    for (name, was), (_, now) in zip(first, second, strict=True):
        require(was == now, f"record {name} is another when built again")
    require(equal(manifest, again), "the manifest differs when built again with the same seed")


def global_generators_stay_as_they_are(case: DatasetCase) -> None:
    """Building draws nothing from the global random generators, which others go on with."""
    with seeded(0):
        before = randomness()
        case.build()
        after = randomness()
    moved = [name for name in before if not equal(before[name], after[name])]
    require(not moved, f"building moves the global generator of {', '.join(moved)}")


def groups_stay_together(case: DatasetCase) -> None:
    """No `group` has records in two splits."""
    sides: dict[Any, tuple[str, str]] = {}
    for split, at, record in case.records():
        here = named(split, at, record)
        if "group" in record:
            side, first = sides.setdefault(record["group"], (split, here))
            require(side == split, f"{first} and {here} are of one group; it leaks")


def manifest_says_who_is_where(case: DatasetCase) -> None:
    """The manifest lists each record's group, or else its id, under its split and no other."""
    manifest = {split: set(ids) for split, ids in case.live.manifest.items()}
    for one, other in itertools.combinations(manifest, 2):
        both = sorted(map(str, manifest[one] & manifest[other]))
        require(not both, f"the manifest has {both[:3]} under '{one}' and '{other}'")
    for split, at, record in case.records():
        name = record.get("group", record.get("id"))
        require(
            name in manifest.get(split, ()),
            f"the manifest does not have {named(split, at, record)} under '{split}'; list its"
            " group, or its id where it has none",
        )


SUITE = Suite(
    "dataset",
    DatasetCase,
    (
        has_the_protocol,
        train_and_val_have_records,
        ids_are_unique,
        texts_and_labels_fit,
        info_is_json,
        class_counts_are_those_of_train,
        files_are_there,
        check_finds_no_fault,
        unlabelled_files_can_be_read,
        same_seed_same_splits,
        global_generators_stay_as_they_are,
        order_is_stable,
        reading_is_lazy,
        reading_keeps_nothing,
        travels_to_workers,
        groups_stay_together,
        manifest_says_who_is_where,
    ),
)


def check_dataset(
    options: Any, *, seed: int | None = None, expected_failures: Mapping[str, str] | None = None
) -> Report:
    """Hold a dataset against its contract; `ConformanceError` tells every check that fails.

    What it says of a record is its id, never its text. Every record is read about a dozen times:
    give options that read a sample of a big dataset.

    Args:
        options: The plugin's options, as in `MyDataset(root=Path("data"))`.
        seed: What it is built with; by default 42.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, seed=seed)
