"""Shared by the core's tests: a tiny trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import nn

from framework import build
from framework.batching import Feed
from framework.checkpoint import ModelFiles
from framework.commands import _checkpoints
from framework.hooks import Hooks, hookimpl
from framework.protocols import Labelled, Training
from framework.state import State
from framework.step import Forward, Update
from framework.trainer import Trainer
from plugins.precisions._amp import Amp
from plugins.samplers._bucketed import LiveBucketed
from plugins.strategies.auto import OneProcess

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors on several threads cost a busy machine many times the work itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Two layers, scores of three classes."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Return `logits` [B, 3] of `x` [B, 4]."""
        return {"logits": self.head(torch.tanh(self.body(x)))}


class Modes(Net):
    """Notes in which mode, and with gradients or not, each forward pass ran."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Note."""
        self.seen.append((self.training, torch.is_grad_enabled()))
        return super().forward(x, **batch)


class Processor:
    """Features are the records: an id, a length, a vector and a label."""

    def encode(self, records: Sequence[Any]) -> list[Any]:
        """Return them as they are."""
        return list(records)

    def augment(self, features: Any, rng: Any) -> Any:
        """Change nothing."""
        return features

    def collate(self, features: Sequence[Any]) -> dict[str, Any]:
        """Stack."""
        return {
            "id": [item["id"] for item in features],
            "x": torch.stack([item["x"] for item in features]),
            "labels": torch.tensor([item["label"] for item in features]),
        }

    def decode(self, outputs: Any, batch: Any) -> list[dict[str, Any]]:
        """Return a row per item."""
        found = outputs["logits"].argmax(-1).tolist()
        return [{"id": i, "prediction": p} for i, p in zip(batch["id"], found, strict=True)]


@attrs.define
class LiveModel:
    """A module with its processor."""

    module: nn.Module
    processor: Processor = attrs.field(factory=Processor)

    def labelled(self) -> list[Labelled]:
        """Every parameter."""
        return [Labelled(n, p, "base", 0) for n, p in self.module.named_parameters()]

    def save_assets(self, folder: Path) -> None:
        """Write what a model would."""
        (folder / "config.json").write_text(json.dumps({"layers": 2}))


@attrs.define
class CrossEntropy:
    """Sums over the items whose label is not below 0."""

    coupled: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Items with a label."""
        return {"ce": int((batch["labels"] >= 0).sum())}

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Return the sum."""
        logits = outputs["logits"].float()
        value = nn.functional.cross_entropy(
            logits, batch["labels"], ignore_index=-100, reduction="sum"
        )
        return {"ce": value}


@attrs.define
class Poisoned(CrossEntropy):
    """Gives NaN for a batch with one of some records in it, in training."""

    ids: Collection[str] = ("r7",)

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Poison."""
        found = super().__call__(outputs, batch)
        bad = torch.is_grad_enabled() and not set(self.ids).isdisjoint(batch["id"])
        return {"ce": found["ce"] * (math.nan if bad else 1)}


@attrs.define
class Share:
    """The share of right predictions; names are its own and one more."""

    right: int = 0
    seen: int = 0

    def names(self) -> list[str]:
        """Two values."""
        return ["", "seen"]

    def update(self, outputs: Any, batch: Any) -> None:
        """Count."""
        self.right += int((outputs["logits"].argmax(-1) == batch["labels"]).sum())
        self.seen += len(batch["id"])

    def merge(self, others: Sequence[Share]) -> None:
        """Add."""
        for other in others:
            self.right += other.right
            self.seen += other.seen

    def compute(self) -> dict[str, float]:
        """Divide."""
        return {"": self.right / self.seen, "seen": float(self.seen)}


class Recorder:
    """Notes every hook that is called, with the counters of that moment and what was given."""

    def __init__(self) -> None:
        """Start empty."""
        self.events: list[tuple[str, dict[str, int], Any]] = []

    def _note(self, name: str, state: State, given: Any = None) -> None:
        counters = {"step": state.step, "epoch": state.epoch, "batch": state.batch}
        self.events.append((name, counters, given))

    def names(self) -> list[str]:
        """Return the hooks in the order of their calls."""
        return [name for name, _, _ in self.events]

    def of(self, wanted: str) -> list[tuple[dict[str, int], Any]]:
        """Return counters and arguments of the calls of one hook."""
        return [(counters, given) for name, counters, given in self.events if name == wanted]

    @hookimpl
    def run_start(self, state: State) -> None:
        """Note it."""
        self._note("run_start", state)

    @hookimpl
    def epoch_start(self, state: State) -> None:
        """Note it."""
        self._note("epoch_start", state)

    @hookimpl
    def step_start(self, state: State, window: Any) -> None:
        """Note it."""
        self._note("step_start", state, window)

    @hookimpl
    def step_end(self, state: State, window: Any) -> None:
        """Note it."""
        self._note("step_end", state, window)

    @hookimpl
    def log(self, state: State, point: Any) -> None:
        """Note it."""
        self._note("log", state, dict(point))

    @hookimpl
    def evaluate_start(self, state: State, split: str) -> None:
        """Note it."""
        self._note("evaluate_start", state, split)

    @hookimpl
    def evaluate_end(self, state: State, split: str, metrics: Any) -> None:
        """Note it."""
        self._note("evaluate_end", state, (split, dict(metrics)))

    @hookimpl
    def save_end(self, state: State, folder: Path) -> None:
        """Note it."""
        self._note("save_end", state, folder)

    @hookimpl
    def epoch_end(self, state: State) -> None:
        """Note it."""
        self._note("epoch_end", state)

    @hookimpl
    def run_end(self, state: State) -> None:
        """Note it."""
        self._note("run_end", state)


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return records whose label depends on their vector."""
    generator = torch.Generator().manual_seed(seed)
    xs = torch.randn(count, 4, generator=generator)
    labels = (xs[:, 0] > 0).long() + (xs[:, 1] > 0).long()
    return [
        {"id": f"r{i}", "length": 1 + i % 7, "x": x, "label": int(label)}
        for i, (x, label) in enumerate(zip(xs, labels, strict=True))
    ]


def amp(dtype: torch.dtype = torch.float32) -> Amp:
    """Return a live precision on the CPU."""
    return Amp(str(dtype).removeprefix("torch."), CPU, dtype)


def net(seed: int = 0) -> Net:
    """Return a net with the weights of a seed, leaving the global generator alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def update(module: nn.Module, **settings: Any) -> Update:
    """Return an update over a module: SGD at 0.1, no clipping, a constant schedule."""
    rate = settings.pop("lr", 0.1)
    parts: dict[str, Any] = {
        "forward": Forward(module, settings.pop("precision", None) or amp(), OneProcess(CPU)),
        "loss": CrossEntropy(),
        "optimizer": None,
        "factor": lambda _: 1.0,
        "max_norm": 0.0,
    }
    parts |= settings
    if parts["optimizer"] is None:
        parts["optimizer"] = torch.optim.SGD(module.parameters(), lr=rate)
    for group in parts["optimizer"].param_groups:
        group.setdefault("initial_lr", group["lr"])
    return Update(**parts)


def trainer(folder: Path, callbacks: Mapping[str, Any] | None = None, **settings: Any) -> Trainer:
    """Return a trainer of ten records, four a step, two epochs; each setting can be changed."""
    training: dict[str, Any] = {
        "epochs": 2,
        "steps": 0,
        "batch_size": 4,
        "micro_batch": 0,
        "eval_every": 0,
        "log_every": 10,
        "max_grad_norm": 0.0,
        "deterministic": False,
        "workers": 0,
        "threads": 0,
        "compile": False,
        "on_oom": "stop",
        "on_nonfinite": "stop",
    }
    training |= {key: settings.pop(key) for key in list(settings) if key in training}
    options = Training(**training)
    sizes = settings.pop("sizes", {"train": 10, "val": 6, "test": 5})
    module = settings.pop("module", None) or net()
    rows = settings.pop("rows", {})
    live = LiveModel(module, settings.pop("processor", None) or Processor())
    feeds = {
        split: Feed(
            processor=live.processor,
            features=records(size, seed=index),
            sampler=LiveBucketed(),
            batch_size=options.batch_size,
            micro_batch=options.micro_batch,
            seed=7,
            workers=options.workers,
        )
        for index, (split, size) in enumerate(sizes.items())
    }
    steps = math.ceil(sizes["train"] / options.batch_size)
    total = options.epochs * steps

    @contextmanager
    def sink(split: str) -> Iterator[Any]:
        yield rows.setdefault(split, []).extend

    step = update(module, max_norm=options.max_grad_norm, **settings)
    state = State(
        folder=folder,
        name="tiny",
        model=live,
        optimizer=step.optimizer,
        schedule=step.factor,
        training=options,
        strategy=step.forward.strategy,
        epochs=options.epochs,
        steps_per_epoch=steps,
        total_steps=min(options.steps, total) if options.steps else total,
        items_per_epoch=sizes["train"],
        micro_batch=options.micro_batch,
    )
    return build.assembled(
        ModelFiles({"labels": ["a", "b", "c"]}, 'name = "tiny"\n'),
        state=state,
        update=step,
        hooks=Hooks(callbacks or {}),
        feeds=feeds,
        metrics=lambda: {"right": Share()},
        rows=sink,
        verify=_checkpoints.verify,
    )


def weights(module: nn.Module) -> torch.Tensor:
    """Return all weights in one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def fitted(folder: Path, callbacks: Any = None, **settings: Any) -> tuple[Any, Recorder]:
    """Train; the trainer, and what was called."""
    recorder = Recorder()
    run = trainer(folder, {**(callbacks or {}), "recorder": recorder}, **settings)
    run.fit()
    return run, recorder


@attrs.define
class At:
    """Does something at a hook, once, when the run is at some step."""

    hook: str
    step: int
    act: Any
    split: str = "val"
    done: bool = False

    def _look(self, hook: str, state: Any) -> None:
        if hook == self.hook and state.step == self.step and not self.done:
            self.done = True
            self.act(state)

    @hookimpl
    def epoch_start(self, state: Any) -> None:
        """Look."""
        self._look("epoch_start", state)

    @hookimpl
    def step_start(self, state: Any) -> None:
        """Look."""
        self._look("step_start", state)

    @hookimpl
    def step_end(self, state: Any) -> None:
        """Look."""
        self._look("step_end", state)

    @hookimpl
    def evaluate_start(self, state: Any, split: str) -> None:
        """Look, at evaluations of one split."""
        if split == self.split:
            self._look("evaluate_start", state)

    @hookimpl
    def evaluate_end(self, state: Any, split: str) -> None:
        """Look, at evaluations of one split."""
        if split == self.split:
            self._look("evaluate_end", state)

    @hookimpl
    def epoch_end(self, state: Any) -> None:
        """Look."""
        self._look("epoch_end", state)
