"""A run folder brought into its MLflow store: each step may be repeated, and adds what lacks."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import tomli

from framework import __version__
from plugins import _mlflow as shared
from plugins.callbacks._mlflow_record import Point, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger("framework")
_FILES = (
    "experiment.toml", "environment.json", "splits.json", "metrics.jsonl", "result.json", "run.log",
)  # fmt: skip
_METRICS, _PARAMS = 1000, 100
"""How many of them MLflow takes at once."""

_STEP = "framework.step"
"""Tag of a version: the step of its model."""


@attrs.define
class Delivery:
    """A folder, its record and its run in the store, in the order of the methods."""

    folder: Path
    uri: str
    record: Record
    client: MlflowClient = attrs.field(init=False)
    stored: Run = attrs.field(init=False)
    """The run as it was when it was opened."""
    there: dict[str, Collection[int]] = attrs.field(factory=dict, init=False)
    """Steps by name of the points that the store had when it was opened."""

    def connect(self) -> None:
        """Reach the store; a sqlite file gets its tables."""
        with shared.locked(self.uri):
            self.client = shared.connect(self.uri)

    def open(self, experiment: str, patience: float = math.inf) -> int:
        """Find or create the folder's run and describe it; the number of parameters it lacked.

        What the store has is asked name by name. When the `patience` seconds for that are over,
        the other names are taken to be as far as those: points are sent in their order.
        """
        self.stored = self._find(experiment)
        self.record.adopt(self.stored.info.run_id)
        # at once: a process that dies now is followed by one that reads this
        self.record.write(self.folder)
        until = time.monotonic() + patience
        # `epoch` is part of every point
        for key in sorted(self.stored.data.metrics, key=lambda key: key != "epoch"):
            if time.monotonic() > until:
                newest = max((max(steps) for steps in self.there.values()), default=0)
                self.there |= dict.fromkeys(self.stored.data.metrics, range(newest)) | self.there
                break
            history = self.client.get_metric_history(self.record.run, key)
            self.there[key] = {metric.step for metric in history}
        return self._describe()

    def _find(self, experiment: str) -> Run:
        """Return the run that the record names, or that is of this folder, or a new one."""
        from mlflow.exceptions import MlflowException

        if self.record.run:
            try:
                return self.client.get_run(self.record.run)
            except MlflowException as error:
                # it may be of another store, or that store may be gone
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        within = self.experiment(experiment)
        name = self.folder.name
        # one that was created by a process that could not write that down any more
        for run in self.client.search_runs([within], f"attributes.run_name = '{name}'"):
            if run.data.tags.get("framework.folder") == str(self.folder):
                return run
        started = int(1000 * self.record.starts[0][1])
        nested = {"mlflow.parentRunId": self.record.parent} if self.record.parent else {}
        return self.client.create_run(within, started, _tags(self.folder) | nested, name)

    def experiment(self, wanted: str) -> str:
        """Return the id of an experiment in the store, which is made where there is none."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(wanted)
        if found is None:
            file = shared.database(self.uri)
            # by default artifacts of a sqlite store go to whatever the current folder is
            root = (file.parent / "mlartifacts").as_uri() if file else None
            try:
                return str(self.client.create_experiment(wanted, root))
            except MlflowException:
                # another process was faster; if it was not that, this raises again
                found = self.client.get_experiment_by_name(wanted)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _describe(self) -> int:
        from mlflow.entities import Param

        text = (self.folder / "experiment.toml").read_text(encoding="utf-8")
        wanted = shared.flat(tomli.loads(text)) | _facts(_environment(self.folder))
        # a resumed run may have other options, and MLflow keeps the first
        lacking = [Param(k, v) for k, v in wanted.items() if k not in self.stored.data.params]
        for at in range(0, len(lacking), _PARAMS):
            self.client.log_batch(self.record.run, params=lacking[at : at + _PARAMS])
        resumed = str(self.record.resumed or "")
        if resumed != self.stored.data.tags.get("framework.resumed", ""):
            self.client.set_tag(self.record.run, "framework.resumed", resumed)
        return len(lacking)

    def send(self, points: list[Point]) -> int:
        """Send the points that the store lacks, emptying the list; how many those were.

        Points can't be deleted from MLflow: those that a killed process has sent beyond its
        last checkpoint stay, and the resumed run, where it is deterministic, only repeats them.
        """
        from mlflow.entities import Metric

        sent = 0
        while points:
            part = points[:_METRICS]
            lacking = [p for p in part if p.step not in self.there.get(p.key, ())]
            metrics = [Metric(p.key, p.value, p.at, p.step) for p in lacking]
            if metrics:
                self.client.log_batch(self.record.run, metrics=metrics)
            del points[: len(part)]
            sent += len(metrics)
        return sent

    def upload(self) -> int:
        """Upload the files that are new or have changed since; how many those were."""
        sent = 0
        for file in filter(Path.is_file, (self.folder / name for name in _FILES)):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest != self.record.files.get(file.name):
                self.client.log_artifact(self.record.run, str(file))
                self.record.files[file.name] = digest
                sent += 1
        if sent:
            self.record.write(self.folder)
        return sent

    def go_on(self) -> None:
        """Set a run that was ended back to running."""
        if self.stored.info.status != "RUNNING":
            self.client.update_run(self.record.run, "RUNNING")

    def end(self, status: str, at: int | None = None) -> bool:
        """Set how and when the run ended (in milliseconds, by default now), unless that is set."""
        if self.client.get_run(self.record.run).info.status == status:
            return False
        self.client.set_terminated(self.record.run, status, at)
        return True

    def registered(self, name: str, step: int) -> bool:
        """Tell whether the run's model of a step is a version of a registered model."""
        versions = self.client.search_model_versions(f"run_id = '{self.record.run}'")
        return any(v.name == name and v.tags.get(_STEP) == str(step) for v in versions)

    def register(self, name: str, alias: str, step: int, ended: float = math.inf) -> str:
        """Log the best model as code over its safetensors, and register it as a new version.

        The alias moves to it, unless to a version that is newer than the run's end; what was
        done, in words.
        """
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException

        folders = [self.folder / "checkpoints" / tag / "model" for tag in ("best", "last")]
        folder = next((path for path in folders if path.is_dir()), None)
        if folder is None:
            _log.warning("mlflow: no model was saved, so none is registered")
            return ""
        client, run = self.client, self.record.run
        model = client.create_logged_model(self.stored.info.experiment_id, name, run)
        with tempfile.TemporaryDirectory() as scratch:
            shared.save_pyfunc(folder, Path(scratch), self.folder, run, model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run, [LoggedModelOutput(model.model_id, step)])
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        holder = self._holder(name, alias)
        version = client.create_model_version(
            name, model.artifact_location, run, tags={_STEP: str(step)}, model_id=model.model_id
        )
        done = f"version {version.version} of '{name}'"
        if holder and holder.creation_timestamp > ended:
            return f"{done} (the alias '{alias}' stays with the newer {holder.version})"
        if alias:
            client.set_registered_model_alias(name, alias, version.version)
        return done

    def _holder(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version that an alias points to, if it does."""
        aliases = self.client.get_registered_model(name).aliases
        return self.client.get_model_version(name, aliases[alias]) if alias in aliases else None


def _environment(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return found


def _tags(folder: Path) -> dict[str, str]:
    environment = _environment(folder)
    git = environment.get("git", {})
    packages = environment.get("packages", {})
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "framework",
        "mlflow.source.git.commit": git.get("commit"),
        "git.dirty": git and json.dumps(git.get("dirty")),
        "framework.folder": str(folder),
        "framework.version": __version__,
        "python": environment.get("python"),
        "device": environment.get("device"),
    } | {key: packages.get(key) for key in ("torch", "transformers", "mlflow")}
    return {key: value for key, value in tags.items() if value}


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """What is known of the data and derived for the loss; counts and weights, no texts."""
    info = dict(environment.get("info", {}))
    counts, labels = info.pop("class_counts", {}), info.get("labels", [])
    if isinstance(counts, list) and len(counts) == len(labels):
        counts = dict(zip(map(str, labels), counts, strict=True))
    numbers = {key: value for key, value in info.items() if isinstance(value, (int, float))}
    data = numbers | {"labels": labels, "class_counts": counts}
    return shared.flat({"data": data, "loss": {"derived": environment.get("loss", {})}})
