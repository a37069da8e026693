"""The command line, in processes of its own: quick, terse, and machine-readable where asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support import Command, install

from framework.__main__ import COMMANDS, main
from framework.commands.trained import finished
from framework.errors import UserError
from framework.registry import KINDS, Registry
from tests.faults.processes import ran

GOOD = """
dataset = "acme_words"
loss = "acme_poly"
metrics = ["accuracy"]
[model]
use = "hf_classifier"
config = { hidden_size = 8 }
"""
HEAVY = ("torch", "transformers", "mlflow", "numpy", "plugins", "acme_parts")


def refused(*words: str | Path, cwd: Path) -> str:
    """Return what a command says on stderr when it refuses, writing nothing."""
    before = sorted(cwd.rglob("*"))
    done = ran(*words, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sorted(cwd.rglob("*")) == before
    return done.stderr


def imported(*words: str, cwd: Path) -> tuple[int, list[str]]:
    """Return the exit code of a command, and which of the heavy modules it imported."""
    script = (
        "import sys\n"
        "from framework.__main__ import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as error:\n"
        "    code = error.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(code or 0, *found, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=cwd, capture_output=True, text=True, check=True
    )
    code, *found = done.stderr.splitlines()[-1].split()
    return int(code), found


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment without a mistake."""
    file = tmp_path / "x.toml"
    file.write_text(GOOD)
    return file


def test_the_version_is_the_distributions(fresh: Command, tmp_path: Path) -> None:
    """`--version` names the distribution and its version."""
    done = fresh("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"composable-nlp {version('composable-nlp')}\n"


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """`--help` has every command with a line, and an example."""
    done = ran("--help", cwd=tmp_path, env={"COLUMNS": "200"})
    assert done.returncode == 0
    for name, summary in COMMANDS.items():
        assert f"    {name} " in done.stdout
        assert summary in done.stdout
    assert "example: python -m framework run experiments/tiny_bert.toml" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_file_help_and_an_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """`COMMAND --help` says what it does, with an example that names it."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m framework {command} ")
    assert COMMANDS[command] in shown
    assert f"example: python -m framework {command}" in shown


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "loss"],
        ["plugins", "--json"],
        ["plugins", "--help"],
        ["validate", "--help"],
        ["unknown"],
        [],
    ],
)
def test_what_needs_no_plugin_imports_none(tmp_path: Path, words: list[str]) -> None:
    """Help, version and lists are instant: no plugin, no torch, not even numpy is imported."""
    code, found = imported(*words, cwd=tmp_path)
    assert code == (0 if words and words != ["unknown"] else 2)
    assert found == []


def test_one_plugin_imports_no_other(tmp_path: Path) -> None:
    """Showing one plugin imports that one: ours stay out where a foreign one is asked for."""
    code, found = imported("plugins", "loss", "acme_poly", cwd=tmp_path)
    assert code == 0
    assert "acme_parts" in found
    assert "plugins" not in found


def test_validating_imports_torch_at_most(tmp_path: Path, experiment: Path) -> None:
    """Checking an experiment imports its plugins, and none of the heavy libraries they use."""
    code, found = imported("validate", str(experiment), cwd=tmp_path)
    assert code == 0
    assert {"plugins", "acme_parts"} <= set(found)
    assert not {"transformers", "mlflow"} & set(found)


def test_every_plugin_is_listed(tmp_path: Path) -> None:
    """`plugins` has a line per plugin: kind, name, distribution, version, and what it is."""
    done = ran("plugins", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    offers = Registry().offers
    lines = [line.split() for line in done.stdout.splitlines()]
    assert sorted(line[:4] for line in lines) == sorted(
        [o.kind, o.name, o.distribution, o.version] for o in offers
    )
    for offer, line in zip(offers, sorted(lines), strict=True):
        first = (offer.load().__doc__ or "").splitlines()[0]
        assert " ".join(line[4:]) == " ".join(first.split()), offer
    kinds = [line[0] for line in lines]
    assert kinds == sorted(kinds, key=list(KINDS).index)


def test_the_plugins_of_a_kind_are_listed(tmp_path: Path) -> None:
    """`plugins KIND` keeps to one kind, as text and as objects."""
    text = ran("plugins", "loss", cwd=tmp_path).stdout
    found = json.loads(ran("plugins", "loss", "--json", cwd=tmp_path).stdout)
    assert [line.split()[1] for line in text.splitlines()] == [row["name"] for row in found]
    assert {row["kind"] for row in found} == {"loss"}
    (poly,) = [row for row in found if row["name"] == "acme_poly"]
    assert poly == {
        "kind": "loss",
        "name": "acme_poly",
        "distribution": "acme-parts",
        "version": "0.3.1",
        "object": "acme_parts:Poly",
        "summary": "Cross-entropy plus epsilon (1 - p_t), a first-order polynomial loss.",
        "broken": "",
    }


def test_one_plugin_is_shown(tmp_path: Path) -> None:
    """`plugins KIND NAME` shows who offers it, what it is, where it stands, and its options."""
    done = ran("plugins", "loss", "acme-parts:acme_poly", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, about, place, *options = done.stdout.splitlines()
    assert head == "loss 'acme_poly' of acme-parts 0.3.1"
    assert about == "Cross-entropy plus epsilon (1 - p_t), a first-order polynomial loss."
    file, _, line = place.removeprefix("defined in ").rpartition(":")
    source = Path(file).read_text().splitlines()
    assert source[int(line) - 1] in ("@attrs.frozen", "class Poly:")
    assert options == ["  epsilon: float = 1.0", "      weight of the first term"]


def test_one_plugin_as_an_object(tmp_path: Path) -> None:
    """`--json` gives a plugin's options with type, default and help."""
    done = ran("plugins", "callback", "early_stopping", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["kind"], found["name"]) == ("callback", "early_stopping")
    options = {option.pop("name"): option for option in found["options"]}
    assert options["monitor"]["default"] == "required"
    assert options["monitor"]["type"] == "str"
    assert options["mode"]["type"] == "Literal['min', 'max']"
    assert options["patience"] == {
        "type": "int",
        "default": "3",
        "help": "evaluations without improvement before it stops",
    }
    assert all(option["help"] for option in options.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plugins", "los"], "there is no kind 'los'; did you mean 'loss'?"),
        (
            ["plugins", "xyzzy"],
            "there is no kind 'xyzzy'; the kinds are " + ", ".join(f"'{kind}'" for kind in KINDS),
        ),
        (["plugins", "loss", "focla"], "no loss is named 'focla'; did you mean 'focal'?"),
        (
            ["plugins", "loss", "acme-parts:focal"],
            "no loss is named 'acme-parts:focal'; did you mean 'focal'?",
        ),
    ],
)
def test_a_plugin_that_there_isnt(tmp_path: Path, words: list[str], message: str) -> None:
    """A kind or name that there isn't is one line, with the nearest."""
    assert refused(*words, cwd=tmp_path) == f"{message}\n"


@pytest.mark.parametrize("words", [["unknown"], [], ["run"], ["validate"], ["plugins", "--jsn"]])
def test_wrong_arguments_exit_with_2(tmp_path: Path, words: list[str]) -> None:
    """An unknown command, a missing argument or an unknown flag shows the usage and exits 2."""
    message = refused(*words, cwd=tmp_path)
    assert message.startswith("usage: python -m framework")
    if words == ["unknown"]:
        assert all(name in message for name in COMMANDS)


def test_a_good_experiment_validates(tmp_path: Path, experiment: Path) -> None:
    """`validate` says that there is no mistake, and writes nothing."""
    done = ran("validate", experiment.name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "x.toml: no mistakes in 'x'\n"
    assert list(tmp_path.iterdir()) == [experiment]
    found = json.loads(ran("validate", experiment, "--json", cwd=tmp_path).stdout)
    assert found == {"problems": []}


def test_validate_shows_every_default(tmp_path: Path, experiment: Path) -> None:
    """`--show` prints a document that validates, and shows itself, to the same."""
    done = ran("validate", experiment, "--show", "--set", "loss.epsilon=0.5", cwd=tmp_path)
    assert done.returncode == 0
    assert '[loss]\nuse = "acme_poly"\nepsilon = 0.5\n' in done.stdout
    assert "\n[callbacks.jsonl]\n" in done.stdout
    (tmp_path / "y.toml").write_text(done.stdout)
    again = ran("validate", "y.toml", "--show", cwd=tmp_path)
    assert again.stdout == done.stdout


BAD = """
seeds = 1
dataset = "acme_wrods"
loss = { use = "acme_poly", epsilon = "x" }
[model]
use = "hf_classifier"
max_length = 2
[trainer]
epochs = 0
"""


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """`validate` and `run` tell all mistakes, each with place and caret, and exit 2."""
    (tmp_path / "x.toml").write_text(BAD)
    message = refused("validate", "x.toml", "--set", "trainer.log_every=no", cwd=tmp_path)
    heads = [line for line in message.splitlines() if not line.startswith("    ")]
    assert heads == [
        "x.toml:2:1: an experiment has no key 'seeds'; did you mean 'seed'?",
        "x.toml:3:11: no dataset is named 'acme_wrods'; did you mean 'acme_words'?",
        "x.toml:4:39: 'epsilon': expected a number, found the text 'x'",
        "x.toml:7:14: 'max_length' must be >= 8: 2",
        "x.toml:9:10: 'epochs' must be >= 1: 0",
        "--set:1:19: 'log_every': expected a whole number, found the text 'no'",
    ]
    assert len(message.splitlines()) == 3 * len(heads)
    assert refused("run", "x.toml", "--set", "trainer.log_every=no", cwd=tmp_path) == message


def test_mistakes_as_objects(tmp_path: Path) -> None:
    """`--json` gives every mistake with its place, from `validate` and from `run`, and exits 2."""
    (tmp_path / "x.toml").write_text(BAD)
    done = ran("validate", "x.toml", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    problems = json.loads(done.stdout)["problems"]
    assert [problem["where"] for problem in problems] == [
        "x.toml:2:1",
        "x.toml:3:11",
        "x.toml:4:39",
        "x.toml:7:14",
        "x.toml:9:10",
    ]
    assert problems[0] == {
        "where": "x.toml:2:1",
        "message": "an experiment has no key 'seeds'; did you mean 'seed'?",
        "file": "x.toml",
        "line": 2,
        "column": 1,
        "source": "seeds = 1",
        "via": [],
    }
    again = ran("run", "x.toml", "--json", cwd=tmp_path)
    assert (again.returncode, json.loads(again.stdout)["problems"]) == (2, problems)


@pytest.mark.parametrize("command", ["run", "validate"])
def test_an_experiment_that_isnt_there(tmp_path: Path, command: str) -> None:
    """A file that isn't there is one line."""
    assert refused(command, "none.toml", cwd=tmp_path) == (
        "none.toml: can't read this experiment (No such file or directory)\n"
    )


def test_a_monitor_that_nobody_computes(tmp_path: Path, experiment: Path) -> None:
    """A metric to wait for that nobody computes is told before anything heavy is loaded."""
    text = "\n[callbacks.early_stopping]\nmonitor = 'val/acuracy'\nmode = 'max'\n"
    experiment.write_text(GOOD + text)
    message = (
        "x.toml:10:11: nothing computes 'val/acuracy'; did you mean 'val/accuracy'?\n"
        "    monitor = 'val/acuracy'\n"
        "              ^\n"
    )
    assert refused("run", "x.toml", cwd=tmp_path) == message
    assert refused("validate", "x.toml", cwd=tmp_path) == message


def test_a_monitor_that_only_the_data_refuses(tmp_path: Path, experiment: Path) -> None:
    """What a metric computes may depend on the data: then `run` tells, before a model is built."""
    text = "\n[callbacks.early_stopping]\nmonitor = 'val/accuracy/x'\nmode = 'max'\n"
    experiment.write_text(GOOD + text)
    assert refused("run", "x.toml", cwd=tmp_path) == (
        "x.toml:10:11: nothing computes 'val/accuracy/x'; did you mean 'val/accuracy'?\n"
        "    monitor = 'val/accuracy/x'\n"
        "              ^\n"
    )


def _folders(root: Path) -> dict[str, Any]:
    """Make folders that are no run."""
    (root / "empty").mkdir()
    (root / "unfinished" / "checkpoints").mkdir(parents=True)
    (root / "unsealed" / "checkpoints" / "last").mkdir(parents=True)
    (root / "file").touch()
    return {
        "missing": "there is no run folder here; 'runs/NAME/TIME' is one",
        "file": "there is no run folder here; 'runs/NAME/TIME' is one",
        "empty": "neither a run folder nor a model:"
        " 'model.safetensors', 'info.json', 'experiment.toml' not in it",
        "unfinished": "this run has no whole checkpoint to load",
        "unsealed": "this run has no whole checkpoint to load",
    }


@pytest.mark.parametrize("name", ["missing", "file", "empty", "unfinished", "unsealed"])
def test_a_folder_that_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What is wrong with a folder that is no run is told in one line."""
    message = _folders(tmp_path)[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        finished(name, tmp_path)
    assert str(caught.value) == f"{name}: {message}"


@pytest.mark.parametrize("words", [["evaluate", "folder"], ["predict", "folder", "new.csv"]])
def test_commands_on_a_folder_that_is_no_run(tmp_path: Path, words: list[str]) -> None:
    """`evaluate` and `predict` on a folder that is no run say so, exit 2 and write nothing."""
    (tmp_path / "folder" / "checkpoints").mkdir(parents=True)
    (tmp_path / "new.csv").write_text("text\nhello\n")
    assert refused(*words, cwd=tmp_path) == "folder: this run has no whole checkpoint to load\n"


def test_predictions_have_a_name_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is named after the whole name of the file, and is never the file itself."""
    written = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("framework.commands.trained.finished", lambda *_: None)
    monkeypatch.setattr(
        "framework.commands.predict.predict", lambda *words: written.append(words[-1]) or 0
    )
    for name in ("a.train.csv", "a.dev.csv", "b.JSONL.gz", "c.parquet", "d"):
        assert main(["predict", "run", name]) == 0
    assert [path.name.removesuffix(".predictions.csv") for path in written] == [
        *("a.train", "a.dev", "b", "c", "d")
    ]
    assert main(["predict", "run", "a.csv", "--output", "../" + tmp_path.name + "/a.csv"]) == 2
    assert len(written) == 5


def test_an_address_that_nobody_fetches(tmp_path: Path) -> None:
    """An address with a scheme that no source is named for is told."""
    assert refused("evaluate", "modles:/x@best", cwd=tmp_path) == (
        "no source is named 'modles'; did you mean 'models'?\n"
    )


SOURCE = """
from pathlib import Path
import attrs

@attrs.frozen
class Needy:
    root: str

    def fetch(self, address, folder): ...

@attrs.frozen
class Picky:
    size: int = attrs.field(default=0, validator=attrs.validators.gt(0))

    def fetch(self, address, folder): ...

@attrs.frozen
class Mute:
    def fetch(self, address, folder): ...

@attrs.frozen
class Vague:
    def fetch(self, address, folder):
        return folder / "nothing"
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needy", "can't be made without options (Needy.__init__() missing 1 required"),
        ("picky", "can't be made without options ('size' must be > 0: 0), and an address"),
        ("mute", "has fetched no folder but None"),
        ("vague", "/nothing')"),
    ],
)
def test_a_source_that_fetches_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    """A source that can't be made from an address alone, or returns no folder, is one line."""
    offers = {"framework.source": {name: f"of_sources:{name.title()}"}}
    install(monkeypatch, tmp_path / "site", "source-parts 1.0", offers, of_sources=SOURCE)
    assert main(["evaluate", f"{name}:/x"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"source '{name}' of source-parts 1.0 " in told
    assert message in told


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[]", b"null"])
def test_a_model_whose_info_is_no_object(tmp_path: Path, text: bytes) -> None:
    """A damaged `info.json` of a model is one line that names it."""
    for name in ("model.safetensors", "experiment.toml"):
        (tmp_path / name).touch()
    (tmp_path / "info.json").write_bytes(text)
    said = refused("evaluate", ".", cwd=tmp_path)
    assert said.startswith("info.json: ")
    assert said.count("\n") == 1


def test_a_reader_that_has_left_is_no_failure(tmp_path: Path) -> None:
    """A list whose reader has gone, as `| head` does, ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "framework", "plugins"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
