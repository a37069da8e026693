"""A run's record in MLflow through kills, resumes and dead servers, and what `sync` delivers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow_runs import (
    EXPERIMENT,
    NAME,
    closed_port,
    drive,
    fresh_place,  # noqa: F401 - the fixture `here`
    point,
    prepared,
    result,
    stored,
    template_store,  # noqa: F401 - and what that one needs
    the_run,
)
from support import ROOT, environment

from framework.__main__ import main
from framework.state import State
from plugins._mlflow import bounded, connect, store
from plugins.callbacks._mlflow_delivery import Delivery
from plugins.callbacks._mlflow_record import Record
from plugins.callbacks.mlflow import Mlflow
from tests.faults import processes

TRACKED = EXPERIMENT.replace('[callbacks."odd[label]"]\nrate = 2e-05\n', "[callbacks.mlflow]\n")
ALL = [point(step) for step in range(1, 11)]
ONCE = {name: Counter(range(1, 11)) for name in ("train/loss", "epoch")}

KILLED = """
import json, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from framework.hooks import Hooks
from plugins.callbacks import _mlflow_delivery, mlflow
from plugins.callbacks.jsonl import Jsonl

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

folder, when, points = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
state = SimpleNamespace(folder=folder, step=0, started=1e9)
hooks = Hooks({"jsonl": Jsonl().build(), "mlflow": mlflow.Mlflow().build()})
if when == "created":
    # the store has the run, and its folder doesn't know it
    _mlflow_delivery.Record.adopt = die
if when == "noted":
    _mlflow_delivery.Delivery._describe = die
if when == "sent":
    mlflow._PAUSE = mlflow._SHARE = 0  # each point goes out as it comes
hooks.call.run_start(state=state)
for _ in range(2):
    hooks.call.step_start(state=state, window=[])
for point in points:
    hooks.call.log(state=state, point=point)
die()
"""


def lines(points: Sequence[dict[str, Any]]) -> str:
    """What `metrics.jsonl` holds of some points."""
    return "".join(f"{json.dumps(each)}\n" for each in points)


def over(root: Path, status: Any = "completed", **given: Any) -> Path:
    """A run that ended and of which no store knows; its folder."""
    state = prepared(root, TRACKED, **given)
    state.status = status
    result(state)
    (state.folder / "metrics.jsonl").write_text(lines(ALL))
    return state.folder


def sync(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """The exit code of the command and what it prints."""
    capsys.readouterr()
    code = main(["sync", *map(str, words)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("when", ["created", "noted", "unsent", "sent"])
def test_killed_and_resumed(here: Path, when: str) -> None:
    """However a process was killed, its run goes on as the same run: no point lacks or doubles."""
    folder = prepared(here).folder
    killed = processes.script(KILLED, folder, when, json.dumps(ALL[:7]), cwd=here).wait()
    assert (killed.code, killed.err) == (-signal.SIGKILL, "")
    before = the_run()
    assert before.info.status == "RUNNING"
    assert stored().get("train/loss", Counter()) == Counter(range(1, 8 if when == "sent" else 1))
    if when in ("created", "noted"):
        # what was there at the checkpoint of a process that lived longer
        (folder / "metrics.jsonl").write_text(lines(ALL[:7]))
    drive(Mlflow(), prepared(here, step=4, started=2e9), ALL[4:])
    after = the_run()
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert after.data.tags["framework.resumed"] == "4"
    assert after.data.params["seed"] == "42"
    assert stored() == ONCE


def test_resumed_with_other_options(here: Path) -> None:
    """What a resumed run changes of its options is left as it was first; a new one is added."""
    state = prepared(here)
    drive(Mlflow(), state, ALL[:7], "interrupted")
    changed = EXPERIMENT.replace("epochs = 3", "epochs = 5\nsteps = 9")
    (state.folder / "experiment.toml").write_text(changed)
    statuses: list[str] = []

    class Watched(list[Any]):
        """Points that look at the run when they are taken."""

        def __iter__(self) -> Iterator[Any]:
            statuses.append(the_run().info.status)
            return super().__iter__()

    statuses.append(the_run().info.status)
    drive(Mlflow(), prepared(here, step=7), Watched(ALL[7:]))
    assert statuses == ["KILLED", "RUNNING"]
    run = the_run()
    assert (run.data.params["trainer.epochs"], run.data.params["trainer.steps"]) == ("3", "9")
    assert stored() == ONCE


def test_resumed_while_the_server_is_away(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run whose server is gone is delivered by `sync`, every point at its own time."""
    drive(Mlflow(), prepared(here, TRACKED, started=1e9), ALL[:7], "running")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
        drive(Mlflow(), prepared(here, TRACKED, step=4, started=2e9), ALL[4:])
    # which address it was is not asked again: the default one is meant
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store("sqlite:///mlflow.db"))
    code, said, _ = sync(capsys, "runs/tiny/" + NAME)
    assert code == 0
    assert said.startswith("mlflow: 6 values, ")
    assert stored() == ONCE
    run = the_run()
    assert (run.info.status, run.data.tags["framework.resumed"]) == ("FINISHED", "4")
    history = connect(store()).get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step: metric.timestamp for metric in history} == {
        step: int(1000 * ((1e9 if step < 8 else 2e9) + step / 4)) for step in range(1, 11)
    }
    assert run.info.end_time == int(1000 * (2e9 + 2.5))


def test_sync_delivers_everything(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no server has taken is delivered once, files and model too, from wherever one is."""
    experiment = TRACKED + 'register = "m"\nalias = "best"\n'
    state = prepared(here, experiment)
    options = Mlflow(register="m", alias="best")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
        assert drive(options, state, ALL) < 5
    record = Record.read(state.folder)
    assert record.run == ""
    record.store = store()
    record.write(state.folder)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    code, said, errors = sync(capsys, "../runs/tiny/" + NAME)
    assert (code, errors) == (0, "")
    run = the_run(uri=record.store)
    assert said == (
        "mlflow: 17 parameters, 20 values, 6 files, version 1 of 'm' and the status FINISHED"
        f" delivered to {record.store}, run {run.info.run_id}\n"
    )
    assert stored(record.store) == ONCE
    assert run.info.start_time == int(1000 * state.started)
    assert run.info.end_time == int(1000 * (state.started + 2.5))
    client = connect(record.store)
    assert len(client.list_artifacts(run.info.run_id)) == 6
    assert client.get_model_version_by_alias("m", "best").run_id == run.info.run_id
    assert not (here / "elsewhere" / "mlflow.db").exists()
    before = (here / "mlflow.db").read_bytes()
    code, said, errors = sync(capsys, state.folder)
    assert (code, said, errors) == (0, "mlflow: nothing was missing\n", "")
    assert (here / "mlflow.db").read_bytes() == before
    (state.folder / "run.log").write_text("said more\n")
    assert "mlflow: 1 file delivered to" in sync(capsys, state.folder)[1]


def test_nothing_is_missing_of_a_run_that_was_tracked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a run that its server took there is nothing to deliver."""
    state = prepared(here, TRACKED + 'register = "m"\n')
    drive(Mlflow(register="m"), state, ALL)
    assert sync(capsys, state.folder)[:2] == (0, "mlflow: nothing was missing\n")


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("completed", "FINISHED"),
        ("stopped_early", "FINISHED"),
        ("interrupted", "KILLED"),
        ("failed", "FAILED"),
        ("running", "KILLED"),
    ],
)
def test_sync_sets_the_status(
    here: Path, capsys: pytest.CaptureFixture[str], status: str, end: str
) -> None:
    """How the folder says that the run ended is how the store has it; killed ones say nothing."""
    folder = over(here, status)
    (folder / "experiment.toml").write_text(TRACKED + 'register = "m"\n')
    assert sync(capsys, folder)[0] == 0
    run = the_run()
    assert run.info.status == end
    # when it began stands in the folder's name where nothing else is known
    assert run.info.start_time == 1767225600000
    assert len(connect(store()).search_registered_models()) == (end == "FINISHED")


def test_sync_prints_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json` one object tells what was done, or what went wrong."""
    folder = over(here)
    code, said, _ = sync(capsys, folder, "--json")
    assert (code, list(json.loads(said)["delivered"])) == (0, ["mlflow"])
    code, said, _ = sync(capsys, here / "absent", "--json")
    assert (code, len(json.loads(said)["problems"])) == (2, 1)


def test_sync_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that isn't there, or whose callbacks deliver nothing, is a sentence and code 2."""
    code, said, errors = sync(capsys, "runs/tiny/absent")
    assert (code, said) == (2, "")
    assert errors == ("runs/tiny/absent: there is no run folder here; 'runs/NAME/TIME' is one\n")
    folder = over(here)
    (folder / "experiment.toml").write_text(TRACKED.replace("mlflow]", "mlflow]\nalias = 3"))
    code, said, errors = sync(capsys, folder)
    assert (code, said) == (2, "")
    assert "expected text, found 3" in errors
    (folder / "experiment.toml").write_text(TRACKED.replace("[callbacks.mlflow]", ""))
    code, said, errors = sync(capsys, folder)
    assert (code, said) == (2, "")
    assert "none of this run's callbacks has anything to deliver; they are '" in errors
    (folder / "experiment.toml").write_text(TRACKED)
    (folder / "environment.json").unlink()
    code, said, errors = sync(capsys, folder)
    assert (code, said) == (2, "")
    assert errors.endswith("no run folder; 'environment.json' is not in it\n")


@pytest.mark.parametrize("listening", [True, False])
def test_sync_tells_a_server_without_an_answer(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    listening: bool,
) -> None:
    """A server that refuses or hangs is one sentence and code 1, and nothing is lost."""
    folder = over(here)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if listening else closed_port()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        code, said, errors = sync(capsys, folder)
    assert (code, said) == (1, "")
    assert errors.startswith(f"mlflow: the store at http://127.0.0.1:{port} has not taken it all (")
    assert errors.endswith("; repeat this when it answers\n")
    assert errors.count("\n") == 1
    assert "secret" not in errors
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(capsys, folder)[0] == 0
    assert stored() == ONCE


@pytest.mark.parametrize("damage", ["absent", "{", '{"store": 1}', "[]"])
def test_a_damaged_record(here: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """Without a record that can be read, the folder's run is found by its folder."""
    state = prepared(here, TRACKED)
    drive(Mlflow(), state, ALL)
    run = the_run().info.run_id
    file = state.folder / "mlflow.json"
    file.unlink() if damage == "absent" else file.write_text(damage)
    code, said, _ = sync(capsys, state.folder)
    assert code == 0
    assert the_run().info.run_id == run
    assert said == f"mlflow: 6 files delivered to {store()}, run {run}\n"
    assert stored() == ONCE


def test_a_store_that_is_new(here: Path, template: Path, capsys: Any) -> None:
    """A store that doesn't know the recorded run gets a whole one."""
    folder = over(here)
    assert sync(capsys, folder)[0] == 0
    shutil.copy(template, here / "mlflow.db")
    assert "20 values, 6 files" in sync(capsys, folder)[1]
    assert stored() == ONCE


def test_a_late_run_takes_no_alias_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The alias stays with a model of a run that ended later than the one delivered now."""
    late = over(here, name="20260101T000000Z-000000")
    drive(Mlflow(register="m", alias="best"), prepared(here), ALL)
    (late / "experiment.toml").write_text(TRACKED + 'register = "m"\nalias = "best"\n')
    code, said, _ = sync(capsys, late)
    assert code == 0
    assert "version 2 of 'm' (the alias 'best' stays with the newer 1)" in said
    assert connect(store()).get_model_version_by_alias("m", "best").version == 1


def test_many_names_on_a_slow_server(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that there was no time to ask for are taken to be as far as those that were asked."""
    folder = over(here)
    record = Record.read(folder)
    points = list(record.points(folder))
    delivery = Delivery(folder, store(), record)
    with bounded(3):
        delivery.connect()
        delivery.open("tiny")
        assert delivery.send(points[:12]) == 12
        # a second for each look at the clock
        clock = SimpleNamespace(monotonic=itertools.count().__next__)
        monkeypatch.setattr("plugins.callbacks._mlflow_delivery.time", clock)
        delivery.open("tiny", patience=1.5)
        assert delivery.there == {"epoch": {1, 2, 3, 4, 5, 6}, "train/loss": range(6)}
        delivery.send(points)
    assert stored() == ONCE


def test_sync_imports_no_torch(here: Path) -> None:
    """Delivering needs neither torch nor any other plugin that the run was made of."""
    folder = over(here)
    script = (
        "import sys\nfrom framework.__main__ import main\n"
        f"assert main(['sync', {str(folder)!r}]) == 0\n"
        "print([name for name in ('torch', 'transformers', 'plugins.datasets')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1:] == ["[]"]
    assert done.stderr == ""


@contextmanager
def server(here: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A real MLflow server that answers, killed at the end if it lives."""
    words = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    process = subprocess.Popen(
        [
            *words,
            "--backend-store-uri",
            f"sqlite:///{here}/mlflow.db",
            "--artifacts-destination",
            str(here / "kept"),
        ],
        cwd=here,
        env=environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        assert any("startup complete" in line for line in process.stderr)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_a_server_that_dies(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server killed or stopped in the middle costs seconds; later it gets what it lacks."""
    port = closed_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # each point is sent as it comes
    monkeypatch.setattr("plugins.callbacks.mlflow._PAUSE", 0)
    monkeypatch.setattr("plugins.callbacks.mlflow._SHARE", 0)
    options = Mlflow(register="m", alias="best")

    def broken(number: int) -> State:
        """A run whose server gets a signal in the middle."""
        state = prepared(here, TRACKED + 'register = "m"\nalias = "best"\n')

        def points() -> Iterator[dict[str, Any]]:
            yield from ALL[:6]
            os.killpg(process.pid, number)
            broken_at.append(time.monotonic())
            yield from ALL[6:]

        broken_at: list[float] = []
        drive(options, state, points())
        assert time.monotonic() - broken_at[0] < 5
        return state

    def whole(state: State, version: int) -> str:
        """All that is missing arrives, once; what was said."""
        code, said, errors = sync(capsys, state.folder)
        assert (code, errors) == (0, "")
        run = the_run(uri=uri).info
        assert said.endswith(
            f" values, 6 files, version {version} of 'm' and the status FINISHED"
            f" delivered to {uri}, run {run.run_id}\n"
        )
        assert stored(uri) == ONCE
        assert len(connect(uri).list_artifacts(run.run_id)) == 6
        assert connect(uri).get_model_version_by_alias("m", "best").run_id == run.run_id
        assert sync(capsys, state.folder)[1] == "mlflow: nothing was missing\n"
        return said

    with server(here, port) as process:
        state = broken(signal.SIGKILL)
    assert sync(capsys, state.folder)[0] == 1
    with server(here, port) as process:
        assert stored(uri)["train/loss"] == Counter(range(1, 7))
        assert whole(state, 1).startswith("mlflow: 8 values")
        connect(uri).delete_run(the_run(uri=uri).info.run_id)
        shutil.rmtree(state.folder)
        state = broken(signal.SIGSTOP)
        # it takes up the request that nobody waits for any more, too
        os.killpg(process.pid, signal.SIGCONT)
        whole(state, 2)
