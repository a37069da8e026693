"""Shared by the tests of resuming: runs that are ended anywhere, and what must not depend on it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from tiny_parts import Net, Poisoned, Processor, amp, trainer
from torch import nn

from framework import checkpoint
from framework.commands import _checkpoints
from framework.commands._checkpoints import newest
from framework.hooks import hookimpl
from framework.state import State
from framework.trainer import Trainer
from plugins.callbacks.checkpoint import Checkpoint
from plugins.callbacks.early_stopping import EarlyStopping
from plugins.callbacks.guard import Guard
from plugins.callbacks.jsonl import Jsonl


class Noisy(Net):
    """A net that draws from every global generator in training."""

    def __init__(self) -> None:
        """Add dropout."""
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Shift by a number of Python's and of numpy's generator, and drop out."""
        if self.training:
            x = x + random.gauss(0, 0.1) + float(np.random.normal()) / 10  # noqa: NPY002
        return super().forward(self.drop(x), **batch)


class Tied(Net):
    """A net two of whose parameters are one."""

    def __init__(self) -> None:
        """Tie a copy of the body to it."""
        super().__init__()
        self.twin = nn.Linear(4, 8)
        self.twin.weight = self.body.weight

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Use both."""
        return {"logits": self.head(torch.tanh(self.body(x) + self.twin(x)))}


class Augmenting(Processor):
    """Shifts each record at random, by its own generator."""

    def augment(self, features: Any, rng: np.random.Generator) -> Any:
        """Shift."""
        noise = torch.from_numpy(rng.normal(size=4).astype(np.float32))
        return features | {"x": features["x"] + noise}


def checkpoints(**options: Any) -> Callable[[], dict[str, Any]]:
    """Return a maker of the checkpoint callback."""
    return lambda: {"checkpoint": Checkpoint(**options).build()}


def _stopping() -> dict[str, Any]:
    # a metric that never improves: it stops after the fourth evaluation
    early = EarlyStopping(monitor="val/right/seen", mode="max", patience=3)
    return checkpoints()() | {"early": early.build()}


def _guarded() -> dict[str, Any]:
    return checkpoints()() | {"guard": Guard(patience=2).build()}


@attrs.frozen
class Case:
    """A training to be ended and taken up again."""

    settings: Mapping[str, Any] = attrs.field(factory=dict)
    callbacks: Callable[[], dict[str, Any]] = attrs.field(factory=checkpoints)
    module: type[nn.Module] = Noisy
    processor: type[Processor] = Processor
    scale: float = 0.0
    """What a float16 precision's scaler starts with; 0: float32."""

    def trainer(
        self, folder: Path, callbacks: Mapping[str, Any], seed: int, **more: Any
    ) -> Trainer:
        """Return a fresh trainer as a process has it that was seeded so."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        module = self.module()
        settings: dict[str, Any] = {"micro_batch": 3, "log_every": 2, "max_grad_norm": 1.0}
        settings |= {"factor": lambda step: 1 / (1 + step)} | dict(self.settings)
        if self.scale:
            settings["precision"] = amp(torch.float16)
            start = settings["precision"].scaler.state_dict() | {"scale": self.scale}
            settings["precision"].scaler.load_state_dict(start)
        made = {"jsonl": Jsonl().build(), **self.callbacks(), **callbacks}
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
        given = {"module": module, "optimizer": optimizer, "processor": self.processor()}
        return trainer(folder, made, **given, **settings, **more)


CASES = {
    "evaluated every two steps": Case({"eval_every": 2}),
    "evaluated every epoch": Case(),
    "evaluated every step": Case({"micro_batch": 0, "eval_every": 1, "log_every": 3}),
    "steps end in mid-epoch": Case({"steps": 5, "eval_every": 2}),
    "no checkpoint but the interrupt's": Case({"eval_every": 2}, dict),
    "nor an epoch's end": Case({"eval_every": 2, "steps": 5}, dict),
    "a checkpoint every step": Case({"eval_every": 4}, checkpoints(every_steps=1)),
    "stopped early in mid-epoch": Case({"eval_every": 1, "epochs": 3}, _stopping),
    "float16 that overflows": Case({"eval_every": 2, "epochs": 3}, scale=2.0**22),
    "augmented at random": Case({"eval_every": 2}, processor=Augmenting),
    "tied weights": Case({"eval_every": 2}, module=Tied),
    "steps left out": Case({"eval_every": 2, "loss": Poisoned(), "on_nonfinite": "skip"}, _guarded),
    "not validated": Case({"sizes": {"train": 10, "test": 5}}, checkpoints(every_steps=2)),
}


SEVERAL = Case({"eval_every": 2}, checkpoints(every_steps=1, keep=3))
"""A training that leaves three checkpoints at any time."""
LAST = 28
"""The call of a hook at which the fifth of its steps has been saved."""


class Killed(BaseException):
    """The end of a process, as it looks from inside."""


@attrs.define
class Moments:
    """Counts the calls of hooks, and does something at one of them."""

    at: int = -1
    act: Callable[[State], None] = lambda _: None
    names: list[str] = attrs.field(factory=list)

    def _pass(self, name: str, state: State) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self.at:
            self.act(state)

    @hookimpl
    def run_start(self, state: Any) -> None:
        """Count."""
        self._pass("run_start", state)

    @hookimpl
    def epoch_start(self, state: Any) -> None:
        """Count."""
        self._pass("epoch_start", state)

    @hookimpl
    def step_start(self, state: Any) -> None:
        """Count."""
        self._pass("step_start", state)

    @hookimpl
    def step_end(self, state: Any) -> None:
        """Count."""
        self._pass("step_end", state)

    @hookimpl
    def log(self, state: Any) -> None:
        """Count."""
        self._pass("log", state)

    @hookimpl
    def evaluate_start(self, state: Any, split: str) -> None:
        """Count."""
        self._pass(f"evaluate_start {split}", state)

    @hookimpl
    def evaluate_end(self, state: Any, split: str) -> None:
        """Count."""
        self._pass(f"evaluate_end {split}", state)

    @hookimpl
    def save_end(self, state: Any) -> None:
        """Count."""
        self._pass("save_end", state)

    @hookimpl
    def epoch_end(self, state: Any) -> None:
        """Count."""
        self._pass("epoch_end", state)


@attrs.define
class Wishes:
    """Asks for a checkpoint each step, and calls some of them the best."""

    best: tuple[int, ...]

    @hookimpl
    def step_end(self, state: Any) -> None:
        """Ask."""
        state.save("last")
        if state.step in self.best:
            state.save("best", metric="val/mine", value=float(state.step))


@attrs.define
class Past:
    """Remembers what has happened up to each checkpoint, and goes on from there."""

    events: list[Any] = attrs.field(factory=list)

    @hookimpl
    def step_start(self, state: Any, window: Any) -> None:
        """Note the records."""
        self.events.append(["step_start", state.step, [list(batch["id"]) for batch in window]])

    @hookimpl
    def step_end(self, state: Any, loss: Any, norm: Any) -> None:
        """Note the counters and, bit by bit, the numbers."""
        counters = [state.epoch, state.batch, state.step, state.items, state.missed]
        numbers = [{name: value.item() for name, value in loss.items()}, norm.item()]
        self.events.append(["step_end", counters, numbers, state.learning_rate])

    @hookimpl
    def evaluate_end(self, state: Any, split: str, metrics: Any) -> None:
        """Note the values, and draw a number, as whoever watches may."""
        drawn = float(torch.rand(()))
        self.events.append(["evaluate_end", state.step, split, dict(metrics), drawn])

    @hookimpl
    def epoch_end(self, state: Any) -> None:
        """Note the counters."""
        self.events.append(["epoch_end", state.epoch, state.batch, state.step])

    def state_dict(self) -> dict[str, Any]:
        """All events."""
        return {"events": self.events}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved events."""
        self.events = list(state["events"])


@attrs.frozen
class Ended:
    """How one process of a run ended."""

    status: str
    moments: list[str]
    found: str
    """The checkpoint that it went on from."""
    outcome: dict[str, Any]
    """All that must not depend on where a run was ended; fingerprints of tensors."""


def process(
    folder: Path,
    case: Case,
    at: int = -1,
    act: Callable[[State], None] = lambda _: None,
    *,
    first: bool = False,
) -> Ended:
    """Run a case in a folder as one process does, from the newest checkpoint if there is one.

    At the `at`-th hook call something may be done, before the other callbacks or after them.
    """
    folder.mkdir(exist_ok=True)
    found = newest(folder / "checkpoints")
    moments, past = Moments(at, act), Past()
    watching: dict[str, Any] = {"past": past}
    watching = {"moments": moments, **watching} if first else {**watching, "moments": moments}
    # a process that goes on must not owe its numbers to how it began
    rows: dict[str, list[Any]] = {}
    run = case.trainer(folder, watching, seed=99 if found else 7, rows=rows)
    state = run.state
    if found:
        run.keeper.resume(state, *found)
    try:
        run.hooks.call.run_start(state=state)
        run.fit()
        if state.status == "running":
            state.status, state.reason = "completed", "all steps were taken"
    except Killed:
        state.status = "killed"
    finally:
        run.keeper.pool.shutdown()
    name = found[0].name if found else ""
    return Ended(state.status, moments.names, name, _outcome(run, rows))


def until_it_ends(folder: Path, case: Case) -> Ended:
    """Go on with a run to its end."""
    ended = process(folder, case)
    assert ended.status in ("completed", "stopped_early")
    return ended


def interrupt(state: State) -> None:
    """Ask for the end of the run as a signal does."""
    state.stop("received SIGTERM", "interrupted")


def kill(_: State) -> None:
    """End the process."""
    raise Killed


def rewound(folder: Path, step: int) -> None:
    """Leave of a run what was there when a process was killed behind the checkpoint of a step."""
    root = folder / "checkpoints"
    for path in root.glob("step-*"):
        if int(path.name[5:]) > step:
            _remove(path)
    checkpoint.link(root / f"step-{step}", "last")
    best = _checkpoints.read(root / f"step-{step}")["counters"]["best"]
    if best:
        checkpoint.link(root / f"step-{best['step']}", "best")


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    steps = (folder / "checkpoints").glob("step-*")
    return sorted(steps, key=lambda path: int(path.name[5:]), reverse=True)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _outcome(run: Trainer, rows: Mapping[str, Any]) -> dict[str, Any]:
    state = run.state
    counters = {k: v for k, v in state.counters().items() if k not in ("timing", "elapsed")}
    hooks = run.hooks.state_dict()
    # when it was asked for a checkpoint is the process's own
    hooks["checkpoint"] = {k: v for k, v in hooks.get("checkpoint", {}).items() if k == "best"}
    # a file with times in it has another size each time; its points are compared
    del hooks["jsonl"]
    file = state.folder / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    points = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
    python = random.getstate()
    numpy = np.random.get_state()[1].tolist(), np.random.get_state()[2:]  # noqa: NPY002
    found = {
        "weights": state.model.module.state_dict(),
        "optimizer": run.update.optimizer.state_dict(),
        "precision": run.update.forward.precision.state_dict(),
        "recent": run.recent.state_dict(),
        "counters": counters,
        "metrics": state.metrics,
        "ended": (state.status, state.reason),
        "hooks": hooks,
        "points": points,
        "rows": rows,
        "random": (torch.get_rng_state(), python, numpy),
    }
    return {name: fingerprint(value) for name, value in found.items()}


def fingerprint(value: Any) -> Any:
    """Return a value that is equal to another's exactly where all bits are; NaN equals itself."""
    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()
    if isinstance(value, Mapping):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    return repr(value) if isinstance(value, float) else value


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names under which two outcomes differ."""
    return [name for name in one if one[name] != other[name]]
