"""Optimizers that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from broken import Defect
from framework.protocols import Labelled


class Momentum(torch.optim.SGD):
    """A right optimizer: gradient descent with momentum."""

    def __init__(self, groups: Any, lr: float = 0.1) -> None:
        """Set the momentum."""
        super().__init__(groups, lr=lr, momentum=0.5)


class Options:
    """The options of a right optimizer, but for what a subclass says."""

    optimizer: type[torch.optim.Optimizer] = Momentum

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        return [{"params": [item.parameter for item in parameters]}]

    def build(self, parameters: Sequence[Labelled]) -> Any:
        """Build it."""
        return self.optimizer(self.groups(parameters))


class JustSteps(Options):
    """It has a method that steps, and no more."""

    def build(self, parameters: Sequence[Labelled]) -> Any:
        """Build it."""
        made = super().build(parameters)
        return SimpleNamespace(step=made.step, zero_grad=made.zero_grad)


class ForgetsBiases(Options):
    """Parameters of one dimension are in no group."""

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        return [{"params": [i.parameter for i in parameters if i.parameter.ndim > 1]}]


class AddsItsOwn(Options):
    """It puts a parameter of its own among the model's."""

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        own = torch.nn.Parameter(torch.zeros(1))
        return [*super().groups(parameters), {"params": [own]}]


class InitialisesTheHead(Options):
    """Building it sets the head to 0."""

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        for item in parameters:
            if item.part == "head":
                item.parameter.data.zero_()
        return super().groups(parameters)


class LeavesProbes(Options):
    """Building it takes a step on gradients of 0 to see whether it works, and leaves them."""

    def build(self, parameters: Sequence[Labelled]) -> Any:
        """Build it."""
        made = super().build(parameters)
        for item in parameters:
            item.parameter.grad = torch.zeros_like(item.parameter)
        return made


class OtherOrder(Options):
    """The order of its parameters changes from build to build, as that of a set would."""

    builds = 0

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        self.builds += 1
        return super().groups(parameters[:: -1 if self.builds % 2 else 1])


class OtherRate(Options):
    """Its rate changes from build to build."""

    builds = 0

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        self.builds += 1
        return [{**super().groups(parameters)[0], "lr": 0.1 / self.builds}]


class FrozenNorms(Options):
    """Parameters of one dimension have a rate of 0."""

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        weights = [i.parameter for i in parameters if i.parameter.ndim > 1]
        others = [i.parameter for i in parameters if i.parameter.ndim <= 1]
        return [{"params": weights}, {"params": others, "lr": 0.0}]


class NeedsGradients(Options):
    """It takes every parameter to have a gradient."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Asks the gradients of all for their norm."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            """Step."""
            sum(float(p.grad.norm()) for group in self.param_groups for p in group["params"])
            super().step(closure)


class DecaysAll(Options):
    """It decays every parameter, with a gradient or without."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Decays, then steps."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            """Step."""
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - 0.01 * group["lr"])
            super().step(closure)


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


class Ascends(Options):
    """It goes up."""

    class optimizer(torch.optim.SGD):  # noqa: N801 - an attribute
        """Steps along the gradient."""

        def __init__(self, groups: Any) -> None:
            """Set the direction."""
            super().__init__(groups, lr=0.1, maximize=True)


class KeepsGradients(Options):
    """It sets gradients to 0, whatever it is asked."""

    class optimizer(Momentum):  # noqa: N801 - an attribute
        """Keeps the gradients' memory."""

        def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's own
            """Clear the gradients."""
            super().zero_grad(set_to_none=False)


DEFECTS = [
    Defect("is_an_optimizer", JustSteps(), "no torch.optim.Optimizer"),
    Defect("every_parameter_in_one_group", ForgetsBiases(), "'layer.bias' is in 0 groups"),
    Defect("every_parameter_in_one_group", AddsItsOwn(), "that was not given"),
    Defect("building_changes_nothing", InitialisesTheHead(), "changes 'head.weight'"),
    Defect("building_changes_nothing", LeavesProbes(), "a gradient"),
    Defect("builds_agree", OtherOrder(), "in the next build"),
    Defect("builds_agree", OtherRate(), "'lr' of group 0 is"),
    Defect("a_step_moves_everything", FrozenNorms(), "leaves 'layer.bias', 'norm.weight'"),
    Defect("missing_gradients_are_left_alone", NeedsGradients(), "AttributeError"),
    Defect("missing_gradients_are_left_alone", DecaysAll(), "moved without a gradient"),
    Defect("a_rate_of_zero_moves_nothing", CopiesTheRate(), "read group['lr'] at every step"),
    Defect("a_rate_of_zero_moves_nothing", CoupledDecay(), "moved at a rate of 0"),
    Defect("a_saved_state_goes_on", StateOutside(), "keep all that a step needs in the state"),
    Defect("a_saved_state_goes_on", PickledState(), "its state can't be loaded safely"),
    Defect("zero_gradients_are_safe", DividesByTheNorm(), "values that aren't finite"),
    Defect("the_loss_falls", Ascends(), "a quadratic of"),
    Defect("gradients_can_be_cleared", KeepsGradients(), "leaves gradients of"),
]
