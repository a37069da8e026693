"""The suite of kind loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Info, LiveLoss, Outputs
from framework.testing import samples
from framework.testing.suite import (
    Failure,
    Report,
    Skip,
    Suite,
    close,
    equal,
    frozen_copy,
    items,
    missing,
    require,
)

EXACT = 1e-9
"""Of sums in float64 that are the same numbers added in another order."""
STEP = 1e-6
"""Of finite differences; their error in float64 is about 1e-10 / STEP."""


@attrs.frozen(kw_only=True)
class LossCase:
    """A loss with outputs in float64 and their batch; `ignored` is the batch without targets."""

    options: Any
    info: Info = attrs.field(factory=samples.info)
    outputs: Outputs = attrs.field()
    batch: Batch = attrs.field()
    ignored: Batch | None = attrs.field()

    @outputs.default
    def _outputs(self) -> Outputs:
        return samples.classification(self.info)[0]

    @batch.default
    def _batch(self) -> Batch:
        return samples.classification(self.info)[1]

    @ignored.default
    def _ignored(self) -> Batch | None:
        labels = self.batch.get("labels")
        if not isinstance(labels, Tensor):
            return None
        return {**self.batch, "labels": torch.full_like(labels, -100)}

    def build(self) -> LiveLoss:
        """Build the live loss."""
        live: LiveLoss = self.options.build(self.info)
        return live

    @property
    def count(self) -> int:
        """Items of the batch."""
        return len(self.batch["id"])

    def cast(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the outputs, those of floating point in another type."""
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.outputs.items()}


def _total(sums: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([value.double() for value in sums.values()]).sum()


def _leaves(outputs: Outputs, factor: float = 1.0) -> dict[str, Tensor]:
    """Return copies of the outputs to which a gradient can flow."""
    return {
        k: (factor * v.detach()).requires_grad_() if v.is_floating_point() else v
        for k, v in outputs.items()
    }


def has_the_protocol(case: LossCase) -> None:
    """It has `coupled`, `counts` and can be called."""
    live = case.build()
    lacking = missing(live, "coupled", "counts", "__call__")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(type(live.coupled) is bool, f"'coupled' must be True or False, not {live.coupled!r}")


def parts_have_counts(case: LossCase) -> None:
    """Every part of the sum has a count, and every count a part."""
    live = case.build()
    counts, sums = live.counts(case.batch), live(case.outputs, case.batch)
    require(sums, "it returns no part at all")
    require(set(counts) == set(sums), f"counts of {sorted(counts)}, but sums of {sorted(sums)}")
    for part, count in counts.items():
        require(
            type(count) is int and count >= 0,
            f"the count of '{part}' is {count!r}, no whole number",
        )


def sums_are_scalars(case: LossCase) -> None:
    """Each sum is a finite tensor without dimensions."""
    for part, value in case.build()(case.outputs, case.batch).items():
        require(isinstance(value, Tensor), f"'{part}' is a {type(value).__name__}, not a tensor")
        require(value.ndim == 0, f"'{part}' has the shape {tuple(value.shape)}; sum over the items")
        require(value.isfinite(), f"'{part}' is {float(value)}")


def gradients_are_right(case: LossCase) -> None:
    """The gradient is that of finite differences in float64."""
    live = case.build()
    leaves = {k: v for k, v in _leaves(case.outputs).items() if v.requires_grad}
    total = _total(live({**case.outputs, **leaves}, case.batch))
    require(total.requires_grad, "no gradient reaches the outputs; is the sum detached?")
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for (key, leaf), gradient in zip(leaves.items(), found, strict=True):
        flat = leaf.detach().clone().view(-1)
        whole = torch.zeros_like(flat) if gradient is None else gradient.reshape(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 64)):
            values = []
            for step in (STEP, -STEP):
                moved = flat.clone()
                moved[index] += step
                outputs = {**case.outputs, **leaves, key: moved.view_as(leaf)}
                values.append(float(_total(live(outputs, case.batch))))
            expected = (values[0] - values[1]) / (2 * STEP)
            bound = 1e-5 * max(1.0, abs(expected))
            require(
                abs(float(whole[index]) - expected) <= bound,
                f"d loss / d {key}[{index}] is {float(whole[index]):.6g},"
                f" finite differences give {expected:.6g}",
            )


def sums_and_counts_add_up(case: LossCase) -> None:
    """Sums and counts over the parts of a batch, however it is cut, add up to the whole's."""
    live = case.build()
    if live.coupled:
        raise Skip("it says that it is coupled within a batch")
    whole, counts = live(case.outputs, case.batch), live.counts(case.batch)
    for cut in samples.pieces(case.count):
        for part, value in whole.items():
            total, count = torch.zeros((), dtype=torch.float64), 0
            for chosen in cut:
                batch = items(case.batch, chosen)
                total += live(items(case.outputs, chosen), batch)[part].double()
                count += live.counts(batch)[part]
            sizes = "+".join(str(len(chosen)) for chosen in cut)
            require(
                close(total, value, EXACT),
                f"'{part}' of {case.count} items is {float(value):.9g}, cut {sizes} it is"
                f" {float(total):.9g}; return the sum, not the mean, or say coupled = True",
            )
            require(
                count == counts[part],
                f"'{part}' counts {counts[part]} items, cut {sizes} it counts {count}",
            )


def order_of_items_is_free(case: LossCase) -> None:
    """The sums don't depend on the order of the items."""
    live = case.build()
    order = list(range(case.count))[::-1]
    before = live(case.outputs, case.batch)
    after = live(items(case.outputs, order), items(case.batch, order))
    for part, value in before.items():
        require(
            close(after[part], value, EXACT),
            f"'{part}' is {float(value):.9g}, and {float(after[part]):.9g} in reverse order",
        )


def low_precision_is_safe(case: LossCase) -> None:
    """Outputs in bf16 and fp16 give finite sums in float32 or better, near those in float64."""
    live = case.build()
    for dtype in (torch.bfloat16, torch.float16):
        rounded = case.cast(dtype)
        exact = live({k: v.double() for k, v in rounded.items()}, case.batch)
        for autocast in (False, True):
            with torch.autocast("cpu", dtype, enabled=autocast):
                found = live(rounded, case.batch)
            for part, value in found.items():
                name = str(dtype).removeprefix("torch.")
                require(
                    value.dtype in (torch.float32, torch.float64),
                    f"'{part}' of outputs in {name} is summed in {value.dtype}; use float32",
                )
                require(
                    close(value, exact[part], 1e-4),
                    f"'{part}' of outputs in {name} is {float(value):.6g},"
                    f" of the same in float64 {float(exact[part]):.6g}",
                )


def large_outputs_are_safe(case: LossCase) -> None:
    """Outputs a thousand times as large give finite sums and gradients."""
    live = case.build()
    leaves = _leaves(case.cast(torch.float32), 1000.0)
    total = _total(live(leaves, case.batch))
    require(total.isfinite(), f"the loss is {float(total.detach())}; work with log-probabilities")
    torch.autograd.backward(total)
    for key, leaf in leaves.items():
        gradient = leaf.grad
        require(
            gradient is None or gradient.isfinite().all(), f"the gradient of '{key}' is not finite"
        )


def no_items_are_zero(case: LossCase) -> None:
    """An empty batch, and one without targets, count 0 and sum to 0, with a finite gradient."""
    live = case.build()
    empty = items(case.outputs, []), items(case.batch, [])
    cases = {"an empty batch": empty}
    if case.ignored is not None:
        cases["a batch without targets"] = (dict(case.outputs), case.ignored)
    for name, (outputs, batch) in cases.items():
        leaves = _leaves(outputs)
        counts, sums = live.counts(batch), live(leaves, batch)
        if name == "a batch without targets" and any(counts.values()):
            continue  # its targets are elsewhere
        for part, value in sums.items():
            require(counts[part] == 0, f"{name} counts {counts[part]} items of '{part}'")
            total = float(value.detach())
            require(total == 0, f"'{part}' of {name} is {total}, not 0")
        whole = _total(sums)
        if whole.requires_grad:
            torch.autograd.backward(whole)
        for key, leaf in leaves.items():
            require(
                leaf.grad is None or leaf.grad.isfinite().all(),
                f"the gradient of '{key}' is not finite for {name}",
            )


def inputs_stay_as_they_are(case: LossCase) -> None:
    """Neither the outputs nor the batch are changed."""
    live = case.build()
    before = frozen_copy({"outputs": case.outputs, "batch": case.batch})
    live.counts(case.batch)
    live(case.outputs, case.batch)
    after = {"outputs": dict(case.outputs), "batch": case.batch}
    for name, values in before.items():
        now = after[name]
        require(values.keys() == now.keys(), f"it changes the keys of the {name}")
        for key in values:
            require(equal(values[key], frozen_copy(now[key])), f"it changes {name}['{key}']")


def same_again(case: LossCase) -> None:
    """The same outputs give the same sums a second time."""
    live = case.build()
    first, second = (frozen_copy(live(case.outputs, case.batch)) for _ in range(2))
    if not equal(first, second):
        raise Failure(f"first {_shown(first)}, then {_shown(second)}; keep no state between calls")


def _shown(sums: Mapping[str, Tensor]) -> dict[str, float]:
    return {part: float(value) for part, value in sums.items()}


SUITE = Suite(
    "loss",
    LossCase,
    (
        has_the_protocol,
        parts_have_counts,
        sums_are_scalars,
        gradients_are_right,
        sums_and_counts_add_up,
        order_of_items_is_free,
        low_precision_is_safe,
        large_outputs_are_safe,
        no_items_are_zero,
        inputs_stay_as_they_are,
        same_again,
    ),
)


def check_loss(
    options: Any,
    *,
    info: Info | None = None,
    outputs: Outputs | None = None,
    batch: Batch | None = None,
    ignored: Batch | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a loss against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyLoss(gamma=2.0)`.
        info: What its dataset would say; by default of three classes.
        outputs: What its model would return, in float64; by default `logits` [B, C].
        batch: The batch they belong to; by default `labels` [B].
        ignored: The batch without any target; by default all labels -100.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(
        options, expected_failures, info=info, outputs=outputs, batch=batch, ignored=ignored
    )
