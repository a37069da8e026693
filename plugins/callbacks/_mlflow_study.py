"""The run in MLflow that the trials of a search are nested under."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from framework import __version__
from plugins import _mlflow as shared
from plugins.callbacks._mlflow_delivery import Delivery
from plugins.callbacks._mlflow_record import Record


def opened(folder: Path, uri: str, experiment: str) -> str:
    """Return the run of a study's folder, which is made where there is none.

    Several processes may ask at once; whatever the store raises is raised.
    """
    with filelock.FileLock(folder / ".mlflow.lock", timeout=shared.MIGRATION):
        record = Record.read(folder)
        if record.run:
            return record.run
        record.store = shared.masked(uri)
        delivery = Delivery(folder, uri, record)
        delivery.connect()
        tags = {
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": "framework",
            "framework.folder": str(folder),
            "framework.version": __version__,
        }
        made = delivery.client.create_run(
            delivery.experiment(experiment), int(1000 * time.time()), tags, folder.name
        )
        record.adopt(made.info.run_id)
        record.write(folder)
        return record.run


def told(folder: Path, uri: str, said: Mapping[str, Any]) -> None:
    """Bring the run of a study's folder up to date: parameters, tags, metrics, files, its end."""
    from mlflow.entities import Metric, Param, RunTag

    record = Record.read(folder)
    delivery = Delivery(folder, uri, record)
    delivery.connect()
    client, now = delivery.client, int(1000 * time.time())
    known = client.get_run(record.run).data.params
    # a search that goes on may have more trials, and MLflow keeps the first number
    params = [Param(k, v) for k, v in shared.flat(said["params"]).items() if k not in known]
    tags = [RunTag(k, v) for k, v in shared.flat(said["tags"]).items()]
    metrics = [Metric(shared.name(k), v, now, said["step"]) for k, v in said["metrics"].items()]
    client.log_batch(record.run, metrics=metrics, params=params, tags=tags)
    for file in said["files"]:
        client.log_artifact(record.run, str(file))
    client.set_terminated(record.run, "FINISHED")
