"""The callback `checkpoint`: what asks for checkpoints, which is the best, which are kept."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import trainer

from framework.commands import _checkpoints
from framework.errors import UserError
from framework.hooks import Hooks, hookimpl
from framework.state import State
from plugins.callbacks import checkpoint as callback
from plugins.callbacks.checkpoint import Checkpoint

Make = Callable[[], State]
NAN = math.nan


def asked(live: Any, state: State, values: Sequence[float], split: str = "val") -> list[str]:
    """The tags that each evaluation asks for, met by the trainer after each."""
    call = Hooks({"checkpoint": live}).call
    found = []
    for value in values:
        call.evaluate_end(state=state, split=split, metrics={"loss": value, "f1": value})
        found.append("+".join(state.saves))
        state.saves = {}
    return found


@pytest.mark.parametrize(
    ("options", "values", "best"),
    [
        (Checkpoint(), [0.5, 0.4, 0.45, 0.4, 0.3], [1, 2, 5]),
        (Checkpoint(monitor="val/f1", mode="max"), [0.5, 0.4, 0.6, 0.6, 0.7], [1, 3, 5]),
        (Checkpoint(), [NAN, 0.5, NAN, 0.4], [2, 4]),
        (Checkpoint(), [NAN, NAN], []),
        (Checkpoint(monitor="val/f1", mode="max"), [-math.inf, 0.0], [1, 2]),
    ],
)
def test_requests(options: Checkpoint, values: list[float], best: list[int], state: Make) -> None:
    """A strictly better evaluation asks, for `last` too; others ask for nothing, as NaN does."""
    expected = ["last+best" if n in best else "" for n in range(1, len(values) + 1)]
    assert asked(options.build(), state(), values) == expected


def test_the_best_says_why(state: Make) -> None:
    """The request for the best checkpoint holds the metric and its value."""
    now = state()
    call = Hooks({"checkpoint": Checkpoint(monitor="val/f1", mode="max").build()}).call
    call.evaluate_end(state=now, split="val", metrics={"f1": 0.75, "loss": 0.1})
    assert now.saves["best"] == {"metric": "val/f1", "value": 0.75}


def test_other_splits_ask_for_nothing(state: Make) -> None:
    """The test split, evaluated with the best weights, asks for no checkpoint."""
    assert asked(Checkpoint().build(), state(), [0.5, 0.4], split="test") == ["", ""]


def test_resumed_it_remembers_the_best(state: Make) -> None:
    """A resumed run doesn't call a worse checkpoint the best."""
    options = Checkpoint()
    first = options.build()
    asked(first, state(), [0.5, 0.3])
    stream = io.BytesIO()
    torch.save(Hooks({"checkpoint": first}).state_dict(), stream)
    stream.seek(0)
    second = options.build()
    Hooks({"checkpoint": second}).load_state_dict(torch.load(stream, weights_only=True))
    assert asked(second, state(), [0.4, 0.2]) == ["", "last+best"]
    assert asked(options.build(), state(), [0.4]) == ["last+best"]


def stepped(live: Any, state: State, steps: int, between: Callable[[], None]) -> list[int]:
    """The steps after which it asks, met by the trainer after each."""
    call = Hooks({"checkpoint": live}).call
    found = []
    for _ in range(steps):
        between()
        state.count(1e-3, 16, skipped=False)
        call.step_end(state=state, window=[], loss={}, norm=None)
        if state.saves:
            assert list(state.saves) == ["last"]
            found.append(state.step)
        state.saves = {}
    return found


class Clock:
    """Stands in for the time of day, and for any other."""

    def __init__(self) -> None:
        """Begin now: the callback may already have looked at the real one."""
        self.now = time.time()

    def time(self) -> float:
        """Tell it."""
        return self.now

    monotonic = perf_counter = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The callback's clock, which moves when it is told to."""
    made = Clock()
    monkeypatch.setattr(callback, "time", made)
    return made


@pytest.mark.parametrize(
    ("every", "expected"), [(0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (7, [7]), (8, [])]
)
def test_every_so_many_steps(state: Make, every: int, expected: list[int]) -> None:
    """With `every_steps` the steps that it divides ask."""
    options = Checkpoint(every_steps=every, every_minutes=0)
    assert stepped(options.build(), state(), 7, lambda: None) == expected


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(0.0, []), (1.0, [2, 4, 6]), (1.5, [3, 6]), (0.25, [1, 2, 3, 4, 5, 6])],
)
def test_every_so_many_minutes(
    state: Make, clock: Clock, minutes: float, expected: list[int]
) -> None:
    """With `every_minutes` the first step after that time asks; a step takes 31 seconds here."""

    def wait() -> None:
        clock.now += 31

    assert stepped(Checkpoint(every_minutes=minutes).build(), state(), 6, wait) == expected


def test_minutes_count_from_the_last_request(state: Make, clock: Clock) -> None:
    """Whatever asked for the last checkpoint, the time begins anew."""
    live, now = Checkpoint(every_minutes=1.0, every_steps=4).build(), state()

    def wait() -> None:
        clock.now += 17 if now.step < 4 else 45

    # 4 by steps after 51 seconds and one step; then two steps of 45 seconds are a minute
    assert stepped(live, now, 6, wait) == [4, 6]


def test_a_clock_that_was_put_back_is_no_reason_to_wait(state: Make, clock: Clock) -> None:
    """Whatever happens to the clock, checkpoints go on being asked for."""
    live, now = Checkpoint(every_minutes=1.0).build(), state()

    def wait() -> None:
        clock.now += -3600 if now.step == 1 else 31

    assert stepped(live, now, 5, wait)[-1] >= 4


@pytest.mark.parametrize(
    ("every", "expected"), [(0, []), (1, [10, 20, 30, 40]), (2, [20, 40]), (3, [30])]
)
def test_every_so_many_epochs(state: Make, every: int, expected: list[int]) -> None:
    """With `every_epochs` the ends of those epochs ask."""
    now = state()
    now.total_steps = 1000
    call = Hooks({"checkpoint": Checkpoint(every_epochs=every).build()}).call
    found = []
    for epoch in range(1, 5):
        now.epoch, now.step = epoch, 10 * epoch
        call.epoch_end(state=now)
        found += [now.step] * ("last" in now.saves)
        now.saves = {}
    assert found == expected


@pytest.mark.parametrize("how", ["all steps are taken", "a callback stops it"])
def test_the_end_of_training_asks(state: Make, how: str) -> None:
    """Training's end asks, whatever the options, and in mid-epoch too."""
    now = state()
    live = Checkpoint(every_epochs=0, every_minutes=0).build()
    now.step = now.total_steps if how == "all steps are taken" else 7
    if how == "a callback stops it":
        now.stop("enough")
    Hooks({"checkpoint": live}).call.epoch_end(state=now)
    assert list(now.saves) == ["last"]


def test_an_epoch_asks_once(state: Make) -> None:
    """Where the evaluation of the same step has asked, the epoch's end doesn't ask again."""
    now = state()
    live = Checkpoint().build()
    now.epoch, now.step = 1, 10
    assert asked(live, now, [0.5]) == ["last+best"]
    Hooks({"checkpoint": live}).call.epoch_end(state=now)
    assert now.saves == {}


def pruned(root: Path, steps: Sequence[int], keep: int, links: dict[str, int]) -> set[str]:
    """What is left of checkpoints once the newest is told of."""
    for step in steps:
        (root / f"step-{step}").mkdir()
        (root / f"step-{step}" / "file").touch()
    for tag, step in links.items():
        (root / tag).symlink_to(f"step-{step}")
    run = trainer(root.parent, {"checkpoint": Checkpoint(keep=keep).build()})
    run.hooks.call.save_end(state=run.state, folder=root / f"step-{max(steps)}")
    run.hooks.finish(run.state)
    return {path.name for path in root.iterdir()}


@given(
    st.sets(st.integers(1, 120), min_size=1, max_size=8),
    st.integers(2, 4),
    st.lists(st.integers(0, 7), max_size=2),
)
@settings(max_examples=40)
def test_pruning_keeps_the_newest_and_the_linked(
    tmp_path_factory: pytest.TempPathFactory, steps: set[int], keep: int, linked: list[int]
) -> None:
    """The newest stay, by number and not by name, and those under a link; the others go."""
    order = sorted(steps)
    found = [index for index in linked if index < len(order)]
    links = {tag: order[i] for tag, i in zip(("best", "mine"), found, strict=False)}
    root = tmp_path_factory.mktemp("checkpoints")
    kept = {f"step-{step}" for step in {*order[-keep:], *links.values()}}
    assert pruned(root, order, keep, links) == kept | links.keys()
    assert all(path.exists() for path in root.iterdir())


def test_pruning_lets_other_folders_be(tmp_path: Path) -> None:
    """What a person put there is nobody's to delete; what was set aside as damaged is."""
    others = {"step-2.bak", "step-x", ".step-9.part", "mine"}
    for name in {*others, "unused-step-1"}:
        (tmp_path / name).mkdir()
    assert pruned(tmp_path, [1, 2, 3, 4], 2, {}) == others | {"step-3", "step-4"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"best": 1}', '{"best": {"step": null}}']
)
def test_pruning_bears_damage(tmp_path: Path, text: str) -> None:
    """A checkpoint that no longer says which one was the best is pruned around, not failed on."""
    for step in (3, 4):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / "counters.json").write_text(text)
    run = trainer(tmp_path.parent, {"checkpoint": Checkpoint(keep=2).build()})
    (tmp_path / "step-2").mkdir()
    run.hooks.call.save_end(state=run.state, folder=tmp_path / "step-4")
    run.hooks.finish(run.state)
    assert {path.name for path in tmp_path.iterdir()} == {"step-3", "step-4"}


def test_pruning_waits_for_what_is_being_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next checkpoint doesn't find, and miss, what the one before has begun to delete."""
    for step in (1, 2, 3, 4):
        (tmp_path / f"step-{step}").mkdir()
    for number in range(3000):
        (tmp_path / "step-1" / str(number)).touch()
    run = trainer(tmp_path.parent, {"checkpoint": Checkpoint(keep=2).build()})
    for _ in range(2):
        run.hooks.call.save_end(state=run.state, folder=tmp_path / "step-4")
    run.hooks.finish(run.state)
    assert {path.name for path in tmp_path.iterdir()} == {"step-3", "step-4"}
    assert caplog.messages == []


def test_two_can_be_gone_on_from_at_any_time(tmp_path: Path) -> None:
    """From the second checkpoint on there are always two that a run could go on from.

    That is: whole, and with the best of their time. One may be damaged; what then?
    """
    found: list[tuple[str, int]] = []

    class Looking:
        """Counts them at every hook."""

        def _count(self, name: str) -> None:
            usable = 0
            for folder in (tmp_path / "checkpoints").glob("step-*"):
                with suppress(UserError):  # it is just being deleted, say
                    best = _checkpoints.read(folder)["counters"]["best"]
                    where = folder.with_name(f"step-{best['step']}") if best else folder
                    _checkpoints.verify(where)
                    usable += 1
            found.append((name, usable))

        @hookimpl
        def step_start(self) -> None:
            """Count."""
            self._count("step_start")

        @hookimpl
        def evaluate_end(self) -> None:
            """Count."""
            self._count("evaluate_end")

        @hookimpl
        def save_end(self) -> None:
            """Count."""
            self._count("save_end")

    class Wishes:
        """Calls some steps the best."""

        @hookimpl
        def step_end(self, state: State) -> None:
            """Ask."""
            if state.step in (1, 4, 9):
                state.save("best", metric="val/mine", value=1.0)

    callbacks = {
        "wishes": Wishes(),
        "checkpoint": Checkpoint(monitor="val/right/seen", mode="max", every_steps=1).build(),
        "looking": Looking(),
    }
    run = trainer(tmp_path, callbacks, epochs=4, sizes={"train": 10, "test": 3})
    run.fit()
    counts = [usable for _, usable in found]
    second = next(index for index, usable in enumerate(counts) if usable >= 2)
    assert counts[:second] == sorted(counts[:second])
    assert min(counts[second:]) >= 2


@pytest.mark.parametrize("keep", [2, 3, 5])
def test_a_run_keeps_what_was_asked_for(tmp_path: Path, keep: int) -> None:
    """After a run the newest `keep` are there, and the best, which both links say."""
    options = Checkpoint(monitor="val/right/seen", mode="max", every_steps=1, keep=keep)
    run = trainer(tmp_path, {"checkpoint": options.build()}, epochs=4)
    run.fit()
    run.hooks.finish(run.state)
    root = tmp_path / "checkpoints"
    assert run.state.best.step == 3
    assert {path.name for path in root.glob("step-*")} == {
        "step-3",
        *(f"step-{step}" for step in range(13 - keep, 13)),
    }
    assert (root / "best").readlink() == Path("step-3")
    assert (root / "last").readlink() == Path("step-12")


@pytest.mark.parametrize("options", [{"keep": 1}, {"every_steps": -1}, {"every_minutes": -1.0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    """One checkpoint alone may be the damaged one; an interval can't be negative."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Checkpoint(**options)


def test_what_it_reads() -> None:
    """It says which metric it needs; without options that is the validation loss, the lower."""
    assert Checkpoint().build().reads == ("val/loss",)
    assert Checkpoint(monitor="val/f1", mode="max").build().reads == ("val/f1",)
