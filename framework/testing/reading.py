"""What the suite of kind dataset runs on, and its checks of how records are read."""

from __future__ import annotations

import functools
import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from framework.protocols import Record, Splits
from framework.testing.suite import Failure, Skip, require
from framework.testing.values import digest, equal
from framework.testing.watching import traced

ENOUGH = 64 * 1024
"""Bytes of records that tell what an access costs."""
SHARE = 4
"""An access may take up to a fourth of what all records of its split take."""


@attrs.frozen(kw_only=True)
class DatasetCase:
    """A dataset and the seed that it is built with."""

    options: Any
    seed: int = 42

    @functools.cached_property
    def live(self) -> Splits:
        """What is built once, for checks of what it holds."""
        return self.build()

    def build(self) -> Splits:
        """Read and split, anew."""
        live: Splits = self.options.build(self.seed)
        return live

    def records(self) -> Iterator[tuple[str, int, Record]]:
        """Give every record, with its split and its place in that."""
        return records_of(self.live)


def records_of(live: Splits) -> Iterator[tuple[str, int, Record]]:
    """Give every record, with its split and its place in that."""
    for split, records in splits_of(live).items():
        for at in range(len(records)):
            yield split, at, records[at]


def splits_of(live: Splits) -> dict[str, Sequence[Record]]:
    """Return the splits by their names."""
    return {split: live[split] for split in live.keys()}  # noqa: SIM118 - splits are no mapping


def named(split: str, at: int, record: Record) -> str:
    """Name a record by its id and place, and nothing else of it."""
    return f"record {record.get('id')!r} ({split}[{at}])"


def order_is_stable(case: DatasetCase) -> None:
    """Records are the same read in order, backwards and again, and a split ends at its length."""
    for split, records in splits_of(case.live).items():
        count = len(records)
        backwards = [digest(records[at]) for at in reversed(range(count))][::-1]
        # no further than one more: a split that raises no IndexError has no end
        forwards = [digest(record) for record in itertools.islice(iter(records), count + 1)]
        found = len(forwards) if len(forwards) <= count else "more"
        require(
            found == count,
            f"'{split}' has the length {count} and gives {found}; raise IndexError at the end",
        )
        for at, (one, other) in enumerate(zip(forwards, backwards, strict=True)):
            record = records[at]
            same = one == other == digest(record)
            require(same, f"{named(split, at, record)} is another when it is read again")


def _largest(live: Splits) -> tuple[str, int]:
    """Return the split with most records, and their bytes; `Skip` where that is next to nothing."""
    splits = splits_of(live)
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
    for split, records in splits_of(case.live).items():
        try:
            there = pickle.loads(pickle.dumps(records))  # noqa: S301 - pickled just now
        except Exception as error:
            kind = type(error).__name__
            raise Failure(f"'{split}' can't be pickled ({kind}); hold no open file") from error
        for at in range(len(records)):
            same = equal(records[at], there[at])
            require(same, f"{named(split, at, records[at])} differs there")
