"""Where each key and value of a TOML document stands.

tomli gives values without positions, so this scanner walks a text that tomli has *accepted* and
notes line and column of every path; on any other text its answer means nothing.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from typing import NamedTuple

import tomli

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """Lines and columns (code points) from 1, of the key and of its value."""

    line: int
    column: int
    value_line: int
    value_column: int


_STRING = r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_KEY = _STRING + r"|[A-Za-z0-9_-]+"
_SIMPLE = _STRING + r"|[^,\]}#\r\n]*"
_BETWEEN = r"(?:[ \t\r\n,]|#[^\n]*)*"


def positions(text: str) -> dict[Path, Position]:
    """Return the position of every key, table, and array element, by path."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, Position] = {}
        self.lengths = Counter[Path]()
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def run(self) -> dict[Path, Position]:
        prefix: Path = ()
        self._skip(_BETWEEN)
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_BETWEEN)
        return self.found

    def _header(self) -> Path:
        here = self._position(self.at, self.at)
        array = self._skip(r"\[+[ \t]*").startswith("[[")
        *parents, (last, _) = self._keys()
        self._skip(r"[ \t]*\]+")
        path: Path = ()
        for name, _ in parents:
            path = (*path, name)
            # what is below an array of tables belongs to its last one
            path = (*path, self.lengths[path] - 1) if path in self.lengths else path
            self.found.setdefault(path, here)
        path = (*path, last)
        if array:
            self.found.setdefault(path, here)
            self.lengths[path] += 1
            path = (*path, self.lengths[path] - 1)
        self.found[path] = here
        return path

    def _pair(self, path: Path) -> None:
        keys = self._keys()
        self._skip(r"[ \t]*=[ \t]*")
        for key, start in keys:
            path = (*path, key)
            self.found.setdefault(path, self._position(start, self.at))
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        """Read a dotted key: each part with its offset."""
        keys: list[tuple[str, int]] = []
        while not keys or self._skip(r"[ \t]*\.[ \t]*"):
            start = self.at
            (key,) = tomli.loads(f"{self._skip(_KEY)} = 0")
            keys.append((key, start))
        return keys

    def _value(self, path: Path) -> None:
        opening = self._skip(r"[\[{]")
        if not opening:
            self._skip(_SIMPLE)
            return
        index = 0
        self._skip(_BETWEEN)
        while not self._skip(r"[\]}]"):
            if opening == "{":
                self._pair(path)
            else:
                self.found[*path, index] = self._position(self.at, self.at)
                self._value((*path, index))
            index += 1
            self._skip(_BETWEEN)

    def _skip(self, pattern: str) -> str:
        """Pass over what a pattern matches here, and return it."""
        match = re.compile(pattern, re.DOTALL).match(self.text, self.at)
        skipped = match[0] if match else ""
        self.at += len(skipped)
        return skipped

    def _position(self, key: int, value: int) -> Position:
        return Position(*self._line(key), *self._line(value))

    def _line(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1
