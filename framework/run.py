"""A run from its experiment to its folder."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import attrs

from framework import build, checkpoint
from framework.config.experiment import Experiment
from framework.errors import RunError, UserError, fault
from framework.hooks import Hooks
from framework.log import buffered
from framework.protocols import Splits
from framework.registry import source_hash
from framework.state import State
from framework.trainer import Sink, Trainer

_log = logging.getLogger("framework")


Writer = Callable[[Path], AbstractContextManager[Sink]]


def run(experiment: Experiment, begun: float, writer: Writer) -> tuple[int, Path]:
    """Run an experiment: train, test, and write its folder; the exit code and the folder.

    `begun` is when the command began; `writer` opens a file of predictions. Raises `UserError`
    before anything is written.
    """
    splits = build.dataset(experiment)
    hooks = build.callbacks(experiment, splits.info)
    folder = _folder(experiment.name)
    with buffered() as log:
        trainer = build.trainer(
            experiment, splits, hooks, folder, lambda s: writer(folder / "predictions" / f"{s}.csv")
        )
        state = trainer.state
        state.started, state.timing["start"] = begun, time.time() - begun
        _create(experiment, splits, trainer)
        log.attach(folder / "run.log")
        with _signals(state) as received:
            try:
                _result(state)
                hooks.call.run_start(state=state)
                trainer.fit()
                if state.status == "running":
                    state.status, state.reason = "completed", "all steps were taken"
            except BaseException as error:
                state.status, state.reason = "failed", fault(error)
                if isinstance(error, UserError):
                    raise RunError(str(error)) from None
                raise
            finally:
                state.timing["total"] = time.time() - begun
                _close(state, hooks)
    return 128 + received[0] if received else 0, folder


def _close(state: State, hooks: Hooks) -> None:
    """Write the result and end every callback; the first failure of the run is the one told."""
    _result(state)
    try:
        hooks.finish(state)
    except (RunError, UserError) as error:
        if state.status == "failed":
            _log.warning("%s", error)
            return
        state.status, state.reason = "failed", str(error)
        raise RunError(str(error)) from error.__cause__
    finally:
        _result(state)


def _folder(name: str) -> Path:
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path.cwd() / "runs" / name / f"{now}-{secrets.token_hex(3)}"


def _create(experiment: Experiment, splits: Splits, trainer: Trainer) -> None:
    """Create the run folder with the records of what is about to run."""
    folder = trainer.state.folder
    try:
        folder.mkdir(parents=True)
        (folder / "experiment.toml").write_text(experiment.toml(), encoding="utf-8")
        _write(folder / "environment.json", environment(experiment, splits, trainer))
        _write(folder / "splits.json", {k: list(v) for k, v in splits.manifest.items()})
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: can't create the run folder ({error.strerror})") from error


def environment(experiment: Experiment, splits: Splits, trainer: Trainer) -> dict[str, Any]:
    """Return the record of what a run ran on and with."""
    import torch

    packages = {dist.name: dist.version for dist in distributions()}
    plugins = [
        attrs.asdict(part.offer, filter=lambda field, _: field.name != "entry")
        | {"source_sha256": source_hash(type(part.options))}
        for part in experiment.used
    ]
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": str(trainer.update.forward.strategy.device),
        "precision": trainer.update.forward.precision.name,
        "threads": torch.get_num_threads(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "plugins": plugins,
        "git": _git(),
        "data": {str(file): checkpoint.digest(file) for file in splits.files},
        "info": splits.info,
        "loss": getattr(trainer.update.loss, "facts", {}),
    }


def _git() -> dict[str, Any]:
    """The commit of the current folder and whether files differ from it; empty outside git."""

    def ask(*words: str) -> str:
        return subprocess.run(  # noqa: S603 - fixed words
            ["git", *words],  # noqa: S607 - whichever git the person uses
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _result(state: State) -> None:
    """Write `result.json`, atomically; a disk that refuses is told and hides no other error."""
    best = state.best
    shown = {"metric": best.metric, "value": best.value, "step": best.step} if best else None
    content = {
        "status": state.status,
        "reason": state.reason,
        "epochs": state.epoch,
        "steps": state.step,
        "best": shown,
        "metrics": state.metrics,
        "timing": state.timing,
    }
    try:
        _write(state.folder / "result.json", content)
    except OSError as error:
        _log.warning("%s: can't write result.json (%s)", state.folder, error.strerror)


def _write(file: Path, content: Any) -> None:
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(file)


def plain(content: Any) -> Any:
    """Return content with what JSON has no number for (NaN, infinities) as null."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)


@contextmanager
def _signals(state: State) -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into a stop request; a second one leaves at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: Any) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        os.write(2, b"\nfinishing this step, then saving; a second signal leaves at once\n")
        state.stop(f"received {signal.Signals(number).name}", "interrupted")

    try:
        for number in before:
            signal.signal(number, handle)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
