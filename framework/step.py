"""What one step computes: the forward pass, the optimizer's update, the sums of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from framework.errors import RunError
from framework.protocols import Batch, LiveLoss, LiveMetric, LivePrecision, LiveStrategy, Outputs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Window = Sequence[Batch]


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


@attrs.frozen(kw_only=True)
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

    def __call__(self, window: Window, step: int) -> tuple[dict[str, Tensor], bool]:
        """Take the step with the schedule's factor for `step`.

        Returns the means of the loss's parts and, under an empty name, the gradient norm, all
        still on the device; and whether the step was taken. Raises `RunError`, with the weights
        as they were, for a loss or gradient that is not finite.
        """
        import torch

        counts: dict[str, int] = defaultdict(int)
        for batch in window:
            for part, count in self.loss.counts(batch).items():
                counts[part] += count
        totals = self.forward.strategy.sum(counts)
        means: dict[str, Tensor] = {}
        for batch in window:
            sums = self.loss(*self.forward(batch))
            parts = {part: value / max(totals[part], 1) for part, value in sums.items()}
            self.forward.precision.backward(torch.stack(list(parts.values())).sum())
            for part, value in parts.items():
                means[part] = means[part] + value.detach() if part in means else value.detach()
        if not torch.stack(list(means.values())).isfinite().all():
            raise self._refusal(means, window, "")
        groups = self.optimizer.param_groups
        for group in groups:
            group["lr"] = group["initial_lr"] * self.factor(step)
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm, taken = self.forward.precision.step(self.optimizer, parameters, self.max_norm)
        if not (taken or self.forward.precision.scaled):
            raise self._refusal(means, window, f" and the gradient norm {float(norm)}")
        return means | {"": norm}, taken

    @property
    def learning_rate(self) -> float:
        """The highest rate of the last step."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def _refusal(self, means: Mapping[str, Tensor], window: Window, norm: str) -> RunError:
        self.optimizer.zero_grad()
        parts = {part: float(value) for part, value in means.items()}
        ids = ", ".join(str(record) for batch in window for record in batch["id"])
        return RunError(
            f"the loss is {parts}{norm}; the weights were left as they were before this step."
            f" Lower the learning rate or look at its records: {ids}"
        )


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
        outputs, placed = self.forward(batch)
        for part, value in self.loss(outputs, placed).items():
            self.sums[part] += float(value)
        for part, count in self.loss.counts(batch).items():
            self.counts[part] += count
        for metric in self.metrics.values():
            metric.update(outputs, placed)
        return outputs, placed

    def values(self) -> dict[str, float]:
        """Merge over ranks, compute, and name every value."""
        strategy = self.forward.strategy
        ranks = strategy.gather((self.metrics, self.sums, self.counts))
        others = [rank[0] for index, rank in enumerate(ranks) if index != strategy.rank]
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for _, sums, counts in ranks:
            for part, value in sums.items():
                totals[part][0] += value
                totals[part][1] += counts[part]
        losses = {part: value / max(count, 1) for part, (value, count) in totals.items()}
        named = with_total(losses)
        for label, metric in self.metrics.items():
            metric.merge([metrics[label] for metrics in others])
            for name, value in metric.compute().items():
                named[f"{label}/{name}" if name else label] = float(value)
        return named


def means(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return the mean of each name over steps: the one place where training reads the device.

    What isn't finite is left out: a step that loss scaling skipped has no norm.
    """
    import torch

    names = list(steps[0])
    rows = torch.stack([torch.stack([step[name].double() for name in names]) for step in steps])
    rows = rows.nan_to_num(nan=torch.nan, posinf=torch.nan, neginf=torch.nan)
    return dict(zip(names, rows.nanmean(dim=0).tolist(), strict=True))


def with_total(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of a loss and their sum, `loss`; a single part is just that."""
    total = {"loss": sum(parts.values())}
    return total if len(parts) == 1 else total | {f"loss/{n}": v for n, v in parts.items()}
