"""The dataset of one text: split first, then cut into windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framework.errors import UserError
from plugins.datasets.text_file import TextFile

LETTERS = "".join(chr(0x4E00 + at) for at in range(1000))
"""A text whose every character says where it stands."""


@pytest.fixture
def options(tmp_path: Path) -> Any:
    """Make options over that text."""
    (tmp_path / "input.txt").write_text(LETTERS, encoding="utf-8")
    return lambda **given: TextFile(root=tmp_path, **given)


def predicted(records: Any) -> str:
    """What the windows predict: each record's text but for its first character."""
    return "".join(record["text"][1:] for record in records)


@pytest.mark.parametrize("window", [1, 7, 64])
def test_no_window_reaches_into_another_split(options: Any, window: int) -> None:
    """The text is split before windows are cut: no character is in windows of two splits.

    It fails where windows are cut first and then dealt out: one that is cut at a border has
    characters of both sides.
    """
    splits = options(window=window, ratios=[0.7, 0.2, 0.1], stride=3).build(0)
    seen = {name: {c for r in splits[name] for c in r["text"]} for name in splits.keys()}  # noqa: SIM118
    assert seen["train"] <= set(LETTERS[:700])
    assert seen["val"] == set(LETTERS[700:900])
    assert seen["test"] == set(LETTERS[900:])
    # nor does training, when it moves a window on
    train = splits["train"]
    assert max(train.begins) + window < 700


@pytest.mark.parametrize("window", [1, 7, 64, 99])
def test_evaluation_predicts_every_character_once(options: Any, window: int) -> None:
    """Windows of val predict all of it but its first character, the short last one too.

    It fails where the last window is dropped in evaluation as it is in training.
    """
    val = options(window=window, stride=2).build(0)["val"]
    assert predicted(val) == LETTERS[901:]
    assert len(val[len(val) - 1]["text"]) <= window + 1


def test_training_has_whole_windows_alone(options: Any) -> None:
    """Training drops a last window that would be shorter, and no whole one."""
    train = options(window=64, ratios=[0.9, 0.1]).build(0)["train"]
    assert {len(record["text"]) for record in train} == {65}
    assert predicted(train) == LETTERS[1 : 1 + 64 * len(train)]
    assert 900 - 1 - 64 * len(train) < 64


def test_a_stride_makes_windows_overlap_in_training_alone(options: Any) -> None:
    """Windows of training begin a stride apart, and may be moved on by less than one."""
    splits = options(window=64, stride=10).build(0)
    train = splits["train"]
    assert [LETTERS.index(train[at]["text"][0]) for at in (0, 1, 2)] == [0, 10, 20]
    assert train.slack == 9
    assert options(window=64, stride=10, shift=False).build(0)["train"].slack == 0
    assert list(splits["val"].begins) == [0, 64]


@pytest.mark.parametrize(("window", "split"), [(100, "val"), (950, "train")])
def test_a_text_shorter_than_a_window_is_refused(options: Any, window: int, split: str) -> None:
    """The error names the file, the split, both lengths and what to do."""
    with pytest.raises(UserError) as caught:
        options(window=window).build(0)
    said = str(caught.value)
    assert f"input.txt: its part for {split} has {100 if split == 'val' else 900} chara" in said
    assert f"a window takes {window + 1}; give a longer text" in said
    options(window=99).build(0)


def test_what_is_no_text_is_refused(options: Any, tmp_path: Path) -> None:
    """A missing file is told by `check` already, bytes that are no UTF-8 with their place."""
    with pytest.raises(UserError, match="no such file"):
        options(file="other.txt").check()
    (tmp_path / "input.txt").write_bytes(b"a" * 500 + b"\xff" + b"a" * 500)
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 501\)"):
        options().build(0)


def test_line_ends_stay_as_they_are(options: Any, tmp_path: Path) -> None:
    """Nothing is normalised: what is generated should look as what was read."""
    (tmp_path / "input.txt").write_bytes(b"a\r\nb\n" * 100)
    splits = options(window=10).build(0)
    assert splits["train"].whole + splits["val"].whole == "a\r\nb\n" * 100


def test_the_manifest_says_where_splits_lie(options: Any) -> None:
    """Each split is one part of the text, named by its characters."""
    splits = options(window=10).build(0)
    assert splits.manifest == {"train": ["0-900"], "val": ["900-1000"]}
    assert splits.info == {"characters": {"train": 900, "val": 100}}


def test_another_text_is_read_as_windows(options: Any, tmp_path: Path) -> None:
    """`read` gives the windows of any text, also of one that is shorter than a window."""
    other = tmp_path / "other.txt"
    other.write_text("abcdef", encoding="utf-8")
    assert [r["text"] for r in options(window=4).read(other, {})] == ["abcde", "ef"]
    assert [r["text"] for r in options(window=64).read(other, {})] == ["abcdef"]
    other.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="it is empty"):
        options().read(other, {})
