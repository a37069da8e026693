"""A training of a fraction of a second: the real trainer, over parts as small as they can be.

Its module has dropout, so that whoever draws from a global generator changes the weights.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from framework import build
from framework.batching import Feed
from framework.checkpoint import ModelFiles
from framework.hooks import Hooks
from framework.protocols import Batch, Features, Labelled, Outputs, Processor, Row, Training
from framework.state import State
from framework.step import Forward, Update
from framework.testing.values import seeded
from framework.testing.watching import TEXT, Planned
from framework.trainer import Sink, Trainer

CLASSES = 3
SIZES = {"train": 15, "val": 6, "test": 6}
TRAINING = Training(
    epochs=4,
    steps=0,
    batch_size=4,
    micro_batch=2,
    eval_every=2,
    log_every=1,
    max_grad_norm=1.0,
    deterministic=False,
    workers=0,
    threads=0,
    compile=False,
    on_oom="stop",
    on_nonfinite="stop",
)
STEPS_PER_EPOCH = 4
STEPS = TRAINING.epochs * STEPS_PER_EPOCH
EXPERIMENT = 'name = "tiny"\nseed = 42\n'


class Net(nn.Module):
    """Two layers with dropout between them."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return `logits` [B, C] of `x` [B, 4]."""
        return {"logits": self.head(self.dropout(torch.tanh(self.body(x))))}


class TinyProcessor:
    """Its features are ready made."""

    def encode(self, records: Sequence[Any]) -> list[Features]:
        """Return them as they are."""
        return list(records)

    def augment(self, features: Features, rng: np.random.Generator) -> Features:  # noqa: ARG002
        """Nothing is changed."""
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Stack the vectors and labels."""
        return {
            "id": [item["id"] for item in features],
            "x": torch.stack([item["x"] for item in features]),
            "labels": torch.tensor([item["label"] for item in features]),
            "texts": [TEXT for _ in features],
        }

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return an id and a prediction per item."""
        found = outputs["logits"].argmax(-1).tolist()
        return [{"id": i, "prediction": p} for i, p in zip(batch["id"], found, strict=True)]


@attrs.define
class TinyModel:
    """The network with its processor."""

    module: nn.Module = attrs.field(factory=Net)
    processor: Processor = attrs.field(factory=TinyProcessor)

    def labelled(self) -> list[Labelled]:
        """Every parameter."""
        return [
            Labelled(name, parameter, "head" if name.startswith("head") else "base", 0)
            for name, parameter in self.module.named_parameters()
        ]

    def save_assets(self, folder: Path) -> None:
        """Write what a model would."""
        (folder / "config.json").write_text(json.dumps({"size": 8}), encoding="utf-8")


@attrs.define
class TinyLoss:
    """Cross-entropy."""

    coupled: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count the items."""
        return {"loss": len(batch["id"])}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the sum over them."""
        value = nn.functional.cross_entropy(outputs["logits"], batch["labels"], reduction="sum")
        return {"loss": value}


@attrs.define
class TinyMetric:
    """The share of right predictions, under whatever name."""

    right: int = 0
    seen: int = 0

    def names(self) -> Sequence[str]:
        """Return its label's own."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch."""
        self.right += int((outputs["logits"].argmax(-1) == batch["labels"]).sum())
        self.seen += len(batch["id"])

    def merge(self, others: Sequence[Any]) -> None:
        """Take in what other ranks saw."""
        self.right += sum(other.right for other in others)
        self.seen += sum(other.seen for other in others)

    def compute(self) -> dict[str, float]:
        """Return the share."""
        return {"": self.right / self.seen}


@attrs.define
class TinyPrecision:
    """Float32, without scaling."""

    name: str = "fp32"
    scaled: bool = False
    forward: Callable[[], None] = lambda: None
    """Is called at every forward pass."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        self.forward()
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> tuple[Tensor, bool]:
        """Clip, step and clear."""
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        optimizer.zero_grad()
        return norm, True

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: it has no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""


@attrs.define
class TinyStrategy:
    """One process on the CPU."""

    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))
    world_size: int = 1
    rank: int = 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module as it is."""
        return module

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        """Gradients add up by themselves."""
        return nullcontext()

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the counts as they are."""
        return dict(counts)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of the only rank."""
        return [value]


def run(
    callbacks: Mapping[str, object],
    metrics: Collection[str] = (),
    forward: Callable[[], None] = lambda: None,
) -> State:
    """Train to the end with some callbacks, as `framework.run` does, in a folder that goes away.

    It evaluates `loss`, `accuracy`, `f1` and whatever is named in `metrics`. A callback's
    error is raised once every `run_end` was called; one that is `Planned` ends there. `forward` is
    called at every forward pass.
    """
    hooks = Hooks(callbacks)
    with tempfile.TemporaryDirectory() as folder, seeded(42):
        trainer = _trainer(hooks, Path(folder) / "tiny-run", {"accuracy", "f1", *metrics}, forward)
        state = trainer.state
        _records(state)
        try:
            hooks.call.run_start(state=state)
            trainer.fit()
            if state.status == "running":
                state.status, state.reason = "completed", "all steps were taken"
        except BaseException as error:
            state.status, state.reason = "failed", str(error)
            if not isinstance(error, Planned):
                raise
        finally:
            trainer.keeper.pool.shutdown()
            hooks.finish(state)
            state.closing.close()
    return state


class TinySampler:
    """Takes records as they stand."""

    budget = 0

    def __call__(self, lengths: Any, batch_size: int, _: Any, /) -> list[Any]:
        """Return the steps of an epoch."""
        every = np.arange(len(lengths))
        return [every[at : at + batch_size] for at in range(0, len(every), batch_size)]


def _trainer(
    hooks: Hooks, folder: Path, metrics: Collection[str], ahead: Callable[[], None]
) -> Trainer:
    model = TinyModel()
    generator = torch.Generator().manual_seed(7)
    feeds = {}
    for split, size in SIZES.items():
        vectors = torch.randn(size, 4, generator=generator)
        features = [
            {"id": f"{split}{index}", "length": 4, "x": vectors[index], "label": index % CLASSES}
            for index in range(size)
        ]
        feeds[split] = Feed(
            model.processor, features, TinySampler(), TRAINING.batch_size, TRAINING.micro_batch
        )
    optimizer = torch.optim.SGD([{"params": [*model.module.parameters()]}], lr=0.5)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    constant: Callable[[int], float] = lambda _: 1.0  # noqa: E731 - a typed scheduler
    state = State(
        folder=folder,
        name="tiny",
        model=model,
        optimizer=optimizer,
        schedule=constant,
        training=TRAINING,
        strategy=TinyStrategy(),
        epochs=TRAINING.epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=STEPS,
        items_per_epoch=SIZES["train"],
        started=time.time(),
    )
    forward = Forward(model.module, TinyPrecision(forward=ahead), TinyStrategy())
    return build.assembled(
        ModelFiles({"labels": ["a", "b", "c"]}, EXPERIMENT),
        state=state,
        update=Update(forward, TinyLoss(), optimizer, constant, TRAINING.max_grad_norm),
        hooks=hooks,
        feeds=feeds,
        # the loss's own name would be taken over by a metric's
        metrics=lambda: {name: TinyMetric() for name in sorted(set(metrics) - {"loss"})},
        rows=_nowhere,
    )


@contextmanager
def _nowhere(_: str) -> Iterator[Sink]:
    yield lambda _: None


def _records(state: State) -> None:
    """Write the files that a callback finds in every run folder."""
    state.folder.mkdir()
    contents: dict[str, Any] = {
        "environment.json": {"python": "3", "device": "cpu", "packages": {}, "git": {}, "info": {}},
        "splits.json": {split: [] for split in SIZES},
        "result.json": {"status": state.status},
    }
    for name, content in contents.items():
        (state.folder / name).write_text(json.dumps(content), encoding="utf-8")
    (state.folder / "experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
