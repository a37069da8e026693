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
loss.use = "focal"
metrics.f1 = {}
"""
SEVERAL = "[search]\nmetric = ['val/f1', 'val/loss']\ndirection = ['maximize', 'minimize']\n"
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
        "8:22: 'loss.gamma': low = 2 must be below high = 1, both finite",
    ),
    "a choice of the search": (
        SEARCH + "space.loss = { choices = ['focal', 'cross_entrpy'] }",
        "8:36: no loss is named 'cross_entrpy'; did you mean 'cross_entropy'?",
    ),
    "a path of the search that is several parts": (
        "[search]\nmetric = 'val/f1'\ndirection = 'maximize'\nspace.metrics = { choices = ['f1'] }",
        "8:7: 'metrics' names a table, not an option",
    ),
    "a path of the search that is a table": (
        SEARCH + "space.trainer = { choices = [1] }",
        "8:7: 'trainer' names a table, not an option",
    ),
    "a search that varies itself": (
        SEARCH + "space.'search.trials' = { low = 1, high = 2 }",
        (
            "8:7: no option is named 'search'; there is 'callbacks', 'dataset', 'loss', 'metrics',"
            " 'model', 'optimizer', 'precision', 'sampler', 'scheduler', 'strategy', 'trainer'"
        ),
    ),
    "a path of the search without its quotes": (
        SEARCH + "space.loss.gamma = { low = 1, high = 2 }",
        '8:7: write the path as one quoted key: "loss.gamma" = …',
    ),
    "a step of the search of another type": (
        SEARCH + "space.'trainer.epochs' = { low = 1, high = 4, step = 0.5 }",
        "8:54: 'epochs': expected a whole number, found 0.5",
    ),
    "a bound of the search without end": (
        SEARCH + "space.'loss.gamma' = { low = 1, high = inf }",
        "8:22: 'loss.gamma': low = 1 must be below high = inf, both finite",
    ),
    "no choices of the search": (
        SEARCH + "space.loss = { choices = [] }",
        "8:26: Length of 'choices' must be >= 1: 0",
    ),
    "directions of the search that don't match": (
        "[search]\nmetric = ['val/f1']\ndirection = ['maximize', 'minimize']",
        "5:1: search: 'metric' and 'direction' must be as many, at least one: 1 and 2",
    ),
    "an option that no choice of the search has": (
        SEARCH + "space.loss = { choices = ['focal', 'cross_entropy'] }\n"
        "space.'loss.gama' = { low = 0, high = 1 }",
        "9:7: no option is named 'gama' in 'loss'; did you mean 'gamma'?",
    ),
    "a bound that the option of a choice refuses": (
        SEARCH + "space.loss = { choices = ['focal', 'cross_entropy'] }\n"
        "space.'loss.label_smoothing' = { low = -1.0, high = 0.5 }",
        "9:40: 'label_smoothing' must be >= 0.0: -1.0",
    ),
    "a sampler of the search": (
        SEARCH + "sampler = 'tep'",
        "8:11: no sampler is named 'tep'; did you mean 'tpe'?",
    ),
    "an option of the search's sampler": (
        SEARCH + "sampler = { use = 'tpe', n_startup_trial = 3 }",
        "8:26: sampler 'tpe' has no option 'n_startup_trial'; did you mean 'n_startup_trials'?",
    ),
    "pruning by several metrics": (
        SEVERAL + "pruner = 'median'",
        "8:10: 2 metrics can't be pruned by: remove 'pruner', or keep one metric",
    ),
    "a storage of the search": (
        SEARCH + "storage = 'trials.db'",
        (
            "8:11: 'storage' must be 'journal', or a database as sqlite:///trials.db,"
            " postgresql://… or mysql://…"
        ),
    ),
    "a metric of the search's constraints": (
        SEARCH + "constraints.'val/los' = { high = 1.0 }",
        "8:13: nothing computes 'val/los'; did you mean 'val/loss'?",
    ),
    "a constraint of the search without a bound": (
        SEARCH + "constraints.'val/loss' = {}",
        "8:26: 'val/loss': give low, high or both",
    ),
    "a metric that was dropped": (
        "metrics.accuracy = false\n[callbacks.early_stopping]\nmonitor='val/accuracy'\nmode='max'",
        "7:9: nothing computes 'val/accuracy'; there are 'val/loss', 'val/f1'",
    ),
    "a nested component of another shape": (
        "metrics.g = { use = 'by_group', key = 'k', metrics = 'f1' }",
        "5:54: expected a list of names, or tables with labels, found the text 'f1'",
    ),
    "a version that is too old": (
        "requires = ['first-parts>=2']",
        "5:13: 'first-parts>=2' is required and 1.0 is installed",
    ),
    "a word where a list may stand": (
        "loss.alpha = 'balance'",
        (
            "5:14: 'alpha': expected one of 'balanced', 'none' or a list of a number,"
            " found the text 'balance'"
        ),
    ),
    "an item of a list": (
        "loss.alpha = [1.0, 'x']",
        "5:20: 'alpha': expected a number, found the text 'x'",
    ),
    "a plugin's own validator": (
        "scheduler.warmup = 2.5",
        "5:20: 'warmup' must be a fraction from 0 to below 1, or whole steps",
    ),
    "a table that stands twice": (
        "[trainer]\nepochs = 1\n[trainer]\nsteps = 1",
        "7:9: Cannot declare 'trainer' twice",
    ),
    "a key that stands twice": ("loss.use = 'focal'", "5:19: Cannot overwrite a value"),
    "a name that stands twice": (
        "metrics.g = { use = 'by_group', key = 'k', metrics = ['f1', 'f1'] }",
        "5:61: 'f1' stands twice; give tables with labels",
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


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed", "1: expected KEY=VALUE, as in --set loss.gamma=3"),
        ("#seed=1", "1: expected KEY=VALUE, as in --set loss.gamma=3"),
        ("trainer..steps=1", "9: Invalid initial character for a key part"),
        ("trainer.log_every=x", "19: 'log_every': expected a whole number, found the text 'x'"),
        ("losss.gamma=1", "1: an experiment has no key 'losss'; did you mean 'loss'?"),
        ("loss.gama=1", "6: loss 'focal' has no option 'gama'; did you mean 'gamma'?"),
    ],
)
def test_a_mistake_of_an_argument(
    here: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    """A mistake of `--set` is told with its column in the argument."""
    (here / "x.toml").write_text(GOOD)
    assert main(["validate", "x.toml", "--set", argument]) == 2
    head, shown, caret = capsys.readouterr().err.splitlines()
    assert head == f"--set:1:{message}"
    assert shown == f"    {argument}"
    assert len(caret) == 4 + int(message.partition(":")[0])


@pytest.mark.parametrize("name", ["_x", "ä", "日本", "my run", "-", "..."])
def test_any_file_name_makes_a_name(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A file may be called anything: what a folder can't be called is left out of the name."""
    (here / f"{name}.toml").write_text(GOOD)
    assert main(["validate", f"./{name}.toml"]) == 0
    assert capsys.readouterr().err == ""


RAISING = """\
import attrs
from framework.errors import UserError
from framework.protocols import option


def bad(_, field, value):
    if value:
        raise {error}("'{{}}' is bad".format(field.name))


@attrs.frozen
class Raising:
    width: int = option(0, help="a width", validator=bad)
    height: int = option(0, help="a height")

    def __attrs_post_init__(self):
        if self.height:
            raise {error}("the height is bad")

    def build(self, info): ...
"""


@pytest.mark.parametrize("error", ["ValueError", "KeyError", "IndexError", "UserError", "OSError"])
def test_whatever_a_validator_raises_is_told_with_its_place(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: str
) -> None:
    """A plugin's own check may raise anything: it is one mistake among the others."""
    offers, source = {"framework.loss": {"raising": "r_x:Raising"}}, RAISING.format(error=error)
    install(monkeypatch, here / "more", "raising-parts 1.0", offers, r_x=source)
    for option, message in {"width": "'width' is bad", "height": "the height is bad"}.items():
        text = GOOD.replace('loss.use = "focal"', f'loss = {{ use = "raising", {option} = 1 }}')
        (here / "x.toml").write_text(text + "seed = -1\n")
        assert main(["validate", "x.toml"]) == 2
        first, _, _, second, *_ = capsys.readouterr().err.splitlines()
        assert first.startswith("x.toml:3:")
        assert message in first
        assert second.startswith("x.toml:5:8: 'seed' must be >= 0")


def test_a_broken_parent_causes_no_false_report(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a parent that can't be read may have said is not called wrong or missing."""
    (here / "broken.toml").write_text("metrics = ['f1']\nscheduler = 'cosine'\n[metrics\n")
    (here / "x.toml").write_text(
        "extends = 'broken.toml'\n[loss]\ngamma = 3.0\n[model]\nuse = 'hf_classifier'\n"
        "max_length = 64\n[scheduler]\nmin_factor = 0.1\n[metrics.macro]\naverage = 'macro'\n"
        "[callbacks.stop]\npatience = 3\n[callbacks.early_stopping]\nmonitor = 'val/f1'\n"
        "mode = 'max'\n[search]\nmetric = 'val/macro'\ndirection = 'maximize'\n"
        "[search.space]\n'loss.gamma' = { low = 0, high = 1 }\n[optimizer]\nuse = 'adamw'\n"
        "lr = 'x'\n"
    )
    assert main(["validate", "x.toml"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line[0] != " "]
    assert heads == [
        "x.toml:23:6: 'lr': expected a number, found the text 'x'",
        "broken.toml:3:9: Cannot declare 'metrics' twice",
    ]


def test_no_message_holds_control_characters(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape codes and line breaks in names never reach the terminal."""
    text = '"a\\nb\\u001b[31m" = 1\n[loss]\nuse = "x\\ny\\u001b[31m"\n'
    (here / "x.toml").write_text(text)
    assert main(["validate", "x.toml", "--set", "loss.x='a\u0085b'"]) == 2
    told = capsys.readouterr().err
    assert all(character.isprintable() or character == "\n" for character in told)
    assert "x.toml:1:1: an experiment has no key 'a b [31m'" in told


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
    (here / "x.toml").write_text(GOOD + "seed = = 1\n")
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
