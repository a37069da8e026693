"""The wording of mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.commands.terminal import text
from framework.errors import ExperimentError, Problem, RunError, UserError, listing, nearest

WORDS = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=3, max_size=10)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (Problem("wrong"), "wrong"),
        (Problem("wrong", "x.toml"), "x.toml: wrong"),
        (Problem("wrong", "x.toml", 1, 2, "ab"), "x.toml:1:2: wrong\n    ab\n     ^"),
        (Problem("wrong", "x", 3, 3, "\t\x1b[31m"), "x:3:3: wrong\n      [31m\n      ^"),
        (Problem("wrong", "x", 1, 4, "a漢😀b"), "x:1:4: wrong\n    a漢😀b\n     \u3000\u3000^"),
        (
            Problem("wrong", "b", 1, 1, "a", via=("c:2:3", "d:4:5")),
            "b:1:1: wrong\n    a\n    ^\n    extended by c:2:3\n    extended by d:4:5",
        ),
    ],
)
def test_a_problem_is_a_line_and_its_source(problem: Problem, told: str) -> None:
    """A problem reads `where: message`, with the source line and the caret below."""
    assert text(problem) == told
    assert str(problem) == told.split("\n", maxsplit=1)[0]


def test_colour_marks_the_place_and_the_caret() -> None:
    """In colour the place is bold and the caret red; without it there is no escape at all."""
    problem = Problem("wrong", "x.toml", 1, 2, "ab")
    assert text(problem, colour=True) == (
        "\x1b[1mx.toml:1:2:\x1b[0m wrong\n    ab\n     \x1b[1;31m^\x1b[0m"
    )
    assert "\x1b" not in text(problem)


def test_an_experiments_error_is_all_its_problems() -> None:
    """One error tells every problem, in the order they were found."""
    problems = [Problem("b", "x", 2, 1, "b"), Problem("a")]
    error = ExperimentError(problems)
    assert str(error) == "x:2:1: b\na"
    assert error.problems == tuple(problems)


def test_exit_codes() -> None:
    """A mistake of the user's is 2, a run that couldn't go on 1."""
    assert (UserError("x").exit_code, ExperimentError([]).exit_code) == (2, 2)
    assert RunError("x").exit_code == 1
    assert not issubclass(RunError, UserError)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("epohcs", "; did you mean 'epochs'?"),
        ("epoch", "; did you mean 'epochs'?"),
        ("batchsize", "; did you mean 'batch_size'?"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_the_nearest_spelling(word: str, expected: str) -> None:
    """A near word is suggested, and none where none is near."""
    assert nearest(word, ["epochs", "steps", "batch_size"]) == expected
    assert nearest(word, []) == ""


@given(WORDS, st.lists(WORDS, max_size=5), st.data())
def test_one_wrong_letter_still_finds_the_word(
    word: str, others: list[str], data: st.DataObject
) -> None:
    """A choice with one letter left out is near: it, or a choice as near, is suggested."""
    at = data.draw(st.integers(0, len(word) - 1))
    hint = nearest(word[:at] + word[at + 1 :], [*others, word])
    assert hint.removeprefix("; did you mean '").removesuffix("'?") in [*others, word]


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), "none"), (["a"], "'a'"), ({"b": 1, "a": 2}, "'b', 'a'"), ([0, "x"], "'0', 'x'")],
)
def test_a_listing_is_quoted(words: list[str], expected: str) -> None:
    """Words are listed in their own order, quoted; nothing is `none`."""
    assert listing(words) == expected
