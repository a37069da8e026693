"""Records of big tables, each read from disk when it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.protocols import Record
from plugins import _cache
from plugins._mapped import read
from plugins.datasets._arrow import Table


@attrs.frozen(eq=False)
class Tables:
    """The records of all files, one file after the other, read from disk one by one."""

    tables: Mapping[str, Table] = attrs.field(repr=False)
    """By the option that named the file."""
    meta: Sequence[str]
    folder: Path
    """Where the index of each record's label is."""
    whole: bool = True
    """False: records without their texts."""
    _labels: NDArray[np.int32] = attrs.field(init=False, repr=False)
    _ends: Sequence[int] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Map the labels."""
        entry = _cache.Entry(self.folder, {})
        object.__setattr__(self, "_labels", entry.array("labels", np.int32))
        object.__setattr__(self, "_ends", [*accumulate(map(len, self.tables.values()))])

    def __reduce__(self) -> tuple[Any, ...]:
        """Give paths instead of what is there."""
        return Tables, (self.tables, self.meta, self.folder, self.whole)

    def bare(self) -> Tables:
        """Give all but the texts."""
        return Tables(self.tables, self.meta, self.folder, whole=False)

    def record(self, at: int) -> Record:
        """Make one record."""
        read()
        number = bisect_right(self._ends, at)
        split = [*self.tables][number]
        table = self.tables[split]
        cell = table.reader(at - (self._ends[number - 1] if number else 0))
        name = cell("id") if "id" in table else f"{split}:{cell('row')}"
        record: dict[str, Any] = {"id": name}
        if self.whole:
            record |= {key: cell(key) for key in ("text", "text_pair") if key in table}
        record["label"] = int(self._labels[at])
        record["group"] = cell("group") if "group" in table else name
        record["meta"] = {key: cell(f"meta.{key}") for key in self.meta}
        return record


@attrs.frozen(eq=False)
class Rows:
    """Which records are of one split; a pickle of it holds paths."""

    folder: Path
    split: str
    _numbers: NDArray[np.int64] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Map the row numbers."""
        entry = _cache.Entry(self.folder, {})
        object.__setattr__(self, "_numbers", entry.array(self.split, np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        """Give paths instead of what is there."""
        return Rows, (self.folder, self.split)

    def __len__(self) -> int:
        """Count them."""
        return len(self._numbers)

    def __getitem__(self, at: Any) -> Any:
        """Give one number, or those of a slice as an array."""
        return self._numbers[at]
