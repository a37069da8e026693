"""Synthetic sentences about colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import attrs

from framework.errors import UserError
from framework.protocols import Info, Record, option

LABELS = ("cold", "warm")
COLOURS = ("blue", "red", "green", "orange", "violet", "yellow")
THINGS = ("kite", "door", "lamp", "boat", "chair", "scarf", "wagon")


@attrs.frozen
class Template:
    """Sentences of a colour and a thing; the label says whether the colour is warm.

    All of them are made up: take it as the frame for records of your own.
    """

    count: int = option(
        60, help="sentences of the training split", validator=attrs.validators.ge(12)
    )

    def check(self) -> None:
        """Look for input files, and raise `UserError` for one that isn't there; it has none."""

    def build(self, seed: int) -> LiveTemplate:
        """Make the splits; another seed makes other sentences."""
        sizes = {"train": self.count, "val": self.count // 3, "test": self.count // 3}
        splits = {name: Sentences(name, size, seed) for name, size in sizes.items()}
        found = Counter(record["label"] for record in splits["train"])
        counts = [found[index] for index in range(len(LABELS))]
        return LiveTemplate({"labels": list(LABELS), "class_counts": counts}, splits)

    def read(self, file: Path, info: Info) -> Iterator[Record]:  # noqa: ARG002 - labels unneeded
        """Yield a record for each line of an unlabelled text file; `UserError` if it isn't one."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: no readable text in UTF-8 ({type(error).__name__})") from None
        return ({"id": str(row), "text": line} for row, line in enumerate(lines, 1))


@attrs.frozen
class Sentences(Sequence[Record]):
    """One split; a record is made when it is asked for, so that any number fits into memory."""

    split: str
    size: int
    seed: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[at] for at in range(self.size)[index]]
        at = range(self.size)[index]
        colour = COLOURS[(at + self.seed) % len(COLOURS)]
        thing = THINGS[at % len(THINGS)]
        return {
            "id": f"{self.split}{at}",
            "text": f"the {thing} number {at} is {colour}",
            "label": COLOURS.index(colour) % 2,
        }


@attrs.frozen
class LiveTemplate:
    """The splits, and what the dataset says of itself."""

    info: Info
    splits: Mapping[str, Sequence[Record]]
    files: Sequence[Path] = ()

    @property
    def manifest(self) -> Mapping[str, Sequence[str]]:
        """The ids of each split."""
        return {name: [record["id"] for record in part] for name, part in self.splits.items()}

    def keys(self) -> Collection[str]:
        """Names of the splits."""
        return self.splits.keys()

    def __getitem__(self, split: str) -> Sequence[Record]:
        return self.splits[split]
