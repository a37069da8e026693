"""The main experiment, broken in one random place, is told at the line that was broken."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROOT

from framework.__main__ import main
from framework.config.positions import Position, _Scanner, positions

TEXT = (ROOT / "experiments" / "focal_bert.toml").read_text(encoding="utf-8")
TREE = tomli.loads(TEXT)
FOUND = positions(TEXT)
MUTATIONS = 200


def value_of(path: tuple[str | int, ...]) -> Any:
    """Return the value of a path of the main experiment."""
    value: Any = TREE
    for key in path:
        value = value[key]
    return value


def offset(line: int, column: int) -> int:
    """Return where a line and a column stand."""
    return sum(len(part) + 1 for part in TEXT.split("\n")[: line - 1]) + column - 1


def span(at: Position) -> tuple[int, int]:
    """Return where a value begins and ends."""
    scanner = _Scanner(TEXT)
    scanner.at = start = offset(at.value_line, at.value_column)
    scanner._value(())
    return start, start + len(TEXT[start : scanner.at].rstrip())


def headed(path: tuple[str | int, ...]) -> bool:
    """Whether a path was made by a `[header]`, which has no value of its own."""
    at = FOUND[path]
    return TEXT[offset(at.line, at.column)] == "["


def free(path: tuple[str | int, ...]) -> bool:
    """Whether a key is a label that may be called anything, as its table says `use`."""
    value = value_of(path)
    labelled = len(path) == 2 and path[0] in ("metrics", "callbacks")
    return labelled and isinstance(value, dict) and "use" in value


VALUES = [path for path in FOUND if not headed(path) and isinstance(path[-1], str)]
KEYS = [path for path in VALUES if not free(path)]
HEADERS = [path for path in FOUND if headed(path) and path != ("callbacks",)]
NUMBERS = [path for path in VALUES if type(value_of(path)) in (int, float)]
CHOSEN = ("use", "monitor", "mode", "average", "precision")
NAMES = [path for path in VALUES if path[-1] in CHOSEN and isinstance(value_of(path), str)]
OTHER = {
    str: ["3", "true", "1.5", "[]", "1979-05-27"],
    int: ['"x"', "true", "1.5", "[]"],
    float: ['"x"', "true", "[0.5]"],
    dict: ["3", "true", "1.5", "[1]", "07:32:00"],
    list: ["3", '"x"', "true", "{}"],
}


@attrs.frozen
class Mutation:
    """A way of breaking, the line it breaks, and the broken text."""

    way: str
    line: int
    text: str


def misspelt(draw: Any, word: str) -> str:
    """Return a word with one letter left out, doubled, or changed."""
    letters = [index for index, letter in enumerate(word) if letter.isalpha()]
    at = draw(st.sampled_from(letters))
    return word[:at] + draw(st.sampled_from(["", 2 * word[at], "q"])) + word[at + 1 :]


@st.composite
def mutations(draw: Any) -> Mutation:
    """Return the main experiment with one thing broken: a key, type, name, range or nesting."""
    way = draw(st.sampled_from(["key", "type", "name", "range", "nesting", "table"]))
    pools = {"key": KEYS, "name": NAMES, "range": NUMBERS, "table": HEADERS}
    path = draw(st.sampled_from(pools.get(way, VALUES)))
    at = FOUND[path]
    line = at.line
    if way == "table":
        # one level too deep, or misspelt
        start = offset(at.line, at.column)
        end = TEXT.index("]", start)
        inner = draw(st.sampled_from([".deeper", None]))
        word = TEXT[start + 1 : end]
        new = word + inner if inner else misspelt(draw, word)
        return Mutation(way, line, TEXT[: start + 1] + new + TEXT[end:])
    start, end = span(at)
    value = TEXT[start:end]
    if way == "key":
        start = offset(at.line, at.column)
        end = start + len(str(path[-1]))
        new = misspelt(draw, str(path[-1]))
    elif way == "type":
        line, new = at.value_line, draw(st.sampled_from(OTHER[type(value_of(path))]))
    elif way == "name":
        line, new = at.value_line, misspelt(draw, value)
    elif way == "range":
        line, new = at.value_line, draw(st.sampled_from(["-1", "-0.5", "nan"]))
        if isinstance(value_of(path), int):
            new = "-1"
    else:
        new = draw(st.sampled_from(["[{}]", "{{ deeper = {} }}"])).format(value)
    return Mutation(way, line, TEXT[:start] + new + TEXT[end:])


def test_a_broken_place_is_reported_where_it_was_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 200 mutations is told at its own line, with exit code 2 and no traceback."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Mutation] = {}
    alone = Counter[bool]()

    @settings(
        max_examples=4 * MUTATIONS,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
    )
    @given(mutations())
    def check(mutation: Mutation) -> None:
        if mutation.text in seen or mutation.text == TEXT or len(seen) == MUTATIONS:
            return
        (tmp_path / "x.toml").write_text(mutation.text, encoding="utf-8")
        code = main(["validate", "x.toml"])
        told = capsys.readouterr().err
        lines = [int(line) for line in re.findall(r"^x\.toml:(\d+):\d+: ", told, re.MULTILINE)]
        assert code == 2, f"{mutation}: not told at all"
        assert "Traceback" not in told
        assert mutation.line in lines, f"{mutation.way} at line {mutation.line}:\n{told}"
        alone[set(lines) == {mutation.line}] += 1
        seen[mutation.text] = mutation

    check()
    ways = Counter(mutation.way for mutation in seen.values())
    with capsys.disabled():
        print(  # noqa: T201 - the figure of the issue
            f"\n{len(seen)} mutations of the main experiment, each told at its line"
            f" ({', '.join(f'{count} of {way}' for way, count in sorted(ways.items()))});"
            f" {alone[True]} of them with nothing told anywhere else"
        )
    assert len(seen) == MUTATIONS
    # what is broken elsewhere by it: a metric that callbacks wait for, and the like
    assert alone[True] >= 0.95 * MUTATIONS
