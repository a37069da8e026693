"""The suite of kind loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from framework.protocols import Batch, Info, Outputs
from framework.testing import samples
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require
from framework.testing.targets import (
    EXACT,
    LossCase,
    ignored_items_are_left_out,
    leaves_of,
    near,
    no_items_are_zero,
    total_of,
)
from framework.testing.values import close, equal, frozen_copy, items

STEP = 1e-6
"""Of finite differences; their error in float64 is about 1e-10 / STEP."""
COARSE = (1e-2, 1e-3)
"""Steps where the sum is float32: the longer errs by curvature, the shorter by rounding."""
PROBES = 64
"""Numbers of each output, drawn at random, whose gradient is checked."""
LARGE, LARGER = 10.0, 1000.0
"""What outputs of the author's are multiplied by, and the kit's own."""


def has_the_protocol(case: LossCase) -> None:
    """It has `coupled`, `counts` and can be called with outputs in float64 and their batch."""
    live = case.build()
    lacking = missing(live, "coupled", "counts", "__call__")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(type(live.coupled) is bool, f"'coupled' must be True or False, not {live.coupled!r}")
    try:
        sums = live(case.outputs, case.batch)
    except RuntimeError as error:
        if {"Double", "Float"} <= set(str(error).replace(",", " ").split()):
            words = "the kit's outputs are float64: use weight.to(logits) for tensors of your own"
            raise Failure(f"{error}; {words}") from error
        raise
    require(sums, "it returns no part at all")
    for part, value in sums.items():
        require(isinstance(value, Tensor), f"'{part}' is a {type(value).__name__}, not a tensor")


def parts_have_counts(case: LossCase) -> None:
    """Every part of the sum has a count, and every count a part."""
    live = case.build()
    counts, sums = live.counts(case.batch), live(case.outputs, case.batch)
    require(set(counts) == set(sums), f"counts of {sorted(counts)}, but sums of {sorted(sums)}")
    for part, count in counts.items():
        require(
            type(count) is int and count >= 0,
            f"the count of '{part}' is {count!r}, no whole number",
        )


def sums_are_scalars(case: LossCase) -> None:
    """Each sum is a finite tensor without dimensions."""
    for part, value in case.build()(case.outputs, case.batch).items():
        require(value.ndim == 0, f"'{part}' has the shape {tuple(value.shape)}; sum over the items")
        require(value.isfinite(), f"'{part}' is {float(value)}")


def gradients_are_right(case: LossCase) -> None:
    """The gradient is that of finite differences, of sums in float64 to the sixth digit."""
    live = case.build()
    leaves = {k: v for k, v in leaves_of(case.outputs).items() if v.requires_grad}
    sums = live({**case.outputs, **leaves}, case.batch)
    total, fine = total_of(sums), all(value.dtype == torch.float64 for value in sums.values())
    require(total.requires_grad, "no gradient reaches the outputs; is the sum detached?")
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    rounding = 4 * torch.finfo(torch.float32).eps * abs(float(total.detach())) / COARSE[0]
    steps, relative, least = ((STEP,), 1e-5, 0.0) if fine else (COARSE, 2e-3, rounding)

    def difference(key: str, index: int, step: float) -> float:
        values = []
        for move in (step, -step):
            moved = case.outputs[key].clone().view(-1)
            moved[index] += move
            outputs = {**case.outputs, key: moved.view_as(case.outputs[key])}
            values.append(float(total_of(live(outputs, case.batch))))
        return (values[0] - values[1]) / (2 * step)

    for (key, leaf), gradient in zip(leaves.items(), found, strict=True):
        whole = torch.zeros_like(leaf) if gradient is None else gradient
        for index in torch.randperm(leaf.numel())[:PROBES].tolist():
            own = float(whole.reshape(-1)[index])
            expected = min(
                (difference(key, index, step) for step in steps), key=lambda x: abs(x - own)
            )
            require(
                abs(own - expected) <= max(relative * max(1.0, abs(expected)), least),
                f"d loss / d {key}[{index}] is {own:.6g}, finite differences give {expected:.6g}",
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
                near(total, value),
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
            near(after[part], value),
            f"'{part}' is {float(value):.9g}, and {float(after[part]):.9g} in reverse order",
        )


def low_precision_is_safe(case: LossCase) -> None:
    """Outputs in bf16 and fp16 give finite sums in float32 or better, near those in float64."""
    live = case.build()
    for dtype in (torch.bfloat16, torch.float16):
        rounded = case.cast(dtype)
        exact = live(samples.cast(rounded, torch.float64), case.batch)
        for autocast in (False, True):
            with torch.autocast("cpu", dtype, enabled=autocast):
                found = live(rounded, case.batch)
            name = str(dtype).removeprefix("torch.") + (" under autocast" if autocast else "")
            # without autocast all was well: what is left to blame is what autocast casts
            leave = "; leave it by torch.autocast(device_type, enabled=False)" if autocast else ""
            for part, value in found.items():
                require(
                    value.dtype in EXACT,
                    f"'{part}' of outputs in {name} is summed in {value.dtype}; use float32{leave}",
                )
                require(
                    close(value, exact[part], 1e-4),
                    f"'{part}' of outputs in {name} is {float(value):.6g},"
                    f" of the same in float64 {float(exact[part]):.6g}{leave}",
                )


def large_outputs_are_safe(case: LossCase) -> None:
    """Outputs a thousand times as large (of the author's, ten) give finite sums and gradients."""
    live = case.build()
    factor = LARGER if case.given_outputs is None else LARGE
    leaves = leaves_of(case.cast(torch.float32), factor)
    total = total_of(live(leaves, case.batch))
    rest = f" of outputs {factor:g} times as large"
    known = "; declare it in expected_failures where outputs can't be so large"
    require(
        total.isfinite(),
        f"the loss{rest} is {float(total.detach())}; work with log-probabilities{known}",
    )
    torch.autograd.backward(total)
    for key, leaf in leaves.items():
        finite = leaf.grad is None or leaf.grad.isfinite().all()
        require(finite, f"the gradient of '{key}'{rest} is not finite{known}")


def inputs_stay_as_they_are(case: LossCase) -> None:
    """Neither the outputs nor the batch are changed."""
    live = case.build()
    before = frozen_copy({"outputs": case.outputs, "batch": case.batch})
    live.counts(case.batch)
    live(case.outputs, case.batch)
    for name, now in {"outputs": case.outputs, "batch": case.batch}.items():
        was = before[name]
        for key in {**was, **now}:
            same = equal(was.get(key), frozen_copy(now.get(key)))
            require(same, f"it changes {name}['{key}']")


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
        ignored_items_are_left_out,
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
        outputs: What its model would return, made float64 here; by default `logits` [B, C].
        batch: The batch they belong to, with `id`; by default `labels` [B].
        ignored: The batch without any target; by default all labels -100, where they are class
            indexes.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(
        options, expected_failures, info=info, outputs=outputs, batch=batch, ignored=ignored
    )
