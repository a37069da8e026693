"""What a run folder says of its run: predictions, what was said, what it ran on and with."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import inspect
import json
import logging
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import distributions
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import attrs

from framework import build, checkpoint
from framework.commands import _checkpoints, _inside, _monitors, _resolved, check, tables
from framework.config.experiment import Experiment
from framework.errors import ExperimentError, UserError, fault, listing, nearest
from framework.hooks import Hooks
from framework.protocols import Splits
from framework.state import State
from framework.step import exhausted
from framework.trainer import Sink, Trainer

_log = logging.getLogger("framework")


class _File(logging.FileHandler):
    """A log whose disk may refuse: that is said once, without a traceback a line."""

    refused = False

    def handleError(self, _: logging.LogRecord) -> None:
        """Say that the log can't be written."""
        if not self.refused:
            self.refused = True
            error = sys.exc_info()[1]
            print(f"{self.baseFilename}: can't write the log ({error})", file=sys.stderr)


class _Buffer(MemoryHandler):
    """Keeps records until a file takes them."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize, flushLevel=logging.CRITICAL + 1)

    def attach(self, path: Path) -> None:
        """Write what was kept to a file, and from now on everything at once."""
        file = _File(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.setTarget(file)
        self.capacity = 1
        self.flush()

    def close(self) -> None:
        """Close the file too."""
        file = self.target
        super().close()
        if file is not None:
            file.close()


_DEAD = r"DataLoader worker \(pid|(Connection\w*|EOF)Error at connection\.py"
"""What a loader that dies while it hands a batch over, or before, is told by."""
_KNOWN: Mapping[str, Callable[[Exception], object]] = {
    "out of memory; lower trainer.micro_batch, or batch_size where that is 0": exhausted,
    "a process that loads batches was killed, often for want of memory; set trainer.workers to 0": (
        lambda error: re.search(_DEAD, f"{error} {fault(error)}")
    ),
    "another rank is gone": lambda error: re.search(_LEFT, str(error)),
}
"""What the machine does to a run, in words, and how its error is known."""
_LEFT = (
    r"(?i)connection closed by peer|connection reset by peer|gloo.*broken pipe"
    r"|nccl.*remote process exited"
)
"""What gloo and NCCL say of a rank that has ended."""


@attrs.define
class RunRecords:
    """Writes them; what is said before there is a folder is kept for its `run.log`."""

    buffer: _Buffer
    data: dict[str, str] = attrs.field(factory=dict)
    """Hashes of the files that were read, as far as they are known."""
    folder: Path | None = None
    """The run folder, once it is there."""
    rank: int = 0
    """Only the first rank, 0, writes."""
    written: Experiment | None = None
    """The experiment as it is told, where the one that runs has parts that stand in no file."""

    def place(self, name: str) -> Path:
        """Name a folder for a new run, after the time."""
        now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        return Path.cwd() / "runs" / name / f"{now}-{secrets.token_hex(3)}"

    def words(self, error: Exception) -> str:
        """Say in words what the machine has done to a run; nothing where it is no such error."""
        return next((words for words, fits in _KNOWN.items() if fits(error)), "")

    def rows(self, file: Path) -> AbstractContextManager[Sink]:
        """Open a file of predictions."""
        return nullcontext(lambda _: None) if self.rank else tables.writer(file)

    def computed(self, experiment: Experiment, splits: Splits, hooks: Hooks) -> None:
        """Raise `UserError` where a callback reads a metric that won't be computed."""
        _read_metrics(experiment, splits.info, hooks)

    def text(self, experiment: Experiment) -> str:
        """Return the resolved experiment in TOML."""
        return _resolved.toml(self.written or experiment)

    def alone(self, folder: Path) -> AbstractContextManager[None]:
        """Keep other processes from going on with this run; `UserError` where one does."""
        return nullcontext() if self.rank else _inside.alone(folder)

    def unchanged(self, folder: Path, splits: Splits) -> None:
        """Raise `UserError` unless a run would go on with the data that it began with."""
        data = read(folder / "environment.json").get("data", {})
        before = {(Path(name).name, sha256) for name, sha256 in data.items()}
        for file in splits.files if before else ():
            self.data[str(file)] = _sha256(splits, file)
            if (file.name, self.data[str(file)]) not in before:
                raise UserError(f"{file}: changed since this run began; start a run of its own")
        sides = read(folder / "splits.json")
        if sides and sides != plain(_sides(splits)):
            raise UserError(
                f"{folder}: its splits.json gives other splits than the dataset now; start a run"
                " of its own"
            )

    def newest(self, folder: Path) -> tuple[Path, dict[str, Any]] | None:
        """Read the newest checkpoint that is whole; None where there is none."""
        return _checkpoints.newest(folder / "checkpoints")

    def verify(self, folder: Path, inside: str = "") -> None:
        """Raise `UserError` where files of a checkpoint, of those `inside` it, have changed."""
        _checkpoints.verify(folder, inside)

    def begin(self, experiment: Experiment, splits: Splits, trainer: Trainer, *, new: bool) -> None:
        """Create the run folder, or take it up again; `UserError` where it can't be written."""
        if self.rank:
            if new:
                check.glance(experiment, splits, trainer)
            return
        folder, made = trainer.state.folder, False
        record = _environment(experiment, splits, trainer, self.data)
        if not new:
            record = _resumed(read(folder / "environment.json"), record, trainer.state.step)
        try:
            if new:
                folder.mkdir(parents=True)
                made = True
            replace(folder / "experiment.toml", self.text(experiment))
            _write(folder / "environment.json", record)
            _write(folder / "splits.json", _sides(splits))
        except OSError as error:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"{folder}: can't create the run folder ({error.strerror})") from error
        self.folder = folder
        self.buffer.attach(folder / "run.log")
        if new:
            check.glance(experiment, splits, trainer)

    def result(self, state: State) -> None:
        """Write how the run stands; a disk that refuses is told and hides no other error."""
        if self.rank:
            return
        best = state.best
        content = {
            "status": state.status,
            "reason": state.reason,
            "epochs": state.epoch,
            "steps": state.step,
            "best": {"metric": best.metric, "value": best.value, "step": best.step}
            if best
            else None,
            "metrics": state.metrics,
            "timing": state.timing,
        }
        try:
            _write(state.folder / "result.json", content)
        except OSError as error:
            _log.warning("%s: can't write result.json (%s)", state.folder, error.strerror)


@contextmanager
def records() -> Iterator[RunRecords]:
    """Keep what is said in this context for the run's log."""
    buffer = _Buffer()
    _log.addHandler(buffer)
    try:
        yield RunRecords(buffer)
    finally:
        _log.removeHandler(buffer)
        buffer.close()


def launch() -> str:
    """Name the start of torchrun that this process is of; nothing where it is of none.

    Ids may be given twice; the process that starts the ranks, again and again, is there once.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{name} {os.getppid()}" if name else ""


def _read_metrics(experiment: Experiment, info: Mapping[str, Any], hooks: Hooks) -> None:
    """Hold what callbacks read against what will be computed, now that the data is known."""
    made = build.metrics(experiment, info)()
    names = [(label, name) for label, metric in made.items() for name in metric.names()]
    known = _monitors.losses(_monitors.inner(experiment.loss.options))
    known += ["/".join(filter(None, ("val", *parts))) for parts in names]
    problems = []
    for label, callback in hooks.callbacks.items():
        for name in set(getattr(callback, "reads", ())) - set(known):
            message = f"nothing computes '{name}'{nearest(name, known, 'there are')}"
            problems.append(experiment.draft.problem(("callbacks", label, "monitor"), message))
    if problems:
        raise ExperimentError(problems)


def _environment(
    experiment: Experiment, splits: Splits, trainer: Trainer, data: Mapping[str, str]
) -> dict[str, Any]:
    """Return the record of what a run ran on and with."""
    import torch

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
        "ranks": trainer.state.strategy.world_size,
        "launch": launch(),
        "packages": {**_packages()},
        "plugins": plugins,
        "git": _git(),
        "data": {str(f): data.get(str(f)) or _sha256(splits, f) for f in splits.files},
        "info": splits.info,
        "loss": getattr(trainer.update.loss, "facts", {}),
    }


@functools.cache
def _packages() -> Mapping[str, str]:
    """Return the version of what is installed, by name; read once in a process of several runs."""
    packages = {dist.name: dist.version for dist in distributions()}
    return dict(sorted(packages.items(), key=lambda item: item[0].lower()))


def _sha256(splits: Splits, file: Path) -> str:
    return getattr(splits, "hashes", {}).get(str(file)) or checkpoint.digest(file)


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


def _resumed(before: dict[str, Any], now: dict[str, Any], step: int) -> dict[str, Any]:
    """Return the record of a run that goes on, with what has changed since; that is told."""
    if not before:
        return now
    changes: dict[str, Any] = {}
    for key in ("python", "platform", "device", "precision", "threads", "git", "packages"):
        then, new = before.get(key), now[key]
        if isinstance(new, dict) and isinstance(then, dict):
            changes[key] = {k: v for k, v in new.items() if then.get(k) != v}
        elif then != new:
            changes[key] = new
    known = {part.get("source_sha256") for part in before.get("plugins", [])}
    changed = [part["name"] for part in now["plugins"] if part["source_sha256"] not in known]
    changes = {key: change for key, change in changes.items() if change}
    changes |= {"plugins": changed} if changed else {}
    bits = [key for key in changes if key not in ("git", "platform")]
    if bits:
        _log.warning("%s changed since this run began: it may end in other bits", listing(bits))
    return {**before, "resumed": [*before.get("resumed", []), {"step": step} | changes]}


def _sides(splits: Splits) -> dict[str, list[str]]:
    return {split: list(ids) for split, ids in splits.manifest.items()}


def read(file: Path) -> dict[str, Any]:
    """Read a record; nothing where a run was killed before it stood."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, content: Any) -> None:
    replace(file, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def replace(file: Path, text: str) -> None:
    """Write a file whole or not at all, even if the power goes."""
    part = file.with_name(f".{file.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def plain(content: Any) -> Any:
    """Return content with what JSON has no number for (NaN, infinities) as null."""
    return json.loads(json.dumps(content), parse_constant=lambda _: None)


def source_hash(cls: type[Any]) -> str:
    """SHA-256 of the file that defines a class, for the run's record."""
    file = inspect.getsourcefile(cls)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
