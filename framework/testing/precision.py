"""The suite of kind precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from framework.errors import UserError, listing
from framework.protocols import LivePrecision
from framework.testing.suite import Failure, Report, Suite, missing, not_built, reloaded, require
from framework.testing.values import close, equal, frozen_copy

Pair = tuple[float, float]
GRADIENTS: Pair = (3.0, 4.0)
"""Of the two weights: scaled by a power of two they are exact, and their norm is 5."""
NORM = 5.0
EXACT = 1e-6
"""Of float32 numbers, scaled and scaled back; torch clips to a little less than the norm."""
TRAINING = 60
"""Steps of training; a scale that begins too high needs some of them to come down."""


@attrs.frozen(kw_only=True)
class PrecisionCase:
    """A precision with the device that it computes on."""

    options: Any
    device: torch.device = attrs.field(default=torch.device("cpu"), converter=torch.device)

    def build(self) -> LivePrecision:
        """Build the live precision; skip the check where the device can't compute in it."""
        try:
            live: LivePrecision = self.options.build(self.device)
        except UserError as error:
            raise not_built(error) from error
        return live

    def start(self, momentum: float = 0.0) -> Live:
        """Build it with two weights in float32 and gradient descent at a rate of 1."""
        made = self.build()
        weights = [nn.Parameter(torch.zeros(1, device=self.device)) for _ in GRADIENTS]
        return Live(made, weights, torch.optim.SGD(weights, lr=1.0, momentum=momentum))


@attrs.frozen
class Live:
    """A precision with two weights, whose gradients are what a check says."""

    precision: LivePrecision
    weights: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer

    def backward(self, gradients: Pair = GRADIENTS) -> None:
        """Back-propagate a loss whose gradients are these."""
        parts = [w.sum() * g for w, g in zip(self.weights, gradients, strict=True)]
        self.precision.backward(torch.stack(parts).sum())

    def step(self, gradients: Pair = GRADIENTS, max_norm: float = 0.0) -> tuple[Tensor, bool]:
        """Back-propagate and step; the norm, and whether the step was taken."""
        self.backward(gradients)
        return self.precision.step(self.optimizer, self.weights, max_norm)

    def values(self) -> Tensor:
        """The weights, on the CPU."""
        return torch.cat([weight.detach().cpu() for weight in self.weights])

    def require_move(self, before: Tensor, gradients: Pair, words: str) -> None:
        """Require that the weights moved by these gradients since."""
        found, expected = before - self.values(), torch.tensor(gradients)
        right = torch.allclose(found, expected, rtol=EXACT, atol=0.0)
        require(right, f"{words} moves the weights by {found.numpy()}, not {expected.numpy()}")


def has_the_protocol(case: PrecisionCase) -> None:
    """It has a name, `scaled` and every method; a step gives a norm and a boolean."""
    live = case.build()
    state = "state_dict", "load_state_dict"
    lacking = missing(live, "name", "scaled", "autocast", "backward", "step", *state)
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(isinstance(live.name, str) and live.name, f"'name' is {live.name!r}, no text")
    require(type(live.scaled) is bool, f"'scaled' must be True or False, not {live.scaled!r}")
    norm, taken = case.start().step()
    require(isinstance(norm, Tensor) and norm.ndim == 0, f"the norm is {norm!r}, no scalar tensor")
    require(type(taken) is bool, f"step says {taken!r} of whether it was taken, no boolean")


def gradients_are_scaled_back(case: PrecisionCase) -> None:
    """A step without clipping (a norm of 0) moves by the gradients, and says that it was taken."""
    for gradients in (GRADIENTS, (2.0**-20, 2.0**10)):
        live = case.start()
        before = live.values()
        _, taken = live.step(gradients)
        live.require_move(before, gradients, "a step of gradient descent at a rate of 1")
        require(taken, "it says of a good step that it was not taken")


def the_norm_is_unscaled(case: PrecisionCase) -> None:
    """The norm that a step returns is the gradients' own, before clipping."""
    for max_norm in (0.0, 1.0, 100.0):
        norm, _ = case.start().step(max_norm=max_norm)
        words = f"with max_norm = {max_norm:g} the norm is said to be {float(norm):.6g}"
        require(close(norm.cpu(), torch.tensor(NORM), EXACT), f"{words}, not {NORM:g}")


def clipping_scales_to_the_norm(case: PrecisionCase) -> None:
    """Gradients above `max_norm` are scaled down to it, and those below are left as they are."""
    for max_norm in (0.5, 1.0, 10.0):
        live = case.start()
        before = live.values()
        live.step(max_norm=max_norm)
        expected = torch.tensor(GRADIENTS) * min(1.0, max_norm / NORM)
        found = before - live.values()
        words = f"gradients {list(GRADIENTS)} clipped to a norm of {max_norm:g} are"
        figures = f"{found.numpy()}, not {expected.numpy()}"
        require(close(found, expected, EXACT), f"{words} {figures}")


def an_overflow_takes_no_step(case: PrecisionCase) -> None:
    """A gradient that isn't finite takes no step, is said and cleared; the next step is good."""
    for odd in (float("inf"), float("-inf"), float("nan")):
        for max_norm in (0.0, 1.0):
            live = case.start(momentum=0.5)
            before = live.values()
            norm, taken = live.step((GRADIENTS[0], odd), max_norm)
            words = f"a gradient of {odd} with max_norm = {max_norm:g}"
            require(equal(live.values(), before), f"{words} changes the weights")
            require(not taken, f"{words} is said to be a step that was taken")
            require(not norm.isfinite(), f"{words} has a norm of {float(norm):g}")
            _require_cleared(live, words)
            live.step()
            live.require_move(before, GRADIENTS, f"the step after {words}")


def gradients_are_cleared(case: PrecisionCase) -> None:
    """After a step no gradient is left to be added to."""
    live = case.start()
    live.step()
    _require_cleared(live, "a step")


def _require_cleared(live: Live, words: str) -> None:
    left = [w.grad for w in live.weights if w.grad is not None and w.grad.any()]
    require(not left, f"{words} leaves a gradient of {left[:1]}; clear them")


def backward_calls_add_up(case: PrecisionCase) -> None:
    """Gradients of several backward calls add up until the step."""
    live = case.start()
    before = live.values()
    live.backward((1.0, 2.0))
    live.backward((2.0, 2.0))
    live.step((1.0, 0.0))
    live.require_move(before, (4.0, 4.0), "a step on three losses")


def missing_gradients_are_left_alone(case: PrecisionCase) -> None:
    """A weight that the loss doesn't use has no gradient, and stays where it is."""
    live = case.start()
    before = live.values()
    live.precision.backward(live.weights[0].sum() * GRADIENTS[0])
    live.precision.step(live.optimizer, live.weights, 10 * NORM)
    live.require_move(before, (GRADIENTS[0], 0.0), "a loss of the first weight only")


def a_saved_state_goes_on(case: PrecisionCase) -> None:
    """Saved after an overflow and loaded into a new build, it goes on in the same way."""
    odd = (1.0, float("inf"))
    for history in ([], [GRADIENTS], [GRADIENTS, odd], [odd, odd, GRADIENTS]):
        live, later = case.start(), case.start()
        for gradients in history:
            live.step(gradients)
        later.precision.load_state_dict(reloaded(live.precision.state_dict()))
        for gradients in (GRADIENTS, odd, GRADIENTS):
            states = [frozen_copy(one.precision.state_dict()) for one in (live, later)]
            require(equal(*states), f"its state is {states[0]}, and {states[1]} after loading it")
            one, other = live.step(gradients), later.step(gradients)
            require(equal(one, other), f"a step gives {one}, and {other} after loading its state")


def scaled_is_true_of_it(case: PrecisionCase) -> None:
    """If it says `scaled`, an overflow changes its state; if not, nothing does."""
    live = case.start()
    live.step()
    before = frozen_copy(live.precision.state_dict())
    live.step((1.0, float("inf")))
    after = frozen_copy(live.precision.state_dict())
    if live.precision.scaled:
        words = f"it says scaled = True, but an overflow leaves its state at {after}"
        require(not equal(before, after), f"{words}; lower the scale, or no later step is taken")
    else:
        words = f"it says scaled = False, but an overflow makes its state {after} of {before}"
        require(equal(before, after), f"{words}; the trainer ends such a run at a skipped step")


def _network(device: torch.device) -> nn.Sequential:
    layers = nn.Embedding(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)
    return nn.Sequential(*layers).to(device)


def autocast_is_a_context(case: PrecisionCase) -> None:
    """Forward passes under its autocast, repeated and nested, are finite and leave no trace."""
    live, network = case.build(), _network(case.device)
    ids, kind = torch.arange(8, device=case.device), case.device.type
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    for _ in range(2):
        try:
            with live.autocast():
                outer = network(ids)
                with live.autocast():
                    inner = network(ids)
        except (AttributeError, RuntimeError) as error:
            raise Failure(f"{error} under its autocast; make a new context a call") from error
        require(outer.isfinite().all(), "the outputs of a forward pass are not finite")
        require(close(outer.detach(), inner.detach(), EXACT), "nested, it gives other outputs")
    after = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, before[0])  # the checks after this one are not to suffer
    require(before == after, f"it leaves autocast at {after}, where it was {before}")


def it_trains_in_float32(case: PrecisionCase) -> None:
    """A small network learns under it, most steps are taken, and its weights stay in float32."""
    live, network = case.build(), _network(case.device)
    ids, weights = torch.arange(8, device=case.device), list(network.parameters())
    optimizer = torch.optim.SGD(weights, lr=0.5)
    losses, count = [], 0
    for _ in range(TRAINING):
        with live.autocast():
            logits = network(ids)
        live.backward(loss := nn.functional.cross_entropy(logits.float(), ids.flip(0)))
        _, taken = live.step(optimizer, weights, 1.0)
        losses.append(float(loss.detach()))
        count += taken
    kinds = listing({str(weight.dtype) for weight in weights})
    require(kinds == "'torch.float32'", f"after training the weights are of {kinds}")
    require(count > TRAINING // 2, f"it took {count} of {TRAINING} good steps")
    first, last = losses[0], losses[-1]
    require(last < 0.5 * first, f"a loss of {first:.3g} is {last:.3g} after {count} steps")


SUITE = Suite(
    "precision",
    PrecisionCase,
    (
        has_the_protocol,
        gradients_are_scaled_back,
        the_norm_is_unscaled,
        clipping_scales_to_the_norm,
        an_overflow_takes_no_step,
        gradients_are_cleared,
        backward_calls_add_up,
        missing_gradients_are_left_alone,
        a_saved_state_goes_on,
        scaled_is_true_of_it,
        autocast_is_a_context,
        it_trains_in_float32,
    ),
)


def check_precision(
    options: Any,
    *,
    device: torch.device | str | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a precision against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyPrecision()`.
        device: Where it computes; by default the CPU. All is skipped where it can't.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, device=device)
