"""One step: the same whatever it is cut into, and not taken where it isn't finite."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import (
    CPU,
    CrossEntropy,
    Processor,
    Share,
    amp,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    records,
    update,
    weights,
)
from torch import nn

from framework.batching import Feed
from framework.step import Forward, Tally, Update, with_total
from plugins.samplers._bucketed import LiveBucketed
from plugins.strategies.auto import OneProcess

Window = list[dict[str, Any]]


def windows(count: int, batch: int, micro: int, steps: int) -> list[Window]:
    """Return the windows of some steps, epoch after epoch."""
    feed = Feed(
        Processor(), records(count), LiveBucketed(), batch_size=batch, micro_batch=micro, seed=3
    )
    epochs = itertools.chain.from_iterable(feed.epoch(epoch) for epoch in itertools.count())
    return list(itertools.islice(epochs, steps))


def window(*sizes: int, seed: int = 1) -> Window:
    """Return one window of micro-batches of these sizes."""
    every = iter(records(sum(sizes), seed))
    return [Processor().collate([next(every) for _ in range(size)]) for size in sizes]


def gradient(module: nn.Module, parts: Any, loss: Any = None) -> tuple[torch.Tensor, Any]:
    """Return the gradient that a window gives, by the change that plain SGD at rate 1 makes."""
    module = copy.deepcopy(module)
    before = weights(module)
    step = update(module, lr=1.0, **({"loss": loss} if loss else {}))
    means, _, missed = step(parts, 0)
    assert missed == ""
    return before - weights(module), means


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def trained(module: nn.Module, kind: str, steps: list[Window]) -> list[dict[str, float]]:
    """Take the steps; the means of each."""
    optimizer = OPTIMIZERS[kind](module.parameters())
    step = update(module, optimizer=optimizer, max_norm=1.0, factor=lambda i: 1 - i / 40)
    found = (step(parts, index) for index, parts in enumerate(steps))
    return [{k: float(v) for k, v in {**means, "": norm}.items()} for means, norm, _ in found]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("micro", [8, 5, 1])
def test_accumulation_equals_the_large_batch(kind: str, micro: int) -> None:
    """Micro-batches give the weights of whole batches of 32, over 20 steps with short last ones.

    205 records make six batches of 32 and one of 13 an epoch, so that two of the 20 are short.
    """
    whole, cut = net(), net()
    means = trained(whole, kind, windows(205, 32, 0, 20))
    found = trained(cut, kind, windows(205, 32, micro, 20))
    assert [len(w) for w in windows(205, 32, 8, 7)] == [4] * 6 + [2]
    assert (weights(whole) - weights(cut)).abs().max() < 1e-6
    assert (weights(whole) - weights(net())).abs().max() > 1e-2
    for one, other in zip(means, found, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_are_those_of_a_plain_loop(kind: str) -> None:
    """Mean loss, clipping and schedule are those of a loop in plain torch."""
    ours, plain = net(), net()
    steps = windows(205, 32, 8, 20)
    means = trained(ours, kind, steps)
    optimizer = OPTIMIZERS[kind](plain.parameters())
    rates = [group["lr"] for group in optimizer.param_groups]
    for index, (whole, mean) in enumerate(zip(windows(205, 32, 0, 20), means, strict=True)):
        (batch,) = whole
        loss = nn.functional.cross_entropy(plain(batch["x"])["logits"], batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - index / 40)
        optimizer.step()
        assert mean == pytest.approx({"ce": loss.item(), "": norm.item()}, abs=1e-6)
    assert (weights(ours) - weights(plain)).abs().max() < 1e-6


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_cut_gives_the_gradient_of_the_whole(sizes: list[int], random: Any) -> None:
    """However a window is cut, and whichever items have no label, the gradient is the same."""
    cut = window(*sizes)
    for batch in cut:
        for index in range(len(batch["id"])):
            if random.random() < 0.4:
                batch["labels"][index] = -100
    whole = [{key: _joined([batch[key] for batch in cut]) for key in cut[0]}]
    module = net()
    found, means = gradient(module, cut)
    expected, one = gradient(module, whole)
    assert (found - expected).abs().max() < 1e-6
    assert float(means["ce"]) == pytest.approx(float(one["ce"]), abs=1e-6)
    count = int((whole[0]["labels"] >= 0).sum())
    if count:
        reference = nn.functional.cross_entropy(
            module(whole[0]["x"])["logits"], whole[0]["labels"], ignore_index=-100
        )
        assert float(means["ce"]) == pytest.approx(reference.item(), abs=1e-6)
    else:
        assert not found.any()
        assert float(means["ce"]) == 0.0


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return list(itertools.chain.from_iterable(values))


@attrs.define
class Two:
    """Cross-entropy of labelled items, and the square of scores of those that are marked."""

    coupled: bool = False

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Each part its own."""
        marked = int(batch["marked"].sum())
        return CrossEntropy().counts(batch) | {"square": marked * 3}

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Return the sums; the second weighs a half."""
        square = (outputs["logits"] ** 2 * batch["marked"].unsqueeze(1)).sum()
        return CrossEntropy()(outputs, batch) | {"square": 0.5 * square}


def test_each_part_is_divided_by_its_own_count() -> None:
    """Parts with different counts are each a mean over their own items, over the whole window."""
    cut = window(3, 5)
    cut[0]["marked"], cut[1]["marked"] = torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0, 0, 1])
    cut[0]["labels"][0] = -100
    module = net()
    found, means = gradient(module, cut, Two())
    scores = torch.cat([module(batch["x"])["logits"] for batch in cut])
    labels = torch.cat([batch["labels"] for batch in cut])
    marked = torch.cat([batch["marked"] for batch in cut]).bool()
    entropy = nn.functional.cross_entropy(scores, labels, ignore_index=-100)
    square = 0.5 * (scores[marked] ** 2).mean()
    assert float(means["ce"]) == pytest.approx(entropy.item(), abs=1e-6)
    assert float(means["square"]) == pytest.approx(square.item(), abs=1e-6)
    expected = torch.autograd.grad(entropy + square, list(module.parameters()))
    assert (found - torch.cat([g.flatten() for g in expected])).abs().max() < 1e-6


def test_a_part_without_items_adds_nothing() -> None:
    """A part that counts nothing in a window is 0, not NaN, and moves no weight."""
    cut = window(2, 3)
    for batch in cut:
        batch["marked"] = torch.zeros(len(batch["id"]))
    found, means = gradient(net(), cut, Two())
    alone, _ = gradient(net(), cut)
    assert float(means["square"]) == 0.0
    assert torch.equal(found, alone)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_isnt_finite_is_not_taken(kind: str, bad: float) -> None:
    """A loss or gradient of NaN leaves weights, moments and what comes next as they were."""
    module = net()
    optimizer = OPTIMIZERS[kind](module.parameters())
    step = update(module, optimizer=optimizer)
    assert step(window(2, 2), 0)[2] == ""
    before, moments = weights(module), copy.deepcopy(optimizer.state_dict()["state"])
    broken = window(2, 3, seed=9)
    broken[1]["x"][0, 0] = bad
    means, norm, missed = step(broken, 1)
    # an infinite input saturates tanh: the loss is finite then, and the gradient isn't
    assert missed == ("loss" if math.isnan(bad) else "gradient")
    assert math.isnan(means["ce"]) == math.isnan(bad)
    assert math.isnan(norm)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(weights(module), before)
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            expected = moments[index][name]
            assert value is expected is None or torch.equal(value, expected)
    reference = net()
    reference.load_state_dict(module.state_dict())
    clean = OPTIMIZERS[kind](reference.parameters())
    clean.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert step(window(2, 2, seed=4), 1)[2] == ""
    assert update(reference, optimizer=clean)(window(2, 2, seed=4), 1)[2] == ""
    assert torch.equal(weights(module), weights(reference))


class Root(nn.Module):
    """Scores whose gradient is NaN although they are finite."""

    def __init__(self) -> None:
        """Keep a net and a weight of 0."""
        super().__init__()
        self.net = net()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Add the root of 0, whose slope is infinite, times 0."""
        return {"logits": self.net(x)["logits"] + (self.zero * 0.0).sqrt()}


def test_a_gradient_that_isnt_finite_is_not_taken() -> None:
    """A finite loss whose gradient isn't leaves every weight as it was, and no gradient."""
    module = Root()
    before = weights(module)
    means, norm, missed = update(module)(window(3), 0)
    assert missed == "gradient"
    assert math.isfinite(means["ce"])
    assert math.isnan(norm)
    assert torch.equal(weights(module), before)
    assert all(parameter.grad is None for parameter in module.parameters())


@attrs.define
class Infinite(CrossEntropy):
    """A sum that is infinite although its gradient is finite."""

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Add infinity."""
        return {"ce": super().__call__(outputs, batch)["ce"] + float("inf")}


def test_a_loss_that_isnt_finite_is_not_taken_by_itself() -> None:
    """An infinite loss with a finite gradient is left out too, with the weights as they were."""
    module = net()
    before = weights(module)
    means, norm, missed = update(module, loss=Infinite())(window(3), 0)
    assert missed == "loss"
    assert float(means["ce"]) == math.inf
    assert math.isnan(norm)
    assert torch.equal(weights(module), before)
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("limit", [0.0, 0.01, 100.0])
def test_gradients_are_clipped_to_their_norm(limit: float) -> None:
    """The norm told is that before clipping; the step is what torch's own clipping leaves."""
    module, plain = net(), net()
    parts = window(4, 4)
    _, told, _ = update(module, lr=1.0, max_norm=limit)(parts, 0)
    batch = {key: _joined([part[key] for part in parts]) for key in parts[0]}
    nn.functional.cross_entropy(plain(batch["x"])["logits"], batch["labels"]).backward()
    norm = nn.utils.clip_grad_norm_(plain.parameters(), limit or math.inf)
    step = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None])
    assert float(told) == pytest.approx(float(norm), abs=1e-6)
    assert (weights(net()) - weights(module) - step).abs().max() < 1e-6
    if limit == 0.01:
        assert float(step.norm()) == pytest.approx(limit, rel=1e-3)


def test_the_schedule_scales_every_groups_own_rate() -> None:
    """Each group's rate is its first one times the factor of the step; the highest is told."""
    module = net()
    groups = [
        {"params": module.body.parameters(), "lr": 0.5},
        {"params": module.head.parameters(), "lr": 0.1},
    ]
    optimizer = torch.optim.SGD(groups)
    step = update(module, optimizer=optimizer, factor=lambda index: 1 / (index + 1))
    for index in range(3):
        step(window(2), index)
        assert [g["lr"] for g in optimizer.param_groups] == [0.5 / (index + 1), 0.1 / (index + 1)]
        assert step.learning_rate == 0.5 / (index + 1)


def test_a_frozen_parameter_stays() -> None:
    """A parameter that no gradient reaches stays, and the others move."""
    module = net()
    module.body.requires_grad_(requires_grad=False)
    before = copy.deepcopy(module)
    step = update(module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), max_norm=0.1)
    step(window(3), 0)
    assert torch.equal(module.body.weight, before.body.weight)
    assert not torch.equal(module.head.weight, before.head.weight)


def half() -> tuple[nn.Module, Update, list[int]]:
    """Return a net under fp16, its update, and the steps that the schedule was asked for."""
    module = net()
    asked: list[int] = []

    def factor(step: int) -> float:
        asked.append(step)
        return 1.0

    return module, update(module, precision=amp(torch.float16), factor=factor), asked


def test_an_overflow_under_fp16_skips_the_step() -> None:
    """A scaled gradient that overflows skips the step and lowers the scale, until one is taken."""
    module, step, asked = half()
    scaler = step.forward.precision.scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**22})
    taken: list[bool] = []
    while not any(taken[:20]):
        before, scale = weights(module), scaler.get_scale()
        means, norm, missed = step(window(4), sum(taken))
        done = missed == ""
        assert missed in ("", "overflow")
        assert torch.equal(weights(module), before) == (not done)
        assert scaler.get_scale() == (scale if done else scale / 2)
        assert math.isfinite(float(means["ce"]))
        assert math.isfinite(float(norm)) == done
        taken.append(done)
    assert 3 < len(taken) < 20
    assert asked == [0] * len(taken)


def test_a_loss_that_isnt_finite_is_no_overflow() -> None:
    """Scaling excuses an overflow of the gradient, not a loss of NaN; the scale stays."""
    module, step, _ = half()
    scaler = step.forward.precision.scaler
    assert step(window(3), 0)[2] == ""
    broken = window(3)
    broken[0]["x"][0] = float("nan")
    before, scale = weights(module), scaler.get_scale()
    assert step(broken, 1)[2] == "loss"
    assert torch.equal(weights(module), before)
    assert scaler.get_scale() == scale
    assert step(window(3), 1)[2] == ""


def test_fp16_comes_close_to_fp32() -> None:
    """Unscaling comes before clipping: steps in fp16 are those in fp32 to its precision."""
    module, step, _ = half()
    clipped = attrs.evolve(step, max_norm=0.05)
    reference = net()
    plain = update(reference, max_norm=0.05)
    taken = 0
    for index, parts in enumerate(windows(64, 16, 8, 12)):
        if clipped(parts, index)[2] == "":
            plain(parts, index)
            taken += 1
    assert taken >= 8
    assert (weights(reference) - weights(net())).abs().max() > 1e-3
    assert (weights(module) - weights(reference)).abs().max() < 1e-4


def test_a_batch_keeps_what_is_no_tensor() -> None:
    """The forward pass gives back the batch as it is on the device, lists and all."""
    parts = window(3)
    parts[0]["meta"] = [{"a": 1}, None, "x"]
    outputs, placed = update(net()).forward(parts[0])
    assert outputs["logits"].shape == (3, 3)
    assert placed["meta"] == parts[0]["meta"]
    assert placed is not parts[0]


def tallied(module: nn.Module, batches: Window, strategy: Any = None, loss: Any = None) -> Tally:
    """Return a tally of batches."""
    forward = Forward(module, amp(), strategy or OneProcess(CPU))
    tally = Tally(forward, loss or CrossEntropy(), {"right": Share()})
    with torch.no_grad():
        for batch in batches:
            tally.add(batch)
    return tally


@settings(max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_an_evaluation_is_the_same_however_it_is_batched(sizes: list[int]) -> None:
    """Losses are means over all items and metrics exact, whatever the batches."""
    module = net()
    found = tallied(module, window(*sizes)).values()
    (batch,) = window(sum(sizes))
    scores = module(batch["x"])["logits"]
    expected = {
        "loss": nn.functional.cross_entropy(scores, batch["labels"]).item(),
        "right": float((scores.argmax(-1) == batch["labels"]).double().mean()),
        "right/seen": float(len(batch["id"])),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert list(found) == list(expected)


def test_an_evaluation_names_every_part_of_the_loss() -> None:
    """A loss of several parts is told as their sum and each by its name."""
    batches = window(3, 2)
    for batch in batches:
        batch["marked"] = torch.ones(len(batch["id"]))
    values = tallied(net(), batches, loss=Two()).values()
    assert list(values) == ["loss", "loss/ce", "loss/square", "right", "right/seen"]
    assert values["loss"] == pytest.approx(values["loss/ce"] + values["loss/square"])


def test_a_loss_of_nobody_is_told_as_undefined() -> None:
    """A part that nothing in a split counts for is NaN in an evaluation: 0 would be a fine loss."""
    batches = window(3, 2)
    for batch in batches:
        batch["marked"] = torch.zeros(len(batch["id"]))
    values = tallied(net(), batches, loss=Two()).values()
    assert math.isnan(values["loss/square"])
    assert math.isnan(values["loss"])
    assert math.isfinite(values["loss/ce"])


@attrs.define
class Ranks:
    """The strategy of a rank whose fellows have already tallied their share."""

    others: list[Tally]
    rank: int
    device: torch.device = CPU

    def gather(self, value: Any) -> list[Any]:
        """Return what every rank has, in the order of ranks."""
        shares = [(tally.metrics, tally.sums, tally.counts) for tally in self.others]
        return [*shares[: self.rank], value, *shares[self.rank :]]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_are_merged(rank: int) -> None:
    """Shares of several ranks, uneven and one with a single item, merge to the whole."""
    module = net()
    batches = window(5, 1, 8)
    shares = [tallied(module, [batch]) for batch in batches]
    others = [share for index, share in enumerate(shares) if index != rank]
    mine = tallied(module, [batches[rank]], Ranks(others, rank))
    assert mine.values() == pytest.approx(tallied(module, batches).values(), abs=1e-6)


def test_a_rank_without_records_tells_the_same() -> None:
    """A rank that has no batch of a short split reports what all the others do."""
    module = net()
    share = tallied(module, window(5))
    empty = tallied(module, [], Ranks([share], 1))
    assert empty.values() == pytest.approx(tallied(module, window(5)).values())


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"ce": 2.0}, {"loss": 2.0}),
        ({"a": 1.0, "b": 2.0}, {"loss": 3.0, "loss/a": 1.0, "loss/b": 2.0}),
    ],
)
def test_the_total_of_a_loss(parts: dict[str, float], expected: dict[str, float]) -> None:
    """`loss` is the sum of the parts; a single part is just that."""
    assert with_total(parts) == expected
