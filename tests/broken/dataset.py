"""Datasets that are wrong on purpose."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np

from broken import Defect
from framework.protocols import Record
from framework.testing import samples

MANY = 160  # records from which on the memory of an access can be told


def lists(**counts: int) -> dict[str, Any]:
    """Return splits as they should be: lists made once."""
    counts = {"train": 12, "val": 6, **counts}
    return {split: list(samples.records(count, split)) for split, count in counts.items()}


def live(splits: Mapping[str, Any] | None = None, **changes: Any) -> Live:
    """Return a right live dataset, but for what it is given."""
    splits = lists() if splits is None else splits
    about: dict[str, Any] = {
        "info": {"labels": ["a", "b", "c"], "class_counts": [4, 4, 4]},
        "files": [],
        "keys": splits.keys,
    }
    if "manifest" not in changes:
        about["manifest"] = {s: [record["group"] for record in part] for s, part in splits.items()}
    return Live(splits, **about | changes)


class Live(SimpleNamespace):
    """Looks like a live dataset."""

    def __init__(self, splits: Mapping[str, Any], **about: Any) -> None:
        """Keep the splits."""
        super().__init__(splits=splits, **about)

    def __getitem__(self, split: str) -> Any:
        """Give a split."""
        return self.splits[split]


@attrs.frozen
class Lazy(Sequence[Record]):
    """Makes each record when it is asked for; as it should be, but for what it is given."""

    make: Callable[[int], Record]
    length: int = MANY

    def __len__(self) -> int:
        """Count."""
        return self.length

    def __getitem__(self, at: Any) -> Any:
        """Make one."""
        if at >= self.length:
            raise IndexError(at)
        return self.make(at)


def long(at: int) -> Record:
    """Return a record of a kilobyte."""
    return {"id": f"{at}", "text": f"{at:04}" * 256, "label": at % 3, "group": f"{at}"}


class NoManifest:
    """It forgot the manifest."""

    def build(self, _: int) -> Any:
        """Build it."""
        found = live()
        del found.manifest
        return found


class NoLength:
    """Its splits are iterators."""

    def build(self, _: int) -> Any:
        """Build it."""
        return live({split: iter(part) for split, part in lists().items()}, manifest={})


@attrs.frozen
class Counts:
    """It has splits of so many records, and no others."""

    counts: Mapping[str, int]

    def build(self, _: int) -> Any:
        """Build it."""
        return live({s: samples.records(count, s) for s, count in self.counts.items()})


@attrs.frozen
class Ids:
    """Its ids are made of the place in the split."""

    name: Callable[[int], Any]

    def build(self, _: int) -> Any:
        """Build it."""
        made = lists().items()
        return live({s: [{**r, "id": self.name(i)} for i, r in enumerate(p)] for s, p in made})


@attrs.frozen
class OneChanged:
    """Its third training record has another value under a key."""

    key: str
    value: Any

    def build(self, _: int) -> Any:
        """Build it."""
        splits = lists()
        splits["train"][2] = {**splits["train"][2], self.key: self.value}
        return live(splits)


class Says:
    """It says something wrong of itself."""

    def __init__(self, **said: Any) -> None:
        """Keep it."""
        self.said = said

    def build(self, _: int) -> Any:
        """Build it."""
        return live(**self.said)


class StrictCheck:
    """Its check refuses what its build takes."""

    def check(self) -> None:
        """Refuse."""
        raise FileNotFoundError("no folder")

    def build(self, _: int) -> Any:
        """Build it."""
        return live()


class GlobalShuffle:
    """It shuffles by the global generator, which is at another place each time."""

    def build(self, _: int) -> Any:
        """Build it."""
        splits = lists()
        random.shuffle(splits["train"])
        return live(splits)


class TimeStamps:
    """Its records hold what is another in each build."""

    clock = itertools.count()

    def build(self, _: int) -> Any:
        """Build it."""
        made = next(self.clock)
        return live({s: [{**r, "made": made} for r in p] for s, p in lists().items()})


class SeedsTheWorld:
    """It seeds the global generator, and everybody with it."""

    def build(self, seed: int) -> Any:
        """Build it."""
        np.random.seed(seed)  # noqa: NPY002 - this is the defect
        return live()


class CountsReads:
    """A record is another each time that it is read."""

    def build(self, _: int) -> Any:
        """Build it."""
        reads: list[int] = []

        def make(at: int) -> Record:
            reads.append(at)
            return {**long(at), "reads": len(reads)}

        return live({"train": Lazy(make, 5), "val": lists()["val"]})


class Endless:
    """Reading past the end starts over."""

    def build(self, _: int) -> Any:
        """Build it."""

        class Round(list[Record]):
            def __getitem__(self, at: Any) -> Any:
                return super().__getitem__(at % len(self))

            def __iter__(self) -> Iterator[Record]:
                return map(self.__getitem__, range(10**9))

        return live({s: Round(part) for s, part in lists().items()}, manifest=RIGHT)


class ReadsAll:
    """It reads the whole file to find a record."""

    def build(self, _: int) -> Any:
        """Build it."""
        every = Lazy(lambda at: [long(index) for index in range(MANY)][at])
        return live({"train": every, "val": lists()["val"]}, manifest={})


class KeepsAll:
    """It keeps every record that was ever read."""

    def build(self, _: int) -> Any:
        """Build it."""
        kept: dict[int, Record] = {}

        def make(at: int) -> Record:
            return kept.setdefault(at, long(at))

        return live({"train": Lazy(make), "val": lists()["val"]}, manifest={})


class HoldsAFunction:
    """Its split holds what can't be pickled."""

    def build(self, _: int) -> Any:
        """Build it."""
        return live({"train": Lazy(lambda at: {**long(at)}, 9), "val": lists()["val"]})


class ForgetsOnTheWay(list[Record]):
    """A split whose records change when it is pickled."""

    def __reduce__(self) -> Any:
        """Travel without labels."""
        return list, ([{**record, "label": 0} for record in self],)


class ArrivesOtherwise:
    """Its records are others in a worker."""

    def build(self, _: int) -> Any:
        """Build it."""
        return live({split: ForgetsOnTheWay(part) for split, part in lists().items()})


RIGHT = live().manifest
DEFECTS = [
    Defect("has_the_protocol", NoManifest(), "lacks manifest"),
    Defect("has_the_protocol", NoLength(), "the split 'train' lacks __len__, __getitem__"),
    Defect(
        "train_and_val_have_records",
        Counts({"train": 12}),
        "there is no split 'val', only ['train']",
    ),
    Defect(
        "train_and_val_have_records",
        Counts({"train": 12, "val": 6, "test": 0}),
        "the split 'test' is empty",
    ),
    Defect("ids_are_unique", Ids(int), "the id of train[0] is 0; it must be a text"),
    Defect("ids_are_unique", Ids(str), "train[0] and val[0] have the same id, '0'"),
    Defect("texts_and_labels_fit", OneChanged("text", 3), "'text' of record 'train2'"),
    Defect("texts_and_labels_fit", OneChanged("label", 3), "no index of info['labels']"),
    Defect("texts_and_labels_fit", OneChanged("label", "secret"), "(train[2]) is a str"),
    Defect("info_is_json", Says(info={"root": Path("data")}), "'info' is no JSON"),
    Defect(
        "info_is_json", Says(info={"names": {0: "a"}}), "JSON reads info['names'] back otherwise"
    ),
    Defect("info_is_json", Says(info={"mean": float("nan")}), "'info' is no JSON"),
    Defect("class_counts_are_those_of_train", Says(info={"class_counts": [6, 6]}), "train has [4"),
    Defect("files_are_there", Says(files=[Path("nowhere.csv")]), "nowhere.csv, which is no file"),
    Defect("files_are_there", Says(files=["train.csv"]), "which is no Path"),
    Defect("check_finds_no_fault", StrictCheck(), "FileNotFoundError"),
    Defect("same_seed_same_splits", GlobalShuffle(), "take order and chance from the seed alone"),
    Defect("same_seed_same_splits", TimeStamps(), "record 'train0' (train[0]) is another"),
    Defect("global_generators_stay_as_they_are", SeedsTheWorld(), "global generator of NumPy"),
    Defect("order_is_stable", CountsReads(), "is another when it is read again"),
    Defect("order_is_stable", Endless(), "has the length 12 and gives more"),
    Defect("reading_is_lazy", ReadsAll(), "make them one by one, or once in build"),
    Defect("reading_keeps_nothing", KeepsAll(), "a cache needs a bound"),
    Defect("travels_to_workers", HoldsAFunction(), "can't be pickled"),
    Defect("travels_to_workers", ArrivesOtherwise(), "record 'train1' (train[1]) differs there"),
    Defect("groups_stay_together", OneChanged("group", "val0"), "it leaks"),
    Defect("manifest_says_who_is_where", Says(manifest={**RIGHT, "val": RIGHT["train"]}), "under"),
    Defect("manifest_says_who_is_where", Says(manifest={**RIGHT, "val": []}), "list its group"),
]
