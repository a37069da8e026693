"""What the classification losses share: class weights and the counting of labelled items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np
import torch

from framework.errors import UserError
from plugins._fitting import needed, taken

if TYPE_CHECKING:
    from framework.protocols import Batch, Info

IGNORED = -100
"""Label of an item that has no target; it counts for nothing."""

Weights = Literal["balanced", "none"] | list[float]


def weights_C(weights: Weights, info: Info, option: str) -> torch.Tensor:
    """Return a weight per class, float64 of shape [C].

    `balanced` is the inverse class frequency of the training split, normalised to mean 1 over
    the classes; a class that training lacks gets the mean of the others' (it adds nothing).
    """
    counts: Sequence[int] = needed(info, "class_counts", f"a loss with '{option}'")
    if weights == "none":
        return torch.ones(len(counts), dtype=torch.float64)
    if isinstance(weights, list):
        if len(weights) != len(counts) or min(weights) < 0 or sum(weights) == 0:
            raise UserError(
                f"'{option}': {len(counts)} classes ({', '.join(info['labels'])}) need as many"
                f" weights, none below 0 and not all 0; found {weights}"
            )
        return torch.tensor(weights, dtype=torch.float64)
    counts_C = torch.tensor(counts, dtype=torch.float64)
    inverse_C = torch.where(counts_C > 0, 1 / counts_C.clamp(min=1), torch.nan)
    inverse_C = torch.where(inverse_C.isnan(), inverse_C.nanmean(), inverse_C)
    return inverse_C / inverse_C.mean()


def check_weights(_: object, field: attrs.Attribute[Weights], value: Weights) -> None:
    """Refuse lists of weights that no loss can use."""
    if isinstance(value, list) and not all(0 <= item < float("inf") for item in value):
        raise ValueError(f"'{field.name}' must hold finite numbers of at least 0")


def count(batch: Batch) -> int:
    """Return the number of items that have a target."""
    # many times as fast for the few labels of a batch, which the host has anyway
    return int(np.count_nonzero(taken(batch, "labels", "this loss").cpu().numpy() != IGNORED))


def log_probabilities_BC(logits_BC: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities in float32 or better, whatever the forward pass ran in."""
    return torch.log_softmax(logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32)), -1)
