"""The states of callbacks in a checkpoint: by label, and whose failure ends a run."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from framework.errors import RunError
from framework.hooks import Hooks, hookimpl


@attrs.define
class Counting:
    """Counts steps, and can be saved."""

    steps: int = 0

    @hookimpl
    def step_end(self) -> None:
        """Count."""
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"steps": self.steps}


@attrs.define
class Remembering(Counting):
    """Takes its count up again."""

    def load_state_dict(self, state: Any) -> None:
        """Take it."""
        self.steps = state["steps"]


class Stateless(Counting):
    """Has a state that can't be had, and takes none."""

    sink = False

    def state_dict(self) -> dict[str, Any]:
        """Fail."""
        raise ZeroDivisionError

    def load_state_dict(self, state: Any) -> None:
        """Fail."""
        raise KeyError("steps")


class StatelessSink(Stateless):
    """The same, and it may."""

    sink = True


class Without:
    """Has no state."""

    @hookimpl
    def step_end(self) -> None:
        """Nothing."""


def test_states_are_kept_by_label() -> None:
    """A checkpoint gets the state of each callback that has one, under its label."""
    registered = Hooks({"a": Counting(), "none": Without(), "b": Counting(5)})
    registered.call.step_end(state=None, window=[], loss={}, norm=None)
    assert registered.state_dict() == {"a": {"steps": 1}, "b": {"steps": 6}}


def test_states_are_given_back_by_label() -> None:
    """Each callback gets its own state; one that joined since, or has left, is no obstacle."""
    live = {"a": Remembering(), "new": Remembering(7), "none": Without()}
    Hooks(live).load_state_dict({"a": {"steps": 3}, "gone": {"steps": 4}, "none": {"steps": 5}})
    assert (live["a"].steps, live["new"].steps) == (3, 7)


def test_a_state_that_fails_is_told_under_its_owners_name() -> None:
    """A callback whose state can't be had ends the run as one whose hook fails: by its name."""
    with pytest.raises(RunError, match=rf"callback 'mine' \({__name__}\.Stateless\) failed in"):
        Hooks({"mine": Stateless()}).state_dict()


def test_a_sinks_state_that_fails_ends_no_run() -> None:
    """A sink without a state to save is left out of the checkpoint, and told once."""
    registered = Hooks({"sink": StatelessSink(), "a": Counting()})
    for _ in range(2):
        assert registered.state_dict() == {"a": {"steps": 0}}
    assert registered.broken == {"sink"}


def test_a_sink_that_knows_not_its_state_ends_no_run() -> None:
    """What another sink under the same label had saved is no reason not to go on."""
    registered = Hooks({"sink": StatelessSink(), "a": Remembering()})
    registered.load_state_dict({"sink": {"other": 1}, "a": {"steps": 2}})
    assert registered.callbacks["a"].steps == 2
    assert registered.broken == {"sink"}
