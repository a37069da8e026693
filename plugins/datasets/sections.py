"""Problems with a plan and code, from JSONL; and copies whose code is broken on purpose."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from framework.errors import UserError, listing
from framework.protocols import Info, Record, option
from plugins._tables import Row, existing, rows, shown
from plugins.datasets._corruption import CONTINUE, KINDS, corrupted
from plugins.datasets._records import SPLITS, Corpus, Records, located

_log = logging.getLogger("framework")
LABELS = (CONTINUE, *KINDS)
_TWO = 2
_DIGITS = 18


def _ranges(_: object, field: attrs.Attribute[object], value: Mapping[str, list[int]]) -> None:
    if not {"train", "val"} <= value.keys() <= {*SPLITS}:
        raise ValueError(f"'{field.name}' must name train, val and maybe test")
    for name, ends in value.items():
        if len(ends) != _TWO or ends[0] > ends[1]:
            raise ValueError(f"'{field.name}': '{name}' must be the first id and the last")
    before, *others = sorted(value.values())
    for other in others:
        if other[0] <= before[1]:
            raise ValueError(f"'{field.name}': {before} and {other} have ids in common")
        before = other


@attrs.frozen
class Sections:
    """Problem, plan and code of every row, and, for each, a copy with one fault in the code.

    The copies, which the key `copy` tells, are there for the label: what is wrong with the code, or
    CONTINUE where nothing is. So these labels are synthetic; they follow from seed and id.
    """

    root: Path | None = option(None, help="folder of the file, if its name is plain")
    file: Path | str = option("mbpp.jsonl", help="JSONL; begin it with ., / or ~ for any place")
    id: str = option("task_id", help="column of whole numbers, by which rows are split")
    problem: str = option("text", help="column of the problem")
    plan: str = option("test_list", help="column of the plan: a text, or a list of its lines")
    code: str = option("code", help="column of the code")
    splits: dict[str, list[int]] = option(
        help="first and last id of train, val and maybe test; other rows are left out",
        validator=_ranges,
    )
    incomplete: Literal["error", "drop"] = option(
        "error", help="a row without problem, plan or code: is refused, or left out and counted"
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there."""
        self._file()

    def build(self, seed: int) -> Corpus:
        """Read, split by id and make the copies; `UserError` names the row of what is wrong."""
        file = self._file()
        whole, dropped = self._read(file)
        self._tell(file, whole, dropped)
        items = [*whole, *filter(None, (_copy(item, seed) for item in whole))]
        sides = [self._side(item) for item in items]
        at = {name: [i for i, side in enumerate(sides) if side == name] for name in self.splits}
        groups = {k: [*dict.fromkeys(items[i]["group"] for i in v)] for k, v in at.items()}
        train = Counter(items[i]["label"] for i in at["train"])
        info = {
            "labels": [*LABELS],
            "heads": {"plan": [], "code": [], "refinement": ["labels", "class_counts"]},
            "class_counts": [train[label] for label in range(len(LABELS))],
            "counts": {**{name: len(part) for name, part in at.items()}, "dropped": dropped},
            "synthetic": "labels: faults put into the code, by seed and id",
        }
        records = {name: Records(Store(items), part) for name, part in at.items()}
        return Corpus(info, (file,), groups, records)

    def read(self, file: Path, info: Info) -> Iterator[Record]:  # noqa: ARG002 - not needed here
        """Stream the rows of another file, with problem, plan and code; ids are not needed."""
        columns = self._columns()
        for row in rows(file, (), [self.id, *columns.values()], columns.values(), columns.values()):
            lacks = self._lacks(row)
            if lacks:
                row.place.fail(f"it has no {lacks}; fill it in or remove the row", columns[lacks])
            yield self._record(row, row.cells.get(self.id) or str(row.place.row))

    def _read(self, file: Path) -> tuple[list[Record], int]:
        """Return the whole rows, and how many others there are."""
        columns, dropped = self._columns(), 0
        items: list[Record] = []
        seen: dict[str, int] = {}
        for row in rows(file, [self.id], columns.values(), columns.values(), columns.values()):
            name = row.text(self.id)
            if not (name.isascii() and name.isdigit() and len(name) <= _DIGITS):
                row.place.fail(f"found {shown(name)}, expected a whole number", self.id)
            if name != str(int(name)):
                row.place.fail(f"found {shown(name)}, expected no zeros before it", self.id)
            if seen.setdefault(name, row.place.row) != row.place.row:
                row.place.fail(f"{name} is the id of row {seen[name]} already", self.id)
            lacks = self._lacks(row)
            if lacks and self.incomplete == "error":
                row.place.fail(
                    f"it has no {lacks}, and so no sequence with every section; fill it in, or set"
                    ' dataset.incomplete = "drop"',
                    columns[lacks],
                )
            if lacks:
                dropped += 1
            else:
                items.append({**self._record(row, name), "group": name, "label": 0})
        return items, dropped

    def _columns(self) -> dict[str, str]:
        return {"problem": self.problem, "plan": self.plan, "code": self.code}

    def _lacks(self, row: Row) -> str:
        """Return the first section that a row lacks, if any."""
        blank = (
            k for k, column in self._columns().items() if not row.cells.get(column, "").strip()
        )
        return next(blank, "")

    def _record(self, row: Row, name: str) -> Record:
        texts = {key: _plain(row.cells[column]) for key, column in self._columns().items()}
        return {"id": name, "text": texts["problem"], "plan": texts["plan"], "code": texts["code"]}

    def _side(self, item: Record) -> str:
        """Return the split of a row, or of its copy; empty where its id is in none."""
        inside = (k for k, (a, b) in self.splits.items() if a <= int(item["group"]) <= b)
        return next(inside, "")

    def _tell(self, file: Path, items: Sequence[Record], dropped: int) -> None:
        """Say what was left out, and what stands in two splits; `UserError` for an empty one."""
        if dropped:
            _log.warning("%s: %d rows without problem, plan or code are dropped", file, dropped)
        sides = [self._side(item) for item in items]
        if empty := [name for name in self.splits if name not in sides]:
            raise UserError(
                f"{file}: no whole row has an id of {listing(empty)}; change dataset.splits"
            )
        twice = [_twice([item[key] for item in items], sides) for key in ("text", "code")]
        if any(twice):
            message = "%s: %d problems and %d codes stand in several splits, with other ids"
            _log.warning(message, file, *twice)

    def _file(self) -> Path:
        return existing(located(self.file, self.root, "file"))


@attrs.frozen(eq=False)
class Store:
    """Records in memory."""

    items: Sequence[Record] = attrs.field(repr=False)

    def bare(self) -> Store:
        """Give all but the texts."""
        kept = ("id", "label", "group", "copy")
        return Store([{k: item[k] for k in kept if k in item} for item in self.items])

    def record(self, at: int) -> Record:
        """Give one record."""
        return dict(self.items[at])


def _copy(item: Record, seed: int) -> Record | None:
    """Return a record's copy with a fault in its code; None where nothing in it can be broken."""
    code, label = corrupted(item["code"], seed, item["id"])
    name = f"{item['id']}:corrupted"
    made = {**item, "id": name, "code": code, "label": LABELS.index(label or CONTINUE)}
    return {**made, "copy": True} if label else None


def _twice(texts: Sequence[str], sides: Sequence[str]) -> int:
    """Count the texts that stand in several splits."""
    where: dict[str, set[str]] = {}
    for text, side in zip(texts, sides, strict=True):
        where.setdefault(text, set()).add(side)
    return sum(len(names - {""}) > 1 for names in where.values())


def _plain(text: str) -> str:
    """Return a text with plain line ends, and no blanks at the end of lines, which tell nothing."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").split("\n")
    return "\n".join(map(str.rstrip, lines)).rstrip()
