"""The suite of kind dataset. A record's text may be private: messages name ids alone."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework.protocols import Record, Splits
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require
from framework.testing.values import equal, seeded
from framework.testing.watching import randomness, traced

ENOUGH = 64 * 1024
"""Bytes of records that tell what an access costs."""
SHARE = 4
"""An access may take up to a fourth of what all records of its split take."""


@attrs.frozen(kw_only=True)
class DatasetCase:
    """A dataset and the seed that it is built with."""

    options: Any
    seed: int = 42

    def build(self) -> Splits:
        """Read and split."""
        live: Splits = self.options.build(self.seed)
        return live

    def records(self) -> Iterator[tuple[str, int, Record]]:
        """Give every record of a fresh build, with its split and its place in that."""
        return _records(self.build())


def _records(live: Splits) -> Iterator[tuple[str, int, Record]]:
    for split, records in _splits(live).items():
        for at in range(len(records)):
            yield split, at, records[at]


def _splits(live: Splits) -> dict[str, Sequence[Record]]:
    return {split: live[split] for split in live.keys()}  # noqa: SIM118 - splits are no mapping


def _named(split: str, at: int, record: Record) -> str:
    return f"record {record.get('id')!r} ({split}[{at}])"


def has_the_protocol(case: DatasetCase) -> None:
    """It has `info`, `files`, `manifest` and `keys`, and gives a sequence for each key."""
    live = case.build()
    lacking = ", ".join(missing(live, "info", "files", "manifest", "keys", "__getitem__"))
    require(not lacking, f"{type(live).__qualname__} lacks {lacking}")
    for split, records in _splits(live).items():
        lacking = ", ".join(missing(records, "__len__", "__getitem__"))
        require(not lacking, f"the split {split!r} lacks {lacking}")


def train_and_val_have_records(case: DatasetCase) -> None:
    """There are splits `train` and `val`, and none is empty."""
    splits = _splits(case.build())
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
    names = case.build().info.get("labels")
    for split, at, record in case.records():
        for key in ("text", "text_pair"):
            kind = type(record.get(key, "")).__name__
            require(kind == "str", f"'{key}' of {_named(split, at, record)} is a {kind}, no text")
        if names is None or "label" not in record:
            continue
        label = record["label"]
        shown = str(label) if type(label) in (int, float, bool) else f"a {type(label).__name__}"
        require(
            type(label) is int and 0 <= label < len(names),
            f"the label of {_named(split, at, record)} is {shown}, no index of info['labels']",
        )


def info_is_json(case: DatasetCase) -> None:
    """`info` is written as JSON and read back the same; it goes into every checkpoint."""
    info = case.build().info
    try:
        read = json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Failure(f"'info' is no JSON: {error}") from error
    differ = [key for key in info if not equal(read.get(key), info[key])]
    require(not differ, f"JSON reads info{differ} back otherwise; keep to texts as keys, and lists")


def class_counts_are_those_of_train(case: DatasetCase) -> None:
    """`info['class_counts']`, which losses weigh by, counts the labels of the training split."""
    counts = case.build().info.get("class_counts")
    if counts is None:
        raise Skip("its info has no class_counts")
    train = Counter(record.get("label") for split, _, record in case.records() if split == "train")
    found = [train[label] for label in range(len(counts))]
    require(list(counts) == found, f"class_counts are {counts}, and train has {found}")


def files_are_there(case: DatasetCase) -> None:
    """`files` are paths of files that can be read: their hashes go into the run's record."""
    for file in case.build().files:
        require(isinstance(file, Path), f"'files' holds {file!r}, which is no Path")
        require(file.is_file(), f"'files' holds {file}, which is no file")


def check_finds_no_fault(case: DatasetCase) -> None:
    """`check` raises nothing for an input that can be built."""
    if not hasattr(case.options, "check"):
        raise Skip("it has no method 'check'")
    case.build()
    case.options.check()


def same_seed_same_splits(case: DatasetCase) -> None:
    """Two builds with one seed give equal records in the same order, whatever else is random."""
    builds = []
    for other in (1, 2):
        with seeded(other):
            live = case.build()
            records = {(split, at): record for split, at, record in _records(live)}
            builds.append((records, {split: list(ids) for split, ids in live.manifest.items()}))
    (first, manifest), (second, again) = builds
    ids = [[(*place, record.get("id")) for place, record in r.items()] for r in (first, second)]
    require(
        ids[0] == ids[1],
        f"built again with the seed {case.seed}, its splits have other ids, or another order; take"
        " order and chance from the seed alone",
    )
    for (split, at), record in first.items():
        same = equal(record, second[split, at])
        require(same, f"{_named(split, at, record)} is another when built again")
    require(equal(manifest, again), "the manifest differs when built again with the same seed")


def global_generators_stay_as_they_are(case: DatasetCase) -> None:
    """Building draws nothing from the global random generators, which others go on with."""
    with seeded(0):
        before = randomness()
        case.build()
        after = randomness()
    moved = [name for name in before if not equal(before[name], after[name])]
    require(not moved, f"building moves the global generator of {', '.join(moved)}")


def order_is_stable(case: DatasetCase) -> None:
    """Records are the same read in order, backwards and again, and a split ends at its length."""
    for split, records in _splits(case.build()).items():
        count = len(records)
        backwards = [records[at] for at in reversed(range(count))][::-1]
        # no further than one more: a split that raises no IndexError has no end
        forwards = list(itertools.islice(iter(records), count + 1))
        found = len(forwards) if len(forwards) <= count else "more"
        require(
            found == count,
            f"'{split}' has the length {count} and gives {found}; raise IndexError at the end",
        )
        for at, (one, other) in enumerate(zip(forwards, backwards, strict=True)):
            same = equal(one, other) and equal(one, records[at])
            require(same, f"{_named(split, at, one)} is another when it is read again")


def _largest(live: Splits) -> tuple[str, int]:
    """Return the split with most records, and their bytes; `Skip` where that is next to nothing."""
    splits = _splits(live)
    name = max(splits, key=lambda split: len(splits[split]))
    count = len(splits[name])
    size = sum(len(pickle.dumps(splits[name][at])) for at in range(count))
    if size < ENOUGH:
        raise Skip(f"{count} records of {size} bytes in all are too few to tell")
    return name, size


def reading_is_lazy(case: DatasetCase) -> None:
    """Reading one record does not make all the others of its split again."""
    live = case.build()
    split, size = _largest(live)
    live[split][len(live[split]) - 1]
    with traced() as measure:
        live[split][0]
        _, peak = measure()
    require(
        peak * SHARE < size,
        f"reading one record of '{split}' takes {peak} bytes, all of them take {size}; make them"
        " one by one, or once in build",
    )


def reading_keeps_nothing(case: DatasetCase) -> None:
    """Reading every record once, and dropping it, leaves nothing of them in memory."""
    live = case.build()
    split, size = _largest(case.build())
    with traced() as measure:
        for at in range(len(live[split])):
            live[split][at]
        kept, _ = measure()
    require(
        kept * SHARE < size,
        f"{kept} bytes of {size} stay in memory when '{split}' was read; a cache needs a bound",
    )


def travels_to_workers(case: DatasetCase) -> None:
    """Splits can be pickled, as for a worker process, and give equal records there."""
    for split, records in _splits(case.build()).items():
        try:
            there = pickle.loads(pickle.dumps(records))  # noqa: S301 - pickled just now
        except Exception as error:
            kind = type(error).__name__
            raise Failure(f"'{split}' can't be pickled ({kind}); hold no open file") from error
        for at in range(len(records)):
            same = equal(records[at], there[at])
            require(same, f"{_named(split, at, records[at])} differs there")


def groups_stay_together(case: DatasetCase) -> None:
    """No `group` has records in two splits."""
    sides: dict[Any, tuple[str, str]] = {}
    for split, at, record in case.records():
        here = _named(split, at, record)
        if "group" in record:
            side, first = sides.setdefault(record["group"], (split, here))
            require(side == split, f"{first} and {here} are of one group; it leaks")


def manifest_says_who_is_where(case: DatasetCase) -> None:
    """The manifest lists each record's group, or else its id, under its split and no other."""
    manifest = {split: set(ids) for split, ids in case.build().manifest.items()}
    for one, other in itertools.combinations(manifest, 2):
        both = sorted(map(str, manifest[one] & manifest[other]))
        require(not both, f"the manifest has {both[:3]} under '{one}' and '{other}'")
    for split, at, record in case.records():
        name = record.get("group", record.get("id"))
        require(
            name in manifest.get(split, ()),
            f"the manifest does not have {_named(split, at, record)} under '{split}'; list its"
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

    What it says of a record is its id, never its text.

    Args:
        options: The plugin's options, as in `MyDataset(root=Path("data"))`.
        seed: What it is built with; by default 42.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, seed=seed)
