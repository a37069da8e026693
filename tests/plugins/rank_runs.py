"""Small runs on several ranks, and what of them is held against one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from framework.batching import Feed
from framework.protocols import LiveStrategy, Outputs
from framework.step import Forward, Update
from plugins.precisions.fp32 import Fp32
from plugins.samplers.random import LiveRandom
from plugins.samplers.tokens import Tokens
from tests.faults import ranks
from tests.faults.parts import IGNORED, Layers, Letters, Texts
from tests.faults.processes import Ended


class Options(Protocol):
    """Options of a strategy."""

    def build(self) -> LiveStrategy:
        """Join the ranks."""


def done(folder: Path, many: int, *sets: str, resume: bool = False) -> tuple[Path, list[Ended]]:
    """Run to the end on so many ranks; the run folder, and how each rank ended."""
    ended = ranks.started(folder, many, *sets, resume=resume).wait()
    assert [each.code for each in ended] == [0] * many, ended[0].err + ended[-1].err
    (run,) = folder.glob("runs/fault/*")
    return run, ended


def weights(run: Path) -> dict[str, Tensor]:
    """The weights that a run ended with."""
    return load_file(run / "checkpoints" / "last" / "model" / "model.safetensors")


def farthest(found: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """The largest difference, relative to each tensor's largest number."""
    scales = {name: float(value.abs().max()) or 1.0 for name, value in right.items()}
    return max(float((found[name] - right[name]).abs().max()) / scales[name] for name in right)


def signal_at(step: int, number: int, rank: int) -> str:
    """Settings of a callback that sends a rank a signal after a step."""
    given = f"process=0, number={int(number)}, step={step}, rank={rank}, pause=0.0"
    return f"callbacks.one={{use='fault_signal', {given}}}"


class Parts:
    """A loss of three parts that count different things; the last is often of nobody."""

    coupled = False

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Labelled items, letters, and items of one rare label."""
        labels_B = batch["labels"]
        return {
            "ce": int((labels_B != IGNORED).sum()),
            "letters": int((batch["letters"] > 0).sum()),
            "rare": int((labels_B == 2).sum()),
        }

    def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sums."""
        logits_BC, labels_B = outputs["logits"], batch["labels"]
        ce = nn.functional.cross_entropy(logits_BC, labels_B, reduction="sum", ignore_index=IGNORED)
        letters_B = (batch["letters"] > 0).sum(-1)
        return {
            "ce": ce,
            "letters": 0.1 * (letters_B * logits_BC.square().sum(-1)).sum(),
            "rare": 3.0 * logits_BC[labels_B == 2].logsumexp(-1).sum(),
        }


class Stack(nn.Module):
    """Layers in a list, as transformers have them; two of them have the same weights."""

    def __init__(self, width: int) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Linear(8, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.layers[3].weight = self.layers[2].weight

    def forward(self, hidden_BH: Tensor) -> Tensor:
        """Return [B, H]."""
        hidden_BH = self.first(hidden_BH)
        for layer in self.layers:
            hidden_BH = hidden_BH + torch.tanh(layer(hidden_BH))
        return hidden_BH


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor that ranks may have shared out."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


@attrs.frozen
class Cut:
    """How an epoch is cut into steps and micro-batches."""

    records: int
    batch_size: int
    micro_batch: int = 0
    tokens: int = 0
    dtype: torch.dtype = torch.float64
    norm: float = 0.0


CUTS = [
    Cut(24, 8, norm=0.1),
    Cut(25, 8),  # the last step has one record, and other ranks nobody
    Cut(26, 8, micro_batch=2),
    Cut(23, 7, micro_batch=1),
    Cut(5, 1),
    Cut(1, 4),
    Cut(31, 9, tokens=24),  # ranks have different numbers of micro-batches
    Cut(31, 10, micro_batch=3, tokens=30),
    Cut(29, 6, dtype=torch.float32),
    Cut(31, 9, tokens=24, dtype=torch.float32),
]
Steps = list[dict[str, Tensor]]


def trained(cut: Cut, strategy: LiveStrategy) -> tuple[Steps, dict[str, Tensor], Steps]:
    """Train an epoch: each step's gradients, the weights at the end, each step's losses."""
    torch.manual_seed(3)
    module = Layers(3, 0.0)
    module.body = Stack(16)
    module.to(cut.dtype)
    splits = Texts(count=cut.records, unlabelled=0.3).build(5)
    letters = Letters(splits.info)
    sampler = Tokens(budget=cut.tokens).build() if cut.tokens else LiveRandom()
    sizes = cut.batch_size, cut.micro_batch, 7, 0, strategy.rank, strategy.world_size
    feed = Feed(letters, letters.encode(splits["train"]), sampler, *sizes)
    forward = Forward(strategy.wrap(module), Fp32().build(torch.device("cpu")), strategy)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    update = Update(forward, Parts(), optimizer, lambda _: 1.0, cut.norm)
    gradients: Steps = []

    def note(*_: object) -> None:
        named = module.named_parameters()
        gradients.append({name: whole(p.grad) for name, p in named if p.grad is not None})

    optimizer.register_step_pre_hook(note)
    losses = [update(window, step)[0] for step, window in enumerate(feed.epoch(0))]
    return gradients, {k: whole(v) for k, v in module.state_dict().items()}, losses


def shared_by(options: Options, folder: Path, many: int) -> list[Any]:
    """What so many ranks make of all cuts: of each rank, of each cut."""

    def work() -> None:
        live = options.build()
        torch.save([trained(cut, live) for cut in CUTS], f"{live.rank}.pt")

    folder.mkdir()
    for ended in ranks.together(many, work, folder).wait():
        assert ended.code == 0, ended.err
    return [torch.load(folder / f"{rank}.pt") for rank in range(many)]


def shown(options: Options, folder: Path, many: int, tell: Callable[[], object]) -> list[str]:
    """What each of so many ranks tells of something."""

    def work() -> None:
        options.build()
        Path(f"told-{os.environ['RANK']}").write_text(str(tell()))

    ended = ranks.together(many, work, folder).wait()
    assert [each.code for each in ended] == [0] * many, ended[0].err
    return [(folder / f"told-{rank}").read_text() for rank in range(many)]
