"""The callback `guard`: what never moves is warned of, once, and a sound run of nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from guarding import Said, falling, guarded
from tiny_parts import CrossEntropy, Net, net, trainer
from torch import nn

from framework.commands._checkpoints import newest
from framework.hooks import hookimpl
from plugins.callbacks.guard import Guard
from plugins.schedulers.constant import Constant

ZERO = "the loss has been exactly 0 for {} steps; do labels reach it?"
SAME = "the loss has not changed at all for {} steps; does the model learn anything?"
NEVER = "the scheduler never moves the learning rate; is it meant to be 'constant'?"
STUCK = "the learning rate stays at {} although its schedule moves"


class Nothing(CrossEntropy):
    """A loss of 0 that has a gradient of 0."""

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Multiply with 0."""
        return {"ce": super().__call__(outputs, batch)["ce"] * 0.0}


class Fixed(CrossEntropy):
    """A loss that the weights don't change, though gradients reach them."""

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Add what makes it 1 an item."""
        found = super().__call__(outputs, batch)["ce"]
        return {"ce": (found - found.detach()) + len(batch["id"])}


def test_a_loss_of_nothing_is_said(tmp_path: Path, said: Said) -> None:
    """A loss that is exactly 0 step after step is warned of, once."""
    guarded(tmp_path, Guard(patience=3), loss=Nothing(), epochs=4)
    assert [text for text in said() if "gradient" not in text] == [ZERO.format(3)]


def test_a_loss_that_stands_still_is_said(tmp_path: Path, said: Said) -> None:
    """A loss that is the same to the last bit, step after step, is warned of, once."""
    guarded(tmp_path, Guard(patience=3), loss=Fixed(), epochs=4)
    assert said() == [SAME.format(3)]


@pytest.mark.parametrize("steps", [4, 5])
def test_a_loss_is_given_its_patience(tmp_path: Path, said: Said, steps: int) -> None:
    """One step fewer than the patience is no reason to warn."""
    guarded(tmp_path, Guard(patience=5), loss=Fixed(), epochs=4, steps=steps)
    assert said() == ([SAME.format(5)] if steps == 5 else [])


def test_a_loss_is_looked_at_where_a_point_is_logged(tmp_path: Path, said: Said) -> None:
    """Between points the device isn't waited for: the warning comes with the next one."""
    guarded(tmp_path, Guard(patience=2), loss=Fixed(), epochs=4, log_every=100)
    assert said() == [SAME.format(3)]


class Separate(Net):
    """A net with a part that nothing reaches, or that something reaches only now and then."""

    def __init__(self, reached: Callable[[int], bool] = lambda _: False) -> None:
        """Add a part."""
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.dead = nn.Linear(4, 3)
        self.reached = reached
        self.calls = 0

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Use the part where it is reached."""
        found = super().forward(x, **batch)["logits"]
        if self.training:
            self.calls += 1
            if self.reached(self.calls):
                found = found + self.dead(x)
        return {"logits": found}


def _groups(module: Any, rate: float = 0.1) -> torch.optim.Optimizer:
    alive = [*module.body.parameters(), *module.head.parameters()]
    groups = [{"params": alive}, {"params": [*module.dead.parameters()]}]
    return torch.optim.AdamW(groups, lr=rate)


DEAD = re.compile(
    r"parameter group 1 \(2 tensors, lr [\d.e-]+\) has had no gradient for (\d+) steps"
)


def test_a_group_without_a_gradient_is_said(tmp_path: Path, said: Said) -> None:
    """A parameter group that no gradient reaches is named, once, with what is in it."""
    module = Separate()
    guarded(tmp_path, Guard(patience=4), module=module, optimizer=_groups(module), epochs=50)
    (warning,) = said()
    found = DEAD.fullmatch(warning)
    assert found is not None
    assert found[1] == "4"


def test_a_group_that_dies_later_is_said(tmp_path: Path, said: Said) -> None:
    """What had a gradient at first is looked at again every hundred steps."""
    module = Separate(lambda call: call <= 20)
    guarded(tmp_path, Guard(patience=4), module=module, optimizer=_groups(module), epochs=40)
    (warning,) = said()
    assert DEAD.fullmatch(warning)


def test_a_step_left_out_delays_no_look(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the step before the look was left out, what is dead is found at the same step."""
    monkeypatch.setattr("plugins.callbacks.guard._LOOK", 20)
    module = Separate(lambda call: call <= 10)

    class Spoiled:
        """Makes the gradients of the step that ends as number 20 NaN."""

        factor = 1.0

        @hookimpl
        def step_start(self, state: Any) -> None:
            """See which step begins."""
            self.factor = torch.nan if state.step == 19 else 1.0

    given = {"module": module, "optimizer": _groups(module), "on_nonfinite": "skip"}
    spoiled = Spoiled()
    module.body.weight.register_hook(lambda gradient: gradient * spoiled.factor)
    callbacks = {"spoiled": spoiled}
    run, _ = guarded(tmp_path, Guard(patience=4), epochs=10, callbacks=callbacks, **given)
    assert run.state.skipped == 1
    assert any(DEAD.fullmatch(warning) for warning in said())


def test_a_first_gradient_of_zero_is_no_fault(tmp_path: Path, said: Said) -> None:
    """A low-rank adapter, one half of which is 0 at first, is alive from its second step on."""

    class Adapted(Net):
        """A net with an adapter of rank 2 beside its body."""

        def __init__(self) -> None:
            """Add the halves, one of them 0."""
            super().__init__()
            self.down = nn.Linear(4, 2, bias=False)
            self.up = nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
            """Add the adapter."""
            hidden = self.body(x) + self.up(self.down(x))
            return {"logits": self.head(torch.tanh(hidden))}

    module = Adapted()
    groups = [{"params": [module.down.weight]}, {"params": [module.up.weight]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    guarded(tmp_path, Guard(patience=2), module=module, optimizer=optimizer, epochs=4)
    assert said() == []


def test_a_group_may_join(tmp_path: Path, said: Said) -> None:
    """A group that is added during training, as gradual unfreezing does, is looked at too."""
    module = Separate()
    alive = [*module.body.parameters(), *module.head.parameters()]
    optimizer = torch.optim.AdamW([{"params": alive}], lr=0.1)

    class Unfreezing:
        """Adds the part after the second step."""

        @hookimpl
        def step_end(self, state: Any) -> None:
            """Add."""
            if state.step == 2:
                group = {"params": [*module.dead.parameters()], "initial_lr": 0.1}
                state.optimizer.add_param_group(group)

    callbacks = {"unfreezing": Unfreezing()}
    guard = Guard(patience=3)
    run, _ = guarded(
        tmp_path, guard, module=module, optimizer=optimizer, epochs=4, callbacks=callbacks
    )
    assert run.state.step == 12
    (warning,) = said()
    assert DEAD.fullmatch(warning)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (lambda _: 1.0, [NEVER]),
        (lambda _: 0.5, [NEVER]),
        (Constant().build(12), []),
        (Constant(warmup=0.5).build(12), []),
        (falling, []),
        (lambda step: 1.0 if step < 9 else 0.1, []),
    ],
    ids=["one", "a half", "constant", "warm-up", "falling", "late"],
)
def test_a_schedule_that_never_moves_is_said(
    tmp_path: Path, said: Said, factor: Any, expected: list[str]
) -> None:
    """A schedule that is the same at every step is warned of, once, unless it says so itself."""
    guarded(tmp_path, Guard(patience=3), factor=factor, epochs=4)
    assert said() == expected


def test_an_overflow_at_the_wrong_moment_hides_no_schedule(tmp_path: Path, said: Said) -> None:
    """The schedule is looked at after so many steps, also where just that step was left out."""

    class Now(CrossEntropy):
        """Gives NaN in the third step."""

        def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
            """Count the steps of training."""
            found = super().__call__(outputs, batch)["ce"]
            if torch.is_grad_enabled():
                calls.append(1)
            return {"ce": found * (math.nan if len(calls) == 3 else 1.0)}

    calls: list[int] = []
    settings: Any = {"loss": Now(), "on_nonfinite": "skip", "factor": lambda _: 1.0}
    run, _ = guarded(tmp_path, Guard(patience=3), epochs=4, **settings)
    assert run.state.skipped == 1
    assert [text for text in said() if "left out" not in text] == [NEVER]


class Deaf(torch.optim.SGD):
    """An optimizer that takes its rate back."""

    def step(self, closure: Any = None) -> None:
        """Step at its own rate."""
        for group in self.param_groups:
            group["lr"] = 0.05
        super().step(closure)


def test_a_rate_that_stays_is_said(tmp_path: Path, said: Said) -> None:
    """An optimizer whose rate doesn't follow its schedule is warned of, once."""
    module = net()
    optimizer = Deaf(module.parameters(), lr=0.05)
    guarded(tmp_path, Guard(patience=3), module=module, optimizer=optimizer, epochs=4)
    assert said() == [STUCK.format(0.05)]


def test_a_rate_of_nothing_is_said(tmp_path: Path, said: Said) -> None:
    """A rate of 0 stays 0 whatever the schedule does."""
    guarded(tmp_path, Guard(patience=3), lr=0.0, epochs=4, sizes={"train": 12, "val": 3})
    assert STUCK.format(0.0) in said()
    assert len(said()) == len(set(said()))


def test_a_sound_run_is_told_nothing(tmp_path: Path, said: Said) -> None:
    """Training that learns, under schedules that move or say that they don't, has no warning."""
    for name, factor in {"falling": falling, "constant": Constant().build(60)}.items():
        run, _ = guarded(tmp_path / name, Guard(patience=2), factor=factor, epochs=20)
        assert run.state.step == 60
    assert said() == []


def test_an_optimizer_without_hooks_is_not_looked_into(tmp_path: Path, said: Said) -> None:
    """Where gradients can't be looked at, everything else is watched as ever."""

    class Plain:
        """An optimizer that is none of torch's."""

        def __init__(self, parameters: Any) -> None:
            """Take parameters."""
            self.param_groups = [{"params": list(parameters), "lr": 0.1}]

        def step(self) -> None:
            """Descend."""
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.sub_(self.param_groups[0]["lr"] * parameter.grad)

        def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002
            """Clear."""
            for parameter in self.param_groups[0]["params"]:
                parameter.grad = None

        def state_dict(self) -> dict[str, Any]:
            """Nothing."""
            return {}

        def load_state_dict(self, state: Any) -> None:
            """Nothing."""

    module = net()
    run, _ = guarded(
        tmp_path,
        Guard(patience=3),
        module=module,
        optimizer=Plain(module.parameters()),
        loss=Fixed(),
        epochs=4,
    )
    assert run.state.step == 12
    assert said() == [SAME.format(3)]


def test_its_state_survives(tmp_path: Path, said: Said) -> None:
    """Counts go on over a resume, and what was said is not said again."""
    settings: Any = {"loss": Fixed(), "factor": lambda _: 1.0, "log_every": 1, "epochs": 9}

    class Leaving:
        """Interrupts the run after some step."""

        step = 0

        @hookimpl
        def step_end(self, state: Any) -> None:
            """Interrupt."""
            if state.step == self.step:
                state.stop("received SIGTERM", "interrupted")

    # what was said of the points by then: the interrupted step's own is logged before it ends
    for step, expected in ((2, []), (3, []), (4, [NEVER, SAME.format(4)]), (9, [])):
        leaving = Leaving()
        leaving.step = step
        run = trainer(
            tmp_path, {"guard": Guard(patience=4).build(), "leaving": leaving}, **settings
        )
        found = newest(tmp_path / "checkpoints")
        if found:
            run.keeper.resume(run.state, *found)
        before = len(said())
        run.hooks.call.run_start(state=run.state)
        run.fit()
        assert sorted(said()[before:]) == sorted(expected)
        assert run.state.step == step
