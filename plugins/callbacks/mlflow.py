"""A record of the run in MLflow: options, points, files, and the best model where asked."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli

from framework.errors import RunError, UserError
from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State
from plugins import _mlflow as shared
from plugins.callbacks import _mlflow_study
from plugins.callbacks._mlflow_delivery import Delivery
from plugins.callbacks._mlflow_record import Point, Record, values

_log = logging.getLogger("framework")
_ENDS = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
    # what its folder says of a run that was killed
    "running": "KILLED",
}
_OPENS = 2
"""The step before which the run is opened in the store."""
_PAUSE = 1.0
"""Seconds between sendings, at least."""
_SHARE = 20.0
"""A sending is followed by a pause this many times as long: at most a twentieth of the run."""
_ANSWER = 10
"""Seconds that a server may take for an answer when no run waits for it."""
_UPLOAD = 60
"""Seconds that a server, which has just answered, may take to store the model's files."""


def _check_uri(_: object, field: attrs.Attribute[str], value: str) -> None:
    # an experiment is copied into the run folder, the store and every registered model
    if shared.masked(value) != value:
        raise ValueError(
            f"'{field.name}' holds a password or a token, which would stand in the run's records;"
            " set MLFLOW_TRACKING_URI in the environment instead"
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
    parent: str = option(
        "", help="run in the store that this one is nested under; a search sets it for its trials"
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

    def nested(self, parent: str) -> Mlflow:
        """Return the options of a trial: part of its search's run, and no registered model."""
        return attrs.evolve(self, parent=parent, register="", alias="")

    def build(self) -> Tracker:
        """Build it; nothing is connected before the run starts."""
        return Tracker(self)


@attrs.define
class Tracker:
    """Keeps what the store has not taken yet, and tries again while the lost time is small.

    What it gives up on is in the run folder, where `sync` and a resumed run find it.
    """

    options: Mlflow
    sink = True
    delivery: Delivery | None = None
    steps: int = 0
    """Begun in this process."""
    connected: bool = False
    opened: bool = False
    points: list[Point] = attrs.field(factory=list)
    """Not sent yet."""
    lost: float = 0.0
    """Seconds that failures have taken so far."""
    delay: float = _PAUSE
    due: float = 0.0
    told: bool = False

    @hookimpl
    def run_start(self, state: State) -> None:
        """Find what the store may lack."""
        folder = state.folder.resolve()
        record = Record.read(folder)
        uri = shared.store(self.options.uri, record.store)
        record.store = shared.masked(uri)
        record.parent = self.options.parent or record.parent
        record.begin(state.step, state.started)
        record.write(folder)
        self.delivery = Delivery(folder, uri, record)
        self.points = [point for point in record.points(folder) if point.step <= state.step]

    @hookimpl
    def step_start(self, state: State) -> None:
        """Open the run in the store and describe it, before the second step.

        Nothing of the first waits for it, its point neither. A resumed run goes on with its own.
        """
        self.steps += 1
        if self.steps == _OPENS and self.delivery is not None:
            self._attempt(state, self.delivery, lambda: None)

    @hookimpl
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """Keep the point's values, and send what was kept about once a second."""
        if self.delivery is None or self.lost >= self.options.timeout:
            return
        self.points += values(point, state.started)
        if self.steps >= _OPENS and time.monotonic() >= self.due:
            delivery = self.delivery
            self._attempt(state, delivery, lambda: delivery.send(self.points))

    @hookimpl
    def run_end(self, state: State) -> None:
        """Send the rest and the files, close the run, and register the model."""
        delivery, options = self.delivery, self.options
        if delivery is None:
            return  # another callback failed before this one's start
        status = _ENDS[state.status]

        def finish() -> None:
            delivery.send(self.points)
            delivery.upload()
            delivery.end(status)

        step = state.best.step if state.best else state.step

        def register() -> None:
            # a run that is resumed when it was over has nothing new to register
            if not delivery.registered(options.register, step):
                delivery.register(options.register, options.alias, step)

        # a run that broke off must not take an alias over
        if self._attempt(state, delivery, finish) and options.register and status == "FINISHED":
            self._attempt(state, delivery, register, upload=True)

    def reached(self) -> tuple[bool, str]:
        """Say whether the store can be reached, and which it is."""
        uri = shared.store(self.options.uri)
        problem = shared.unreached(uri, self.options.timeout)
        return not problem, f"{shared.public(uri)}{problem and f' ({problem})'}"

    def study(self, folder: Path, name: str, said: Mapping[str, Any] | None = None) -> str:
        """Open the run that the trials of a search are nested under, or tell it what came of them.

        Returns its id; empty where the store can't take it, and the trials stand by themselves.
        """
        uri = shared.store(self.options.uri, Record.read(folder).store)
        try:
            with shared.bounded(_ANSWER):
                found = _mlflow_study.opened(folder, uri, self.options.experiment or name)
                if said is not None:
                    _mlflow_study.told(folder, uri, said)
        except Exception as error:  # noqa: BLE001 - whatever it is, the search goes on
            _log.warning(
                "mlflow: the search is not tracked at %s (%s)",
                shared.public(uri),
                shared.public(error),
            )
            return ""
        return found

    def sync(self, folder: Path) -> str:
        """Deliver what the store lacks of a run that is over; what that was, in words.

        Raises `RunError` where the store can't take it.
        """
        folder = folder.resolve()
        if not (folder / "environment.json").is_file():
            raise UserError(f"{folder}: no run folder; 'environment.json' is not in it")
        record = Record.read(folder)
        uri = shared.store(self.options.uri, record.store)
        record.store = shared.masked(uri)
        try:
            done = list(filter(None, self._deliver(Delivery(folder, uri, record))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the folder still has it all
            raise RunError(
                f"the store at {shared.public(uri)} has not taken it all ({shared.public(error)});"
                " repeat this when it answers"
            ) from None
        if not done:
            return "nothing was missing"
        listed = " and ".join(filter(None, (", ".join(done[:-1]), done[-1])))
        return f"{listed} delivered to {shared.public(uri)}, run {record.run}"

    def _deliver(self, delivery: Delivery) -> list[str]:
        """Deliver everything; in words, what of each kind was missing, or nothing."""
        folder, record = delivery.folder, delivery.record
        register = "" if record.parent else self.options.register
        file = folder / "result.json"
        result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        status = _ENDS[result.get("status", "running")]
        points = list(record.points(folder))
        ended = max((point.at for point in points), default=int(1000 * record.starts[-1][1]))
        with shared.bounded(_ANSWER):
            delivery.connect()
            done = [_counted(delivery.open(self._name(folder)), "parameter")]
            done.append(_counted(delivery.send(points), "value"))
        with shared.bounded(_UPLOAD):
            done.append(_counted(delivery.upload(), "file"))
            step = (result.get("best") or {}).get("step", result.get("steps", 0))
            if register and status == "FINISHED" and not delivery.registered(register, step):
                done.append(delivery.register(register, self.options.alias, step, ended))
            done.append(f"the status {status}" if delivery.end(status, ended) else "")
        return done

    def _name(self, folder: Path) -> str:
        """Return the experiment in the store."""
        text = (folder / "experiment.toml").read_text(encoding="utf-8")
        return self.options.experiment or str(tomli.loads(text)["name"])

    def _attempt(
        self, state: State, delivery: Delivery, work: Callable[[], object], *, upload: bool = False
    ) -> bool:
        """Do something with the store; a failure is told once and costs from `timeout`."""
        left = self.options.timeout - self.lost
        if left <= 0:
            return False
        begun = time.monotonic()
        try:
            with shared.bounded(_UPLOAD if upload else max(1, round(left))):
                import mlflow.entities  # noqa: F401 - seconds that no server is to blame for

                begun = time.monotonic()
                if not self.connected:
                    local = shared.database(delivery.uri) is not None
                    shared.within(shared.MIGRATION if local else left, delivery.connect)
                    self.connected = True
                    begun = time.monotonic() if local else begun
                if upload:
                    work()
                else:
                    until = left - (time.monotonic() - begun)
                    shared.within(until, lambda: self._opened(delivery, work, until / 2))
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            self.lost += time.monotonic() - begun
            self.delay = min(2 * self.delay, 60.0)
            self.due = time.monotonic() + self.delay
            self._tell(state, delivery, error)
            return False
        self.told, self.delay = False, _PAUSE
        self.due = time.monotonic() + max(_PAUSE, _SHARE * (time.monotonic() - begun))
        return True

    def _opened(self, delivery: Delivery, work: Callable[[], object], patience: float) -> None:
        """Do something in the run, which is opened first, and do it again where it fails.

        A server closes connections that were idle, and the client then fails once.
        """
        for last in (False, True):
            try:
                if not self.opened:
                    delivery.open(self._name(delivery.folder), patience)
                    delivery.go_on()
                    self.opened = True
                work()
            except Exception:
                if last:
                    raise
            else:
                return

    def _tell(self, state: State, delivery: Delivery, error: Exception) -> None:
        if self.lost >= self.options.timeout:
            self.points.clear()
            # a thread that still waits for an answer ends where it would ask for the next
            with contextlib.suppress(AttributeError):
                del delivery.client
        if not self.told:
            self.told = True
            _log.warning(
                "mlflow: tracking at %s failed (%s); the run goes on, its points are kept in"
                " metrics.jsonl; deliver them later: python -m framework sync %s",
                shared.public(delivery.uri),
                shared.public(error),
                os.path.relpath(state.folder),
            )


def _counted(number: int, noun: str) -> str:
    """Return a number of things, or nothing for none."""
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""
