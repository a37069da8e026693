"""A record of the run in MLflow: options, points, files, and the best model where asked."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import tomli

from framework import __version__
from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State
from plugins import _mlflow as shared

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger("framework")
_FILES = (
    "experiment.toml", "environment.json", "splits.json", "metrics.jsonl", "result.json", "run.log",
)  # fmt: skip
_ENDS = {"interrupted": "KILLED", "failed": "FAILED"}
_PAUSE = 1.0
"""Seconds between sendings, at least."""
_SHARE = 20.0
"""A sending is followed by a pause this many times as long: at most a twentieth of the run."""
_UPLOAD = 60
"""Seconds that a server, which has just answered, may take to store the model's files."""


def _check_uri(_: object, field: attrs.Attribute[str], value: str) -> None:
    # an experiment is copied into the run folder, the store and every registered model
    if re.search(r"://[^/]*:[^/]*@", value):
        raise ValueError(
            f"'{field.name}' holds a password, which would stand in the run's records; set"
            " MLFLOW_TRACKING_URI in the environment instead"
        )


def _check_name(_: object, field: attrs.Attribute[str], value: str) -> None:
    if re.search(r"[/:]", value):
        raise ValueError(f"'{field.name}' must hold neither '/' nor ':'")


def _check_alias(_: object, field: attrs.Attribute[str], value: str) -> None:
    # what the registry would refuse at the end of the run is refused before it
    if not re.fullmatch(r"[\w-]*", value) or re.fullmatch(r"latest|[vV]\d+", value):
        raise ValueError(
            f"'{field.name}' must be letters, digits, '-' and '_', not 'latest' or like 'v1'"
        )


@attrs.frozen
class Mlflow:
    """Tracks the run in MLflow; a store that can't be reached never holds up or ends a run."""

    uri: str = option(
        "",
        help="tracking store; empty: MLFLOW_TRACKING_URI, else sqlite file mlflow.db right here",
        validator=_check_uri,
    )
    experiment: str = option("", help="experiment in the store; empty: the run's name")
    register: str = option(
        "", help="register the best model under this name; empty: not", validator=_check_name
    )
    alias: str = option(
        "", help="alias that is set on the registered version", validator=_check_alias
    )
    timeout: int = option(
        3,
        help="seconds that a store without an answer may cost the run in all",
        validator=attrs.validators.ge(1),
    )

    def __attrs_post_init__(self) -> None:
        """Refuse an alias that would point into nothing."""
        if self.alias and not self.register:
            raise ValueError("'alias' needs 'register', the name of the model it points into")

    def build(self) -> Tracker:
        """Build it; nothing is connected before the run starts."""
        return Tracker(self)


@attrs.define
class Tracker:
    """Keeps what the store has not taken yet, and tries again while the lost time is small."""

    options: Mlflow
    sink = True
    uri: str = ""
    client: MlflowClient = attrs.field(init=False)
    experiment: str = ""
    run: str = ""
    described: bool = False
    points: list[tuple[str, float, int, int]] = attrs.field(factory=list)
    """Name, value, timestamp in milliseconds, step: not sent yet."""
    lost: float = 0.0
    """Seconds that failures have taken so far."""
    delay: float = _PAUSE
    due: float = 0.0
    told: bool = False

    @hookimpl
    def run_start(self, state: State) -> None:
        """Open the run in the store and describe it."""
        self.uri = shared.store(self.options.uri)
        self._attempt(state, lambda: None)

    @hookimpl
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """Keep the point's values, and send what was kept about once a second."""
        if self.lost >= self.options.timeout:
            return
        at = int(1000 * (state.started + point["time"]))
        for key, value in point.items():
            if key not in ("step", "time") and isinstance(value, (int, float)):
                self.points.append((shared.name(key), float(value), at, int(point["step"])))
        if time.monotonic() >= self.due:
            self._attempt(state, self._flush)

    @hookimpl
    def run_end(self, state: State) -> None:
        """Send the rest, the files and the model, and close the run."""
        if not self.uri:
            return  # another callback failed before this one's start
        # twice: a server closes connections that were idle, and the client then fails once
        if not (self._attempt(state, self._flush) or self._attempt(state, self._flush)):
            return
        self._attempt(state, lambda: self._files(state))
        status = _ENDS.get(state.status, "FINISHED")
        # a run that broke off must not take an alias over
        if self.options.register and status == "FINISHED":
            self._attempt(state, lambda: self._register(state), _UPLOAD)
        self._attempt(state, lambda: self.client.set_terminated(self.run, status))

    def _attempt(self, state: State, work: Callable[[], object], seconds: int = 0) -> bool:
        """Do something with the store; a failure is told once and costs from `timeout`."""
        left = self.options.timeout - self.lost
        if left <= 0:
            return False
        begun = time.monotonic()
        try:
            with shared.bounded(seconds or max(1, round(left))):
                import mlflow  # noqa: F401 - a second that no server is to blame for

                begun = time.monotonic()
                if not self.described:
                    local = shared.database(self.uri)
                    self._open(state) if local else shared.within(left, lambda: self._open(state))
                work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            self.lost += time.monotonic() - begun
            self.delay = min(2 * self.delay, 60.0)
            self.due = time.monotonic() + self.delay
            self._tell(state, error)
            return False
        self.told, self.delay = False, _PAUSE
        self.due = time.monotonic() + max(_PAUSE, _SHARE * (time.monotonic() - begun))
        return True

    def _tell(self, state: State, error: Exception) -> None:
        if self.lost >= self.options.timeout:
            self.points.clear()
        if not self.told:
            self.told = True
            _log.warning(
                "mlflow: tracking at %s failed (%s); the run goes on, its points are in %s",
                shared.public(self.uri),
                shared.public(error),
                state.folder / "metrics.jsonl",
            )

    def _open(self, state: State) -> None:
        """Start the run in the store, or go on with starting it after a failure."""
        environment = json.loads((state.folder / "environment.json").read_text(encoding="utf-8"))
        if not self.run:
            with shared.locked(self.uri):
                self.client = shared.connect(self.uri)
                self.experiment = self._find_experiment(self.options.experiment or state.name)
            tags = _tags(state, environment)
            run = self.client.create_run(
                self.experiment, int(1000 * state.started), tags, state.folder.name
            )
            self.run = run.info.run_id
        from mlflow.entities import Param

        text = (state.folder / "experiment.toml").read_text(encoding="utf-8")
        values = shared.flat(tomli.loads(text)) | _facts(environment)
        params = [Param(key, value) for key, value in values.items()]
        for at in range(0, len(params), 100):
            self.client.log_batch(self.run, params=params[at : at + 100])
        self.described = True

    def _find_experiment(self, wanted: str) -> str:
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

    def _flush(self) -> None:
        from mlflow.entities import Metric

        while self.points:
            part = self.points[:1000]
            metrics = [Metric(key, value, at, step) for key, value, at, step in part]
            self.client.log_batch(self.run, metrics=metrics)
            del self.points[: len(part)]

    def _files(self, state: State) -> None:
        for file in (state.folder / file for file in _FILES):
            if file.is_file():
                self.client.log_artifact(self.run, str(file))

    def _register(self, state: State) -> None:
        """Log the best model as code over its safetensors, and register it as a new version."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException

        tags = ("best", "last")
        folders = [state.folder / "checkpoints" / tag / "model" for tag in tags]
        folder = next((path for path in folders if path.is_dir()), None)
        if folder is None:
            _log.warning("mlflow: no model was saved, so none is registered")
            return
        client, wanted = self.client, self.options.register
        model = client.create_logged_model(self.experiment, wanted, self.run)
        with tempfile.TemporaryDirectory() as scratch:
            shared.save_pyfunc(folder, Path(scratch), state.folder, self.run, model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))
        client.finalize_logged_model(model.model_id, "READY")
        step = state.best.step if state.best else state.step
        client.log_outputs(self.run, [LoggedModelOutput(model.model_id, step)])
        try:
            client.create_registered_model(wanted)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            wanted, model.artifact_location, self.run, model_id=model.model_id
        )
        if self.options.alias:
            client.set_registered_model_alias(wanted, self.options.alias, version.version)


def _tags(state: State, environment: Mapping[str, Any]) -> dict[str, str]:
    git = environment.get("git", {})
    packages = environment.get("packages", {})
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "framework",
        "mlflow.source.git.commit": git.get("commit"),
        "git.dirty": git and json.dumps(git.get("dirty")),
        "framework.folder": str(state.folder),
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
