"""Check reading: how much of a record's texts the model gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from framework.protocols import Features, Record
from plugins.checks import _records
from plugins.checks._records import examples

_LOOKED = 128
"""Records of a split that are encoded anew, half of them the longest."""
_FEW, _MOST = 0.05, 0.5
"""Shares of records that lose text, or have hardly any: to be looked at, and not sound."""

WORDS = "more than one token"
ENDS = "texts are read to their end"


@attrs.frozen
class ReadingCheck:
    """Texts are more than a token, and are read to their end."""

    area = "data"

    def observe(self, probe: Any) -> None:
        """Encode some records without the ends of their texts, and without any text."""
        fields = _records.texts(probe)
        if not fields:
            for row in (WORDS, ENDS):
                probe.skips(row, "records have no texts")
            return
        chosen = {split: _chosen(probe, split) for split in probe.splits.keys()}  # noqa: SIM118
        if _short(probe, fields, chosen) < _MOST:
            _ends(probe, fields, chosen)
        else:
            probe.skips(ENDS, f"see '{WORDS}'")


def _chosen(probe: Any, split: str) -> tuple[list[Record], list[Record]]:
    """Return records of a split, drawn at random, and the longest."""
    records, lengths = probe.splits[split], probe.trainer.feeds[split].lengths
    spread = [*_records.some(records, _LOOKED // 2)]
    longest = np.argsort(-np.asarray(lengths), kind="stable")[: _LOOKED // 2].tolist()
    return spread, [records[at] for at in longest]


def _short(probe: Any, fields: Sequence[str], chosen: Mapping[str, Any]) -> float:
    """Return the share of records with one token besides those that even no text at all has."""
    row = WORDS
    few, count, least = [], 0, []
    for split, feed in probe.trainer.feeds.items():
        blank = [_without(record, fields) for record in chosen[split][0][:4]]
        try:
            around = max(features["length"] for features in _encoded(probe, blank))
        except Exception as error:  # noqa: BLE001 - whatever a processor makes of no text
            probe.skips(row, f"no text can't be encoded ({type(error).__name__})")
            return 0.0
        lengths = np.asarray(feed.lengths)
        records = probe.splits[split]
        few += [str(records[at]["id"]) for at in np.flatnonzero(lengths == around + 1).tolist()]
        count += len(lengths)
        least.append(f"{lengths.min() - around} in {split}")
    share = len(few) / max(1, count)
    if not few:
        probe.passes(row, f"the shortest have, besides special ones, {', '.join(least)}")
        return share
    shown = f"{len(few)} of {count} records ({share:.1%}) are one token alone, as {examples(few)}"
    advice = "see whether these are texts, and whether the vocabulary knows their words"
    _judge(probe, row, share, shown, advice)
    return share


def _ends(probe: Any, fields: Sequence[str], chosen: Mapping[str, Any]) -> None:
    """Leave out last words: where features stay as they are, these are never read."""
    row = ENDS
    lost: dict[str, set[str]] = {}
    shares = []
    for spread, longest in chosen.values():
        cut = _cut(probe, spread, fields)
        shares.append(len({name for ids in cut.values() for name in ids}) / max(1, len(spread)))
        for found in (cut, _cut(probe, longest, fields)):
            for field, ids in found.items():
                lost.setdefault(field, set()).update(ids)
    share = max(shares)
    if not any(lost.values()):
        most = max(int(np.max(feed.lengths)) for feed in probe.trainer.feeds.values())
        told = f"those of {_LOOKED} records of each split, half of them the longest: {most}"
        probe.passes(row, told)
        return
    of = ", ".join(f"{field}: {examples(sorted(ids))}" for field, ids in lost.items() if ids)
    shown = f"{share:.0%} of records lose words at the end ({of})"
    advice = "let the model read longer texts, or cut texts where it hurts least"
    _judge(probe, row, share, shown, advice)


def _judge(probe: Any, row: str, share: float, shown: str, advice: str) -> None:
    """End a row by the share of records that it is about."""
    if share >= _MOST:
        probe.fails(row, shown, advice)
    elif share >= _FEW:
        probe.warns(row, shown, advice)
    else:
        probe.passes(row, shown)


def _cut(probe: Any, records: Sequence[Record], fields: Sequence[str]) -> dict[str, list[str]]:
    """Return by field the ids of records whose last word there changes nothing."""
    whole = _encoded(probe, records)
    found: dict[str, list[str]] = {}
    for field in fields:
        at = [i for i, r in enumerate(records) if len(str(r.get(field, "")).split()) > 1]
        less = [{**records[i], field: str(records[i][field]).rsplit(None, 1)[0]} for i in at]
        pairs = zip(at, _encoded(probe, less), strict=True)
        found[field] = [str(records[i]["id"]) for i, other in pairs if _same(whole[i], other)]
    return found


def _without(record: Record, fields: Sequence[str]) -> Record:
    return {**record, **{field: "" for field in fields if field in record}}


def _encoded(probe: Any, records: Sequence[Record]) -> list[Features]:
    if not records:
        return []
    features = probe.trainer.feeds["train"].processor.encode(list(records))
    return [features[at] for at in range(len(records))]


def _same(one: Features, other: Features) -> bool:
    """Return whether two features are alike in all that they hold."""
    return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
