"""A run from its file to its folder; and a finished run taken up again to evaluate or predict."""

from __future__ import annotations

import datetime as dt
import itertools
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import attrs

from framework import build, checkpoint, tables
from framework.config import experiment as config
from framework.config.experiment import Experiment
from framework.errors import RunError, UserError, fault, listing
from framework.hooks import Hooks
from framework.log import buffered
from framework.protocols import LiveModel, Record, Row, Splits
from framework.registry import Registry, source_hash
from framework.state import State
from framework.step import Forward
from framework.trainer import Trainer

_log = logging.getLogger("framework")
MODEL_FILES = ("model.safetensors", "info.json", "experiment.toml")
"""What a model folder must hold, besides the model's own assets."""


def run(path: Path, sets: Sequence[str] = ()) -> tuple[int, Path]:
    """Run an experiment: train, test, and write its folder; the exit code and the folder.

    Raises `UserError` before anything is written.
    """
    begun = time.time()
    experiment = config.load(path, sets, inputs=True)
    splits = build.dataset(experiment)
    hooks = build.callbacks(experiment, splits.info)
    folder = _folder(experiment.name)
    with buffered() as log:
        rows = folder / "predictions"
        trainer = build.trainer(
            experiment, splits, hooks, folder, lambda split: tables.writer(rows / f"{split}.csv")
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


@attrs.frozen
class Finished:
    """A trained model with the experiment that made it."""

    experiment: Experiment
    assets: Path
    """The model folder: weights, what the model needs beside them, `info.json`."""
    info: dict[str, Any]


def finished(address: str, scratch: Path, sets: Sequence[str] = ()) -> Finished:
    """Find a trained model: a run folder, a model folder, or an address with a scheme."""
    scheme, colon, _ = address.partition(":/")
    if colon and not Path(address).exists():
        source = Registry().find("source", scheme).load()()
        folder = source.fetch(address, scratch)
    else:
        folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"{address}: there is no run folder here; 'runs/NAME/TIME' is one")
    if (folder / "checkpoints").is_dir():
        folder = _whole(folder) / "model"
    lacking = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"{folder}: neither a run folder nor a model: {listing(lacking)} not in it")
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    return Finished(config.load(folder / "experiment.toml", sets), folder, info)


def _whole(folder: Path) -> Path:
    """Return a run's best checkpoint, or, where that is damaged or absent, its last."""
    for tag in ("best", "last"):
        step = folder / "checkpoints" / tag
        if step.exists():
            try:
                checkpoint.verify(step)
            except UserError as error:
                _log.warning("%s", error)
            else:
                return step
    raise UserError(f"{folder}: this run has no whole checkpoint to load")


@attrs.define
class Predictor:
    """A trained model, ready for records: `Predictor(finished(…))`."""

    done: Finished
    model: LiveModel = attrs.field(init=False)
    forward: Forward = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Build the model from what was saved beside its weights, and load those."""
        self.model, self.forward = build.forward(
            self.done.experiment, self.done.info, self.done.assets
        )
        checkpoint.load_weights(self.model.module, self.done.assets / "model.safetensors")
        self.model.module.eval()

    def rows(self, records: Iterable[Record]) -> Iterator[Row]:
        """Yield a row per record, in their order, holding a few hundred at a time."""
        import torch

        training = self.done.experiment.trainer
        size = training.micro_batch or training.batch_size
        stream = iter(records)
        while chunk := list(itertools.islice(stream, size)):
            features = self.model.processor.encode(chunk)
            with torch.no_grad():
                found = self.forward(self.model.processor.collate(features))
            yield from self.model.processor.decode(*found)


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
