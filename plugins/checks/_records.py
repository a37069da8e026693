"""What checks know of the records of each split: digests of their contents, read once.

Records have the keys that `framework.protocols` names; of others those count as text whose values
are mostly of several words.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from framework.errors import listing
from framework.protocols import Record

MOST = 100_000
"""Records of a split that are read; of more, so many that are drawn from all of it."""
FREE = 200
"""The same where a run is about to begin, and nothing may take long."""
_TEXTS, _NAMED = ("text", "text_pair"), ("id", "label", "group", "meta")
_LOOKED = 200
_SHOWN = 3


@attrs.define(eq=False)
class Contents:
    """What is known of a split's records, in their order."""

    whole: int
    """Records of the split, of which these are all, or some."""
    ids: list[str] = attrs.field(factory=list)
    groups: list[str] = attrs.field(factory=list)
    """Of a record without one: its id."""
    labels: list[Any] = attrs.field(factory=list)
    """None for a record without one."""
    fields: dict[str, list[int]] = attrs.field(factory=dict)
    """Digests of each text, normalised; 0 where a record has none, or it is blank."""
    contents: list[int] = attrs.field(factory=list)
    """Digests of all texts, or of all that a record holds where it has none; 0 where one is blank.
    """
    blank: list[str] = attrs.field(factory=list)
    """The field that is blank, if any."""

    def __len__(self) -> int:
        """Count the records that were read."""
        return len(self.ids)


def some(records: Sequence[Record], most: int) -> Iterator[Record]:
    """Yield the records, or so many of them in their order, drawn alike each time.

    Evenly spaced ones may all be alike: labels may come in turn.
    """
    count = len(records)
    chosen: Iterable[int] = range(count)
    if count > most:
        chosen = np.sort(np.random.default_rng(count).choice(count, most, replace=False)).tolist()
    return (records[at] for at in chosen)


def bare(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records without their texts where they can be had so."""
    return getattr(records, "bare", lambda: records)()


def contents(probe: Any) -> dict[str, Contents]:
    """Read the records of every split, once for all checks."""
    names = probe.splits.keys()
    found: dict[str, Contents] = probe.once("contents", lambda: {s: _read(probe, s) for s in names})
    return found


def texts(probe: Any) -> list[str]:
    """Return the keys of records that hold texts."""
    found: list[str] = probe.once("texts", lambda: _texts(probe.splits))
    return found


def _texts(splits: Any) -> list[str]:
    seen: dict[str, list[str]] = {}
    for split in splits.keys():  # noqa: SIM118 - splits are no mapping
        for record in some(splits[split], _LOOKED):
            for key, value in record.items():
                if isinstance(value, str) and key not in _NAMED:
                    seen.setdefault(key, []).append(value)
    worded = {key: sum(" " in value.strip() for value in values) for key, values in seen.items()}
    return [key for key in seen if key in _TEXTS or 2 * worded[key] > len(seen[key])]


def _read(probe: Any, split: str) -> Contents:
    records, keys = probe.splits[split], texts(probe)
    found = Contents(len(records), fields={key: [] for key in keys})
    for record in some(records, MOST):
        found.ids.append(str(record["id"]))
        found.groups.append(str(record.get("group", record["id"])))
        found.labels.append(record.get("label"))
        told = {key: normal(record[key]) for key in keys if key in record}
        for key in keys:
            found.fields[key].append(digest(told[key]) if told.get(key) else 0)
        found.blank.append(next((key for key, text in told.items() if not text), ""))
        content = told or {key: record[key] for key in sorted(record) if key not in _NAMED}
        found.contents.append(0 if found.blank[-1] else digest(json.dumps(content, default=str)))
    return found


def normal(text: str) -> str:
    """Return a text without what no reader minds: case, blanks, and forms of one character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(text: str) -> int:
    """Return a number that is another for another text."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())


def own(train: Contents) -> list[str]:
    """Return the texts that are a group's own: hardly one stands in two groups of train.

    A question that is asked of every text is none, nor is a sentence that many documents cite.
    """
    return [key for key, values in train.fields.items() if 20 * _shared(values, train) <= 1]


def _shared(values: Iterable[int], train: Contents) -> float:
    """Return the share of values that stand in several groups."""
    groups = grouped(values, train.groups)
    return sum(len(found) > 1 for found in groups.values()) / max(1, len(groups)) if groups else 1.0


def grouped(values: Iterable[int], groups: Sequence[str]) -> Mapping[int, set[str]]:
    """Return the groups of each value; blank ones are left out."""
    found: dict[int, set[str]] = {}
    for value, group in zip(values, groups, strict=True):
        if value:
            found.setdefault(value, set()).add(group)
    return found


def examples(ids: Sequence[str]) -> str:
    """Name the first few, and how many there are besides."""
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in ids[:_SHOWN]]  # noqa: PLR2004
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{listing(names)}{more}"


def told(found: Mapping[str, Contents]) -> str:
    """Say how many records were read, if not all."""
    part = [f"{len(c)} of {c.whole} in {split}" for split, c in found.items() if len(c) < c.whole]
    return f" ({', '.join(part)} were read, drawn at random)" if part else ""
