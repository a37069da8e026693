"""The losses, against formulas in float64, torch's own, and numerical gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framework.errors import UserError
from plugins.losses.cross_entropy import CrossEntropy
from plugins.losses.focal import Focal
from plugins.losses.token_cross_entropy import TokenCrossEntropy

IGNORED = -100
LOSSES = [
    Focal(),
    Focal(gamma=0.5, alpha="none"),
    CrossEntropy(),
    CrossEntropy(weights="balanced", label_smoothing=0.1),
]
losses = pytest.mark.parametrize("options", LOSSES, ids=str)


def info(*counts: int) -> dict[str, Any]:
    """What a dataset with these training counts says of itself."""
    return {"labels": [f"label {index}" for index in range(len(counts))], "class_counts": counts}


def value(live: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of a loss of one part."""
    (found,) = live({"logits": logits}, {"labels": labels}).values()
    return found


def items(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits in float64 and labels, every class among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, dtype=torch.float64, generator=generator) * 3
    labels = torch.randint(classes, (count,), generator=generator)
    labels[:classes] = torch.arange(classes)
    return logits, labels


def focal(row: Sequence[float], label: int, gamma: float, alpha: float) -> float:
    """Equation 5 of Lin et al. for one item, in Python's floats."""
    highest = max(row)
    powers = [math.exp(logit - highest) for logit in row]
    p = powers[label] / sum(powers)
    return -alpha * (1 - p) ** gamma * math.log(p)


def smoothed(row: Sequence[float], label: int, weights: Sequence[float], share: float) -> float:
    """Weighted cross-entropy against a target of which a share is spread over all classes."""
    highest = max(row)
    total = highest + math.log(sum(math.exp(logit - highest) for logit in row))
    return sum(
        -weights[index] * (share / len(row) + (1 - share) * (index == label)) * (logit - total)
        for index, logit in enumerate(row)
    )


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_its_equation(gamma: float, classes: int) -> None:
    """The focal loss is the sum over items of its equation, to 1e-12."""
    alpha = [0.5 + index for index in range(classes)]
    logits, labels = items(40, classes)
    expected = sum(
        focal(row, label, gamma, alpha[label])
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    )
    live = Focal(gamma=gamma, alpha=alpha).build(info(*range(1, classes + 1)))
    assert value(live, logits, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.25, 2.0, 1.0]])
def test_cross_entropy_is_its_formula_and_torchs(weights: list[float], share: float) -> None:
    """Cross-entropy with weights and smoothing is the formula's sum, which is torch's too."""
    logits, labels = items(40, 3)
    live = CrossEntropy(weights=weights, label_smoothing=share).build(info(1, 2, 3))
    found = value(live, logits, labels)
    expected = sum(
        smoothed(row, label, weights, share)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)
    module = torch.nn.CrossEntropyLoss(
        torch.tensor(weights, dtype=torch.float64), label_smoothing=share, reduction="sum"
    )
    assert found.item() == pytest.approx(module(logits, labels).item(), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_gradient_is_the_numerical_one(gamma: float) -> None:
    """The gradient of the focal loss agrees with differences, ignored items included."""
    logits, labels = items(12, 3)
    labels[5] = IGNORED
    live = Focal(gamma=gamma).build(info(5, 1, 9))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: value(live, x, labels), (logits,))


def test_focal_without_fading_and_weights_is_cross_entropy() -> None:
    """With gamma 0 and no alpha the focal loss and its gradient are cross-entropy's."""
    logits, labels = items(64, 4)
    found = []
    for options in (Focal(gamma=0.0, alpha="none"), CrossEntropy()):
        leaf = logits.clone().requires_grad_()
        total = value(options.build(info(1, 2, 3, 4)), leaf, labels)
        (gradient,) = torch.autograd.grad(total, leaf)
        found.append((total.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [1e4, 100.0, 17.0])
def test_extreme_logits(size: float, gamma: float, dtype: torch.dtype) -> None:
    """Where p_t rounds to 1 or 0 the focal loss and its gradient stay finite and right."""
    logits = torch.tensor([[size, -size], [size, -size], [0.0, 0.0]], dtype=dtype)
    logits.requires_grad_()
    live = Focal(gamma=gamma, alpha="none").build(info(1, 1))
    labels = torch.tensor([0, 1, 0])
    total = value(live, logits, labels)
    (gradient,) = torch.autograd.grad(total, logits)
    exact = torch.tensor([2 * logits[0, 0].item(), 0.5**gamma * math.log(2)]).double()
    assert total.item() == pytest.approx(float(exact.sum()), rel=1e-6)
    assert gradient.isfinite().all()
    # the sure and right item pulls at nothing, the sure and wrong one with all its might
    assert gradient[0].abs().max() <= 1e-7
    torch.testing.assert_close(
        gradient[1], torch.tensor([1.0, -1.0], dtype=dtype), rtol=1e-5, atol=1e-5
    )


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=8))
def test_balanced_is_inverse_frequency_with_mean_1(counts: list[int]) -> None:
    """Balanced weights are proportional to 1 / frequency in training, and average to 1."""
    total = sum(counts)
    inverse = [total / count for count in counts]
    mean = sum(inverse) / len(inverse)
    for options in (Focal(alpha="balanced"), CrossEntropy(weights="balanced")):
        ((found),) = options.build(info(*counts)).facts.values()
        assert found == pytest.approx([value / mean for value in inverse], rel=1e-12)


def test_balanced_without_a_class() -> None:
    """A class that training lacks weighs the others' mean; those keep their proportion."""
    (found,) = Focal().build(info(10, 0, 30)).facts.values()
    assert found[1] == pytest.approx((found[0] + found[2]) / 2)
    assert found[0] == pytest.approx(3 * found[2])
    assert sum(found) == pytest.approx(3.0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], [0.0, 0.0]])
def test_weights_that_fit_no_class(weights: list[float]) -> None:
    """Weights of another number than the classes, or all 0, are refused by name of the option."""
    with pytest.raises(UserError, match=r"'alpha'.*label 0, label 1"):
        Focal(alpha=weights).build(info(3, 4))
    with pytest.raises(UserError, match=r"'weights'.*label 0, label 1"):
        CrossEntropy(weights=weights).build(info(3, 4))


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, math.inf], [math.nan, 1.0]])
def test_weights_that_are_no_weights(weights: list[float]) -> None:
    """Weights below 0 or not finite are refused before any data is read."""
    with pytest.raises(ValueError, match="'alpha' must hold finite numbers of at least 0"):
        Focal(alpha=weights)
    with pytest.raises(ValueError, match="'weights' must hold finite numbers of at least 0"):
        CrossEntropy(weights=weights)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Focal, {"gamma": -0.1}),
        (CrossEntropy, {"label_smoothing": -0.1}),
        (CrossEntropy, {"label_smoothing": 1.0}),
    ],
)
def test_numbers_out_of_range(kind: Any, settings: dict[str, float]) -> None:
    """A negative gamma and a smoothing outside [0, 1) are refused."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind(**settings)


@losses
def test_ignored_items_add_nothing(options: Any) -> None:
    """An item without a target adds nothing to count, sum and gradient, whatever its logits."""
    logits, labels = items(10, 3)
    live = options.build(info(4, 2, 4))
    kept = torch.tensor([True, False] * 5)
    masked = torch.where(kept, labels, IGNORED)
    whole, few = logits.clone().requires_grad_(), logits[kept].requires_grad_()
    sums = [value(live, whole, masked), value(live, few, labels[kept])]
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-13, atol=0)
    assert [*live.counts({"labels": masked}).values()] == [5]
    gradient, expected = torch.autograd.grad(sums[0], whole) + torch.autograd.grad(sums[1], few)
    assert not gradient[~kept].any()
    torch.testing.assert_close(gradient[kept], expected, rtol=1e-13, atol=0)


@losses
@pytest.mark.parametrize("labels", [[], [IGNORED, IGNORED]], ids=["no items", "none labelled"])
def test_nothing_to_learn_from(options: Any, labels: list[int]) -> None:
    """Without a target the sum is 0 with a gradient of zeros: never NaN, and still a graph."""
    live = options.build(info(4, 2, 4))
    logits = torch.ones(len(labels), 3, requires_grad=True)
    targets = torch.tensor(labels, dtype=torch.int64)
    total = value(live, logits, targets)
    total.backward()
    assert total.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert [*live.counts({"labels": targets}).values()] == [0]


@losses
@given(
    st.lists(st.tuples(st.floats(-20, 20), st.sampled_from([0, 1, 2, IGNORED])), min_size=1),
    st.data(),
)
def test_sums_and_counts_add_up(
    options: Any, rows: list[tuple[float, int]], data: st.DataObject
) -> None:
    """Over the pieces of any split of a batch, sums and counts add up to the whole batch's."""
    live = options.build(info(4, 2, 4))
    logits = torch.tensor([[x, -x / 2, 1.0] for x, _ in rows], dtype=torch.float64)
    labels = torch.tensor([label for _, label in rows])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    edges = list(zip([0, *cuts], [*cuts, len(rows)], strict=True))
    sums = [value(live, logits[a:b], labels[a:b]).item() for a, b in edges]
    whole = value(live, logits, labels).item()
    assert sum(sums) == pytest.approx(whole, rel=1e-12, abs=1e-12)
    (part,) = live.counts({"labels": labels})
    counts = [live.counts({"labels": labels[a:b]})[part] for a, b in edges]
    assert sum(counts) == live.counts({"labels": labels})[part] == int((labels >= 0).sum())


@losses
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(options: Any, dtype: torch.dtype) -> None:
    """The loss of half-precision logits is float32's of the same numbers, bit for bit."""
    live = options.build(info(4, 2, 4))
    logits, labels = items(50, 3)
    half = logits.to(dtype)
    found, expected = value(live, half, labels), value(live, half.float(), labels)
    assert found.dtype is torch.float32
    assert torch.equal(found, expected)
    assert value(live, logits, labels).dtype is torch.float64


@losses
def test_inputs_are_left_alone(options: Any) -> None:
    """Neither outputs nor batch are changed by counting and summing."""
    logits, labels = items(10, 3)
    labels[3] = IGNORED
    outputs, batch = {"logits": logits}, {"labels": labels, "id": ["a"]}
    before = logits.clone(), labels.clone()
    live = options.build(info(4, 2, 4))
    live.counts(batch)
    live(outputs, batch)
    assert torch.equal(outputs["logits"], before[0])
    assert torch.equal(batch["labels"], before[1])
    assert (set(outputs), set(batch)) == ({"logits"}, {"labels", "id"})


@losses
def test_one_name_per_part(options: Any) -> None:
    """Counts and sums have the same parts, and the loss is exact however a batch is cut."""
    live = options.build(info(4, 2, 4))
    logits, labels = items(10, 3)
    assert [*live.counts({"labels": labels})] == [*live({"logits": logits}, {"labels": labels})]
    assert live.coupled is False


def test_tokens_of_ragged_windows_count_one_each() -> None:
    """The loss of windows of 1 and 3 tokens is the sum over 4 tokens, and so is its count.

    It fails where a window's mean is taken first: then a token of the short one weighs three times.
    """
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([[2, IGNORED, IGNORED], [0, 1, 4]])
    live = TokenCrossEntropy().build({})
    expected = 0.0
    for row, item in zip(logits.tolist(), labels.tolist(), strict=True):
        for scores, label in zip(row, item, strict=True):
            if label != IGNORED:
                expected += math.log(sum(map(math.exp, scores))) - scores[label]
    assert live.counts({"labels": labels}) == {"token_cross_entropy": 4}
    assert value(live, logits, labels).item() == pytest.approx(expected, rel=1e-12)
