"""Metrics of one head of a model that has several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from framework.protocols import Batch, Info, LiveMetric, Metric, Outputs, option
from plugins._heads import head_of, info_of


@attrs.frozen
class OfHead:
    """Metrics that have a head's outputs and targets: `NAME_logits` as `logits`, and so on."""

    head: str = option(help="its name", validator=attrs.validators.min_len(1))
    metrics: Mapping[str, Metric] = option(["accuracy"], help="metrics of it", kind="metric")

    @property
    def names(self) -> list[str]:
        """Labels of its metrics, known before training."""
        return list(self.metrics)

    def build(self, info: Info) -> LiveOfHead:
        """Build the metrics; `UserError` for a head that isn't there."""
        own = info_of(self.head, info, "metric 'of_head'")
        return LiveOfHead(self.head, {k: metric.build(own) for k, metric in self.metrics.items()})


@attrs.frozen(eq=False)
class LiveOfHead:
    """The metrics, fed with what is the head's."""

    head: str
    metrics: dict[str, LiveMetric]

    def names(self) -> Sequence[str]:
        """Labels of the metrics, with the names of those that have several."""
        return [_name(k, name) for k, metric in self.metrics.items() for name in metric.names()]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Give each metric the head's part of a batch."""
        chosen = head_of(self.head, outputs), head_of(self.head, batch)
        for metric in self.metrics.values():
            metric.update(*chosen)

    def merge(self, others: Sequence[LiveOfHead]) -> None:
        """Merge metric by metric."""
        for label, metric in self.metrics.items():
            metric.merge([other.metrics[label] for other in others])

    def compute(self) -> dict[str, float]:
        """Give the values of all."""
        return {
            _name(label, name): value
            for label, metric in self.metrics.items()
            for name, value in metric.compute().items()
        }


def _name(label: str, name: str) -> str:
    return f"{label}/{name}" if name else label
