"""What the suite of kind loss runs on, and its checks of items that have no target."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, LiveLoss, Outputs
from framework.testing import samples
from framework.testing.suite import Skip, require
from framework.testing.values import close, equal, items

EXACT = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Of sums that are the same numbers added in another order, by the type they are added in."""


@attrs.frozen(kw_only=True)
class LossCase(samples.OutputsCase):
    """A loss with outputs in float64 and their batch, and the batch without targets."""

    given_ignored: Batch | None = attrs.field(default=None, alias="ignored")

    def build(self) -> LiveLoss:
        """Build the live loss."""
        live: LiveLoss = self.options.build(self.info)
        return live

    def without_targets(self) -> Batch | None:
        """Return the batch without any target, if there is one."""
        return self.ignored() if self.given_ignored is None else self.given_ignored


def total_of(sums: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over all parts."""
    return torch.stack([value.double() for value in sums.values()]).sum()


def leaves_of(outputs: Outputs, factor: float = 1.0) -> dict[str, Tensor]:
    """Return copies of the outputs, times a factor, to which a gradient can flow."""
    return {
        k: (factor * v.detach()).requires_grad_() if v.is_floating_point() else v
        for k, v in outputs.items()
    }


def near(found: Tensor, expected: Tensor) -> bool:
    """Compare sums of the same numbers."""
    return close(found, expected, EXACT.get(expected.dtype, EXACT[torch.float32]))


def no_items_are_zero(case: LossCase) -> None:
    """An empty batch, and one without targets, count 0 and sum to 0, with a finite gradient."""
    live = case.build()
    whole = live(case.outputs, case.batch)
    cases = {"an empty batch": (items(case.outputs, []), items(case.batch, []))}
    ignored = case.without_targets()
    if ignored is not None:
        cases["a batch without targets"] = (dict(case.outputs), ignored)
    for name, (outputs, batch) in cases.items():
        leaves = leaves_of(outputs)
        counts, sums = live.counts(batch), live(leaves, batch)
        for part, value in sums.items():
            total = float(value.detach())
            became_zero = total == 0 and float(whole[part]) != 0
            # the labels that the kit takes away may not be this part's targets
            if counts[part] and batch is ignored and case.given_ignored is None and not became_zero:
                continue
            require(
                counts[part] == 0,
                f"{name} counts {counts[part]} items of '{part}'; count those with a target only",
            )
            require(total == 0, f"'{part}' of {name} is {total}, not 0")
        loss = total_of(sums)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        for key, leaf in leaves.items():
            finite = leaf.grad is None or leaf.grad.isfinite().all()
            require(finite, f"the gradient of '{key}' is not finite for {name}")


def ignored_items_are_left_out(case: LossCase) -> None:
    """With the targets of some items taken away, sums and counts are those of the other items."""
    live, ignored = case.build(), case.without_targets()
    hidden, others = case.hidden()
    if live.coupled:
        raise Skip("it says that it is coupled within a batch")
    if ignored is None or not hidden:
        raise Skip("its batch has no class indexes under 'labels', as [B] beside outputs [B, C]")
    some = samples.mixed(case.batch, ignored, hidden)
    if some is None:
        raise Skip("the batch without targets has other keys or shapes than the one with them")
    whole, none = live(case.outputs, case.batch), live(case.outputs, ignored)
    counts, no_counts = live.counts(case.batch), live.counts(ignored)
    parts = [p for p in whole if counts[p] != no_counts[p] or not equal(whole[p], none[p])]
    if not parts:
        raise Skip("its targets are not the batch's labels: ignoring all of them changes nothing")
    found, found_counts = live(case.outputs, some), live.counts(some)
    rest = items(case.outputs, others), items(case.batch, others)
    expected, expected_counts = live(*rest), live.counts(rest[1])
    left = live(items(case.outputs, hidden), items(case.batch, hidden))
    if not all(near(expected[part] + left[part], whole[part]) for part in parts):
        raise Skip("its sums do not add up, with targets or without")
    for part in parts:
        words = f"without the targets of items {hidden} '{part}'"
        require(
            found_counts[part] == expected_counts[part],
            f"{words} counts {found_counts[part]} items, the others alone"
            f" {expected_counts[part]}; count those with a target only",
        )
        require(
            near(found[part], expected[part]),
            f"{words} is {float(found[part]):.6g}, of the others alone {float(expected[part]):.6g};"
            " leave out what has no target",
        )
