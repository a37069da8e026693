"""Precisions that are wrong about what they say of a step, or about their context."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from broken import Defect
from broken.precision import Right


class NameByNumber(Right):
    """Its name is a number of bits."""

    name = 16  # type: ignore[assignment]


class ScaledByNumber(Right):
    """It says that it is scaled by how much."""

    scaled = 1024  # type: ignore[assignment]


class NormByNumber(Right):
    """It returns the norm as a float."""

    def step(self, *given: Any) -> Any:
        """Step."""
        norm, taken = super().step(*given)
        return float(norm), taken


class NeverTaken(Right):
    """It takes every step, and says that it took none."""

    def step(self, *given: Any) -> Any:
        """Step."""
        return super().step(*given)[0], False


class FiniteNorm(Right):
    """It says a norm of 0 where there was an overflow."""

    def step(self, *given: Any) -> Any:
        """Step."""
        norm, taken = super().step(*given)
        return norm.nan_to_num(0.0, 0.0, 0.0), taken


class Overflows(Right):
    """Its forward pass divides by nothing."""

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Divide every linear layer's outputs."""
        handle = nn.modules.module.register_module_forward_hook(lambda *given: given[2] / 0)
        yield
        handle.remove()


class OneLevelOnly(Right):
    """Inside another, its context does something else."""

    depth = 0

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Round what is nested."""
        self.depth += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.depth > 1):
            yield
        self.depth -= 1


class SkipsMost(Right):
    """It takes a good step of three."""

    steps = 0

    def step(self, *given: Any) -> Any:
        """Step, or not."""
        self.steps += 1
        if self.steps % 3 == 1:
            return super().step(*given)
        return self.unscale(given[1]), given[0].zero_grad() is not None


DEFECTS = [
    Defect("has_the_protocol", NameByNumber(), "'name' is 16, no text"),
    Defect("has_the_protocol", ScaledByNumber(), "must be True or False, not 1024"),
    Defect("has_the_protocol", NormByNumber(), "the norm is 5.0, no scalar tensor"),
    Defect("gradients_are_scaled_back", NeverTaken(), "that it was not taken"),
    Defect("an_overflow_takes_no_step", FiniteNorm(), "has a norm of 0"),
    Defect("autocast_is_a_context", Overflows(), "of a forward pass are not finite"),
    Defect("autocast_is_a_context", OneLevelOnly(), "nested, it gives other outputs"),
    Defect("it_trains_in_float32", SkipsMost(), "it took 20 of 60 good steps"),
]
