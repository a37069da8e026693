"""A weighted sum of losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from framework.errors import listing, nearest
from framework.protocols import Batch, Info, LiveLoss, Loss, Outputs, option
from plugins._heads import head_of, info_of


def _some(_: object, field: attrs.Attribute[Any], value: Mapping[str, Loss]) -> None:
    if not value:
        raise ValueError(f"'{field.name}' is empty; write a table of a loss under each label")
    for label in value:
        # of a part that has several, LABEL/NAME: another label could be the same
        if "/" in label or not label:
            raise ValueError(f"'{field.name}': the label '{label}' can't be empty or have a '/'")


def _weights(_: object, field: attrs.Attribute[Any], value: Mapping[str, float]) -> None:
    for label, weight in value.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"'{field.name}': that of '{label}' must be finite and at least 0")


@attrs.frozen
class WeightedSum:
    """Several losses, each with options of its own, under labels: one for each head of a model.

    A part is normalised by its own count, times its weight: parts weigh as they say, however
    many targets each has in a batch.
    """

    parts: Mapping[str, Loss] = option({}, help="losses by label", kind="loss", validator=_some)
    weights: dict[str, float] = option(
        {}, help="by label; of a part that isn't named it is 1", validator=_weights
    )
    heads: bool = option(
        True,
        help="a part has outputs and targets of the head it is named after, LABEL_logits as logits;"
        " false: all parts have the same",
    )

    def __attrs_post_init__(self) -> None:
        """Refuse weights of nobody."""
        for label in self.weights:
            if label not in self.parts:
                hint = nearest(label, self.parts) or f"; the parts are {listing(self.parts)}"
                raise ValueError(f"'weights' names '{label}', which is no part{hint}")

    @property
    def names(self) -> list[str]:
        """What its parts are called, known before training: so each can be monitored."""
        names = {label: getattr(part, "names", [""]) for label, part in self.parts.items()}
        return [name for k, inner in names.items() for name in _named(k, dict.fromkeys(inner))]

    def build(self, info: Info) -> LiveWeightedSum:
        """Build every part; `UserError` for the label of no head."""
        owner = "loss 'weighted_sum'"
        said = {k: info_of(k, info, owner) if self.heads else info for k in self.parts}
        parts = {label: part.build(said[label]) for label, part in self.parts.items()}
        weights = {label: self.weights.get(label, 1.0) for label in parts}
        return LiveWeightedSum(parts, weights, self.heads)


@attrs.frozen(eq=False)
class LiveWeightedSum:
    """Sums of all parts, under their labels."""

    parts: dict[str, LiveLoss]
    weights: dict[str, float]
    heads: bool

    @property
    def coupled(self) -> bool:
        """Whether some part is."""
        return any(part.coupled for part in self.parts.values())

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's record says of it: the weights, and what its parts say."""
        said = {label: getattr(part, "facts", {}) for label, part in self.parts.items()}
        return {"weights": self.weights, "parts": said}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count the items of each part."""
        found: dict[str, int] = {}
        for label, part in self.parts.items():
            found |= _named(label, part.counts(self._of(label, batch)))
        return found

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum each part over its own items, times its weight."""
        found: dict[str, Tensor] = {}
        for label, part in self.parts.items():
            sums = part(self._of(label, outputs), self._of(label, batch))
            found |= _named(label, {k: self.weights[label] * v for k, v in sums.items()})
        return found

    def _of(self, label: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return head_of(label, values) if self.heads else dict(values)


def _named(label: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's values under its label, and under their own names where it has several."""
    alone = len(values) == 1
    return {label if alone else f"{label}/{name}": value for name, value in values.items()}
