"""Optimizers whose rates or states are wrong on purpose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from broken import Defect
from broken.optimizer import Momentum, Options


class CopiesTheRate(Options):
    """It reads the rate when it is built, and no more."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Steps at the first rate."""

        def step(self, closure: Any = None) -> None:
            """Step."""
            for group in self.param_groups:
                group["lr"] = self.defaults["lr"]
            super().step(closure)


class CoupledDecay(Options):
    """Its decay doesn't follow the rate."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Decays by a fixed share, then steps."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            """Step."""
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.mul_(0.999)
            super().step(closure)


class StateOutside(Options):
    """It counts its steps outside the state that is saved."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Steps by less and less."""

        steps = 0

        def step(self, closure: Any = None) -> None:
            """Step."""
            self.steps += 1
            for group in self.param_groups:
                group["lr"] /= self.steps
            super().step(closure)


class PickledState(Options):
    """Its state holds an object that can't be loaded safely."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Adds an object to the state."""

        def state_dict(self) -> dict[str, Any]:
            """Return the state."""
            return {**super().state_dict(), "options": Options()}


class DividesByTheNorm(Options):
    """It divides every gradient by its norm."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Normalises, then steps."""

        def step(self, closure: Any = None) -> None:
            """Step."""
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad = _divided(parameter.grad)
            super().step(closure)


def _divided(gradient: Tensor) -> Tensor:
    return gradient / gradient.norm()


class StopsAtZero(Options):
    """Once it was told a rate of 0, it never steps again."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Stops for good."""

        stopped = 0

        def step(self, closure: Any = None) -> None:
            """Step, or not."""
            self.stopped += any(group["lr"] == 0 for group in self.param_groups)
            if not self.stopped:
                super().step(closure)


class InfiniteState(Options):
    """It keeps the inverse of the gradients."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Keeps it, and steps."""

        def step(self, closure: Any = None) -> None:
            """Step."""
            super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.state[parameter]["scale"] = 1 / parameter.grad.norm()


DEFECTS = [
    Defect("a_rate_of_zero_moves_nothing", CopiesTheRate(), "read group['lr'] at every step"),
    Defect("a_rate_of_zero_moves_nothing", CoupledDecay(), "moved at a rate of 0"),
    Defect("a_rate_of_zero_moves_nothing", StopsAtZero(), "nothing moves any more"),
    Defect("a_saved_state_goes_on", StateOutside(), "keep all that a step needs in the state"),
    Defect("a_saved_state_goes_on", PickledState(), "its state can't be loaded safely"),
    Defect("zero_gradients_are_safe", DividesByTheNorm(), "values that aren't finite"),
    Defect("zero_gradients_are_safe", InfiniteState(), "its state 'state.0.scale' isn't finite"),
]
