"""One plain text, split into parts and cut into windows: what a language model reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import attrs
from attrs.validators import ge

from framework.errors import UserError
from framework.protocols import Info, Record, option
from plugins._tables import existing
from plugins.datasets._records import SPLITS, Corpus, located
from plugins.datasets._splits import shares


@attrs.frozen
class TextFile:
    """Windows of a UTF-8 text file: train is its beginning, then val, then test if there is one.

    The text is split before windows are cut, so that none reaches into another split. Training
    takes whole windows alone; elsewhere the last may be shorter, and every character but a
    split's first is predicted exactly once.
    """

    root: Path | None = option(None, help="folder of the file, if its name is plain")
    file: Path | str = option("input.txt", help="the text; begin it with ., / or ~ for any place")
    ratios: list[float] = option(
        [0.9, 0.1],
        help="shares of train, val and maybe test, in the text's order",
        validator=shares(2, 3),
    )
    window: int = option(64, help="characters that a window predicts", validator=ge(1))
    stride: int = option(
        0, help="characters between windows of training; 0: a window", validator=ge(0)
    )
    shift: bool = option(
        True, help="move each window of training, anew in every epoch, by up to a stride"
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there."""
        self._file()

    def build(self, seed: int) -> Corpus:  # noqa: ARG002 - nothing is drawn
        """Read and split; `UserError` for what is no text, or shorter than a window."""
        file = self._file()
        text = _read(file)
        ends = [round(len(text) * share, 6) for share in itertools.accumulate(self.ratios)]
        parts = itertools.pairwise([0, *map(int, ends[:-1]), len(text)])
        splits: dict[str, Sequence[Record]] = {}
        groups, counts = {}, {}
        for split, (begin, end) in zip(SPLITS, parts, strict=False):
            if end - begin <= self.window:
                raise UserError(
                    f"{file}: its part for {split} has {end - begin} characters and a window takes"
                    f" {self.window + 1}; give a longer text, or change window or ratios"
                )
            groups[split], counts[split] = f"{begin}-{end}", end - begin
            splits[split] = self._windows(text[begin:end], split, groups[split])
        manifest = {split: [group] for split, group in groups.items()}
        return Corpus({"characters": counts}, (file,), manifest, splits)

    def read(self, file: Path, info: Info) -> Windows:  # noqa: ARG002 - not needed here
        """Return the windows of another text, as of a split that isn't trained on."""
        text = _read(existing(file))
        if not text:
            raise UserError(f"{file}: it is empty")
        return attrs.evolve(self._windows(text, "text", f"0-{len(text)}"), kept=False)

    def _windows(self, text: str, split: str, group: str) -> Windows:
        if split != "train":
            # the last window may be short, but must predict something
            begins = range(0, max(1, len(text) - 1), self.window)
            return Windows(text, split, group, begins, self.window)
        stride = self.stride or self.window
        whole = range(0, len(text) - self.window, stride)
        return Windows(text, split, group, whole, self.window, self.shift * (stride - 1))

    def _file(self) -> Path:
        return existing(located(self.file, self.root, "file"))


@attrs.frozen(eq=False)
class Windows(Sequence[Record]):
    """Windows of a split, each made when it is asked for.

    A record's text is the character before the window and the window's own, which it predicts.
    Who wants to encode a split at once finds `whole` and where windows begin in it.
    """

    whole: str = attrs.field(repr=False)
    """The split's text."""
    split: str
    group: str
    """Where the split lies in the file."""
    begins: range
    window: int
    slack: int = 0
    """Characters by which training may move a window on."""
    kept: bool = True
    """Whether a cache may keep what is made of it."""

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Windows: ...
    def __getitem__(self, at: int | slice) -> Record | Windows:
        """Make one record, or take some of the windows."""
        if isinstance(at, slice):
            return attrs.evolve(self, begins=self.begins[at])
        begin = self.begins[at]
        text = self.whole[begin : begin + self.window + 1]
        return {"id": f"{self.split}:{begin}", "text": text, "group": self.group}


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start + 1})") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None
