"""Where each key and value of a TOML document stands.

tomli gives values without positions, so this scanner walks a text that tomli has *accepted* and
notes line and column of every path; on any other text its answer means nothing.
"""

from __future__ import annotations

import bisect
import re
from typing import NamedTuple

import tomli

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """Lines and columns (code points) from 1, of the key and of its value."""

    line: int
    column: int
    value_line: int
    value_column: int


_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")


def positions(text: str) -> dict[Path, Position]:
    """Return the position of every key, table, and array element, by path."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, Position] = {}
        self.lengths: dict[Path, int] = {}
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def run(self) -> dict[Path, Position]:
        prefix: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_BLANK)
        return self.found

    def _header(self) -> Path:
        array = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if array else 1
        keys = self._keys()
        self.at += 2 if array else 1
        path: Path = ()
        for key, _ in keys[:-1]:
            path = self._last((*path, key))
            self._note(path, start, start)
        path = (*path, keys[-1][0])
        if array:
            self._note(path, start, start)
            index = self.lengths.get(path, 0)
            self.lengths[path] = index + 1
            path = (*path, index)
        self._note(path, start, start, again=True)
        return path

    def _last(self, path: Path) -> Path:
        """Follow a path that names an array of tables to that array's last table."""
        return (*path, self.lengths[path] - 1) if path in self.lengths else path

    def _pair(self, prefix: Path) -> None:
        keys = self._keys()
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        path = prefix
        for key, start in keys:
            path = (*path, key)
            self._note(path, start, self.at)
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        """Read a dotted key: each part with its offset; stops at `=` or `]`."""
        keys = []
        while True:
            self._skip(_SPACE)
            start = self.at
            if self.text[start] in "\"'":
                self._skip(_STRING)
                keys.append((tomli.loads("k=" + self.text[start : self.at])["k"], start))
            else:
                self._skip(_BARE)
                keys.append((self.text[start : self.at], start))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._skip(_STRING)
        elif first == "[":
            self.at += 1
            self._items(path, "]")
        elif first == "{":
            self.at += 1
            self._items(path, "}")
        else:
            self._skip(_SCALAR)

    def _items(self, path: Path, close: str) -> None:
        index = 0
        self._skip(_BLANK)
        while not self.text.startswith(close, self.at):
            if close == "}":
                self._pair(path)
            else:
                self._note((*path, index), self.at, self.at)
                self._value((*path, index))
            index += 1
            self._skip(_BLANK)
            if self.text.startswith(",", self.at):
                self.at += 1
                self._skip(_BLANK)
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at + 1

    def _note(self, path: Path, key: int, value: int, *, again: bool = False) -> None:
        if again or path not in self.found:
            self.found[path] = Position(*self._line(key), *self._line(value))

    def _line(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1
