"""What the tests of MLflow share: run folders, stores, and runs driven through their hooks."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import safetensors.torch
import torch

from framework.hooks import Hooks
from framework.state import Best, State
from plugins._mlflow import bounded, connect, store
from plugins.callbacks.jsonl import Jsonl
from plugins.callbacks.mlflow import Mlflow

EXPERIMENT = """name = "tiny"
seed = 42
metrics = ["f1", "accuracy"]

[dataset]
use = "redsm5"
note = "LONG"
empty = {}

uri = "http://me:secret@host/?token=hidden"

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
NAME = "20260101T000000Z-abcdef"


def point(step: int) -> dict[str, Any]:
    """A point of training."""
    return {"step": step, "epoch": step / 2, "time": step / 4, "train/loss": 1 / step}


def prepared(root: Path, experiment: str = EXPERIMENT, name: str = NAME, **counters: Any) -> State:
    """State of a run whose folder holds what a run folder holds, with a tiny model."""
    folder = root / "runs" / "tiny" / name
    model = folder / "checkpoints" / "step-2" / "model"
    if not model.exists():
        model.mkdir(parents=True)
        (folder / "checkpoints" / "best").symlink_to("step-2")
        weights = {"weight": torch.arange(4.0)}
        safetensors.torch.save_file(weights, str(model / "model.safetensors"))
        (model / "info.json").write_text('{"labels": ["no", "yes"]}')
        (model / "experiment.toml").write_text(experiment)
        (folder / "experiment.toml").write_text(experiment.replace("LONG", "x" * 7000))
        (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
        (folder / "splits.json").write_text('{"train": ["a"]}')
        (folder / "run.log").write_text("said\n")
    given = {
        "folder": folder,
        "name": "tiny",
        "best": Best("val/f1", 0.875, 2, {"val": {"f1": 0.875}}),
        **counters,
    }
    # what a tracker never looks at
    given |= {
        field.name: Any
        for field in attrs.fields(State)
        if field.default is attrs.NOTHING and field.name not in given
    }
    state = State(**given)
    result(state)
    return state


def result(state: State) -> None:
    """Write what the tracker reads of `result.json`."""
    best = {"step": state.best.step} if state.best else None
    content = {"status": state.status, "steps": state.step, "best": best}
    (state.folder / "result.json").write_text(json.dumps(content))


def drive(
    options: Mlflow, state: State, points: Sequence[dict[str, Any]], status: Any = "completed"
) -> float:
    """Drive the hooks as a run does; the seconds they took."""
    hooks = Hooks({"jsonl": Jsonl().build(), "mlflow": options.build()})
    # where a checkpoint of the state's step would cut the points
    file = state.folder / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= state.step]
    hooks.callbacks["jsonl"].load_state_dict({"size": sum(map(len, kept))})
    begun = time.monotonic()
    hooks.call.run_start(state=state)
    for _ in range(2):
        hooks.call.step_start(state=state, window=[])
    for logged in points:
        state.step = logged["step"]
        hooks.call.log(state=state, point=logged)
    state.status = status
    result(state)
    hooks.call.run_end(state=state)
    assert not hooks.broken
    return time.monotonic() - begun


def the_run(experiment: str = "tiny", uri: str = "") -> Any:
    """The only run of an experiment in a store."""
    client = connect(store(uri))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return client.get_run(run.info.run_id)


def stored(uri: str = "") -> dict[str, Counter[int]]:
    """How often the only run's store has each step, by name."""
    run, client = the_run(uri=uri), connect(store(uri))
    return {
        key: Counter(metric.step for metric in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session", name="template")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with all its tables: making them takes seconds, copying them doesn't."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    with bounded(3):
        connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(name="here")
def fresh_place(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty store at its default place."""
    folder = tmp_path / "a place"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    return folder
