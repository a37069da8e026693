"""The dataset of big tables: the same records and splits as in memory, by arrays of row numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError
from plugins import _cache
from plugins._tables import shown
from plugins.datasets._arrow import Layout, Table, converted, first_twice, ranked, ranked_as_text
from plugins.datasets._labelled import few, found, ordered
from plugins.datasets._large import Rows, Tables
from plugins.datasets._records import SPLITS, Corpus, Records, given
from plugins.datasets._splits import apportion

LISTED = 250_000
"""Ids (of groups) that a manifest lists; of more it gives a digest for each split."""
_VERSION = 1


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be made of which files, as options say it."""

    files: Mapping[str, Path]
    """By split, that of train first."""
    layout: Layout
    labels: Sequence[str]
    """Names in the order of their indices; empty: those of train, sorted."""
    ratios: Mapping[str, float]
    """Of the splits that train is cut into."""
    manifest: Path | None
    seed: int

    def build(self, root: Path) -> Corpus:
        """Convert what isn't yet, split, and open it; raises as reading into memory does.

        Raises `OSError` or `NotImplementedError` where the cache can't be used.
        """
        entries = {
            split: converted(file, self.layout, root, free=not self.labels and split == "train")
            for split, file in self.files.items()
        }
        pinned = hashlib.sha256(self.manifest.read_bytes()).hexdigest() if self.manifest else ""
        names = {split: entry.folder.name for split, entry in entries.items()}
        key = _cache.key(_VERSION, [*names.items()], [*self.labels], self.ratios, pinned, self.seed)
        cut = _cache.entry(root, key, lambda folder: _Cut(self, entries).write(folder))
        tables = {split: Table(entry.folder) for split, entry in entries.items()}
        store = Tables(tables, self.layout.meta, cut.folder)
        info = cut.facts["info"]
        parts = {
            s: Records(store, Rows(store.folder, s), _cache.key(key, s)) for s in info["counts"]
        }
        files = (*self.files.values(), *([self.manifest] if self.manifest else []))
        hashes = {str(self.files[s]): entry.facts["sha256"] for s, entry in entries.items()}
        return Corpus(info, files, cut.facts["manifest"], parts, hashes)


@attrs.frozen(eq=False)
class _Cut:
    """The split of converted tables, made once."""

    plan: Plan
    entries: Mapping[str, _cache.Entry]

    @cached_property
    def tables(self) -> dict[str, Table]:
        return {split: Table(entry.folder) for split, entry in self.entries.items()}

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the label of each record and the records of each split; what is said of them."""
        names, labels = self._labels()
        self._check_ids()
        self._check_groups()
        size = len(self.tables["train"])
        sides = np.empty(len(labels), np.int8)
        sides[:size] = self._sides(labels[:size])
        at = size
        for split, table in [*self.tables.items()][1:]:
            sides[at : at + len(table)] = SPLITS.index(split)
            at += len(table)
        rows = {name: np.flatnonzero(sides == SPLITS.index(name)) for name in SPLITS}
        rows = {name: part for name, part in rows.items() if len(part)}
        arrays: dict[str, NDArray[Any]] = {"labels": labels, **rows}
        for name, array in arrays.items():
            with _cache.create(folder / name) as stream:
                stream.write(array.data)
        counts = np.bincount(labels[rows["train"]], minlength=len(names))
        info = {
            "labels": names,
            "class_counts": counts.tolist(),
            "counts": {name: len(part) for name, part in rows.items()},
            "meta": self._meta(),
        }
        return {"info": info, "manifest": self._manifest(rows)}

    def _labels(self) -> tuple[list[str], NDArray[np.int32]]:
        """Return the labels' names, and the index of each record's."""
        plan, column = self.plan, self.plan.layout.label
        known = [*plan.labels]
        arrays = []
        for split, table in self.tables.items():
            file, here = plan.files[split], self.entries[split].facts["labels"]
            if not known:
                known = found(here, len(table), file, column)
            index = {label: at for at, label in enumerate(known)}
            of_code = np.asarray([index.get(label, -1) for label in here], np.int32)
            labels = of_code[table.numbers("label")]
            if (of_code < 0).any():
                at = int(np.argmin(labels))
                row = next(r for number, r in enumerate(plan.layout.rows(file)) if number == at)
                row.choice(column, dict.fromkeys(known))
            arrays.append(labels)
        return known, np.concatenate(arrays)

    def _check_ids(self) -> None:
        """Raise `UserError` for an id that stands twice."""
        if not self.plan.layout.id:
            return
        twice = first_twice([table.texts("id") for table in self.tables.values()])
        if twice:
            (split, again), (before, first) = map(self._located, twice)
            name = self.tables[split].reader(again)("id")
            file = self.plan.files[before]
            here = f"row {self.plan.layout.place(file, first).row} of {file.name}"
            message = f"{shown(name)} is the id of {here} already; change one"
            self._fail(split, again, message, self.plan.layout.id)

    def _check_groups(self) -> None:
        """Raise `UserError` for a group that is in two files."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.plan.layout.group:
            return
        before: list[str] = []
        for split, table in self.tables.items():
            groups = table.texts("group")
            for other in before:
                known = pa.array(self.tables[other].texts("group").unique())
                shared = np.asarray(pc.is_in(groups, value_set=known))
                if shared.any():
                    at = int(np.argmax(shared))
                    message = (
                        f"{shown(table.reader(at)('group'))} is also in the file of {other}, and a"
                        " group must not lie on two sides; remove it from one"
                    )
                    self._fail(split, at, message, self.plan.layout.group)
            before.append(split)

    def _located(self, at: int) -> tuple[str, int]:
        """Return the split of a row that is counted over all files, and its number there."""
        for split, table in self.tables.items():
            if at < len(table):
                return split, at
            at -= len(table)
        raise IndexError(at)

    def _fail(self, split: str, at: int, message: str, column: str) -> NoReturn:
        self.plan.layout.place(self.plan.files[split], at).fail(message, column)

    def _sides(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Return the split of each record of the first file, as its place in `SPLITS`."""
        plan, train = self.plan, self.tables["train"]
        if plan.manifest:
            groups = self._names("train")
            others = {s: dict.fromkeys(self._names(s), s) for s in self.tables if s != "train"}
            known = dict.fromkeys(groups, "")
            for bound in others.values():
                known |= bound
            sides = given(plan.manifest, groups, plan.ratios, known)
            return np.asarray([SPLITS.index(name) for name in sides], np.int8)
        if name := next((part for part in ("group", "id") if part in train), ""):
            group_of, count = ranked([train.texts(name)])
        else:
            group_of, count = ranked_as_text(train.numbers("row")), len(train)
        try:
            chosen = apportion(
                group_of, count, [labels.astype(np.int64)], [*plan.ratios.values()], plan.seed
            )
        except UserError as error:
            raise UserError(f"{plan.files['train']}: {error}") from None
        return np.asarray([SPLITS.index(name) for name in plan.ratios], np.int8)[chosen]

    def _names(self, split: str) -> list[str]:
        """Return the group of each record of a file; they are all in memory."""
        table = self.tables[split]
        for part in ("group", "id"):
            if part in table:
                groups: list[str] = table.texts(part).to_pylist()
                return groups
        return [f"{split}:{row}" for row in table.numbers("row").tolist()]

    def _meta(self) -> dict[str, list[str]]:
        """Return the values of metadata that names groups, over all files."""
        found: dict[str, list[str]] = {}
        for name in self.plan.layout.meta:
            sets = [entry.facts["meta"][name] for entry in self.entries.values()]
            if None not in sets:
                values = {value for known in sets for value in known}
                found |= {name: ordered(values)} if few(values) else {}
        return found

    def _manifest(self, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, list[str]]:
        """Return the groups of each split, or digests of the splits where these are many."""
        import pyarrow as pa

        made: dict[str, list[str]] = {}
        part = next((p for p in ("group", "id") if p in self.tables["train"]), "")
        if part:
            chunks = [c for table in self.tables.values() for c in table.texts(part).chunks]
            column = pa.chunked_array(chunks)
        for name, of_split in rows.items():
            if part == "group":
                names = column.take(of_split).unique()
            if (len(names) if part == "group" else len(of_split)) > LISTED:
                digest = hashlib.sha256(of_split.data).hexdigest()
                made[name] = [f"sha256 of {len(of_split)} row numbers: {digest}"]
            elif part == "group":
                made[name] = names.to_pylist()
            elif part:
                made[name] = column.take(of_split).to_pylist()
            else:
                made[name] = [self._id(int(at)) for at in of_split]
        return made

    def _id(self, at: int) -> str:
        split, place = self._located(at)
        return f"{split}:{self.tables[split].reader(place)('row')}"
