"""What one step computes: the forward pass, the optimizer's update, the sums of an evaluation."""

from __future__ import annotations

import functools
import logging
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from framework.errors import RunError
from framework.protocols import Batch, LiveLoss, LiveMetric, LivePrecision, LiveStrategy, Outputs
from framework.state import Missed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_log = logging.getLogger("framework")
Window = Sequence[Batch]


class OutOfMemory(Exception):  # noqa: N818 - what the field calls it
    """The device or the machine has no memory for this; nothing of the attempt is kept."""


@attrs.frozen
class Forward:
    """The forward pass: a module on its device, under its precision."""

    module: nn.Module
    precision: LivePrecision
    strategy: LiveStrategy

    def __call__(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Return the outputs of a batch, and the batch on the device."""
        from torch import Tensor

        device = self.strategy.device
        placed = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        with self.precision.autocast():
            return self.module(**placed), placed


@attrs.frozen
class Update:
    """One optimizer step over a window of micro-batches.

    The sums of each part of the loss are divided by the part's count over the whole window and
    all ranks, so that accumulation, ranks and ragged batches equal the large batch.
    """

    forward: Forward
    loss: LiveLoss
    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]
    max_norm: float

    def __call__(self, window: Window, step: int) -> tuple[dict[str, Tensor], Tensor, Missed]:
        """Take the step with the schedule's factor for `step`.

        Returns the means of the loss's parts over all ranks and the gradient norm, all on the
        device, and what kept the step from being taken: a loss or gradient that is not finite
        leaves the weights as they were. Raises `OutOfMemory` with the gradients cleared.
        """
        import torch

        try:
            means = self._backward(window)
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error):
                raise
            means = {}
        if not means:
            # out here the failed attempt is no longer held by its traceback
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            raise OutOfMemory
        strategy = self.forward.strategy
        if strategy.world_size > 1:
            # each has only its items' part: one that isn't finite is met by all of them
            ranks = strategy.gather([value.item() for value in means.values()])
            whole = torch.tensor(ranks, dtype=torch.float64).sum(0)
            means = dict(zip(means, whole.to(strategy.device), strict=True))
        if not math.isfinite(_total(means)):
            self.optimizer.zero_grad()
            return means, torch.tensor(torch.nan, device=strategy.device), "loss"
        groups = self.optimizer.param_groups
        for group in groups:
            group["lr"] = group["initial_lr"] * self.factor(step)
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm, taken = self.forward.precision.step(self.optimizer, parameters, self.max_norm)
        if taken:
            return means, norm, ""
        return means, norm, "overflow" if self.forward.precision.scaled else "gradient"

    def _backward(self, window: Window) -> dict[str, Tensor]:
        """Add up the window's gradients; the means of the loss's parts."""
        strategy, counts = self.forward.strategy, defaultdict[str, int](int)
        for batch in window:
            for part, count in self.loss.counts(batch).items():
                counts[part] += count if batch["id"] else 0
        totals = strategy.sum(counts)
        means: dict[str, Tensor] = {}
        for batch in window:
            # what a batch of nobody adds is 0
            over = {k: max(n, 1) if batch["id"] else math.inf for k, n in totals.items()}
            with strategy.accumulate(self.forward.module, last=batch is window[-1]):
                sums = self.loss(*self.forward(batch))
                parts = {part: value / over[part] for part, value in sums.items()}
                self.forward.precision.backward(_total(parts))
            for part, value in parts.items():
                means[part] = means[part] + value.detach() if part in means else value.detach()
        return means

    @property
    def learning_rate(self) -> float:
        """The highest rate of the last step."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))


def _total(parts: Mapping[str, Tensor]) -> Tensor:
    return functools.reduce(operator.add, parts.values())


def exhausted(error: Exception) -> bool:
    """Return whether an error says that memory has run out."""
    import torch

    # the allocator of the CPU has no type of error of its own
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


@attrs.define
class Tally:
    """The losses and metrics of one evaluation."""

    forward: Forward
    loss: LiveLoss
    metrics: Mapping[str, LiveMetric]
    sums: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    counts: dict[str, int] = attrs.field(factory=lambda: defaultdict(int))

    def add(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Evaluate a batch; its outputs, and the batch on the device."""
        import torch

        with torch.inference_mode():
            outputs, placed = self.forward(batch)
            if batch["id"]:  # of nobody nothing counts
                for part, value in self.loss(outputs, placed).items():
                    self.sums[part] += float(value)
                for part, count in self.loss.counts(batch).items():
                    self.counts[part] += count
                for metric in self.metrics.values():
                    metric.update(outputs, placed)
        return outputs, placed

    def values(self) -> dict[str, float]:
        """Merge over ranks, compute, and name every value; a loss of nobody is NaN, and not 0."""
        ranks = self.forward.strategy.gather((self.metrics, self.sums, self.counts))
        # in one order everywhere: ranks must not differ by a bit in what they decide by
        first, *others = (rank[0] for rank in ranks)
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for _, sums, counts in ranks:
            for part, value in sums.items():
                totals[part][0] += value
                totals[part][1] += counts[part]
        losses = {p: total / count if count else math.nan for p, (total, count) in totals.items()}
        named = with_total(losses)
        for label, metric in first.items():
            metric.merge([metrics[label] for metrics in others])
            for name, value in metric.compute().items():
                named[f"{label}/{name}" if name else label] = float(value)
        return named


@attrs.define
class Recent:
    """The steps since the last logged point: losses and gradient norms, on the device."""

    device: torch.device
    steps: list[dict[str, Tensor]] = attrs.field(factory=list)

    def add(self, loss: Mapping[str, Tensor], norm: Tensor) -> None:
        """Keep a step's."""
        self.steps.append({**loss, "": norm})

    def take(self) -> dict[str, float]:
        """Return the means, and forget the steps: the one place where training reads the device.

        What isn't finite is left out: a step that loss scaling skipped has no norm.
        """
        import torch

        steps, self.steps = self.steps, []
        read = torch.stack([step[name] for step in steps for name in steps[0]]).tolist()
        means = {}
        for at, name in enumerate(steps[0]):
            finite = [*filter(math.isfinite, read[at :: len(steps[0])])]
            means[name] = sum(finite) / len(finite) if finite else math.nan
        norm = means.pop("")
        return with_total(means) | {"grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """The steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved steps."""
        self.steps = [{k: v.to(self.device) for k, v in step.items()} for step in state["steps"]]


def halved(window: Window, step: int, on_oom: str) -> int:
    """Return the next smaller micro-batch after memory ran out; `RunError` where there is none."""
    size = max(len(batch["id"]) for batch in window)
    what = f"step {step}: out of memory with {size} items at once"
    if size == 1:
        raise RunError(f"{what}; the model or its longest record is too large")
    if on_oom != "split":
        advice = f"set trainer.micro_batch to {size // 2}, or trainer.on_oom to 'split'"
        raise RunError(f"{what}; {advice}")
    _log.warning("%s; going on with %s, the step stays as large", what, (size + 1) // 2)
    return (size + 1) // 2


def with_total(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of a loss and their sum, `loss`; a single part is just that."""
    total = {"loss": sum(parts.values())}
    return total if len(parts) == 1 else total | {f"loss/{n}": v for n, v in parts.items()}
