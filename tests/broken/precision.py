"""Precisions that are wrong on purpose."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from broken import Defect


class Right:
    """A right precision with a scale, and its own options; subclasses break a piece each."""

    name = "right"
    scaled = True

    def __init__(self) -> None:
        """Start with a scale."""
        self.scale = 1024.0

    def build(self, _: torch.device) -> Any:
        """Build another."""
        return type(self)()

    def autocast(self) -> AbstractContextManager[Any]:
        """Change nothing."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate, scaled."""
        (loss * self.scale).backward()

    def unscale(self, parameters: Sequence[Tensor]) -> Tensor:
        """Unscale, and return the norm."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient in gradients:
            gradient /= self.scale  # noqa: PLW2901 - in place
        return torch.nn.utils.get_total_norm(gradients)

    def clip(self, parameters: Sequence[Tensor], max_norm: float, norm: Tensor) -> None:
        """Clip."""
        if max_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """Clear the gradients."""
        optimizer.zero_grad()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> tuple[Any, Any]:
        """Unscale, clip, step, clear."""
        norm = self.unscale(parameters)
        finite = bool(norm.isfinite())
        if finite:
            self.clip(parameters, max_norm, norm)
            optimizer.step()
        else:
            self.overflowed(optimizer, parameters)
        self.finish(optimizer)
        return norm, finite

    def overflowed(self, optimizer: Any, parameters: Sequence[Tensor]) -> None:
        """Lower the scale."""
        self.scale /= 2

    def state_dict(self) -> dict[str, Any]:
        """Return the scale."""
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the scale."""
        self.scale = state["scale"]


class NoState(Right):
    """Its live object has no state."""

    def build(self, _: torch.device) -> Any:
        """Build it."""
        names = ("name", "scaled", "autocast", "backward", "step")
        return SimpleNamespace(**{name: getattr(self, name) for name in names})


class TakenAsTensor(Right):
    """It says in a tensor whether the step was taken."""

    def step(self, *given: Any) -> Any:
        """Step."""
        return tuple(map(torch.as_tensor, super().step(*given)))


class NeverUnscales(Right):
    """It steps with scaled gradients."""

    def unscale(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return the norm, unscaled, of gradients that aren't."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients) / self.scale


class LosesSmallGradients(Right):
    """It rounds small gradients to 0."""

    def unscale(self, parameters: Sequence[Tensor]) -> Tensor:
        """Unscale, round, and return the norm."""
        norm = super().unscale(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad[parameter.grad.abs() < 0.01] = 0.0
        return norm


class ScaledNorm(Right):
    """It returns the norm of the scaled gradients."""

    def unscale(self, parameters: Sequence[Tensor]) -> Tensor:
        """Unscale."""
        return super().unscale(parameters) * self.scale


class ClipsValues(Right):
    """It clips by value."""

    def clip(self, parameters: Sequence[Tensor], max_norm: float, norm: Tensor) -> None:
        """Clip."""
        if max_norm:
            torch.nn.utils.clip_grad_value_(parameters, max_norm)


class ScalesUpToTheNorm(Right):
    """It scales gradients below the norm up to it."""

    def clip(self, parameters: Sequence[Tensor], max_norm: float, norm: Tensor) -> None:
        """Scale."""
        for parameter in parameters:
            if max_norm and parameter.grad is not None:
                parameter.grad *= max_norm / norm


class StepsOnZeros(Right):
    """It takes what isn't finite as 0 and steps on."""

    def overflowed(self, optimizer: Any, parameters: Sequence[Tensor]) -> None:
        """Step."""
        for parameter in parameters:
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()


class ClaimsTheStep(Right):
    """It says of an overflow that a step was taken."""

    def step(self, *given: Any) -> Any:
        """Step."""
        return super().step(*given)[0], True


class KeepsWhatOverflowed(Right):
    """After an overflow the gradients stay."""

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """Clear finite gradients."""
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None and parameter.grad.isfinite().all():
                parameter.grad = None


class NeverClears(Right):
    """Gradients stay after a step."""

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """Clear nothing."""


class LastLossOnly(Right):
    """It back-propagates the last loss of a step and forgets the others."""

    def backward(self, loss: Tensor) -> None:
        """Remember the loss."""
        self.loss = loss

    def step(self, *given: Any) -> Any:
        """Back-propagate, then step."""
        super().backward(self.loss)
        return super().step(*given)


class NeedsGradients(Right):
    """It takes every weight to have a gradient."""

    def unscale(self, parameters: Sequence[Tensor]) -> Tensor:
        """Unscale."""
        for parameter in parameters:
            parameter.grad /= self.scale
        return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])


class ForgetsTheScale(Right):
    """It takes up no saved state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""


class PickledState(Right):
    """Its state is an object that can't be loaded safely."""

    def state_dict(self) -> dict[str, Any]:
        """Return itself."""
        return {"scale": self}


class ScaleStays(Right):
    """An overflow leaves its scale as it is, so that the next step overflows too."""

    def overflowed(self, optimizer: Any, parameters: Sequence[Tensor]) -> None:
        """Change nothing."""


class SaysNothingOfItsScale(Right):
    """It skips steps that overflow, and doesn't say so."""

    scaled = False


class OneContext(Right):
    """Every forward pass gets the same context, which is spent after the first."""

    @functools.cached_property
    def autocast(self) -> Any:
        """Return the context, whatever is asked."""
        context = contextlib.contextmanager(lambda: (None for _ in "1"))()
        return lambda: context


class LeavesItOn(Right):
    """Its context, left inside another, leaves autocast on."""

    depth = 0

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Count the contexts."""
        self.depth += 1
        yield
        self.depth -= 1
        torch.set_autocast_enabled("cpu", self.depth > 0 or torch.is_autocast_enabled("cpu"))


class NoGraph(Right):
    """Its forward pass keeps no graph."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Turn gradients off."""
        return torch.no_grad()


class HalfWeights(Right):
    """It keeps the weights in bfloat16, where small steps are lost."""

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        """Round the weights."""
        super().finish(optimizer)
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.data = parameter.data.bfloat16()


DEFECTS = [
    Defect("has_the_protocol", NoState(), "lacks state_dict, load_state_dict"),
    Defect("has_the_protocol", TakenAsTensor(), "no boolean"),
    Defect("gradients_are_scaled_back", NeverUnscales(), "moves the weights by [3072. 4096.]"),
    Defect("gradients_are_scaled_back", LosesSmallGradients(), "not [9.536743e-07"),
    Defect("the_norm_is_unscaled", ScaledNorm(), "said to be 5120, not 5"),
    Defect("clipping_scales_to_the_norm", ClipsValues(), "clipped to a norm of 0.5 are [0.5 0.5]"),
    Defect("clipping_scales_to_the_norm", ScalesUpToTheNorm(), "clipped to a norm of 10 are"),
    Defect("an_overflow_takes_no_step", StepsOnZeros(), "changes the weights"),
    Defect("an_overflow_takes_no_step", ClaimsTheStep(), "a step that was taken"),
    Defect("an_overflow_takes_no_step", KeepsWhatOverflowed(), "leaves a gradient of"),
    Defect("gradients_are_cleared", NeverClears(), "a step leaves a gradient of"),
    Defect("backward_calls_add_up", LastLossOnly(), "a step on three losses moves"),
    Defect("missing_gradients_are_left_alone", NeedsGradients(), "TypeError"),
    Defect("a_saved_state_goes_on", ForgetsTheScale(), "after loading it"),
    Defect("a_saved_state_goes_on", PickledState(), "its state can't be loaded safely"),
    Defect("scaled_is_true_of_it", ScaleStays(), "lower the scale"),
    Defect("scaled_is_true_of_it", SaysNothingOfItsScale(), "it says scaled = False"),
    Defect("autocast_is_a_context", OneContext(), "make a new context a call"),
    Defect("autocast_is_a_context", LeavesItOn(), "it leaves autocast at (True"),
    Defect("it_trains_in_float32", NoGraph(), "does not require grad"),
    Defect("it_trains_in_float32", HalfWeights(), "the weights are of 'torch.bfloat16'"),
]
