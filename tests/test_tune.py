"""`tune`: a search from the file, its trials, its storage, and what it comes to."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import optuna
import pytest
import tomli
from support import ROOT, TINY, Command, environment, install, points

from framework.__main__ import main
from framework.commands import _engines, _owner
from framework.commands._storage import JournalLock
from plugins.callbacks.mlflow import Mlflow
from tests.faults.experiments import TEXT, install_parts

SPACE = """
[search]
metric = "val/accuracy"
direction = "maximize"
trials = 6
retrain = 2
sampler = { use = "random" }
[search.space]
"optimizer.lr" = { low = 0.01, high = 1.0, log = true }
"trainer.batch_size" = { low = 8, high = 24, step = 8 }
"loss" = { choices = ["cross_entropy", { use = "focal", gamma = 1.0 }] }
"loss.gamma" = { low = 0, high = 5 }
"""
RINGING = """
import signal
import attrs
from framework.hooks import hookimpl

@attrs.frozen
class Ring:
    trial: int
    def build(self):
        return Live(self.trial)

@attrs.define
class Live:
    trial: int
    sink: bool = True
    @hookimpl
    def step_end(self, state):
        done = sum(1 for run in state.folder.parent.glob("2*"))
        if state.step == 4 and done == self.trial:
            signal.raise_signal(signal.SIGTERM)
"""
MEMORY = """
import gc
import json
from pathlib import Path
import attrs
from torch import nn
from framework.hooks import hookimpl

@attrs.frozen
class Measure:
    def build(self):
        return Live()

@attrs.define
class Live:
    sink: bool = True
    @hookimpl
    def step_end(self, state):
        if state.step == 2:
            modules = sum(type(item) is nn.Embedding for item in gc.get_objects())
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            with (state.folder.parent / "memory.jsonl").open("a") as stream:
                stream.write(json.dumps([modules, pages * 4096]) + "\\n")
"""


@attrs.frozen
class Searched:
    """A search that is over."""

    folder: Path
    said: str

    @property
    def root(self) -> Path:
        """Its run folders, and the study."""
        return self.folder / "runs" / "fault"

    @property
    def found(self) -> dict[str, Any]:
        """What it came to."""
        return read(self.root / "study" / "study.json")


def read(file: Path) -> dict[str, Any]:
    """Read JSON."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module", autouse=True)
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The smallest parts there are, installed."""
    # for seconds otherwise, in each process that draws
    import torch._dynamo  # noqa: F401

    site = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        install_parts(patch, site)
        yield site


def search(
    folder: Path, command: Command, text: str = SPACE, *sets: str, code: int = 0
) -> Searched:
    """Search in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "fault.toml").write_text(TEXT + text)
    words = [word for value in sets for word in ("--set", value)]
    done = command("tune", "fault.toml", *words, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return Searched(folder, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Searched:
    """A search of six trials."""
    return search(tmp_path_factory.mktemp("searched"), command)


def test_a_search_makes_the_trials_that_were_asked_for(searched: Searched) -> None:
    """Each is a run folder like any other, whose experiment holds what was drawn."""
    trials = searched.found["trials"]
    assert [trial["number"] for trial in trials] == [*range(6)]
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        (run,) = trial["runs"]
        drawn = tomli.loads((searched.root / run / "experiment.toml").read_text())
        assert drawn["optimizer"]["lr"] == trial["params"]["optimizer.lr"]
        assert drawn["trainer"]["batch_size"] == trial["params"]["trainer.batch_size"]
        assert read(searched.root / run / "result.json")["status"] == "completed"
        # the search itself, and what watches a trial, stand in no run
        assert "search" not in drawn
        assert "[search]" not in drawn["callbacks"]


def test_only_the_best_keeps_its_checkpoints(searched: Searched) -> None:
    """A search of many trials would fill the disk."""
    (best,) = searched.found["best"]
    kept = {file.parent.name for file in searched.root.glob("2*/checkpoints")}
    again = {each["run"] for each in searched.found["retrained"]["seeds"].values()}
    assert kept == {*best["runs"], *again}


def test_what_cannot_go_together_is_a_failed_trial(tmp_path: Path, command: Command) -> None:
    """Each value is one that its option takes; both at once are not, and the search goes on."""
    text = SPACE[: SPACE.index('"optimizer')].replace("trials = 6", "trials = 4")
    text += """\
"callbacks.mlflow" = { choices = ["mlflow", { use = "mlflow", register = "a" }] }
"callbacks.mlflow.alias" = { choices = ["", "b"] }
"""
    done = search(tmp_path / "a", command, f"{text}[callbacks.mlflow]\n", "search.retrain=0")
    for trial in done.found["trials"]:
        bad = "register" not in trial["params"]["callbacks.mlflow"]
        bad &= trial["params"]["callbacks.mlflow.alias"] == "b"
        assert (trial["state"] == "fail") == bad
        assert ("'alias' needs 'register'" in trial["reason"]) == bad


def test_an_option_is_drawn_where_the_chosen_component_has_it(searched: Searched) -> None:
    """Gamma is focal's alone."""
    drawn = [trial["params"] for trial in searched.found["trials"]]
    assert {"focal" in params["loss"] for params in drawn} == {True, False}
    assert all(("loss.gamma" in params) == ("focal" in params["loss"]) for params in drawn)


def test_the_best_runs_again_to_the_same_value(searched: Searched, command: Command) -> None:
    """`best.toml` is a whole experiment; its run ends with the value of the trial, to the bit."""
    (best,) = searched.found["best"]
    assert best["values"] == [max(trial["values"][0] for trial in searched.found["trials"])]
    before = {*searched.root.iterdir()}
    file = searched.root / "study" / "best.toml"
    done = command("run", file, "--json", cwd=searched.folder)
    assert done.returncode == 0, done.stderr
    (again,) = {*searched.root.iterdir()} - before
    step = json.loads(done.stdout)["best"]["step"]
    values = [p["val/accuracy"] for p in points(again) if "val/accuracy" in p and p["step"] == step]
    assert values == best["values"]
    # but for the test, which the search doesn't do, all its points are the trial's
    trial = points(searched.root / best["runs"][0])
    assert points(again)[: len(trial)] == trial


def test_the_search_never_sees_the_test_split(searched: Searched) -> None:
    """Only the best, trained again over other seeds, is tested: mean and standard deviation."""
    for trial in searched.found["trials"]:
        run = searched.root / trial["runs"][0]
        assert set(read(run / "result.json")["metrics"]) == {"val"}
        assert not (run / "predictions").exists()
    again = searched.found["retrained"]
    assert [*again["seeds"]] == ["43", "44"]
    runs = [searched.root / each["run"] for each in again["seeds"].values()]
    values = [read(run / "result.json")["metrics"]["test"]["accuracy"] for run in runs]
    assert again["test"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(values), abs=1e-15)
    assert again["test"]["accuracy"]["std"] == pytest.approx(statistics.stdev(values), abs=1e-15)
    # the seeds differ, and the splits don't
    texts = {(run / "splits.json").read_text() for run in runs}
    texts.add((searched.root / searched.found["trials"][0]["runs"][0] / "splits.json").read_text())
    assert len(texts) == 1


def test_what_was_trained_again_is_tested_on_what_was_held_out(
    searched: Searched, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own seed would cut other splits, which is refused; that of the search cuts the same."""
    monkeypatch.chdir(searched.folder)
    run = searched.root / searched.found["retrained"]["seeds"]["43"]["run"]
    assert main(["evaluate", str(run), "--json"]) == 2
    told = capsys.readouterr()
    assert "trained on" in told.out + told.err
    assert main(["evaluate", str(run), "--json", "--set", "seed=42"]) == 0
    assert json.loads(capsys.readouterr().out) == read(run / "result.json")["metrics"]["test"]


def test_what_is_printed(searched: Searched) -> None:
    """A line for each trial with the best so far, then the best and its test."""
    lines = searched.said.splitlines()
    assert lines[0].split() == ["trial", "state", "val/accuracy", "best", "seconds", "drawn"]
    shown = [line.split() for line in lines[1:7]]
    assert [line[0].rstrip("*") for line in shown] == [str(number) for number in range(6)]
    best = [float(line[3]) for line in shown]
    assert best == sorted(best)
    (number,) = (trial["number"] for trial in searched.found["best"])
    assert lines[7].startswith(f"best trial {number}: val/accuracy {best[-1]:.4f}")
    assert lines[-1] == "next: python -m framework run runs/fault/study/best.toml"


def test_the_page_needs_nothing_else(searched: Searched) -> None:
    """The pictures are files and stand in the page, too; nothing is fetched."""
    study = searched.root / "study"
    page = (study / "study.html").read_text(encoding="utf-8")
    for name in ("history", "importance", "slice"):
        assert (study / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'<img alt="{name}" src="data:image/png;base64,' in page
    assert "http" not in page.replace("<!doctype html>", "")
    assert page.count("<tr") == 1 + 6 + 1 + len(searched.found["retrained"]["test"])


def test_going_on_adds_what_is_missing(searched: Searched, command: Command) -> None:
    """With more trials asked for only those are run; what was, stays as it was."""
    before = searched.found["trials"]
    after = search(searched.folder, command, SPACE, "search.trials=8").found["trials"]
    assert after[:6] == before
    assert len(after) == 8
    # and with as many there is nothing to do
    runs = len([*searched.root.iterdir()])
    search(searched.folder, command, SPACE, "search.trials=8")
    assert len([*searched.root.iterdir()]) == runs


def test_another_space_is_another_search(searched: Searched, command: Command) -> None:
    """What a study began with can't change under it."""
    changed = SPACE.replace("high = 1.0", "high = 2.0")
    said = search(searched.folder, command, changed, "trainer.epochs=3", code=2).said
    assert "began with another 'search.space.optimizer.lr.high', 'trainer.epochs'" in said
    (searched.folder / "fault.toml").write_text(TEXT + SPACE)


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM leaves no trial running; the rest draws what an undisturbed search does."""
    offers = {"framework.callback": {"ring": "ringing:Ring"}}
    install(monkeypatch, tmp_path / "site", "ringing 1", offers, ringing=RINGING)
    text = SPACE.replace('"random"', '"tpe", n_startup_trials = 2').replace("= 2\n", "= 0\n")
    text = text.replace("trials = 6", "trials = 4")
    ring = "callbacks.ring.trial=3"
    said = search(tmp_path / "a", command, text, ring, code=143).said
    assert "interrupted; the same command goes on with the rest" in said
    journal = tmp_path / "a" / "runs" / "fault" / "study" / "journal.log"
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    left = optuna.load_study(study_name="fault", storage=storage).trials[2]
    assert (left.state.name, left.user_attrs["attempt"]) == ("WAITING", 0)
    first = search(tmp_path / "a", command, text)
    whole = search(tmp_path / "b", command, text)
    same = ("number", "state", "values", "params", "steps")
    for one, other in zip(first.found["trials"], whole.found["trials"], strict=True):
        assert {k: one[k] for k in same} == {k: other[k] for k in same}
    # four runs, and the one that was interrupted
    assert len([*first.root.glob("2*")]) == 5


def test_a_pruned_trial_stops_early(tmp_path: Path, command: Command) -> None:
    """It is stopped at an evaluation, says so, and is no result."""
    text = SPACE.replace("trials = 6", 'trials = 2\npruner = { use = "threshold", lower = 2.0 }')
    done = search(tmp_path / "a", command, text, code=1)
    assert "of 2 trials none is a result" in done.said
    for trial in done.found["trials"]:
        assert trial["state"] == "pruned"
        result = read(done.root / trial["runs"][0] / "result.json")
        assert result["status"] == "stopped_early"
        assert result["reason"].startswith("pruned at evaluation 1, with 0.")
        assert result["epochs"] == 1


def test_several_metrics_have_several_best(tmp_path: Path, command: Command) -> None:
    """Each that no other outdoes in all gets a file; a constraint takes what breaks it out."""
    two = """
metric = ["val/accuracy", "val/loss"]
direction = ["maximize", "minimize"]
constraints = { "val/loss" = { high = HIGH } }
"""
    one = 'metric = "val/accuracy"\ndirection = "maximize"\n'
    text = SPACE.replace(one, two)
    text = text.replace("trials = 6", "trials = 4")
    free = search(tmp_path / "a", command, text.replace("HIGH", "100"))
    values = {t["number"]: t["values"] for t in free.found["trials"]}
    front = {
        n
        for n, (a, b) in values.items()
        if not any((c >= a and d <= b) and (c, d) != (a, b) for c, d in values.values())
    }
    assert {trial["number"] for trial in free.found["best"]} == front
    files = {file.name for file in (free.root / "study").glob("*.toml")}
    assert files == ({"best.toml"} if len(front) == 1 else {f"best-{n}.toml" for n in front})
    bound = sorted(loss for _, loss in values.values())[1]
    kept = search(tmp_path / "b", command, text.replace("HIGH", repr(bound)))
    assert all(trial["values"][1] <= bound for trial in kept.found["best"])


def test_a_trial_over_several_seeds_is_their_mean(tmp_path: Path, command: Command) -> None:
    """Each seed is a run."""
    text = SPACE.replace("trials = 6", "trials = 1\nseeds = 2").replace("= 2\ns", "= 0\ns")
    done = search(tmp_path / "a", command, text)
    (trial,) = done.found["trials"]
    found = []
    for run in trial["runs"]:
        step = read(done.root / run / "result.json")["best"]["step"]
        values = {p["step"]: p["val/accuracy"] for p in points(done.root / run) if "val/loss" in p}
        found.append(values[step])
    assert len(found) == 2
    assert trial["values"] == [statistics.fmean(found)]


def test_sqlite_keeps_a_search_too(tmp_path: Path, command: Command) -> None:
    """Its file lies where the experiment says, relative to it."""
    text = SPACE.replace("trials = 6", 'trials = 2\nstorage = "sqlite:///kept/trials.db"')
    done = search(tmp_path / "a", command, text, "search.retrain=0")
    assert [trial["state"] for trial in done.found["trials"]] == ["complete", "complete"]
    assert (tmp_path / "a" / "kept" / "trials.db").is_file()


@pytest.mark.slow
def test_processes_of_one_command_share_the_trials(tmp_path: Path, parts: Path) -> None:
    """`--workers` starts others; together they run as many as were asked for."""
    (tmp_path / "fault.toml").write_text(TEXT + SPACE)
    paths = os.pathsep.join([str(parts), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "framework", "tune", "fault.toml", "--workers", "2", "--json"],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 6
    study = tmp_path / "runs" / "fault" / "study"
    assert (study / "worker-1.log").read_text() == ""
    assert read(study / "study.json") == found


@pytest.mark.slow
def test_memory_stays_flat(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten trials in one process: no model outlives its trial, and memory doesn't grow by one."""
    offers = {"framework.callback": {"measure": "measuring:Measure"}}
    install(monkeypatch, tmp_path / "site", "measuring 1", offers, measuring=MEMORY)
    text = (
        TINY.replace("ROOT", str(ROOT)).replace("steps = 20", "steps = 3").replace("500", "20000")
        + "[callbacks.measure]\n[search]\nmetric = 'val/f1'\ndirection = 'maximize'\ntrials = 10\n"
        "retrain = 0\n[search.space]\n'optimizer.lr' = { low = 1e-4, high = 1e-2, log = true }\n"
    ).replace("hidden_size = 16", "hidden_size = 64")
    (tmp_path / "tiny.toml").write_text(text)
    done = command("tune", "tiny.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs" / "tiny" / "memory.jsonl").read_text().splitlines()
    modules, sizes = zip(*map(json.loads, lines), strict=True)
    assert len(sizes) == 10
    assert len(set(modules)) == 1
    # the weights and their optimizer's state take 15 MB
    assert sizes[-1] - sizes[2] < 10 * 2**20


def test_without_a_search_there_is_nothing_to_tune(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told what to write."""
    (tmp_path / "fault.toml").write_text(TEXT)
    done = command("tune", "fault.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "fault.toml: says nothing of what to search; write a table [search], with metric, direction"
        " and space\n"
    )
    assert [*tmp_path.iterdir()] == [tmp_path / "fault.toml"]


def test_what_an_engine_refuses_is_told() -> None:
    """A value that Optuna's class doesn't take is a mistake of the table, in its words."""
    given = {"use": "percentile", "percentile": 101.0}
    key, said = _engines.mistake("pruner", given, 1) or ("", "")
    assert key == ""
    assert said.startswith("pruner 'percentile': ")
    assert _engines.mistake("pruner", given | {"percentile": 25.0}, 1) is None


def test_every_engine_can_be_made() -> None:
    """Each name is a class of Optuna's; samplers are alike for the same seed and trial alone."""
    needed = {"percentile": {"percentile": 25.0}, "threshold": {"lower": 0.5}}
    for kind, names in (("sampler", _engines.SAMPLERS), ("pruner", _engines.PRUNERS)):
        for name in names:
            made = _engines.made(kind, {"use": name, **needed.get(name, {})}, 1, 2)
            assert type(made).__name__ == names[name]


def test_a_trial_registers_no_model() -> None:
    """It is nested under the search's run; what is registered is what runs by itself."""
    assert Mlflow(register="m", alias="best").nested("1") == Mlflow(parent="1")


def test_who_is_gone_is_known() -> None:
    """A process here by its id and beginning; one elsewhere by its silence."""
    mine = _owner.mine()
    assert not _owner.gone(mine)
    assert _owner.gone({})
    place, process, begun = mine["owner"]
    assert _owner.gone(mine | {"owner": [place, process, str(int(begun) - 1)]})
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert _owner.gone(mine | {"owner": [place, child.pid, begun]})
    assert not _owner.gone({"owner": ["elsewhere", 1, "2"], "alive": time.time()})
    assert _owner.gone({"owner": ["elsewhere", 1, "2"], "alive": time.time() - 1000})


def test_a_line_that_was_half_written_is_cut_off(tmp_path: Path) -> None:
    """A journal whose writer was killed in a line takes the next one, and reads as before."""
    file = tmp_path / "journal.log"

    def opened() -> Any:
        backend = optuna.storages.journal.JournalFileBackend(str(file), JournalLock(file))
        return optuna.storages.JournalStorage(backend)

    study = optuna.create_study(storage=opened(), study_name="a")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code":4,"wor')
    again = optuna.load_study(storage=opened(), study_name="a")
    again.add_trial(optuna.trial.create_trial(value=2.0))
    assert file.read_bytes().startswith(whole)
    values = [trial.value for trial in optuna.load_study(storage=opened(), study_name="a").trials]
    assert values == [1.0, 2.0]


def test_the_journals_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Whoever is killed while it writes holds nobody up."""
    file = tmp_path / "journal.log"
    file.touch()
    pid = os.fork()
    if not pid:
        JournalLock(file).acquire()
        os._exit(9)
    os.waitpid(pid, 0)
    lock = JournalLock(file)
    assert lock.acquire()
    # it holds others up while it is held
    pid = os.fork()
    if not pid:
        with (tmp_path / "journal.log.lock").open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    lock.release()


def test_the_shipped_search_is_without_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    """It varies learning rate, batch size and gamma."""
    file = ROOT / "experiments" / "focal_search.toml"
    assert main(["validate", str(file)]) == 0
    space = tomli.loads(file.read_text(encoding="utf-8"))["search"]["space"]
    assert set(space) == {"optimizer.lr", "trainer.batch_size", "loss.gamma"}
