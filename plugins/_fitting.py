"""Whether what a dataset says, and what a model gives, is what a part needs.

Legend of shapes: B items, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framework.errors import UserError, listing
from framework.protocols import Info

if TYPE_CHECKING:
    from torch import Tensor


def needed(info: Info, key: str, owner: str) -> Any:
    """Return what a dataset says under a key; `UserError` where it says nothing there."""
    if key not in info:
        raise UserError(
            f"{owner} needs '{key}' of what it is for, and there is"
            f" {listing(k for k in info if k != 'train')}; it is for classes: use another"
        )
    return info[key]


def taken(values: Mapping[str, Any], key: str, owner: str) -> Any:
    """Return one of a batch or of outputs; `UserError` where it isn't among them."""
    if key not in values:
        raise UserError(
            f"{owner} needs '{key}', and there is {listing(values)}; of a model with several heads,"
            " use metric 'of_head' and loss 'weighted_sum' around it"
        )
    return values[key]


def check_classes(labels_B: Tensor, logits_BC: Tensor, classes: int, owner: str) -> None:
    """Raise `UserError` unless there is a label for each item, and a logit for each class."""
    if labels_B.ndim != 1 or logits_BC.shape != (len(labels_B), classes):
        raise UserError(
            f"{owner} needs labels [B] and logits [B, {classes}], and the model gives"
            f" {[*labels_B.shape]} and {[*logits_BC.shape]}; it is for classes: use another"
        )
