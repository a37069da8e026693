"""The MLflow callback and the `models` source, against real stores and real sockets."""

from __future__ import annotations

import http.server
import logging
import math
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import safetensors.torch
import torch
from mlflow_runs import (
    EXPERIMENT,
    NAME,
    closed_port,
    drive,
    fresh_place,  # noqa: F401 - the fixture `here`
    prepared,
    template_store,  # noqa: F401 - and what that one needs
    the_run,
)

import framework.commands.trained
from framework.errors import UserError
from framework.hooks import Hooks
from plugins._mlflow import bounded, connect, masked, name, store
from plugins.callbacks.mlflow import Mlflow
from plugins.sources.models import Models
from tests.faults import processes

POINTS: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0, "time": 0.5, "train/loss": 0.75, "train/learning_rate": 1e-5},
    {"step": 2, "epoch": 1, "time": 1.25, "train/loss": 0.5, "train/learning_rate": 2e-5},
    {"step": 2, "epoch": 1, "time": 1.5, "val/f1": 0.875, "val/f1[A.1]": math.nan},
]


def test_everything_reaches_the_store(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Options, facts of the data, the loss's weights, tags, every point and the files are there."""
    state = prepared(here)
    drive(Mlflow(), state, POINTS)
    run = the_run()
    assert capfd.readouterr() == ("", "")
    assert run.info.run_name == state.folder.name
    assert run.info.status == "FINISHED"
    assert run.info.start_time == int(1000 * state.started)
    assert run.data.params == {
        "name": "tiny",
        "seed": "42",
        "metrics": '["f1", "accuracy"]',
        "dataset.use": "redsm5",
        "dataset.note": "x" * 6000,
        "dataset.empty": "{}",
        "dataset.uri": "http://host/?token=***",
        "trainer.epochs": "3",
        "trainer.deterministic": "false",
        "trainer.max_grad_norm": "1.0",
        "callbacks.odd_5b_label_5d_.rate": "2e-05",
        "data.labels": '["no", "yes"]',
        "data.class_counts.no": "30",
        "data.class_counts.yes": "70",
        "loss.derived.alpha": "[1.4, 0.6]",
        "loss.derived.gamma": "2.0",
    }
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == "0123456789abcdef"
    assert tags["git.dirty"] == "true"
    assert tags["framework.folder"] == str(state.folder)
    assert tags["torch"] == "2.13.0+cpu"
    client = connect(store())
    seen = {
        (key, metric.step, metric.timestamp, metric.value)
        for key in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, key)
        if not math.isnan(metric.value)
    }
    assert seen == {
        (name(key), point["step"], int(1000 * (state.started + point["time"])), value)
        for point in POINTS
        for key, value in point.items()
        if key not in ("step", "time") and not math.isnan(value)
    }
    assert math.isnan(run.data.metrics["val/f1_5b_A.1_5d_"])
    assert run.info.artifact_uri.startswith((here / "mlartifacts").as_uri())
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "experiment.toml",
        "environment.json",
        "splits.json",
        "metrics.jsonl",
        "result.json",
        "run.log",
    }
    assert sorted(path.name for path in here.iterdir()) == [
        "mlartifacts", "mlflow.db", "mlflow.db.lock", "runs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "end"),
    [("stopped_early", "FINISHED"), ("interrupted", "KILLED"), ("failed", "FAILED")],
)
def test_status(here: Path, status: str, end: str) -> None:
    """How the run ended is how the tracked run ends, under the experiment that was asked for."""
    drive(Mlflow(experiment="mine"), prepared(here), POINTS, status)
    assert the_run("mine").info.status == end


@attrs.frozen
class StandIn:
    """A predictor that shows what it was given."""

    assets: Path

    def rows(self, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the records themselves, as a model does that was never told a label."""
        assert (self.assets / "model.safetensors").is_file()
        return ({**record, "label": None} for record in records)


def test_registered(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best model is a version under its alias, without a pickle, and comes back as files."""
    monkeypatch.setattr(framework.commands.trained, "finished", lambda address, _: Path(address))
    monkeypatch.setattr(framework.commands.trained, "Predictor", StandIn)
    drive(Mlflow(register="tiny-clf", alias="champion"), prepared(here), POINTS)
    drive(Mlflow(register="tiny-clf"), prepared(here, name=NAME.replace("a", "0")), POINTS)
    assert capfd.readouterr() == ("", "")
    client = connect(store())
    version = client.get_model_version_by_alias("tiny-clf", "champion")
    assert (version.version, version.status) == (1, "READY")
    assert client.get_model_version("tiny-clf", "2").run_id != version.run_id
    for address in ("models:/tiny-clf@champion", "models:/tiny-clf/1"):
        folder = here / address.partition(":/")[2].replace("/", "-")
        found = Models().fetch(address, folder)
        weights = safetensors.torch.load_file(str(found / "model.safetensors"))
        assert torch.equal(weights["weight"], torch.arange(4.0))
        assert (found / "experiment.toml").read_text() == EXPERIMENT
        assert (found / "info.json").is_file()
    whole = found.parents[1]
    assert {path.name for path in whole.rglob("*") if path.is_file()} == {
        "MLmodel", "model_code.py", "conda.yaml", "python_env.yaml", "requirements.txt",
        "model.safetensors", "experiment.toml", "info.json",
    }  # fmt: skip
    requirements = (whole / "requirements.txt").read_text().split()
    assert "composable-nlp==0.1.0" in requirements
    assert "torch==2.13.0" in requirements

    import mlflow.pyfunc
    import pandas as pd

    with bounded(3):
        served = mlflow.pyfunc.load_model(str(whole))
        rows = served.predict(pd.DataFrame({"text": ["a", "b"], "text_pair": ["c", None]}))
        assert rows.fillna("").to_dict("list") == {"text": ["a", "b"], "text_pair": ["c", ""]}
        assert served.predict(pd.DataFrame({"text": ["a"], "id": ["7"]}))["id"][0] == "7"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("models:/absent@champion", "no such model"),
        ("models:/absent/3", "no such model"),
        ("models:/absent", "models are 'models:/NAME@ALIAS' or 'models:/NAME/VERSION'"),
    ],
)
def test_fetch_what_is_not_there(here: Path, address: str, message: str) -> None:
    """A model, alias or version that is not there is one line."""
    with pytest.raises(UserError, match=message) as caught:
        Models().fetch(address, here / "fetched")
    assert "\n" not in str(caught.value)


def test_fetch_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a store, none is created; one that can't be reached is one line too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="no MLflow store at"):
        Models().fetch("models:/m/1", tmp_path / "fetched")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port()}")
    with pytest.raises(UserError, match="can't be read") as caught:
        Models().fetch("models:/m/1", tmp_path / "fetched")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@host/a", "http://host/a"),
        ("http://me:se/c@ret@host", "http://host"),
        ("https://secret@host:80/x?page=2", "https://host:80/x?page=2"),
        ("http://host/?page=2&token=secret&x=1", "http://host/?page=2&token=***&x=1"),
        ("http://host?API_KEY=secret' failed", "http://host?API_KEY=***' failed"),
        ("db://host/x?password=secret;user=a", "db://host/x?password=***;user=a"),
        ("https://host/code@v1 and a@b", "https://host/code@v1 and a@b"),
        ("sqlite:////a/b@c/mlflow.db", "sqlite:////a/b@c/mlflow.db"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    """Names, passwords and tokens in a URI are masked, and an experiment can't hold them."""
    assert masked(text) == expected
    if text == expected:
        assert Mlflow(uri=text).uri == text
    else:
        with pytest.raises(ValueError, match="holds a password or a token") as caught:
            Mlflow(uri=text)
        assert "secret" not in str(caught.value)


def failure(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning of a run; it says where its points are and how to deliver them."""
    (record,) = (record for record in caplog.records if record.name == "framework")
    said = record.getMessage()
    where = os.path.join("runs", "tiny", NAME)  # noqa: PTH118 - as it is written
    assert said.endswith(f"in metrics.jsonl; deliver them later: python -m framework sync {where}")
    assert "\n" not in said
    return said


def test_refused(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing listens the run goes on at once, and is told once, without its secrets."""
    uri = f"http://me:secret@127.0.0.1:{closed_port()}/?token=secret"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    state = prepared(here)
    with caplog.at_level(logging.INFO, "framework"):
        assert drive(Mlflow(register="m"), state, POINTS) < 5
    said = failure(caplog)
    assert "Connection refused" in said
    assert "secret" not in said + (state.folder / "mlflow.json").read_text()


def test_silent(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes connections and never answers costs the run `timeout` in all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        options = Mlflow(uri=uri, register="m", timeout=2)
        with caplog.at_level(logging.INFO, "framework"):
            assert drive(options, prepared(here), POINTS) < 5
    assert "(no answer in 2 s)" in failure(caplog)


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers a byte at a time: no time-out of a read ever comes, and no end."""

    ended = threading.Event()

    def do_GET(self) -> None:
        """Answer until the test is over, or the client has gone."""
        self.send_response(200)
        self.end_headers()
        try:
            while not self.ended.wait(0.1):
                self.wfile.write(b" ")
        except OSError:
            return

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_slow(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that goes on answering for ever costs the run `timeout` in all, too."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = Mlflow(uri=f"http://127.0.0.1:{server.server_port}", timeout=2)
        with caplog.at_level(logging.INFO, "framework"):
            assert drive(options, prepared(here), POINTS) < 5
        Slow.ended.set()
        server.shutdown()
    assert "(no answer in 2 s)" in failure(caplog)


@pytest.mark.parametrize("kind", ["a folder", "no database", "locked"])
def test_a_file_that_is_no_store(here: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A sqlite file that can't be opened costs seconds, not MLflow's minutes."""
    file = here / "mlflow.db"
    if kind == "locked":
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert drive(Mlflow(), prepared(here), POINTS) < 6
    else:
        file.unlink()
        file.mkdir() if kind == "a folder" else file.write_text("words, " * 1000)
        assert drive(Mlflow(), prepared(here), POINTS) < 6
    wanted = {"a folder": "unable to open", "no database": "not a database", "locked": "locked"}
    assert wanted[kind] in failure(caplog)


def test_locked_in_the_middle(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sqlite file that somebody locks while the run goes on costs `timeout`."""
    state = prepared(here)
    hooks = Hooks({"mlflow": Mlflow(timeout=1).build()})
    hooks.call.run_start(state=state)
    for _ in range(2):
        hooks.call.step_start(state=state, window=[])
    with closing(sqlite3.connect(here / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        state.status = "completed"
        hooks.call.run_end(state=state)
    assert "(no answer in 1 s)" in failure(caplog)


def test_recovers(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points that the store refused are kept, and delivered when it is there again."""
    state = prepared(here)
    hooks = Hooks({"mlflow": Mlflow().build()})
    (here / "mlflow.db.lock").mkdir()
    hooks.call.run_start(state=state)
    for _ in range(2):
        hooks.call.step_start(state=state, window=[])
    hooks.call.log(state=state, point=POINTS[0])
    (here / "mlflow.db.lock").rmdir()
    for point in POINTS[1:]:
        hooks.call.log(state=state, point=point)
    state.status = "completed"
    hooks.call.run_end(state=state)
    assert len(caplog.records) == 1
    run = the_run()
    history = connect(store()).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == [1, 2]


def test_which_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one given, else the environment's, else the one before, else a file right here."""
    monkeypatch.chdir(here.parent)
    before = f"sqlite:///{here}/mlflow.db"
    assert store() == f"sqlite:///{here.parent}/mlflow.db"
    assert store("", before) == before
    # the same words, written for another folder
    assert store("sqlite:///mlflow.db", before) == before
    assert store("sqlite:///other.db", before) == f"sqlite:///{here.parent}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert store("", before) == "http://host"
    assert store("http://given", before) == "http://given"


RACE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from plugins.callbacks.mlflow import Mlflow
folder = Path(sys.argv[1])
state = SimpleNamespace(folder=folder, step=0, started=1e9, status="completed", best=None)
tracker = Mlflow(experiment="race").build()
tracker.run_start(state)
tracker.log(state, {"step": 1, "time": 1.0, "train/loss": 0.5})
tracker.run_end(state)
"""


@pytest.mark.slow
def test_race_on_a_fresh_file(tmp_path: Path) -> None:
    """Four processes at once on a store that isn't there yet all track their runs."""
    folders = [prepared(tmp_path / str(at)).folder for at in range(4)]
    racers = [processes.script(RACE, folder, cwd=tmp_path) for folder in folders]
    ended = [racer.wait() for racer in racers]
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 4
    client = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.get_experiment_by_name("race")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("val/f1", "val/f1"),
        ("f1[A]", "f1_5b_A_5d_"),
        ("a//b", "a_2f__2f_b"),
        ("../x", "_2e__2e__2f_x"),
        (".", "_2e_"),
        ("", "_"),
    ],
)
def test_name(words: str, expected: str) -> None:
    """Names that MLflow refuses are spelt so that it takes them."""
    assert name(words) == expected
    assert len(name(words * 300)) <= 250


@pytest.mark.parametrize(
    "options",
    [
        {"alias": "champion"},
        {"register": "a/b"},
        {"register": "m", "alias": "v1"},
        {"register": "m", "alias": "latest"},
        {"timeout": 0},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    """What the registry would refuse after hours of training is refused before them."""
    with pytest.raises(ValueError, match=r"must|needs|latest"):
        Mlflow(**options)
