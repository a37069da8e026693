"""The JSON Schema of an experiment: a real TOML linter finds with it what `validate` finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from support import ROOT, environment, install

from framework.__main__ import main
from framework.commands._experiment import TABLES
from framework.commands.schema import schema
from framework.config.experiment import load
from framework.errors import ExperimentError
from framework.protocols import Training
from framework.registry import KINDS, Registry

TOMBI = Path(sys.executable).with_name("tombi")
OURS = Registry(tuple(o for o in Registry().offers if o.distribution == "composable-nlp"))
SHIPPED = ROOT / "experiments" / "schema.json"

GOOD = """\
#:schema ./schema.json
name = "good"
seed = 1
requires = ["attrs"]

dataset = {
    use = "text",
    train = "./rows.csv",  # TOML 1.1: several lines, and a comma at the end
    ratios = [0.8, 0.2],
}
model = { use = "hf_classifier", config = { hidden_size = 8 } }
loss = { use = "focal", gamma = 2, alpha = [1, 2.5] }
optimizer = { lr = 1e-3 }
scheduler = { use = "composable-nlp:linear", warmup = 10 }
precision = "fp32"

[trainer]
epochs = 2

[metrics]
accuracy = {}
macro = { use = "f1", average = "macro" }
by_colour = { use = "by_group", key = "colour", metrics = ["f1", "recall"] }
"composable-nlp:recall" = {}
by_shape = { use = "by_group", key = "shape", metrics = { f1 = { average = "micro" } } }

[callbacks]
jsonl = false

[callbacks.early_stopping]
monitor = "val/macro"
mode = "max"

[search]
metric = "val/macro"
direction = "maximize"

[search.space]
"optimizer.lr" = { low = 1e-6, high = 1e-4, log = true }
"loss" = { choices = ["focal", { use = "cross_entropy", label_smoothing = 0.1 }] }
"""
BREAKS = {
    "an unknown key": ("seed = 1", "seeds = 1"),
    "a wrong type": ("seed = 1", 'seed = "1"'),
    "a float for a whole number": ("epochs = 2", "epochs = 2.5"),
    "a value below its bound": ("epochs = 2", "epochs = 0"),
    "a value that a validator refuses": ("gamma = 2", "gamma = -2"),
    "an unknown option": ("gamma = 2", "gama = 2"),
    "an unknown plugin in a table": ('use = "text"', 'use = "txt"'),
    "an unknown plugin by its bare name": ('"fp32"', '"fp31"'),
    "an unknown choice": ('average = "macro"', 'average = "maco"'),
    "a misspelt word where a list may stand": ("alpha = [1, 2.5]", 'alpha = "balance"'),
    "a wrong item of a list": ("alpha = [1, 2.5]", 'alpha = [1, "x"]'),
    "an option of a component without use": ("{ lr = 1e-3 }", "{ lrr = 1e-3 }"),
    "a bound of a component without use": ("{ lr = 1e-3 }", "{ lr = -1e-3 }"),
    "a missing option": ('mode = "max"\n', ""),
    "a missing option of a table with use": ('    train = "./rows.csv",', "   "),
    "a misspelt label": ("accuracy = {}", "acuracy = {}"),
    "a plugin of a nested list": ('"recall"', '"recal"'),
    "an option of a nested table": ("{ average =", "{ averag ="),
    "a number for a part": ('precision = "fp32"', "precision = 32"),
    "a search without a direction": ('direction = "maximize"\n', ""),
    "a bound of a search that is text": ("low = 1e-6", 'low = "x"'),
    "a key of the search": ("log = true", "lg = true"),
    "no dataset": ("dataset = {", "xyzzy = {"),
}
LACKING = ("accuracy = {}", 'direction = "maximize"\n', "dataset = {", '    train = "./rows.csv",')
"""Breaks for which the two point at different places of one line, or of the file."""


def write_schema(folder: Path) -> None:
    """Write the schema of what is built in."""
    (folder / "schema.json").write_text(json.dumps(schema(OURS)), encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the schema of what is built in."""
    write_schema(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def linted(*files: Path, cwd: Path) -> list[str]:
    """Return what tombi says of files, as `level line:column message`."""
    done = subprocess.run(
        [str(TOMBI), "lint", "--offline", "--quiet", *map(str, files)],
        cwd=cwd,
        env=environment() | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    found = re.findall(r"^ *(Error|Warning): (.*)\n +at .*?:(\d+:\d+)$", said, re.MULTILINE)
    assert done.returncode == int(any(level == "Error" for level, _, _ in found)), said
    return [f"{level} {at} {message}" for level, message, at in found]


def validated(file: Path) -> list[str]:
    """Return the places that `validate` complains of."""
    try:
        load(file, (), OURS, TABLES)
    except ExperimentError as error:
        return [f"{problem.line}:{problem.column}" for problem in error.problems]
    return []


def agreement(folder: Path, text: str) -> tuple[set[str], set[str]]:
    """Return the lines that `validate` complains of, and those that the linter does."""
    file = folder / "x.toml"
    file.write_text(text, encoding="utf-8")
    ours, theirs = validated(file), [found.split()[1] for found in linted(file, cwd=folder)]
    # what stands nowhere has no place in our report, and a linter's is the first line
    lines = {"1" if place == "0:0" else place.split(":")[0] for place in ours}
    return lines, {place.split(":")[0] for place in theirs}


def test_the_good_file_is_good(here: Path) -> None:
    """Neither the linter nor `validate` finds anything in a good file with a bit of everything."""
    (here / "x.toml").write_text(GOOD)
    assert linted(Path("x.toml"), cwd=here) == []
    assert validated(here / "x.toml") == []


@pytest.mark.parametrize(("text", "broken"), BREAKS.values(), ids=BREAKS.keys())
def test_a_linter_finds_what_validate_finds(here: Path, text: str, broken: str) -> None:
    """A mistake is an error for both, at the same line and, but for missing keys, column."""
    assert GOOD.count(text) == 1
    ours, theirs = agreement(here, GOOD.replace(text, broken))
    assert ours
    assert ours == theirs
    if text not in LACKING:
        places = {found.split()[1] for found in linted(here / "x.toml", cwd=here)}
        assert set(validated(here / "x.toml")) <= places


def test_several_mistakes_are_found_together(here: Path) -> None:
    """Breaks on different lines are all found at once, by the linter as by `validate`."""
    chosen = [
        pair for pair in BREAKS.values() if pair[0] not in LACKING and "search" not in pair[0]
    ]
    text, broken = GOOD, set()
    for old, new in chosen:
        line = next((i for i, found in enumerate(text.split("\n"), 1) if old in found), 0)
        if line and line not in broken and new:
            text, broken = text.replace(old, new), broken | {line}
    (here / "x.toml").write_text(text)
    theirs = {int(found.split()[1].split(":")[0]) for found in linted(Path("x.toml"), cwd=here)}
    ours = {int(place.split(":")[0]) for place in validated(here / "x.toml")}
    assert len(broken) >= 8
    assert theirs == ours == broken


def test_a_child_may_leave_everything_out(here: Path) -> None:
    """A file that extends another needs no part, and its tables join what lies below."""
    (here / "x.toml").write_text(GOOD)
    child = '#:schema ./schema.json\nextends = "x.toml"\n[loss]\ngamma = 3.0\n[callbacks]\n'
    child += "early_stopping = { patience = 1 }\n"
    child += "[search]\ntrials = 3\n"
    (here / "y.toml").write_text(child)
    assert linted(Path("y.toml"), cwd=here) == []
    assert validated(here / "y.toml") == []
    (here / "y.toml").write_text(child.replace("[search]", "progress = 3\n[search]"))
    assert {found.split()[1] for found in linted(Path("y.toml"), cwd=here)} == {"7:12"}
    assert validated(here / "y.toml") == ["7:12"]


def test_the_shipped_schema_is_that_of_the_built_ins() -> None:
    """`experiments/schema.json` is what `schema experiments/schema.json` writes."""
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == schema(OURS)


def test_every_shipped_experiment_carries_the_schema() -> None:
    """Each experiment names the schema, and a linter finds nothing in it."""
    files = sorted((ROOT / "experiments").glob("*.toml"))
    assert len(files) >= 6
    assert all(file.read_text().startswith("#:schema ./schema.json\n") for file in files)
    assert linted(*files, cwd=ROOT / "experiments") == []


def test_the_schema_says_what_the_plugins_say() -> None:
    """Titles, descriptions, defaults and bounds are those of the classes and their fields."""
    found = schema(OURS)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for offer in OURS.offers:
        cls = offer.load()
        about = found["$defs"][f"{offer.kind}.{offer.name}"]
        assert about["title"] == cls.__name__
        assert about["description"].split("\n")[0] == cls.__doc__.split("\n")[0]
        assert about["additionalProperties"] is False
        for field in (field for field in attrs.fields(cls) if field.init):
            assert about["properties"][field.name]["description"] == field.metadata["help"]
    rate = found["$defs"]["optimizer.adamw"]["properties"]["lr"]
    assert rate == {
        "type": "number",
        "exclusiveMinimum": 0.0,
        "description": "learning rate",
        "default": 5e-05,
    }
    assert "oneOf" not in json.dumps(found)
    trainer = found["properties"]["trainer"]["properties"]
    assert set(trainer) == {field.name for field in attrs.fields(Training)}


def test_what_is_installed_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outside plugin is in the schema, a broken one is told and left out, two owners by name."""
    source = "import attrs\n\n@attrs.frozen\nclass Two:\n    def build(self, info): ...\n"
    for name in ("one", "two"):
        offers = {"framework.loss": {"same": f"of_{name}:Two", f"bad_{name}": "nowhere:X"}}
        sources = {f"of_{name}": source}
        install(monkeypatch, tmp_path / "site", f"parts-{name} 1.0", offers, **sources)
    file = tmp_path / "s.json"
    assert main(["schema", str(file)]) == 0
    said = capsys.readouterr()
    assert said.err.count("left out: loss 'bad_") == 2
    names = json.loads(file.read_text())["$defs"]["loss"]["anyOf"][0]["enum"]
    assert {"acme_poly", "acme-parts:acme_poly", "parts-one:same", "parts-two:same"} <= set(names)
    assert "same" not in names
    assert main(["schema", str(tmp_path / "none" / "s.json")]) == 2
    assert "can't write the schema" in capsys.readouterr().err


def test_odd_options_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults that JSON can't hold are left out; no plugin's options take the schema down."""
    source = (
        "import math\nfrom pathlib import Path\nfrom typing import Any, Literal\n\nimport attrs\n\n"
        "from framework.protocols import option\n\n@attrs.frozen\nclass Odd:\n"
        "    paths: list[Path] = option([Path('x')], help='paths')\n"
        "    word: Literal['a', None] = option(None, help='a word')\n"
        "    far: float = option(math.inf, help='a number')\n"
        "    free: Any = option(None, help='anything')\n"
        "    pair: tuple[int, ...] = option((1, 2), help='numbers')\n"
        "    inner: Any = option(None, help='a loss, or none', kind='loss')\n\n"
        "    def build(self, info): ...\n"
    )
    install(monkeypatch, tmp_path, "odd-parts 1.0", {"framework.loss": {"odd": "o:Odd"}}, o=source)
    found = schema(Registry())["$defs"]["loss.odd"]["properties"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["word"]["enum"] == ["a"]
    assert [name for name in found if "default" in found[name]] == ["pair"]


def test_it_is_a_schema_for_every_kind() -> None:
    """Every kind with a table has one in the schema, labelled where there may be several."""
    found: dict[str, Any] = schema(OURS)["properties"]
    for kind in KINDS.values():
        if kind.table:
            assert found[kind.table]["$ref"].endswith(".labels" if kind.many else kind.name)
