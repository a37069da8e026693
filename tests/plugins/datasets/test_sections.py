"""The dataset of problem, plan and code, and the faults that it puts into copies."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from framework.errors import UserError
from plugins.datasets._corruption import KINDS, corrupted
from plugins.datasets.sections import LABELS, Sections

SPLITS = {"train": [5, 9], "val": [3, 4], "test": [1, 2]}
CODE = "def f(a):\n    b = a + 1\n    return b"


def row(number: int, **changes: Any) -> dict[str, Any]:
    """One row in the columns of MBPP."""
    tests = [f"assert f({number}) == 1", "assert f(0) == 2"]
    return {"text": f"Problem {number}.", "code": CODE, "task_id": number, "test_list": tests} | (
        changes
    )


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., Sections]:
    """Make options over rows."""

    def make(*rows: dict[str, Any], **given: Any) -> Sections:
        text = "".join(json.dumps(one) + "\n" for one in rows)
        (tmp_path / "mbpp.jsonl").write_text(text, encoding="utf-8")
        return Sections(root=tmp_path, **{"splits": SPLITS, **given})

    return make


def test_rows_are_split_by_their_ids(options: Callable[..., Sections]) -> None:
    """Each row lies in the split of its id, with its copy; what is in no range is left out."""
    splits = options(*(row(number) for number in (9, 1, 12, 3, 5, 4))).build(0)
    ids = {name: [r["id"] for r in splits[name]] for name in splits.keys()}  # noqa: SIM118
    assert ids == {
        "train": ["9", "5", "9:corrupted", "5:corrupted"],
        "val": ["3", "4", "3:corrupted", "4:corrupted"],
        "test": ["1", "1:corrupted"],
    }
    assert splits.manifest == {"train": ["9", "5"], "val": ["3", "4"], "test": ["1"]}
    whole, copy = splits["test"]
    assert whole == {
        "id": "1",
        "group": "1",
        "text": "Problem 1.",
        "code": CODE,
        "label": 0,
        "plan": "assert f(1) == 1\nassert f(0) == 2",
    }
    assert copy["copy"]
    assert copy["label"] > 0
    assert copy["code"] != CODE
    assert copy["plan"] == whole["plan"]
    assert splits.info["class_counts"][0] == 2
    assert sum(splits.info["class_counts"]) == 4


def test_line_ends_tell_nothing(options: Callable[..., Sections]) -> None:
    """Windows' line ends and blanks at ends of lines are gone: a copy could be told by them."""
    code = "def f(a): \r\n\tb = a + 1\r\n\r\n\treturn b  \r\n"
    splits = options(row(5, code=code), row(3), splits={"train": [5, 9], "val": [3, 4]}).build(0)
    assert splits["train"][0]["code"] == "def f(a):\n\tb = a + 1\n\n\treturn b"


@pytest.mark.parametrize(
    "lacking",
    [
        {"test_list": []},
        {"test_list": None},
        {"test_list": [" "]},
        {"code": "\n"},
        {"code": None},
        {"text": ""},
    ],
    ids=str,
)
def test_what_lacks_a_section_is_refused_or_dropped(
    lacking: dict[str, Any], options: Callable[..., Sections], said: Callable[[], list[str]]
) -> None:
    """A row without one of its sections is an error with file and row, or is dropped and counted.

    It fails where such a row goes on as a sequence without <PLAN> or <CODE>.
    """
    rows = [*map(row, (1, 3, 5)), row(6, **lacking)]
    (column,) = lacking
    kind = {"test_list": "plan", "code": "code", "text": "problem"}[column]
    with pytest.raises(UserError) as caught:
        options(*rows).build(0)
    assert f"mbpp.jsonl: row 4, column '{column}': it has no {kind}" in str(caught.value)
    splits = options(*rows, incomplete="drop").build(0)
    assert splits.info["counts"] == {"train": 2, "val": 2, "test": 2, "dropped": 1}
    assert [r["group"] for r in splits["train"]] == ["5", "5"]
    assert "1 rows without problem, plan or code are dropped" in said()[0]


def test_an_absent_column_is_one_that_is_lacking(options: Callable[..., Sections]) -> None:
    """A row without the key, or all of them where the option is misspelt, is told the same way."""
    one = row(1)
    del one["test_list"]
    with pytest.raises(UserError, match=r"row 2, column 'test_list': it has no plan"):
        options(row(3), one).build(0)
    with pytest.raises(UserError, match=r"row 1, column 'tests': it has no plan"):
        options(row(3), plan="tests").build(0)
    with pytest.raises(UserError, match="no whole row has an id of 'train', 'val', 'test'"):
        options(row(3), plan="tests", incomplete="drop").build(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_id": "x7"}, r"row 2, column 'task_id': found 'x7', expected a whole number"),
        ({"task_id": 3}, r"row 2, column 'task_id': 3 is the id of row 1 already"),
        ({"task_id": 10**30}, r"expected a whole number"),
        ({"task_id": "005"}, r"column 'task_id': found '005', expected no zeros before it"),
        ({"code": 7}, r"row 2, column 'code': found a value of type int, expected text"),
        ({"test_list": ["a", 1]}, r"column 'test_list': found a value of type list"),
    ],
    ids=str,
)
def test_rows_that_cannot_be(
    changes: dict[str, Any], words: str, options: Callable[..., Sections]
) -> None:
    """Each is told with its row and column."""
    with pytest.raises(UserError, match=words):
        options(row(3), row(5, **changes)).build(0)


def test_a_problem_in_two_splits_is_said(
    options: Callable[..., Sections], said: Callable[[], list[str]]
) -> None:
    """The split by id is as it is given; what leaks by it is counted, without its text."""
    code = "def g(): pass"
    options(row(1), row(3, code=code), row(5, text="Problem 1."), row(6, code=code)).build(0)
    assert [line.partition(": ")[2] for line in said()] == [
        "1 problems and 2 codes stand in several splits, with other ids"
    ]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": [1, 2]}, "must name train, val and maybe test"),
        ({"train": [1, 2], "val": [3, 4], "dev": [5, 6]}, "must name train, val and maybe test"),
        ({"train": [1], "val": [3, 4]}, "'train' must be the first id and the last"),
        ({"train": [2, 1], "val": [3, 4]}, "'train' must be the first id and the last"),
        ({"train": [1, 3], "val": [3, 4]}, "have ids in common"),
    ],
    ids=str,
)
def test_ranges_that_cannot_be(splits: Any, words: str) -> None:
    """They are refused before anything is read."""
    with pytest.raises(ValueError, match=words):
        Sections(splits=splits)


def test_other_files_need_no_ids(options: Callable[..., Sections], tmp_path: Path) -> None:
    """For prediction rows are named by their number, unless they have an id; labels are none."""
    one, other = row(1), row(2)
    del one["task_id"]
    file = tmp_path / "mbpp.jsonl"
    records = [*options(one, other).read(file, {})]
    assert [record["id"] for record in records] == ["1", "2"]
    assert records[1].keys() == {"id", "text", "plan", "code"}
    found = options(one, row(2, code="")).read(file, {})
    with pytest.raises(UserError, match=r"row 2, column 'code': it has no code"):
        list(found)


code = st.lists(
    st.text("ab =+-*<>!()", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6
).map("\n".join)


@given(text=code, seed=st.integers(0, 2**63 - 1), name=st.text("0123456789", min_size=1))
def test_faults_are_pure_and_are_what_they_say(text: str, seed: int, name: str) -> None:
    """The same seed and id give the same fault; it changes the code as its label says."""
    broken, label = corrupted(text, seed, name)
    assert corrupted(text, seed, name) == (broken, label)
    if not label:
        assert broken == ""
        return
    assert broken != text
    if label == "TRUNCATED":
        assert text.startswith(broken)
    elif label == "SWAPPED":
        assert sorted(broken.split("\n")) == sorted(text.split("\n"))
    else:
        assert broken.count("\n") == text.count("\n")
        assert label in KINDS


def test_a_fault_is_in_the_program() -> None:
    """Strings, comments and blank lines stay: a copy that differs by them alone is no fault."""
    quiet = """x = "a + \\" b" # c - d\n\n# e\n\'\'\'f * g\n" - \'\'\'\n"""
    code = quiet + "y = 1\nz = x"
    for name in range(200):
        text, label = corrupted(code, 3, str(name))
        assert label in {"TRUNCATED", "SWAPPED"}
        assert ast.dump(ast.parse(code)) != tree(text), text
        texts = {corrupted(f"{quiet}y = 1 + x", 3, str(name))}
        assert {text for text, label in texts if label == "OPERATOR"} <= {f"{quiet}y = 1 - x"}


def tree(text: str) -> str | None:
    """The syntax tree, if there is one."""
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return None


def test_every_fault_occurs_and_seeds_differ() -> None:
    """All kinds are drawn about as often where they can be applied; another seed, another draw."""
    labels = [corrupted(CODE, 1, str(name))[1] for name in range(300)]
    assert {label: 70 < labels.count(label) < 130 for label in KINDS} == dict.fromkeys(KINDS, True)
    assert labels != [corrupted(CODE, 2, str(name))[1] for name in range(300)]
    assert LABELS[0] == "CONTINUE"


def test_the_sample_is_what_its_script_writes(tmp_path: Path) -> None:
    """The shipped rows are made by the script beside them, and their code passes its tests."""
    folder = ROOT / "data" / "plan_code"
    words = [sys.executable, folder / "make_problems.py", "--out", tmp_path]
    subprocess.run(words, check=True, capture_output=True)
    shipped = (folder / "mbpp.jsonl").read_text(encoding="utf-8")
    assert (tmp_path / "mbpp.jsonl").read_text(encoding="utf-8") == shipped
    for line in shipped.splitlines():
        one = json.loads(line)
        exec("\n".join([one["code"], *one["test_list"]]), {})  # noqa: S102 - made by the script
