"""What a person is told of mistakes: all at once, pinned word for word; and each by itself."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, environment, install

from framework.__main__ import main

SNAPSHOTS = ROOT / "tests" / "snapshots"
TWICE = (
    "import attrs\n\n@attrs.frozen\nclass Twice:\n    def build(self, _):\n        return None\n"
)
SETS = ("--set", "trainer.log_every=often", "--set", "trainer..steps=1", "--set", "seed")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the snapshots, where two distributions offer one name."""
    for file in SNAPSHOTS.iterdir():
        shutil.copy(file, tmp_path)
    for name in ("first", "second"):
        offers = {"framework.optimizer": {"twice": f"twice_of_{name}:Twice"}}
        sources = {f"twice_of_{name}": TWICE}
        install(monkeypatch, tmp_path / "site", f"{name}-parts 1.0", offers, **sources)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_mistake_is_in_one_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty-two mistakes of a file, its parent and the arguments are told in one report."""
    assert main(["validate", "mistakes.toml", *SETS]) == 2
    told = capsys.readouterr().err
    assert told == (here / "mistakes.txt").read_text(encoding="utf-8")
    assert main(["validate", "mistakes.toml", *SETS, "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    places = [line.split(": ")[0] for line in told.splitlines() if not line.startswith("    ")]
    assert [problem["where"] for problem in problems] == places
    assert len(problems) == 22


GOOD = """\
dataset = { use = "text", train = "./rows.csv" }
model = { use = "hf_classifier", config = { hidden_size = 8 } }
loss = "focal"
metrics.f1 = {}
"""
SEARCH = "[search]\nmetric = 'val/f1'\ndirection = 'maximize'\n"
ALONE = {
    "an unknown key": ("seeds = 1", "5:1: an experiment has no key 'seeds'; did you mean 'seed'?"),
    "a wrong type": ("seed = '1'", "5:8: 'seed': expected a whole number, found the text '1'"),
    "a number that is no whole one": (
        "trainer.epochs = 3.7",
        "5:18: 'epochs': expected a whole number, found 3.7",
    ),
    "text for a boolean": (
        "trainer.deterministic = 'false'",
        "5:25: 'deterministic': expected true or false, found the text 'false'",
    ),
    "a value out of range": ("trainer.epochs = 0", "5:18: 'epochs' must be >= 1: 0"),
    "a missing option": (
        "[callbacks.early_stopping]\nmode = 'max'",
        (
            "5:1: callback 'early_stopping' needs the option 'monitor'"
            " (the metric, with its split, as in val/f1)"
        ),
    ),
    "an unknown plugin": (
        "optimizer = 'adam'",
        "5:13: no optimizer is named 'adam'; did you mean 'adamw'?",
    ),
    "an unknown plugin that is near none": (
        "scheduler = 'xyz'",
        "5:13: no scheduler is named 'xyz'; the choices are 'constant', 'cosine', 'linear'",
    ),
    "a name with two owners": (
        "optimizer = 'twice'",
        (
            "5:13: optimizer 'twice' is offered by first-parts 1.0 and second-parts 1.0:"
            " write 'first-parts:twice' or 'second-parts:twice'"
        ),
    ),
    "an unmet requirement": (
        "requires = ['torch', 'no-such-parts>=2']",
        "5:22: 'no-such-parts' is not installed; pip install 'no-such-parts>=2'",
    ),
    "a nested component": (
        "metrics.g = { use = 'by_group', key = 'k', metrics = ['f1', 'recal'] }",
        "5:61: no metric is named 'recal'; did you mean 'recall'?",
    ),
    "an option of a nested component": (
        "metrics.g = { use = 'by_group', key = 'k', metrics = { f1 = { averag = 'macro' } } }",
        "5:63: metric 'f1' has no option 'averag'; did you mean 'average'?",
    ),
    "a misspelt choice": (
        "[callbacks.early_stopping]\nmonitor = 'val/f1'\nmode = 'maxx'",
        "7:8: 'mode': expected one of 'min', 'max', found the text 'maxx'; did you mean 'max'?",
    ),
    "a metric that nobody computes": (
        "[callbacks.early_stopping]\nmonitor = 'val/f2'\nmode = 'max'",
        "6:11: nothing computes 'val/f2'; did you mean 'val/f1'?",
    ),
    "a key of the search": (
        "[search]\nmetrc = 'val/f1'\nmetric = 'val/f1'\ndirection = 'maximize'",
        "6:1: search has no option 'metrc'; did you mean 'metric'?",
    ),
    "a metric of the search": (
        "[search]\nmetric = ['val/f1', 'val/los']\ndirection = ['maximize', 'minimize']",
        "6:21: nothing computes 'val/los'; did you mean 'val/loss'?",
    ),
    "a path of the search": (
        SEARCH + "space.'loss.gama' = { low = 0, high = 1 }",
        "8:7: no option is named 'gama' in 'loss'; did you mean 'gamma'?",
    ),
    "a bound of the search that the option refuses": (
        SEARCH + "space.'optimizer.lr' = { low = 0.0, high = 1 }",
        "8:32: 'lr' must be > 0.0: 0.0",
    ),
    "a bound of the search of another type": (
        SEARCH + "space.'trainer.epochs' = { low = 1, high = 2.5 }",
        "8:44: 'epochs': expected a whole number, found 2.5",
    ),
    "bounds of the search that hold nothing": (
        SEARCH + "space.'loss.gamma' = { low = 2, high = 1 }",
        "8:22: 'loss.gamma': low = 2 must be below high = 1",
    ),
    "a choice of the search": (
        SEARCH + "space.loss = { choices = ['focal', 'cross_entrpy'] }",
        "8:36: no loss is named 'cross_entrpy'; did you mean 'cross_entropy'?",
    ),
    "a path of the search that is several parts": (
        "[search]\nmetric = 'val/f1'\ndirection = 'maximize'\nspace.metrics = { choices = ['f1'] }",
        "8:7: 'metrics' names several parts, not an option",
    ),
    "a dotted import path": (
        "precision = 'plugins.precisions.fp16:Fp16'",
        "5:13: no precision is named 'plugins.precisions.fp16:Fp16'; did you mean 'fp16'?",
    ),
    "a syntax error": ("seed = = 1", "5:8: Invalid value"),
    "a missing parent": (
        "extends = 'none.toml'",
        "5:11: none.toml: can't read this experiment (No such file or directory)",
    ),
    "a cycle": ("extends = 'x.toml'", "5:11: 'extends' leads back to itself: x.toml -> x.toml"),
}


@pytest.mark.parametrize(("line", "message"), ALONE.values(), ids=ALONE.keys())
def test_a_mistake_by_itself_is_told_by_itself(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """One mistake in a good file is one problem: its place, its line and a caret below."""
    (here / "x.toml").write_text(GOOD + line + "\n", encoding="utf-8")
    assert main(["validate", "x.toml"]) == 2
    head, shown, caret = capsys.readouterr().err.splitlines()
    assert head.replace(f"{here}/", "") == f"x.toml:{message}"
    number, column = (int(part) for part in message.split(":")[:2])
    assert shown == "    " + (GOOD + line).splitlines()[number - 1]
    assert caret == " " * (3 + column) + "^"


def test_the_good_file_is_good(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its mistake the file of the test above has none."""
    search = (
        "[search]\nmetric = 'val/f1'\ndirection = 'maximize'\n[search.space]\n"
        "'optimizer.lr' = { low = 1e-6, high = 1, log = true }\n"
        "'metrics.f1.average' = { choices = ['macro', 'micro'] }\n"
        "'model.config.hidden_size' = { choices = [8, 16] }\n"
        "'loss' = { choices = ['focal', { use = 'cross_entropy', label_smoothing = 0.1 }] }\n"
    )
    (here / "x.toml").write_text(GOOD + search)
    assert main(["validate", "x.toml"]) == 0
    assert capsys.readouterr().out == "x.toml: no mistakes in 'x'\n"
    # a search is no part of what a run resolves to
    assert main(["validate", "x.toml", "--show"]) == 0
    assert "search" not in capsys.readouterr().out


def test_a_broken_parent_hides_no_mistake_of_the_child(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a parent that can't be read the child is still checked; nothing is called missing."""
    (here / "middle.toml").write_text("extends = 'broken.toml'\nseed = -1\n")
    (here / "broken.toml").write_text("model = {\nloss = ")
    (here / "x.toml").write_text("extends = 'middle.toml'\n[trainer]\nepochs = 0\n")
    assert main(["validate", "x.toml"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "x.toml:3:10: 'epochs' must be >= 1: 0",
        "    epochs = 0",
        "             ^",
        "middle.toml:2:8: 'seed' must be >= 0: -1",
        "    seed = -1",
        "           ^",
        "    extended by x.toml:1:11",
        "broken.toml:2:8: Invalid value",
        "    loss = ",
        "           ^",
        "    extended by middle.toml:1:11",
        "    extended by x.toml:1:11",
    ]


@pytest.mark.parametrize(
    ("extra", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["a terminal", "NO_COLOR", "a dumb terminal"],
)
def test_colour_is_for_terminals(here: Path, extra: dict[str, str], *, coloured: bool) -> None:
    """On a terminal the report is in colour; the words are the same without it elsewhere."""
    (here / "x.toml").write_text(GOOD + "seeds = 1\n")
    words = [sys.executable, "-m", "framework", "validate", "x.toml"]
    known = {"TERM": "xterm", **environment(), **extra}
    leader, follower = pty.openpty()
    with subprocess.Popen(words, cwd=here, env=known, stderr=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while block := os.read(leader, 4096):
                shown += block
        except OSError:
            pass  # how Linux says that the other side is closed
        finally:
            os.close(leader)
    assert process.returncode == 2
    text = shown.decode().replace("\r\n", "\n")
    assert ("\x1b[" in text) == coloured
    piped = subprocess.run(words, cwd=here, env=known, capture_output=True, text=True, check=False)
    assert "\x1b" not in piped.stderr
    bare = text
    for code in ("\x1b[1m", "\x1b[1;31m", "\x1b[0m"):
        bare = bare.replace(code, "")
    assert bare == piped.stderr
