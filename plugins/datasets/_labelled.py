"""Reading files of labelled texts whose columns are named by options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework.errors import UserError
from plugins._tables import Row, rows, shown, textual
from plugins.datasets._records import Columns

_MANY = 20
"""Rows from which on a label that hardly repeats is taken for something else."""
_GROUPS = 100
"""Values of metadata up to which they are listed as groups."""


@attrs.define
class Labelled:
    """What was read so far; the names of columns are empty where there is no such column."""

    texts: Mapping[str, str]
    """Columns of `text` and, maybe, `text_pair`."""
    label: str
    id: str
    group: str
    meta: Sequence[str]
    labels: Sequence[str]
    """Names in the order of their indices; empty: those of the first file, sorted."""
    columns: Columns = attrs.field(init=False, factory=Columns)
    bound: list[str] = attrs.field(init=False, factory=list)
    """Splits of the records that are not from the first file."""
    _ids: dict[str, str] = attrs.field(init=False, factory=dict)
    _sides: dict[str, str] = attrs.field(init=False, factory=dict)

    def read(self, files: Mapping[str, Path]) -> list[str]:
        """Read the files of the splits, that of train first; the names of the labels.

        Raises `UserError` for a label outside the known set, an id that stands twice, a group
        in two files, and when there is one label only.
        """
        known = list(self.labels)
        values: list[str] = []
        self.columns.meta.update({name: [] for name in self.meta})
        named = [name for name in (self.id, self.group) if name]
        needed = [*self.texts.values(), self.label, *named, *self.meta]
        for split, file in files.items():
            choices = dict.fromkeys(known)
            for row in rows(file, needed, texts=self.texts.values()):
                self._take(row, split)
                values.append(row.choice(self.label, choices) if choices else row.text(self.label))
            known = known or found(values, len(values), file, self.label)
        index = {label: at for at, label in enumerate(known)}
        self.columns.labels.extend(index[value] for value in values)
        return known

    def _take(self, row: Row, split: str) -> None:
        """Add a row, but for its label."""
        place = row.place
        name = row.text(self.id) if self.id else f"{split}:{place.row}"
        here = f"row {place.row} of {place.file.name}"
        before = self._ids.setdefault(name, here)
        if before is not here:
            place.fail(f"{shown(name)} is the id of {before} already; change one", self.id)
        group = row.text(self.group) if self.group else name
        if self._sides.setdefault(group, split) != split:
            place.fail(
                f"{shown(group)} is also in the file of {self._sides[group]}, and a group must "
                "not lie on two sides; remove it from one",
                self.group,
            )
        self.columns.ids.append(name)
        self.columns.groups.append(group)
        self.columns.texts.append(row.text(self.texts["text"]))
        if "text_pair" in self.texts:
            self.columns.pairs.append(row.text(self.texts["text_pair"]))
        for key, cells in self.columns.meta.items():
            cells.append(row.cells[key])
        if split != "train":
            self.bound.append(split)


def found(values: Iterable[str], rows: int, file: Path, column: str) -> list[str]:
    """Return the labels of train; `UserError` for a column of texts, or of one label."""
    known = plausible(values, rows, file, column)
    if len(known) == 1:
        raise UserError(
            f"{file}: column '{column}' holds one label only, {shown(*known)}; expected two or more"
        )
    return known


def plausible(values: Iterable[str], rows: int, file: Path, column: str) -> list[str]:
    """Return the labels there are; `UserError` for a column of texts, which is none of labels.

    Labels are written into every record of a run, and texts must not be.
    """
    known = ordered(values)
    if (rows >= _MANY and len(known) > rows / 2) or any(map(textual, known)):
        raise UserError(
            f"{file}: column '{column}' holds {len(known)} different values in"
            f" {rows} rows, or texts: name the column of the labels"
        )
    return known


def names(_: Any, field: Any, value: list[str]) -> None:
    """Validate names of labels: none, or two and more that differ; raises `ValueError`."""
    if value and (len(value) == 1 or len(set(value)) < len(value)):
        raise ValueError(f"'{field.name}' must be two or more different names, or left out")


def ordered(values: Iterable[str]) -> list[str]:
    """Return the different values, sorted: as numbers where all are, else as text."""
    different = sorted(set(values))
    try:
        numbers = [float(value) for value in different]
    except ValueError:
        return different
    return sorted(different, key=float) if all(map(math.isfinite, numbers)) else different


def few(values: Iterable[str]) -> bool:
    """Return whether values name groups, rather than being anything of a record's own."""
    different = set(values)
    return len(different) <= _GROUPS and not any(map(textual, different))
