"""The MLflow callback and the `models` source, against real stores and real sockets."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import safetensors.torch
import torch

import framework.commands.trained
from framework.errors import UserError
from framework.hooks import Hooks
from framework.state import Best, State
from plugins._mlflow import bounded, connect, name, store
from plugins.callbacks.mlflow import Mlflow
from plugins.sources.models import Models

EXPERIMENT = """name = "tiny"
seed = 42
metrics = ["f1", "accuracy"]

[dataset]
use = "redsm5"
note = "LONG"
empty = {}

uri = "http://me:secret@host/"

[trainer]
epochs = 3
deterministic = false
max_grad_norm = 1.0

[callbacks."odd[label]"]
rate = 2e-05
"""
ENVIRONMENT = {
    "python": "3.11",
    "device": "cpu",
    "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "attrs": "25.4.0"},
    "plugins": [{"distribution": "composable-nlp", "version": "0.1.0", "name": "redsm5"}],
    "git": {"commit": "0123456789abcdef", "dirty": True},
    "info": {"labels": ["no", "yes"], "class_counts": [30, 70], "criteria": {"A.1": "a text"}},
    "loss": {"alpha": [1.4, 0.6], "gamma": 2.0},
}
POINTS: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0, "time": 0.5, "train/loss": 0.75, "train/learning_rate": 1e-5},
    {"step": 2, "epoch": 1, "time": 1.25, "train/loss": 0.5, "train/learning_rate": 2e-5},
    {"step": 2, "epoch": 1, "time": 1.5, "val/f1": 0.875, "val/f1[A.1]": math.nan},
]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with all its tables: making them takes seconds, copying them doesn't."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    with bounded(3):
        connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def here(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty store at its default place."""
    folder = tmp_path / "a place"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def prepared(root: Path) -> State:
    """State of a run whose folder holds what a run folder holds, with a tiny model."""
    folder = root / "runs" / "tiny" / "20260101T000000Z-abcdef"
    model = folder / "checkpoints" / "step-2" / "model"
    model.mkdir(parents=True)
    (folder / "checkpoints" / "best").symlink_to("step-2")
    safetensors.torch.save_file({"weight": torch.arange(4.0)}, str(model / "model.safetensors"))
    (model / "info.json").write_text('{"labels": ["no", "yes"]}')
    (model / "experiment.toml").write_text(EXPERIMENT)
    (folder / "experiment.toml").write_text(EXPERIMENT.replace("LONG", "x" * 7000))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (folder / "splits.json").write_text('{"train": ["a"]}')
    (folder / "metrics.jsonl").write_text("")
    (folder / "result.json").write_text("{}")
    (folder / "run.log").write_text("said\n")
    counts = {"epochs": 3, "steps_per_epoch": 2, "total_steps": 6, "items_per_epoch": 8}
    stand_in: Any = object()
    best = Best("val/f1", 0.875, 2, {"val": {"f1": 0.875}})
    return State(folder=folder, name="tiny", model=stand_in, best=best, **counts)


def drive(options: Mlflow, state: State, status: Any = "completed") -> float:
    """Drive the hooks as a run does; the seconds they took."""
    hooks = Hooks({"mlflow": options.build()})
    begun = time.monotonic()
    hooks.call.run_start(state=state)
    for point in POINTS:
        hooks.call.log(state=state, point=point)
    state.status = status
    hooks.call.run_end(state=state)
    assert not hooks.broken
    return time.monotonic() - begun


def the_run(experiment: str = "tiny") -> Any:
    """The only run of an experiment in the default store."""
    client = connect(store())
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return run


def test_everything_reaches_the_store(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Options, facts of the data, the loss's weights, tags, every point and the files are there."""
    state = prepared(here)
    drive(Mlflow(), state)
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
        "dataset.uri": "http://host/",
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
    drive(Mlflow(experiment="mine"), prepared(here), status)
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
    state = prepared(here)
    drive(Mlflow(register="tiny-clf", alias="champion"), state)
    drive(Mlflow(register="tiny-clf"), state)
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


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_password_in_the_experiment_is_refused() -> None:
    """An address with a password can't stand in an experiment, which is copied everywhere."""
    with pytest.raises(ValueError, match="holds a password"):
        Mlflow(uri="http://me:secret@127.0.0.1:1")
    assert Mlflow(uri="http://127.0.0.1:1").uri == "http://127.0.0.1:1"


def test_refused(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing listens the run goes on at once, and is told once, without the password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port()}")
    with caplog.at_level(logging.INFO, "framework"):
        assert drive(Mlflow(register="m"), prepared(here)) < 5
    (record,) = (record for record in caplog.records if record.name == "framework")
    assert "metrics.jsonl" in record.getMessage()
    assert "Connection refused" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_silent(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes connections and never answers costs the run `timeout` in all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with caplog.at_level(logging.INFO, "framework"):
            assert drive(Mlflow(uri=uri, register="m", timeout=2), prepared(here)) < 5
    (record,) = (record for record in caplog.records if record.name == "framework")
    assert "metrics.jsonl" in record.getMessage()
    assert "(no answer in 2 s)" in record.getMessage()


def test_recovers(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points that the store refused are kept, and delivered when it is there again."""
    state = prepared(here)
    hooks = Hooks({"mlflow": Mlflow().build()})
    (here / "mlflow.db.lock").mkdir()
    hooks.call.run_start(state=state)
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


RACE = """
import sys
from pathlib import Path
from framework.state import State
from plugins.callbacks.mlflow import Mlflow
state = State(folder=Path(sys.argv[1]), name="race", model=None, epochs=1, steps_per_epoch=1,
              total_steps=1, items_per_epoch=1, status="completed")
tracker = Mlflow().build()
tracker.run_start(state)
tracker.log(state, {"step": 1, "time": 1.0, "train/loss": 0.5})
tracker.run_end(state)
"""


@pytest.mark.slow
def test_race_on_a_fresh_file(tmp_path: Path) -> None:
    """Four processes at once on a store that isn't there yet all track their runs."""
    root = Path(framework.__file__).parents[1]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(prepared(tmp_path / str(at)).folder)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root), "MLFLOW_TRACKING_URI": ""},
            stderr=subprocess.PIPE,
        )
        for at in range(4)
    ]
    said = [racer.communicate(timeout=120)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert said == [b""] * 4
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
