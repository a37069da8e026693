"""Any metrics, once for each value of a record's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from framework.errors import UserError, listing
from framework.protocols import Batch, Info, LiveMetric, Metric, Outputs, option


@attrs.frozen
class ByGroup:
    """A row of metrics for each group of records, as for each symptom.

    The groups are the values that the dataset says the key has. A group without items in a
    split has a `count` of 0 and NaN for the rest.
    """

    key: str = option(help="the metadata that names a record's group, as in symptom")
    metrics: Mapping[str, Metric] = option(
        ["f1", "precision", "recall", "accuracy"], help="metrics of each group", kind="metric"
    )

    def build(self, info: Info) -> LiveByGroup:
        """Build the metrics of every group; `UserError` for a key that records don't have."""
        known: Mapping[str, Sequence[str]] = info.get("meta", {})
        if self.key not in known:
            raise UserError(
                f"metric 'by_group': records have no metadata '{self.key}';"
                f" there is {listing(known)}"
            )
        groups = {
            value: {label: metric.build(info) for label, metric in self.metrics.items()}
            for value in known[self.key]
        }
        return LiveByGroup(self.key, groups, dict.fromkeys(groups, 0))


@attrs.define(eq=False)
class LiveByGroup:
    """The metrics of each group, fed with the group's own items."""

    key: str
    groups: dict[str, dict[str, LiveMetric]]
    counts: dict[str, int]

    def names(self) -> Sequence[str]:
        """`group/metric` for every group, and `group/count`."""
        inner = {
            value: [f"{label}/{n}" if n else label for label, m in row.items() for n in m.names()]
            for value, row in self.groups.items()
        }
        return [f"{value}/{name}" for value, names in inner.items() for name in [*names, "count"]]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Give each group its items of a batch."""
        values = [meta[self.key] for meta in batch["meta"]]
        for value in dict.fromkeys(values):
            index = torch.tensor([i for i, other in enumerate(values) if other == value])
            self.counts[value] += len(index)
            chosen = [_pick(part, index, len(values)) for part in (outputs, batch)]
            for metric in self.groups[value].values():
                metric.update(*chosen)

    def merge(self, others: Sequence[LiveByGroup]) -> None:
        """Merge group by group."""
        for value, row in self.groups.items():
            self.counts[value] += sum(other.counts[value] for other in others)
            for label, metric in row.items():
                metric.merge([other.groups[value][label] for other in others])

    def compute(self) -> dict[str, float]:
        """The metrics of every group, and its count."""
        values: dict[str, float] = {}
        for value, row in self.groups.items():
            for label, metric in row.items():
                for name, number in metric.compute().items():
                    values["/".join(filter(None, (value, label, name)))] = number
            values[f"{value}/count"] = float(self.counts[value])
        return values


def _pick(batch: Mapping[str, Any], index: torch.Tensor, items: int) -> dict[str, Any]:
    """Return those at `index` of everything in a batch that has one for each of the items."""
    return {
        key: value[index.to(value.device)]
        if isinstance(value, torch.Tensor)
        else [value[i] for i in index.tolist()]
        for key, value in batch.items()
        if len(value) == items  # a packed batch has tensors of tokens too
    }
