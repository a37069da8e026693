"""What both datasets come to: columns of cells, and splits that make records of them on access."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import attrs
import numpy as np

from framework.errors import UserError, listing
from framework.protocols import Record
from plugins._tables import shown
from plugins.datasets._splits import split

SPLITS = ("train", "val", "test")


@attrs.frozen(eq=False)
class Columns:
    """The cells of all records, column by column: an item of each makes one record."""

    ids: list[str] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    pairs: list[str] = attrs.field(factory=list)
    """Second texts; empty where records have one text only."""
    labels: list[int] = attrs.field(factory=list)
    groups: list[str] = attrs.field(factory=list)
    meta: dict[str, list[str]] = attrs.field(factory=dict)

    def bare(self) -> Columns:
        """Give all but the texts."""
        return attrs.evolve(self, texts=[], pairs=[])

    def record(self, at: int) -> Record:
        """Make one record."""
        record: dict[str, Any] = {"id": self.ids[at]}
        if self.texts:
            record["text"] = self.texts[at]
        if self.pairs:
            record["text_pair"] = self.pairs[at]
        record["label"] = self.labels[at]
        record["group"] = self.groups[at]
        record["meta"] = {key: values[at] for key, values in self.meta.items()}
        return record


class Store(Protocol):
    """Where records come from: columns in memory, or in files."""

    def bare(self) -> Store:
        """Give all but the texts."""

    def record(self, at: int) -> Record:
        """Make one record."""


class Numbers(Protocol):
    """Numbers of records: an array, or what maps one from a file."""

    def __len__(self) -> int:
        """Count them."""

    def __getitem__(self, at: Any, /) -> Any:
        """Give one, or an array of those of a slice."""


@attrs.frozen(eq=False)
class Records(Sequence[Record]):
    """Records of one split, each made when it is asked for."""

    columns: Store = attrs.field(repr=False)
    rows: Numbers = attrs.field(repr=False)
    key: str = ""
    """Stands for all that the records hold, if anything does."""

    def __len__(self) -> int:
        """Count the records."""
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        """Make one record, or take a part without making any."""
        if isinstance(at, slice):
            return Records(self.columns, self.rows[at])
        return self.columns.record(int(self.rows[at]))

    def bare(self) -> Records:
        """Give the same records without their texts, for those who need no more."""
        return attrs.evolve(self, columns=self.columns.bare())


@attrs.frozen(eq=False)
class Corpus:
    """The live dataset (`framework.protocols.Splits`)."""

    info: Mapping[str, Any]
    files: Sequence[Path]
    manifest: Mapping[str, Sequence[str]] = attrs.field(repr=False)
    records: Mapping[str, Sequence[Record]] = attrs.field(repr=False)
    hashes: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """SHA-256 of those files of which it is known already."""

    def keys(self) -> Collection[str]:
        """Names of the splits there are."""
        return self.records.keys()

    def __getitem__(self, split: str) -> Sequence[Record]:
        """Give the records of one split in the order of the file; `KeyError` if there is none."""
        return self.records[split]


def corpus(
    columns: Columns,
    sides: Sequence[str],
    files: Sequence[Path],
    labels: Sequence[str],
    **info: Any,
) -> Corpus:
    """Assemble the dataset from all records and the split that each of them belongs to."""
    names = [name for name in SPLITS if name in set(sides)]
    of = np.asarray(sides)
    rows = {name: np.flatnonzero(of == name) for name in names}
    manifest = {
        name: [*dict.fromkeys(columns.groups[at] for at in part)] for name, part in rows.items()
    }
    train = Counter(columns.labels[at] for at in rows["train"])
    about = {
        "labels": [*labels],
        "class_counts": [train[label] for label in range(len(labels))],
        "counts": {name: len(part) for name, part in rows.items()},
        **info,
    }
    records = {name: Records(columns, part) for name, part in rows.items()}
    return Corpus(about, tuple(files), manifest, records)


def located(file: Path | str, root: Path | None, name: str) -> Path:
    """Return where an option's file is: a plain name lies in root.

    Raises `UserError` for a plain name without a root.
    """
    if root is None and not Path(file).is_absolute():
        raise UserError(
            f"the dataset's option '{name}' is the plain name {str(file)!r}, and there is no "
            "'root' to look in; set root, or begin the name with './'"
        )
    return Path(root or "", file)


def cut(
    groups: Sequence[str],
    strata: Sequence[Sequence[int]],
    ratios: Mapping[str, float],
    seed: int,
    source: Path,
) -> list[str]:
    """Return the split of each record, cut by ratios.

    Raises `UserError` that names the source for too few groups.
    """
    names = [*ratios]
    try:
        return [names[at] for at in split(groups, strata, [*ratios.values()], seed)]
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def given(
    file: Path, groups: Sequence[str], names: Collection[str], known: Mapping[str, str]
) -> list[str]:
    """Return the split of each record, as a manifest gives it back.

    `names` are the splits to fill; `known` are all groups there are, each with the split that
    it is bound to, or with nothing. Raises `UserError` for a file that is no manifest, a group
    that is not known or bound to another split, one on two sides or on none, and for a split
    that stays empty.
    """
    try:
        manifest = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{file}: no JSON in UTF-8; give the splits.json of a run") from None
    if not isinstance(manifest, dict) or not manifest.keys() <= set(SPLITS):
        raise UserError(f"{file}: expected an object with the keys {listing(SPLITS)}")
    sides: dict[str, str] = {}
    for name, ids in manifest.items():
        if not (isinstance(ids, list) and all(isinstance(group, str) for group in ids)):
            raise UserError(f"{file}: '{name}': expected a list of ids, each of them text")
        for group in ids:
            here = f"{file}: '{name}': {shown(group)}"
            if group not in known:
                raise UserError(
                    f"{here} is not in the data; remove it, or give the data that this "
                    "manifest was made for"
                )
            if known[group] not in ("", name):
                raise UserError(f"{here} is in the file of '{known[group]}'; list it there")
            if sides.setdefault(group, name) != name:
                raise UserError(f"{here} stands under '{sides[group]}' too; keep one of them")
    return _filled(file, groups, names, sides)


def _filled(
    file: Path, groups: Sequence[str], names: Collection[str], sides: Mapping[str, str]
) -> list[str]:
    """Return the side of each record's group; `UserError` when one is missing."""
    assigned = [sides.get(group, "") for group in groups]
    for group, name in zip(groups, assigned, strict=True):
        if name not in names:
            found = f"under '{name}'" if name else "under no split"
            raise UserError(
                f"{file}: {shown(group)} stands {found}; expected it under {listing(names)}"
            )
    for name in names:
        if name not in assigned:
            raise UserError(f"{file}: '{name}' is empty; list at least one id that has records")
    return assigned
