"""Check classes: which there are, and whether each split has about the same mix of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from plugins.checks import _records
from plugins.checks._records import examples

RANGE = "labels in range"
IGNORED = -100
_CHANCE, _EFFECT = 1e-3, 0.1
"""A mix is another one where chance would not make it, and it is not a trifle (Cramér's V)."""


@attrs.frozen
class ClassesCheck:
    """Labels are in range, none lacks in train, splits have one mix, counts are train's own."""

    area = "data"
    free = True

    def observe(self, probe: Any) -> None:
        """Count the labels of each split."""
        rows = (RANGE, "label balance", "label drift", "class counts of train")
        names = [*probe.splits.info.get("labels", ())]
        most = _records.FREE if probe.given else _records.MOST
        found = {split: _labels(probe.splits[split], most) for split in probe.splits.keys()}  # noqa: SIM118
        if not names or not any(labels for _, labels in found.values()):
            for row in rows:
                probe.skips(row, "the dataset tells no labels")
            return
        _range(probe, names, found)
        if why := probe.failed(RANGE):
            for row in rows[1:]:
                probe.skips(row, why)
            return
        counts = {
            split: np.bincount(
                [label for label in labels if _known(label, names)], minlength=len(names)
            )
            for split, (_, labels) in found.items()
        }
        alone = probe.splits.info.get("train_on")
        if alone:
            why = f"train is to have {alone!r} alone: labels are not what is learned"
            probe.skips("label balance", why)
            probe.skips("label drift", why)
        else:
            _balance(probe, names, counts, most)
            _drift(probe, names, counts)
        _counted(probe, found, counts)


def _labels(records: Sequence[Any], most: int) -> tuple[list[str], list[Any]]:
    """Return ids and labels of the records that have one."""
    told = [r for r in _records.some(_records.bare(records), most) if r.get("label") is not None]
    return [str(r["id"]) for r in told], [r["label"] for r in told]


def _known(label: Any, names: Sequence[str]) -> bool:
    return isinstance(label, (int, np.integer)) and bool(0 <= label < len(names))


def _range(probe: Any, names: Sequence[str], found: Mapping[str, Any]) -> None:
    row = RANGE
    wrong = [
        f"{name} ({split})"
        for split, (ids, labels) in found.items()
        for name, label in zip(ids, labels, strict=True)
        if not _known(label, names) and label != IGNORED
    ]
    without = sum(label == IGNORED for _, labels in found.values() for label in labels)
    if wrong:
        told = f"{len(wrong)} records have a label that is none of 0 to {len(names) - 1}"
        probe.fails(row, f"{told}: {examples(wrong)}", "let the dataset give indices of its labels")
    else:
        count = sum(len(labels) for _, labels in found.values())
        more = f", {without} of them without one ({IGNORED})" if without else ""
        probe.passes(row, f"{count} records have one of {len(names)}{more}")


def _balance(probe: Any, names: Sequence[str], counts: Mapping[str, Any], most: int) -> None:
    row, train = "label balance", counts["train"]
    known = train.tolist()
    if len(probe.splits["train"]) > most:  # of some of them a rare label may be in none
        known = probe.splits.info.get("class_counts") or [None] * len(names)
    absent = [name for name, count in zip(names, known, strict=True) if count == 0]
    shown = "; ".join(f"{split} {_mix(names, c)}" for split, c in counts.items())
    if absent:
        told = f"train has no record of {examples(absent)}: {shown}"
        probe.fails(row, told, "give records of it, or leave it out of the labels")
    else:
        probe.passes(row, shown)


def _mix(names: Sequence[str], counts: Any) -> str:
    total = max(1, int(counts.sum()))
    shares = Counter(dict(zip(names, counts.tolist(), strict=True))).most_common(4)
    more = ", …" if len(names) > len(shares) else ""
    return ", ".join(f"{name} {count / total:.0%}" for name, count in shares) + more


def _drift(probe: Any, names: Sequence[str], counts: Mapping[str, Any]) -> None:
    row, told, wrong = "label drift", [], []
    for split in (split for split in counts if split != "train"):
        table = np.stack([counts["train"], counts[split]])
        table = table[:, table.any(0)]
        if not table.any(1).all() or table.shape[1] == 1:
            told.append(f"{split} can't be compared")
            continue
        chance, effect = drift(table)
        told.append(f"{split} p = {chance:.2g}")
        if chance < _CHANCE and effect > _EFFECT:
            wrong.append(split)
    if wrong:
        shown = "; ".join(f"{split} {_mix(names, counts[split])}" for split in ("train", *wrong))
        advice = "split all records stratified by label, or know why the mix differs"
        probe.fails(row, f"{shown} (chi-squared: {', '.join(told)})", advice)
    elif told:
        probe.passes(row, f"chi-squared against train: {', '.join(told)}")
    else:
        probe.skips(row, "there is no other split")


def drift(table_2C: Any) -> tuple[float, float]:
    """Return how likely chance makes two rows of counts differ so, and Cramér's V.

    Pearson's chi-squared test; C classes, none of which is empty in both rows.
    """
    expected_2C = table_2C.sum(1, keepdims=True) * table_2C.sum(0) / table_2C.sum()
    statistic = float(((table_2C - expected_2C) ** 2 / expected_2C).sum())
    half = torch.tensor([(table_2C.shape[1] - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1])), (statistic / table_2C.sum()) ** 0.5


def _counted(probe: Any, found: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Hold what losses weight classes by against the records of train."""
    row, told = "class counts of train", probe.splits.info.get("class_counts")
    whole, seen = len(probe.splits["train"]), len(found["train"][1])
    if told is None:
        probe.skips(row, "the dataset tells no class_counts, from which losses weight classes")
        return
    known = counts["train"].tolist()
    # of a part of them only the sum is known
    right = [*told] == known if seen == whole else sum(told) <= whole
    if right:
        probe.passes(row, f"class_counts are those of train: {', '.join(map(str, told))}")
    else:
        there = known if seen == whole else f"{whole} in all"
        shown = f"class_counts are {[*told]}, and train has {there}"
        probe.fails(row, shown, "count the labels of train alone: weights come from them")
