"""Where keys and values of a TOML text stand, held against tomli's tree."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import attrs
import pytest
import tomli
from hypothesis import event, given, settings
from hypothesis import strategies as st

from framework.config.positions import Position, positions

BARE = re.compile(r"[A-Za-z0-9_-]+")
SCALARS = [
    "0",
    "-17",
    "1_000",
    "0xDEAD_beef",
    "0o17",
    "0b01",
    "6.02e+23",
    "-inf",
    "nan",
    "true",
    "false",
    "1979-05-27",
    "07:32:00.5",
    "1979-05-27 07:32:00",
    "1979-05-27T07:32:00.25-07:00",
]
BASIC = ["a", "é", "漢😀", " ", r"\"", r"\\", r"\u00e9", r"\t", "#", "[", "]", "'", "=", ",", "{}"]
LITERAL = ["a", "é", "漢😀", " ", "\\", "#", "[x]", '"', "=", ",", "{", "}"]
COMMENTS = ["", "#", "# ] } [x] a = 1", '# """ \'\'\' "', "# é漢😀 , ["]
BLANKS = ["", "", " ", "\n", "\n\n\t", *(f" {comment}\n " for comment in COMMENTS)]
KEYS = [
    "a",
    "B-1",
    "_",
    "0",
    "",
    " ",
    "é",
    "漢😀",
    "a.b",
    "#",
    "[x]",
    "{",
    "=",
    '"',
    "'",
    '"""',
    "]",
]


@functools.cache
def _one_of(choices: tuple[Any, ...]) -> Any:
    return st.sampled_from(choices)


def paths(tree: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Return the path of every key, table and array element of a tree."""
    found = {path} if path else set()
    inner: Any = ()
    if isinstance(tree, dict):
        inner = tree.items()
    elif isinstance(tree, list):
        inner = enumerate(tree)
    return found.union(*(paths(value, (*path, key)) for key, value in inner))


@attrs.define
class Writer:
    """Writes a random document, and notes where it puts each key and value."""

    draw: Any
    newline: str
    text: str = ""
    expected: dict[tuple[str | int, ...], tuple[int, int]] = attrs.field(factory=dict)

    def put(self, text: str) -> int:
        """Write; where it begins."""
        at = len(self.text)
        self.text += text
        return at

    def choose(self, *choices: Any) -> Any:
        """Draw one."""
        return self.draw(_one_of(choices))

    def space(self) -> None:
        """Write blanks."""
        self.put(self.choose("", "", " ", "\t "))

    def end(self) -> None:
        """End a line, perhaps with a comment and blank lines."""
        self.space()
        self.put(self.choose(*COMMENTS) + self.newline * self.choose(1, 1, 2))

    def blank(self) -> None:
        """Write what may stand between the items of an array or an inline table."""
        self.put(self.choose(*BLANKS).replace("\n", self.newline))

    def key(self, name: str) -> int:
        """Write a key, quoted if it must be or happens to be; where it begins."""
        forms = [json.dumps(name, ensure_ascii=False)]
        if "'" not in name:
            forms.append(f"'{name}'")
        if BARE.fullmatch(name):
            forms += [name] * 3
        return self.put(self.choose(*forms))

    def dot(self) -> None:
        """Write the dot of a dotted key."""
        self.space()
        self.put(".")
        self.space()

    def fresh(self, taken: set[str]) -> str:
        """Return a key that its table doesn't have."""
        name = self.choose(*(key for key in KEYS if key not in taken))
        taken.add(name)
        return str(name)

    def string(self) -> str:
        """Return a string in one of the four forms, with quotes inside where it may have them."""
        form = self.choose('"', "'", '"""', "'''")
        pieces = list(BASIC if form[0] == '"' else LITERAL)
        if len(form) == 1:
            return form + "".join(self.choose("", *pieces) for _ in range(2)) + form
        pieces += [self.newline, form[0] + "x", form[0] * 2 + "x"]
        if form[0] == '"':
            pieces.append("\\" + self.newline + "  ")
        inside = "".join(self.choose("", *pieces) for _ in range(3))
        # up to two quotes may touch the closing three, but three in a row would close it
        last = "" if inside.endswith(form[0]) or not inside else form[0] * self.choose(0, 1, 2)
        return form + inside + last + form

    def value(self, path: tuple[str | int, ...], depth: int) -> None:
        """Write a value of any kind."""
        kind = self.choose("scalar", "string", *(["array", "table"] if depth else []))
        if kind == "scalar":
            self.put(self.choose(*SCALARS))
        elif kind == "string":
            self.put(self.string())
        elif kind == "array":
            self.put("[")
            self.blank()
            for index in range(count := self.choose(0, 1, 2, 3)):
                at = len(self.text)
                self.expected[*path, index] = at, at
                self.value((*path, index), depth - 1)
                self.comma(last=index == count - 1)
            self.put("]")
        else:
            self.put("{")
            self.blank()
            taken: set[str] = set()
            for index in range(count := self.choose(0, 1, 2)):
                self.pair(path, taken, depth - 1)
                self.comma(last=index == count - 1)
            self.put("}")

    def comma(self, *, last: bool) -> None:
        """Write a comma, which the last item of an array or inline table may lack."""
        self.blank()
        if not last or self.choose(True, False):
            self.put(",")
            self.blank()

    def pair(self, prefix: tuple[str | int, ...], taken: set[str], depth: int) -> None:
        """Write `key = value`, or a dotted key."""
        path = prefix
        starts = []
        for index in range(self.choose(1, 1, 1, 2, 3)):
            if index:
                self.dot()
            name = self.fresh(taken if not index else set())
            path = (*path, name)
            starts.append((path, self.key(name)))
        self.space()
        self.put("=")
        self.space()
        for inner, start in starts:
            self.expected.setdefault(inner, (start, len(self.text)))
        self.value(path, depth)

    def twins(self, prefix: tuple[str | int, ...], taken: set[str]) -> None:
        """Write two dotted keys of one table, which is noted where it came first."""
        shared = self.fresh(taken)
        inside: set[str] = set()
        for _ in range(2):
            first = self.key(shared)
            self.dot()
            name = self.fresh(inside)
            second = self.key(name)
            self.put(" = ")
            at = self.put(self.choose(*SCALARS))
            self.expected.setdefault((*prefix, shared), (first, at))
            self.expected[*prefix, shared, name] = second, at
            self.end()

    def pairs(self, path: tuple[str | int, ...], taken: set[str]) -> None:
        """Write the keys of a table, a line each."""
        for _ in range(self.choose(0, 1, 2)):
            self.space()
            self.pair(path, taken, 2)
            self.end()
        if self.choose(True, False):
            self.twins(path, taken)

    def header(self, path: tuple[str | int, ...], *, array: bool) -> None:
        """Write `[a.b]` or `[[a.b]]`: what it makes of its parents, and the table itself."""
        at = self.put("[[" if array else "[")
        self.space()
        for index, part in enumerate(names := [part for part in path if isinstance(part, str)]):
            self.key(part)
            if index < len(names) - 1:
                self.dot()
        self.space()
        self.put("]]" if array else "]")
        self.end()
        for length in range(1, len(path)):
            self.expected.setdefault(path[:length], (at, at))
        self.expected[path] = at, at

    def tables(self, path: tuple[str | int, ...], taken: set[str], depth: int) -> None:
        """Write sub-tables: plain ones, arrays of them, and parents that come later or never."""
        for _ in range(self.choose(0, 1, 2) if depth else 0):
            inner = (*path, self.fresh(taken))
            form = self.choose("table", "array", "later", "never")
            if form == "array":
                for index in range(self.choose(1, 2)):
                    self.header((*inner, index), array=True)
                    self.body((*inner, index), set(), depth - 1)
                continue
            inside: set[str] = set()
            if form != "table":
                deeper = (*inner, self.fresh(inside))
                self.header(deeper, array=False)
                self.body(deeper, set(), depth - 1)
            if form != "never":
                self.header(inner, array=False)
                self.body(inner, inside, depth - 1)

    def body(self, path: tuple[str | int, ...], taken: set[str], depth: int) -> None:
        """Write a table: its keys, then its tables."""
        self.pairs(path, taken)
        self.tables(path, taken, depth)


@st.composite
def documents(draw: Any) -> tuple[str, dict[tuple[str | int, ...], tuple[int, int]]]:
    """Return a document and the offsets of the key and the value of every path."""
    writer = Writer(draw, draw(st.sampled_from(["\n", "\r\n"])))
    writer.blank()
    writer.body((), set(), 3)
    if draw(st.booleans()):
        writer.text = writer.text.rstrip("\r\n")
    return writer.text, writer.expected


def offset(text: str, line: int, column: int) -> int:
    """Return where a line and a column stand in a text whose lines end with a line feed."""
    return sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column - 1


@settings(max_examples=150)
@given(documents())
def test_every_path_is_found_where_it_was_written(document: Any) -> None:
    """The paths are those of tomli's tree, each at the first character of its key and value."""
    text, expected = document
    found = positions(text)
    assert set(found) == paths(tomli.loads(text))
    for path, (line, column, value_line, value_column) in found.items():
        written = offset(text, line, column), offset(text, value_line, value_column)
        assert written == expected[path], path
    event(f"{len(found) // 10 * 10} paths or more")


EXAMPLES = {
    "a plain pair": ("a = 1", {("a",): (1, 1, 1, 5)}),
    "a value on CRLF lines": ("\r\na = 1\r\nb=2\r\n", {("a",): (2, 1, 2, 5), ("b",): (3, 1, 3, 3)}),
    "columns are code points": ('"é漢😀" = "x"', {("é漢😀",): (1, 1, 1, 9)}),
    "a dotted key": ("a . 'b.c' = 1", {("a",): (1, 1, 1, 13), ("a", "b.c"): (1, 5, 1, 13)}),
    "a parent defined later": (
        "[a.b]\n[a]\nc = 1",
        {("a",): (2, 1, 2, 1), ("a", "b"): (1, 1, 1, 1), ("a", "c"): (3, 1, 3, 5)},
    ),
    "sub-tables of an array's tables": (
        "[[a]]\n[a.b]\n[[a]]\n[[a.c]]\nd = 1",
        {
            ("a",): (1, 1, 1, 1),
            ("a", 0): (1, 1, 1, 1),
            ("a", 0, "b"): (2, 1, 2, 1),
            ("a", 1): (3, 1, 3, 1),
            ("a", 1, "c"): (4, 1, 4, 1),
            ("a", 1, "c", 0): (4, 1, 4, 1),
            ("a", 1, "c", 0, "d"): (5, 1, 5, 5),
        },
    ),
    "an inline table on several lines": (
        "a = {\n  # } b = 0\n  b = 1,\n}",
        {("a",): (1, 1, 1, 5), ("a", "b"): (3, 3, 3, 7)},
    ),
    "nested arrays with brackets in comments": (
        "a = [ # ]\n [1,\n  2], # [\n]",
        {
            ("a",): (1, 1, 1, 5),
            ("a", 0): (2, 2, 2, 2),
            ("a", 0, 0): (2, 3, 2, 3),
            ("a", 0, 1): (3, 3, 3, 3),
        },
    ),
    "quotes that touch the closing ones": (
        "a = \"\"\"\"x\"\"\"\"\"\nb = '''''y'''''\nc = 1",
        {("a",): (1, 1, 1, 5), ("b",): (2, 1, 2, 5), ("c",): (3, 1, 3, 5)},
    ),
    "an empty key and empty strings": (
        '"" = ""\na = """"""\nb = [\'\', \'\'\'\'\'\']',
        {
            ("",): (1, 1, 1, 6),
            ("a",): (2, 1, 2, 5),
            ("b",): (3, 1, 3, 5),
            ("b", 0): (3, 6, 3, 6),
            ("b", 1): (3, 10, 3, 10),
        },
    ),
    "a date with a blank": (
        "a = [1979-05-27 07:32:00, 2]",
        {("a",): (1, 1, 1, 5), ("a", 0): (1, 6, 1, 6), ("a", 1): (1, 27, 1, 27)},
    ),
    "nothing but a comment": ("# a = 1\n", {}),
}


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_positions_by_hand(text: str, expected: dict[Any, Any]) -> None:
    """Lines and columns count from 1, of the key and of the value."""
    assert positions(text) == {path: Position(*at) for path, at in expected.items()}
    assert set(expected) == paths(tomli.loads(text))
