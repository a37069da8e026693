"""Numbers gone wrong: what isn't finite stops the run, what never moves is warned of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import ge

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger("framework")
_LOOK = 100
"""Steps after which gradients that were alive are looked at again."""


@attrs.frozen
class Guard:
    """Stops at a loss or gradient that isn't finite; warns once of what never moves.

    Such a step has left the weights alone. Where `trainer.on_nonfinite` is `skip`, and where a
    loss scale overflows, the run goes on until too many steps in a row were left out.
    """

    skips: int = option(
        30, help="steps in a row that may be left out before the run stops", validator=ge(1)
    )
    patience: int = option(
        10,
        help="steps in a row with a loss of 0 or unchanged, a gradient of 0 or a learning rate"
        " that should have moved, before it is warned of",
        validator=ge(2),
    )

    def build(self) -> LiveGuard:
        """Build it."""
        return LiveGuard(self)


@attrs.define(eq=False)
class LiveGuard:
    """Keeps losses on the device, and reads them where a point is logged anyway."""

    options: Guard
    free = ("skips", "patience")
    missed: int = 0
    """Steps in a row that were not taken."""
    told: list[str] = attrs.field(factory=list)
    """Warnings that were given."""
    recent: list[Mapping[str, Tensor]] = attrs.field(factory=list)
    """Losses that were not yet looked at."""
    zero: int = 0
    """Steps in a row with a loss of 0."""
    same: int = 0
    """Steps in a row with the same loss as the one before."""
    last: float | None = None
    rates: list[float] = attrs.field(factory=list)
    """The first step's factor and learning rate, and the steps that moved the first alone."""
    dead: list[int] = attrs.field(factory=list)
    """Steps in a row that a parameter group had no gradient; -1: it had one."""
    handle: Any = None
    """What ends the look at gradients; it costs time while all of them are known to be alive."""

    @hookimpl
    def run_start(self, state: State) -> None:
        """Look at gradients where the optimizer lets us: unscaled and clipped."""
        if self.handle is None and hasattr(state.optimizer, "register_step_pre_hook"):
            self.handle = state.optimizer.register_step_pre_hook(lambda *_: self._gradients(state))

    @hookimpl
    def step_end(
        self, state: State, window: Sequence[Any], loss: Mapping[str, Tensor], norm: Tensor
    ) -> None:
        """Stop at what isn't finite; count what doesn't move."""
        if state.step % _LOOK == 0 or len(state.optimizer.param_groups) > len(self.dead):
            self.run_start(state)
        elif self.handle and self.dead and max(self.dead) < 0:
            self.handle = self.handle.remove()
        if state.missed:
            self._left_out(state, window, loss, norm)
            return
        self.missed = 0
        self.recent.append(loss)
        self._rate(state)

    @hookimpl
    def log(self, point: Mapping[str, Any]) -> None:
        """Warn of a loss that is 0 or stands still."""
        if "train/loss" not in point:
            return
        self._look()
        # the first of equal losses has none before it
        same = self.same + 1
        if self.zero >= self.options.patience:
            self._warn("the loss has been exactly 0 for %s steps; do labels reach it?", self.zero)
        elif same >= self.options.patience:
            text = "the loss has not changed at all for %s steps; does the model learn anything?"
            self._warn(text, same)

    def state_dict(self) -> dict[str, Any]:
        """All counts."""
        self._look()
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        for name in _KEPT:
            setattr(self, name, state[name])

    def _look(self) -> None:
        """Count what was kept, in one reading of the device."""
        import torch

        recent, self.recent = self.recent, []
        if not recent:
            return
        parts = len(recent[0])
        read = torch.stack([value for loss in recent for value in loss.values()]).tolist()
        for total in (sum(read[at : at + parts]) for at in range(0, len(read), parts)):
            self.zero = self.zero + 1 if total == 0 else 0
            self.same = self.same + 1 if total == self.last else 0
            self.last = total

    def _warn(self, text: str, *values: object) -> None:
        if text not in self.told:
            self.told.append(text)
            _log.warning(text, *values)

    def _left_out(
        self, state: State, window: Sequence[Any], loss: Mapping[str, Tensor], norm: Tensor
    ) -> None:
        self.missed += 1
        every = state.strategy.gather([record for batch in window for record in batch["id"]])
        parts = ", ".join(f"{name} {float(value)}" for name, value in loss.items())
        said = f"step {state.step}: loss ({parts}), gradient norm {float(norm)}"
        if state.missed != "overflow" and state.training.on_nonfinite == "stop":
            ids = ", ".join(str(record) for records in every for record in records)
            said += (
                "; the weights were left as they were. Resuming leaves this step out; for more of"
                f" them set trainer.on_nonfinite to 'skip'. Look at the records: {ids}"
            )
            state.stop(said, "failed")
        elif self.missed > self.options.skips:
            advice = "use bf16" if state.missed == "overflow" else "lower the learning rate"
            state.stop(f"{said}; {self.missed} steps in a row were left out; {advice}", "failed")
        elif state.missed != "overflow":
            self._warn("%s; the step is left out (said once)", said)

    def _rate(self, state: State) -> None:
        """Hold the learning rate against the schedule."""
        step = state.step - state.skipped - 1
        factor, rate = state.schedule(step), state.learning_rate
        if not self.rates:
            self.rates = [factor, rate, 0]
            return
        stuck = factor != self.rates[0] and rate == self.rates[1]
        self.rates[2] = self.rates[2] + 1 if stuck else 0
        if self.rates[2] >= self.options.patience:
            self._warn("the learning rate stays at %s although its schedule moves", rate)
        if step + 1 == self.options.patience and not getattr(state.schedule, "steady", False):
            every = max(1, state.total_steps // 1000)
            if all(state.schedule(at) == factor for at in range(0, state.total_steps, every)):
                text = "the scheduler never moves the learning rate; is it meant to be 'constant'?"
                self._warn(text)

    def _gradients(self, state: State) -> None:
        groups = state.optimizer.param_groups
        if state.step % _LOOK == 0 or len(self.dead) != len(groups):
            known = [max(0, count) for count in self.dead[: len(groups)]]
            self.dead = known + [0] * (len(groups) - len(known))
        for at, group in enumerate(groups):
            if self.dead[at] < 0:
                continue
            gradients = (p.grad for p in group["params"] if p.grad is not None)
            if any(bool(gradient.any()) for gradient in gradients):
                self.dead[at] = -1
                continue
            self.dead[at] += 1
            if self.dead[at] == self.options.patience:
                text = "parameter group %s (%s tensors, lr %s) has had no gradient for %s steps"
                tensors = len(group["params"])
                _log.warning(text, at, tensors, group["lr"], self.dead[at])


_KEPT = ("missed", "told", "zero", "same", "last", "rates", "dead")
