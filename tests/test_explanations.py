"""`validate --origin` and `--hooks`: where each value came from, and whom each hook calls."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, install

from framework.__main__ import main
from framework.commands._resolved import toml
from framework.commands._sets import parsed
from framework.commands.validate import explained
from framework.config.experiment import load
from framework.config.merge import DEFAULTS
from framework.errors import ExperimentError
from framework.hooks import NAMES

Capture = pytest.CaptureFixture[str]
BASE = """\
dataset = { use = "text", train = "./rows.csv" }
model = { use = "hf_classifier", config = { hidden_size = 8 } }
loss = { use = "focal", gamma = 1.0 }
metrics = ["accuracy", "f1"]
"""
CHILD = """\
extends = "base.toml"
[loss]
gamma = 3.0
[metrics.f1]
average = "macro"
[callbacks.checkpoint]
monitor = "val/f1"
mode = "max"
"""
OWN = '''
import attrs
from framework.hooks import hookimpl

class Live:
    before = ("jsonl",)
    after = {after}

    @hookimpl
    def log(self, point):
        """Nothing."""

@attrs.frozen
class Own:
    """Wants to be asked first."""

    def build(self):
        return Live()
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment that extends another."""
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "x.toml").write_text(CHILD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def origins(capsys: Capture, *words: str) -> dict[str, str]:
    """Return where each value came from, by its path."""
    assert main(["validate", "x.toml", "--origin", *words]) == 0
    table, found = "", {}
    for line in capsys.readouterr().out.splitlines():
        text, _, comment = line.partition("  # ")
        if text.startswith("["):
            table = text.strip("[]") + "."
            found[table] = comment
        elif text:
            found[table + text.partition(" = ")[0]] = comment
    return found


def test_each_value_says_where_it_came_from(here: Path, capsys: Capture) -> None:
    """Behind each value stand file and line, the argument, or that it is a default."""
    found = origins(capsys, "--set", "optimizer.lr=1e-3", "--set", "trainer.epochs=1")
    assert found | {"[]": ""} == found | {
        "[]": "",
        "name": "default",
        "seed": "framework/defaults.toml:2",
        "dataset.use": "base.toml:1",
        "dataset.train": "base.toml:1",
        "dataset.label": "default",
        "model.config.hidden_size": "base.toml:2",
        "loss.use": "base.toml:3",
        "loss.gamma": "x.toml:3",
        "loss.alpha": "default",
        "optimizer.use": "framework/defaults.toml:3",
        "optimizer.lr": "--set optimizer.lr=1e-3",
        "sampler.use": "framework/defaults.toml:5",
        "trainer.epochs": "--set trainer.epochs=1",
        "trainer.batch_size": "framework/defaults.toml:13",
        "metrics.accuracy.use": "base.toml:4",
        "metrics.f1.use": "base.toml:4",
        "metrics.f1.average": "x.toml:5",
        "callbacks.checkpoint.monitor": "x.toml:7",
        "callbacks.jsonl.use": "framework/defaults.toml:28",
    }
    assert all(comment for key, comment in found.items() if not key.endswith("."))


VALUES: dict[str, list[str]] = {
    "seed": ["1", "2", "3"],
    "loss.gamma": ["0.5", "1.0", "3.0"],
    "optimizer.lr": ["1e-3", "1e-4"],
    "trainer.epochs": ["1", "2", "3"],
    "trainer.batch_size": ["8", "16"],
    "model.config.hidden_size": ["8", "16"],
    "metrics": ['["f1"]', '["recall", "f1"]'],
    "metrics.f1.average": ['"macro"', '"micro"'],
    "metrics.f1": ["false", '{ average = "macro" }'],
    "callbacks.jsonl": ["false", "{}"],
    "callbacks.checkpoint.mode": ['"max"', '"min"'],
    "metrics.grouped": [
        '{ use = "by_group", key = "k", metrics = ["f1", { use = "recall", average = "micro" }] }'
    ],
    "metrics.grouped.metrics.f1.average": ['"macro"'],
}
TABLE = "dataset = { use = 'text', train = './rows.csv' }\nmodel.use = 'hf_classifier'\n"
TABLE += "model.config.vocab_size = 100\nloss.use = 'focal'\n"


@st.composite
def layers(draw: Any) -> list[dict[str, str]]:
    """Return what three files and the command line say, none of them against itself."""
    made = []
    for _ in range(4):
        keys = draw(st.lists(st.sampled_from([*VALUES]), unique=True, max_size=6))
        # TOML lets a table be said once, whole or key by key
        keys = [k for k in keys if not any(k.startswith(f"{other}.") for other in keys)]
        made.append({key: draw(st.sampled_from(VALUES[key])) for key in keys})
    return made


def test_every_origin_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever files and arguments say, each value's origin is the line that says it."""
    monkeypatch.chdir(tmp_path)
    held = 0

    @settings(max_examples=100)
    @given(layers())
    def check(said: list[dict[str, str]]) -> None:
        nonlocal held
        *files, last = said
        for index, layer in enumerate(files):
            head = f"extends = 'f{index - 1}.toml'\n" if index else TABLE
            text = head + "".join(f"{k} = {v}\n" for k, v in layer.items())
            (tmp_path / f"f{index}.toml").write_text(text)
        try:
            experiment = load(
                Path("f2.toml"), [parsed(f"{key}={value}") for key, value in last.items()]
            )
        except ExperimentError:
            return  # a table over a label that isn't there, and the like
        held += _origins_held(explained(experiment), tmp_path)
        again = tmp_path / "again.toml"
        again.write_text(explained(experiment))
        assert toml(load(again)) == toml(experiment)

    check()
    assert held > 500


def _origins_held(document: str, folder: Path) -> int:
    """Hold every value against the line that its comment names; how many there were."""
    table, count = "", 0
    for line in document.splitlines():
        value, _, origin = line.partition("  # ")
        key, _, text = value.partition(" = ")
        if value.startswith("["):
            table = value.strip("[]")
        if not text or origin == "default":
            continue
        source = origin.removeprefix("--set ")
        if source == origin:
            file, _, number = origin.rpartition(":")
            whole = DEFAULTS if file.startswith("framework/") else folder / file
            source = whole.read_text().splitlines()[int(number) - 1]
        # a label names its plugin, and a bare name is the plugin's
        words = {key, text.strip('"'), table.rpartition(".")[2]}
        assert any(word in source for word in words), f"{table}: {line}"
        if key not in ("use", "train"):
            assert tomli.loads(f"v = {text}")["v"] in _leaves(tomli.loads(source)), line
            count += 1
    return count


def _leaves(tree: Any) -> list[Any]:
    """Return every value in a tree, tables and lists included."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tree, *(leaf for item in inner for leaf in _leaves(item))]


def test_what_origin_prints_is_the_same_experiment(here: Path, capsys: Capture) -> None:
    """The document with origins validates and shows itself as the one without them does."""
    for words in (["--origin"], ["--show"]):
        assert main(["validate", "x.toml", *words]) == 0
        (here / "again.toml").write_text(capsys.readouterr().out)
        assert main(["validate", "again.toml", "--show"]) == 0
        shown = capsys.readouterr().out
    assert "#" not in shown
    assert shown == (here / "again.toml").read_text()


def test_an_argument_cannot_break_out_of_its_comment(here: Path, capsys: Capture) -> None:
    """What is quoted behind a value is one line, whatever the argument holds."""
    assert main(["validate", "x.toml", "--origin", "--set", "dataset.id=a\nseed = 7"]) == 0
    shown = capsys.readouterr().out
    assert '\nid = "a\\nseed = 7"  # --set dataset.id=a seed = 7\n' in shown
    assert "\nseed = 42  # " in shown


def test_hooks_show_who_is_called_and_why(here: Path, capsys: Capture) -> None:
    """Each hook has its callbacks in order, with the owner and the line that put them there."""
    assert main(["validate", "x.toml", "--hooks"]) == 0
    blocks: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(" "):
            blocks[[*blocks][-1]].append(line.strip())
        else:
            blocks[line] = []
    assert tuple(blocks) == NAMES
    owner = ["composable-nlp", version("composable-nlp")]
    assert [line.split() for line in blocks["log"]] == [
        ["1.", "guard", *owner, "framework/defaults.toml:26"],
        ["2.", "progress", *owner, "framework/defaults.toml:27"],
        ["3.", "jsonl", *owner, "framework/defaults.toml:28"],
    ]
    assert blocks["step_start"] == ["nobody"]


def test_a_declared_order_is_a_reason(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A callback of somebody else's that wants to come before another does, and says so."""
    offers = {"framework.callback": {"own": "of_own:Own"}}
    source = OWN.format(after=())
    install(monkeypatch, here / "site", "own-parts 2.0", offers, of_own=source)
    assert main(["validate", "x.toml", "--hooks", "--set", "callbacks.own={}"]) == 0
    log = capsys.readouterr().out.partition("\nlog\n")[2].splitlines()[:4]
    assert [line.split()[1] for line in log] == ["guard", "progress", "own", "jsonl"]
    assert log[2].split(maxsplit=4)[2:] == [
        "own-parts",
        "2.0",
        "--set callbacks.own={}, before 'jsonl'",
    ]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            "('progres',)",
            "wants to come after 'progres', which is no callback here; did you mean 'progress'?",
        ),
        ("('jsonl',)", "callbacks wait for each other by 'before' and 'after': "),
    ],
)
def test_an_order_that_there_isnt_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, after: str, message: str
) -> None:
    """An unknown label and a cycle are mistakes, told in one line before anything runs."""
    offers = {"framework.callback": {"own": "of_own:Own"}}
    source = OWN.format(after=after)
    install(monkeypatch, here / "site", "own-parts 2.0", offers, of_own=source)
    assert main(["validate", "x.toml", "--hooks", "--set", "callbacks.own={}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_main_experiment_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Every value of the main experiment says where it is from, most of them its own file."""
    monkeypatch.chdir(ROOT)
    assert main(["validate", "experiments/focal_bert.toml", "--origin"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " = " in line]
    assert all("  # " in line for line in lines)
    assert sum("experiments/focal_bert.toml:" in line for line in lines) > 30
