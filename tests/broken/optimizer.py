"""Optimizers that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

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


class NoRate(Options):
    """Its groups say no rate."""

    def build(self, parameters: Sequence[Labelled]) -> Any:
        """Build it."""
        made = super().build(parameters)
        del made.param_groups[0]["lr"]
        return made


class Freezes(Options):
    """Building it freezes the embeddings."""

    def groups(self, parameters: Sequence[Labelled]) -> list[dict[str, Any]]:
        """Return the groups."""
        parameters[0].parameter.requires_grad_(requires_grad=False)
        return super().groups(parameters)


DEFECTS = [
    Defect("is_an_optimizer", JustSteps(), "lacks param_groups, state_dict, load_state_dict"),
    Defect("is_an_optimizer", NoRate(), "group 0 of param_groups has no 'lr'"),
    Defect("every_parameter_in_one_group", ForgetsBiases(), "'layer.bias' is in 0 groups"),
    Defect("every_parameter_in_one_group", AddsItsOwn(), "that was not given"),
    Defect("building_changes_nothing", InitialisesTheHead(), "changes 'head.weight'"),
    Defect("building_changes_nothing", LeavesProbes(), "a gradient"),
    Defect("building_changes_nothing", Freezes(), "building it freezes 'embedding.weight'"),
    Defect("builds_agree", OtherOrder(), "in the next build"),
    Defect("builds_agree", OtherRate(), "'lr' of group 0 is"),
    Defect("a_step_moves_everything", FrozenNorms(), "leaves 'layer.bias', 'norm.weight'"),
    Defect("missing_gradients_are_left_alone", NeedsGradients(), "AttributeError"),
    Defect("missing_gradients_are_left_alone", DecaysAll(), "moved without a gradient"),
    Defect("the_loss_falls", Ascends(), "a quadratic of"),
    Defect("gradients_can_be_cleared", KeepsGradients(), "leaves gradients of"),
]
