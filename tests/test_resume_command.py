"""`run --resume`: which run goes on, with what, and when it is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from safetensors.torch import load_file
from support import ROOT, TINY, Hostile, forge, install, points

from framework import checkpoint
from framework.__main__ import main
from framework.commands import _resume
from framework.commands._experiment import TABLES
from framework.commands._resolved import toml
from framework.commands._sets import parsed
from framework.config.experiment import load

SHORT = TINY.replace("ROOT", str(ROOT)).replace("steps = 20", "steps = 6\neval_every = 3")
RINGING = """
import signal
import attrs
from framework.hooks import hookimpl
from framework.protocols import option

@attrs.frozen
class Ring:
    step: int = option(4, help="when")
    def build(self):
        return Live(self.step)

@attrs.define
class Live:
    step: int
    sink: bool = True
    @hookimpl
    def step_end(self, state):
        if state.step == self.step:
            signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its one run, which has ended."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "tiny.toml").write_text(SHORT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "tiny.toml"]) == 0
    return folder


@pytest.fixture
def workplace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    folder = tmp_path / "workplace"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def run_of(workplace: Path) -> Path:
    """Return its only run."""
    (folder,) = (workplace / "runs" / "tiny").iterdir()
    return folder


def resumed(*words: str, sets: Sequence[str] = ()) -> int:
    """Return the exit code of `run tiny.toml --resume`."""
    given = [word for text in sets for word in ("--set", text)]
    return main(["run", "tiny.toml", *given, "--resume", *words])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the newest weights of a run."""
    return load_file(folder / "checkpoints" / "last" / checkpoint.WEIGHTS)


def same(one: Path, other: Path) -> None:
    """Hold that two runs ended alike."""
    assert points(one) == points(other)
    mine, theirs = weights(one), weights(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for result in results:
        del result["timing"]
    assert results[0] == results[1]
    rows = [(run / "predictions" / "test.csv").read_text() for run in (one, other)]
    assert rows[0] == rows[1]


def content(folder: Path) -> dict[str, Any]:
    """Return every file of a folder but for its lock, and every link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = path.readlink()
        elif path.is_file() and path.name != ".lock":
            found[str(path)] = path.read_bytes()
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str, sets: Sequence[str] = ()) -> str:
    """Return what is said on stderr when nothing goes on; nothing is written."""
    before = content(Path.cwd())
    capsys.readouterr()
    assert resumed(*words, sets=sets) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert content(Path.cwd()) == before
    return told.err


def test_a_finished_run_ends_the_same(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed, it trains nothing, is tested again and says what it said; the record tells of it."""
    assert resumed() == 0
    told = capsys.readouterr()
    assert f"{run_of(workplace)}: going on from step 6" in told.err
    assert "completed: all steps were taken" in told.out
    same(run_of(workplace), run_of(finished))
    record = json.loads((run_of(workplace) / "environment.json").read_text())
    assert record.pop("resumed") == [{"step": 6}]
    assert record == json.loads((run_of(finished) / "environment.json").read_text())
    log = (run_of(workplace) / "run.log").read_text()
    assert log.startswith((run_of(finished) / "run.log").read_text())
    assert "going on from step 6" in log


@pytest.mark.parametrize("named", [False, True])
def test_more_steps_go_on(workplace: Path, finished: Path, *, named: bool) -> None:
    """With more steps the same run goes on from where it ended, in its folder."""
    run = run_of(workplace)
    assert resumed(*([str(run)] if named else []), sets=["trainer.steps=9"]) == 0
    assert run_of(workplace) == run
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 9)
    before, after = points(run_of(finished)), points(run)
    trained = [point for point in before if "test/loss" not in point]
    assert after[: len(trained)] == trained
    assert [point["step"] for point in after if "val/loss" in point] == [3, 6, 9]
    assert [point["step"] for point in after if "test/loss" in point] == [9]
    assert tomli.loads((run / "experiment.toml").read_text())["trainer"]["steps"] == 9
    assert (run / "checkpoints" / "last").readlink() == Path("step-9")


def test_an_interrupted_run_goes_on(
    workplace: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a signal: exit code 143, a checkpoint, and the command that goes on; then the end."""
    offers = {"framework.callback": {"ring": "ring_module:Ring"}}
    install(monkeypatch, tmp_path / "site", "ring 1.0", offers, ring_module=RINGING)
    shutil.rmtree(workplace / "runs")
    assert main(["run", "tiny.toml", "--set", "callbacks.ring={}"]) == 143
    run = run_of(workplace)
    told = capsys.readouterr().out
    assert told.startswith("interrupted: received SIGTERM\n")
    before, command = told.rstrip().rsplit("\nnext: python -m framework ", 1)
    assert before.endswith(f"run folder: runs/tiny/{run.name}")
    assert json.loads((run / "result.json").read_text())["steps"] == 4
    # the command that it gives is one that works
    assert main(command.split()) == 0
    same(run, run_of(finished))


CHANGES = {
    "loss.gamma=3": "--set:1:12: loss.gamma is 3.0, and 2.0 in the run that goes on",
    "seed=7": "--set:1:6: seed is 7, and 42 in the run that goes on",
    "trainer.batch_size=16": "--set:1:20: trainer.batch_size is 16, and 32 in the run that goes on",
    "trainer.eval_every=2": "--set:1:20: trainer.eval_every is 2, and 3 in the run",
    "optimizer.lr=0.5": "--set:1:14: optimizer.lr is 0.5, and 0.001 in the run",
    "model.config.hidden_size=32": "model.config.hidden_size is 32, and 16 in the run",
    "callbacks.checkpoint.mode=max": 'callbacks.checkpoint.mode is "max", and "min" in the run',
    "callbacks.guard=false": "callbacks.guard is false, and not set in the run",
    'metrics=["f1"]': 'metrics.accuracy.use is not set, and "accuracy" in the run',
    "scheduler=constant": 'scheduler.use is "constant", and "linear" in the run',
    "name=other": None,
}


@pytest.mark.parametrize("change", [change for change, told in CHANGES.items() if told])
def test_what_the_past_cant_bear_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """A change to what has been trained is told with its place, both values, and the way out."""
    told = refused(capsys, sets=[change])
    assert str(CHANGES[change]) in told
    assert "can go on with more epochs or steps, a smaller micro_batch, and other workers" in told


def test_every_difference_is_told_at_once(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has a line of its own with file, line and column, where it was written."""
    text = SHORT.replace('loss = "focal"', 'loss = { use = "focal", gamma = 3.0 }')
    text = text.replace("hidden_size = 16", "hidden_size = 32") + "batch_size = 16\n"
    (workplace / "tiny.toml").write_text("seed = 7\n" + text)
    told = refused(capsys)
    lines = ("seed = 7\n" + text).splitlines()
    for start, key in {
        "seed = ": "seed",
        "loss = ": "loss.gamma",
        "hidden_size = ": "model.config.hidden_size",
        "batch_size = ": "trainer.batch_size",
    }.items():
        number = next(n for n, line in enumerate(lines, 1) if line.startswith(start))
        assert any(
            line.startswith(f"tiny.toml:{number}:") and f": {key} is " in line
            for line in told.splitlines()
        ), key


def found(*sets: str, run: str = "") -> Path | None:
    """Return which run would go on."""
    return _resume.find(load(Path("tiny.toml"), [*map(parsed, sets)], tables=TABLES), run)


@pytest.mark.parametrize(
    "sets",
    [
        ["trainer.workers=2"],
        ["trainer.on_oom=split", "trainer.on_nonfinite=skip"],
        ["trainer.epochs=5"],
        ["trainer.steps=7", "trainer.epochs=2"],
        ["trainer.micro_batch=8"],
        ["callbacks.guard.patience=20", "callbacks.checkpoint.keep=4"],
        ["callbacks.progress.every=1.0"],
        ["callbacks.progress=false"],
        ["callbacks.mlflow={}"],
        ["callbacks.mlflow={}", "callbacks.progress=false", "trainer.workers=1"],
        ['requires=["torch"]'],
    ],
    ids=" ".join,
)
def test_what_nothing_depends_on_may_change(workplace: Path, sets: list[str]) -> None:
    """Sinks, workers, what to do about faults, and more of the same may change."""
    assert found(*sets) == run_of(workplace)


def test_a_sink_may_be_dropped(workplace: Path) -> None:
    """A run that was tracked may go on untracked, or tracked otherwise."""
    file = run_of(workplace) / "experiment.toml"
    tracked = load(Path("tiny.toml"), [parsed("callbacks.mlflow={}")], tables=TABLES)
    file.write_text(toml(tracked))
    assert found() == run_of(workplace)
    assert found("callbacks.mlflow=false") == run_of(workplace)
    assert found("callbacks.mlflow={}", "callbacks.mlflow.uri=sqlite:///x.db") == run_of(workplace)


def test_a_changed_sink_runs(workplace: Path, finished: Path) -> None:
    """With another sink the run goes on and ends the same."""
    assert resumed(sets=["callbacks.progress=false", "trainer.on_oom=split"]) == 0
    same(run_of(workplace), run_of(finished))


@pytest.mark.parametrize("sets", [["trainer.steps=5"], ["trainer.steps=1", "trainer.epochs=9"]])
def test_fewer_steps_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], sets: list[str]
) -> None:
    """What counts is how many steps there are in all: what was planned can't be undone."""
    told = refused(capsys, sets=sets)
    steps = sets[0].rpartition("=")[2]
    assert f"{steps} steps are fewer than the 6 that it was to take" in told


def test_epochs_are_counted_in_steps(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """6 steps may become those of an epoch, which is more, and not 7 again, which is less."""
    assert resumed(sets=["trainer.steps=0"]) == 0
    told = capsys.readouterr().err
    assert "its schedule is now that of 34 steps" in told
    result = json.loads((run_of(workplace) / "result.json").read_text())
    assert (result["steps"], result["epochs"]) == (34, 1)
    told = refused(capsys, sets=["trainer.steps=7"])
    assert "7 steps are fewer than the 34 that it was to take" in told


def test_without_a_run_one_is_started(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is nothing to go on with, a run begins, and a note says so."""
    shutil.rmtree(workplace / "runs")
    assert resumed() == 0
    root = workplace / "runs" / "tiny"
    assert f"{root}: no run here to go on with; starting one" in capsys.readouterr().err
    same(run_of(workplace), run_of(finished))


def test_the_newest_run_goes_on(workplace: Path) -> None:
    """Of several runs of the name the newest goes on, by the time in its name."""
    run = run_of(workplace)
    for name in ("20200101T000000Z-ffffff", "29990101T000000Z-000000", "29980101T000000Z-ffffff"):
        shutil.copytree(run, run.with_name(name), symlinks=True)
    (run.parent / "29999999T000000Z-aaaaaa").mkdir()
    assert found() == run.with_name("29990101T000000Z-000000")
    assert found(run=str(run)) == run


@pytest.mark.parametrize("path", ["nowhere", ".", "runs/tiny", "tiny.toml"])
def test_what_is_no_run_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    """A path that is no run folder is told, with what one looks like."""
    told = refused(capsys, path)
    assert told == f"{path}: there is no run folder here; 'runs/NAME/TIME' is one\n"


HOLDING = """
import fcntl, sys
stream = open(sys.argv[1], "w")
fcntl.lockf(stream, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_that_is_going_on_is_let_be(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While another process has the run, nothing of it is touched; afterwards it can go on."""
    run = run_of(workplace)
    words = [sys.executable, "-c", HOLDING, str(run / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        told = refused(capsys)
        assert told.endswith(f"{run}: this run is still going on in another process\n")
        other.communicate()
    assert resumed() == 0
    same(run, run_of(finished))


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workplace with files of its own, and a finished run on them."""
    monkeypatch.chdir(tmp_path)
    table = (ROOT / "data" / "redsm5" / "redsm5_annotations.csv").read_text().splitlines()
    rows = [line.split(",")[2:] for line in table[1:]]
    texts = [",".join(row)[:40].replace('"', "").replace(",", " ") for row in rows]
    for split, at in {"train": 0, "val": 96, "test": 128}.items():
        lines = [f"{text},{n % 2}" for n, text in enumerate(texts[at : at + 32])]
        lines = [f"{split} {n} {line}" for n, line in enumerate(lines)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    start, end = SHORT.index("[dataset]"), SHORT.index("[model]")
    dataset = (
        '[dataset]\nuse = "text"\ntrain = "./train.csv"\nval = "./val.csv"\ntest = "./test.csv"\n\n'
    )
    text = SHORT[:start] + dataset + SHORT[end:] + "batch_size = 8\n"
    (tmp_path / "tiny.toml").write_text(text)
    assert main(["run", "tiny.toml"]) == 0
    return tmp_path


def test_changed_data_is_refused(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the data that has changed is named; as it was before, the run goes on."""
    file = own_data / "train.csv"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"train 3 ", b"train 3, ", 1).replace(b", ", b" other ", 1))
    assert file.read_bytes() != before
    told = refused(capsys)
    assert told.endswith(f"{file}: changed since this run began; start a run of its own\n")
    file.write_bytes(before)
    assert resumed() == 0


def test_swapped_data_is_refused(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that have changed places are no less changed."""
    one, other = own_data / "train.csv", own_data / "val.csv"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert "changed since this run began" in refused(capsys)


def test_refused_data_leaves_the_checkpoints(
    own_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a run is refused, its checkpoints stay where they are, damaged or not."""
    (own_data / "train.csv").write_text("text,label\n" + "another,0\none more,1\n" * 16)
    newest = run_of(own_data) / "checkpoints" / "step-6"
    (newest / "state.pt").write_bytes(b"")
    refused(capsys)
    assert newest.is_dir()


def _damage(run: Path, steps: Sequence[int]) -> None:
    for step in steps:
        (run / "checkpoints" / f"step-{step}" / "state.pt").write_bytes(b"")


def test_a_damaged_checkpoint_is_passed_over(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on from the one before, says so, and ends the same."""
    _damage(run_of(workplace), [6])
    assert resumed() == 0
    told = capsys.readouterr().err
    assert "step-6: damaged, state.pt" in told
    assert "going on from step 3" in told
    same(run_of(workplace), run_of(finished))


def test_damaged_throughout_it_starts_over(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no whole checkpoint the run begins again in its folder, says so, and ends the same."""
    _damage(run_of(workplace), [3, 6])
    assert resumed() == 0
    told = capsys.readouterr().err
    assert f"{run_of(workplace)}: no whole checkpoint to go on from; starting over" in told
    same(run_of(workplace), run_of(finished))


@pytest.mark.parametrize("record", [None, "", "{", "[]", "{}", '{"data": {}}'])
def test_a_record_that_is_gone_is_no_traceback(
    workplace: Path, capsys: pytest.CaptureFixture[str], record: str | None
) -> None:
    """Without a readable `environment.json` the data can't be held against it: gone on, or told."""
    file = run_of(workplace) / "environment.json"
    if record is None:
        file.unlink()
    else:
        file.write_text(record)
    assert resumed() in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert json.loads(file.read_text() or "{}") is not None


@pytest.mark.parametrize("text", [None, "", "name = ", "[loss]\n", "\udcff"])
def test_an_experiment_that_is_broken_is_told(
    workplace: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    """A run whose own experiment can't be read is refused, and its file is named."""
    file = run_of(workplace) / "experiment.toml"
    if text is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    told = refused(capsys, str(run_of(workplace)))
    assert str(file.relative_to(workplace).parent) in told


NAMES = (
    "manifest.json",
    "counters.json",
    "state.pt",
    "state.safetensors",
    "model/config.json",
    "model/experiment.toml",
    "model/info.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
)


def test_every_file_is_attacked(finished: Path) -> None:
    """The names that these tests know are all that there are."""
    folder = run_of(finished) / "checkpoints" / "step-6"
    assert sorted(NAMES) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_pickle_in_a_checkpoint_is_executed(
    workplace: Path, finished: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """In the place of any file, under a manifest that fits: refused, or of no effect."""
    marker = workplace / "marker"
    run = run_of(workplace)
    for step in (3, 6):
        folder = run / "checkpoints" / f"step-{step}"
        (folder / name).write_bytes(pickle.dumps(Hostile(marker)))
        if name != "manifest.json":
            forge(folder)
    code = resumed()
    told = capsys.readouterr()
    assert not marker.exists()
    assert "Traceback" not in told.err
    assert code in (0, 1, 2)
    if code == 0:
        same(run, run_of(finished))
    else:
        assert name in told.err or "model: its configuration or tokenizer can't be read" in told.err
