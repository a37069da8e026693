"""The suite of kind optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from framework.errors import listing
from framework.protocols import Labelled, LiveOptimizer
from framework.testing.suite import Failure, Report, Suite, missing, reloaded, require
from framework.testing.values import equal, frozen_copy

STEPS = 3
"""Steps before and after what a check does in between."""
DESCENT = 20
"""Steps of the descent whose loss must fall."""


def network() -> list[Labelled]:
    """Return the parameters of a tiny network, the same at each call, labelled as a model does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        parts: list[tuple[str, nn.Module]] = [
            ("embedding", nn.Embedding(5, 4)),
            ("layer", nn.Linear(4, 4)),
            ("norm", nn.LayerNorm(4)),
            ("head", nn.Linear(4, 3)),
        ]
    depths = {"embedding": 0, "layer": 1, "norm": 1, "head": 2}
    return [
        Labelled(f"{part}.{name}", weight, "head" if part == "head" else "base", depths[part])
        for part, module in parts
        for name, weight in module.named_parameters()
    ]


@attrs.frozen(kw_only=True)
class OptimizerCase:
    """An optimizer, and what makes the labelled parameters of a model anew, the same each time."""

    options: Any
    parameters: Callable[[], Sequence[Labelled]] = network

    def build(self) -> Live:
        """Build it over parameters of its own."""
        labelled = list(self.parameters())
        return Live(labelled, self.options.build(labelled))


@attrs.frozen
class Live:
    """An optimizer with its parameters, stepped as the trainer does."""

    labelled: Sequence[Labelled]
    optimizer: LiveOptimizer

    def values(self) -> dict[str, Tensor]:
        """Copies of the parameters, by name."""
        return {item.name: item.parameter.detach().clone() for item in self.labelled}

    def moved(self, before: Mapping[str, Tensor]) -> list[str]:
        """Names of the parameters that are no longer what they were."""
        return [name for name, value in self.values().items() if not equal(value, before[name])]

    def rate(self, factor: float) -> None:
        """Set every group's rate to a share of what it was built with."""
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def step(self, seed: int, gradient: Callable[[Labelled], Tensor | None] | None = None) -> None:
        """Step with gradients drawn from a seed, or with those given; then clear them."""
        generator = torch.Generator().manual_seed(seed)
        for item in self.labelled:
            drawn = torch.randn(item.parameter.shape, generator=generator)
            item.parameter.grad = drawn if gradient is None else gradient(item)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def grouping(self) -> list[list[str]]:
        """Names of the parameters of each group; `?` for one that was not given."""
        names = {id(item.parameter): item.name for item in self.labelled}
        return [
            [names.get(id(parameter), "?") for parameter in group["params"]]
            for group in self.optimizer.param_groups
        ]


def is_an_optimizer(case: OptimizerCase) -> None:
    """It has what is used of a `torch.optim.Optimizer`, which it need not be."""
    optimizer = case.build().optimizer
    states = "state_dict", "load_state_dict"
    lacking = missing(optimizer, "param_groups", "step", "zero_grad", *states)
    require(not lacking, f"{type(optimizer).__qualname__} lacks {', '.join(lacking)}")
    for index, group in enumerate(optimizer.param_groups):
        for key in ("params", "lr"):
            require(key in group, f"group {index} of param_groups has no '{key}'")


def every_parameter_in_one_group(case: OptimizerCase) -> None:
    """Every parameter is in exactly one group, and no other is in any."""
    live = case.build()
    grouped = [name for group in live.grouping() for name in group]
    for item in live.labelled:
        count = grouped.count(item.name)
        require(count == 1, f"'{item.name}' is in {count} groups; put it in one")
    require("?" not in grouped, "a group holds a parameter that was not given")


def building_changes_nothing(case: OptimizerCase) -> None:
    """Building it leaves the parameters, their gradients and `requires_grad` as they are."""
    labelled = list(case.parameters())
    before = frozen_copy([item.parameter for item in labelled])
    case.options.build(labelled)
    for item, value in zip(labelled, before, strict=True):
        require(equal(item.parameter.detach(), value), f"building it changes '{item.name}'")
        require(item.parameter.grad is None, f"building it gives '{item.name}' a gradient")
        require(item.parameter.requires_grad, f"building it freezes '{item.name}'")


def builds_agree(case: OptimizerCase) -> None:
    """Two builds group the parameters alike, in the same order, so that a saved state fits."""
    one, other = case.build(), case.build()
    require(
        one.grouping() == other.grouping(),
        f"groups are {one.grouping()}, and {other.grouping()} in the next build",
    )
    pairs = zip(one.optimizer.param_groups, other.optimizer.param_groups, strict=True)
    for index, (was, now) in enumerate(pairs):
        for key in [key for key in was if key != "params" and not equal(was[key], now.get(key))]:
            words = f"'{key}' of group {index} is {was[key]!r}, and {now.get(key)!r}"
            raise Failure(f"{words} in the next build")


def a_step_moves_everything(case: OptimizerCase) -> None:
    """A step with gradients moves every parameter, and leaves all of them finite."""
    live = case.build()
    before = live.values()
    live.step(0)
    still = [name for name in before if name not in live.moved(before)]
    require(not still, f"a step with gradients leaves {listing(still)} where it was")
    _require_finite(live, "after a step")


def missing_gradients_are_left_alone(case: OptimizerCase) -> None:
    """Parameters without a gradient don't move, whether all lack one or some, at any step."""
    live = case.build()
    for step in range(STEPS):
        for chosen in ([], live.labelled[::2]):
            names = [item.name for item in chosen]
            before = live.values()
            live.step(
                step,
                lambda item, names=names: (
                    torch.ones_like(item.parameter)  # type: ignore[misc]
                    if item.name in names
                    else None
                ),
            )
            moved = [name for name in live.moved(before) if name not in names]
            require(not moved, f"{listing(moved)} moved without a gradient")


def a_rate_of_zero_moves_nothing(case: OptimizerCase) -> None:
    """With `group["lr"]` at 0 nothing moves; with the rate back, it does."""
    live = case.build()
    for step in range(STEPS):
        live.rate(1.0)
        live.step(step)
        before = live.values()
        live.rate(0.0)
        live.step(STEPS + step)
        moved = live.moved(before)
        require(not moved, f"{listing(moved)} moved at a rate of 0; read group['lr'] at every step")
    live.rate(1.0)
    live.step(0)
    require(live.moved(before), "nothing moves any more after a step at a rate of 0")


def a_saved_state_goes_on(case: OptimizerCase) -> None:
    """Saved and loaded into a new build, it goes on bit for bit as if it had never stopped."""
    live, later = case.build(), case.build()
    for step in range(STEPS):
        live.rate(1.0 / (step + 1))
        live.step(step)
    for old, new in zip(live.labelled, later.labelled, strict=True):
        new.parameter.data.copy_(old.parameter.data)
    later.optimizer.load_state_dict(reloaded(live.optimizer.state_dict()))
    for step in range(STEPS, 2 * STEPS):
        for one in (live, later):
            one.rate(1.0 / (step + 1))
            one.step(step)
        moved = later.moved(live.values())
        require(
            not moved,
            f"after loading its state, step {step + 1} gives other values of {listing(moved)};"
            " keep all that a step needs in the state",
        )


def zero_gradients_are_safe(case: OptimizerCase) -> None:
    """Gradients of 0, from the first step on, leave parameters and state finite."""
    live = case.build()
    for step in range(STEPS):
        live.step(step, lambda item: torch.zeros_like(item.parameter))
    _require_finite(live, "after gradients of 0")


def _require_finite(live: Live, words: str) -> None:
    for name, value in live.values().items():
        require(value.isfinite().all(), f"{words} '{name}' has values that aren't finite")
    for place, value in _tensors(live.optimizer.state_dict()):
        require(value.isfinite().all(), f"{words} its state '{place}' isn't finite")


def _tensors(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a state, with the keys that lead to them."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{place}.{key}".lstrip("."))


def the_loss_falls(case: OptimizerCase) -> None:
    """The loss of a quadratic falls, over twenty steps, in every parameter."""
    live = case.build()
    goals = {name: value + 3.0 for name, value in live.values().items()}

    def losses() -> dict[str, float]:
        now = live.values()
        return {
            name: float((now[name] - goal).double().square().sum()) for name, goal in goals.items()
        }

    before = losses()
    for step in range(DESCENT):
        live.step(step, lambda item: item.parameter.detach() - goals[item.name])
    for name, value in losses().items():
        require(
            value < before[name],
            f"a quadratic of '{name}' is {before[name]:.6g}, and {value:.6g} after {DESCENT} steps",
        )


def gradients_can_be_cleared(case: OptimizerCase) -> None:
    """`zero_grad(set_to_none=True)` leaves no gradient, and the next step works."""
    live = case.build()
    for item in live.labelled:
        item.parameter.grad = torch.ones_like(item.parameter)
    live.optimizer.zero_grad(set_to_none=True)
    kept = [item.name for item in live.labelled if item.parameter.grad is not None]
    require(not kept, f"zero_grad(set_to_none=True) leaves gradients of {listing(kept)}")
    live.optimizer.step()
    live.step(0)


SUITE = Suite(
    "optimizer",
    OptimizerCase,
    (
        is_an_optimizer,
        every_parameter_in_one_group,
        building_changes_nothing,
        builds_agree,
        a_step_moves_everything,
        missing_gradients_are_left_alone,
        a_rate_of_zero_moves_nothing,
        a_saved_state_goes_on,
        zero_gradients_are_safe,
        the_loss_falls,
        gradients_can_be_cleared,
    ),
)


def check_optimizer(
    options: Any,
    *,
    parameters: Callable[[], Sequence[Labelled]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold an optimizer against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyOptimizer(lr=1e-3)`.
        parameters: Returns a model's labelled parameters, new ones of the same values at each
            call; by default those of a tiny network of an embedding, a layer, a norm and a head.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, parameters=parameters)
