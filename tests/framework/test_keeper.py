"""The keeper of checkpoints: what it keeps, when it writes, and what it says when it can't."""

from __future__ import annotations

import collections
import copy
import os
import random
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import (
    At,
    Recorder,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    trainer,
    weights,
)

from framework import checkpoint
from framework.commands import _checkpoints
from framework.commands._checkpoints import newest
from framework.errors import RunError, UserError
from framework.hooks import hookimpl
from framework.state import Best, State
from framework.trainer import Trainer


@attrs.define
class Holding:
    """Has a state of whatever is given."""

    kept: Any = None

    @hookimpl
    def step_end(self) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return {"kept": self.kept}

    def load_state_dict(self, state: Any) -> None:
        """Take it up."""
        self.kept = state["kept"]


def kept(folder: Path, value: Any) -> Any:
    """Return what a checkpoint gives back of a callback's state."""
    run = trainer(folder, {"mine": Holding(value)})
    run.keeper.save(run.state, ["last"])
    run.keeper.wait()
    return _checkpoints.read(folder / "checkpoints" / "step-0")["hooks"]["mine"]["kept"]


@pytest.mark.parametrize(
    "value",
    [np.float32(0.5), np.float64("inf"), np.int64(-3), np.uint8(255), np.bool_(True), np.str_("é")],
)
def test_numpys_scalars_become_numbers(tmp_path: Path, value: Any) -> None:
    """What a metric or a callback computed with numpy is kept as the number it is."""
    found = kept(tmp_path, {"one": value, "more": [value, (value,)]})
    assert found == {"one": value.item(), "more": [value.item(), (value.item(),)]}
    assert type(found["one"]) is type(value.item())


PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(value=NESTED)
def test_plain_states_are_given_back(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Numbers, text, lists, tuples and dicts of them come back as they were, type by type."""
    assert repr(kept(tmp_path_factory.mktemp("run"), value)) == repr(value)


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - the untyped kind


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({1, 2}, "set"),
        (object(), "object"),
        (np.zeros(2), "ndarray"),
        (torch.Size([1]), "Size"),
        (torch.float32, "dtype"),
        (Pair(1, 2), "Pair"),
        (Path(), "PosixPath"),
        (1j, "complex"),
        (len, "builtin_function_or_method"),
    ],
)
def test_what_couldnt_be_read_back_is_refused(tmp_path: Path, value: Any, name: str) -> None:
    """Anything else in a state ends the run at once, and the place of it is named."""
    with pytest.raises(RunError) as caught:
        kept(tmp_path, {"seen": [0, value]})
    assert str(caught.value) == (
        f"the state, 'hooks', 'mine', 'kept', 'seen' holds a {name}; what a checkpoint keeps may"
        " hold numbers, text, tensors, lists and dicts"
    )
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "value",
    [
        {np.int64(3): 1},
        {np.str_("a"): 1},
        {("a", np.int64(1)): 1},
        {frozenset("a"): 1},
        {len: 1},
        b"",
        b"a",
        2**3000,
        torch.eye(2).to_sparse(),
    ],
    ids=["number", "text", "tuple", "set", "function", "no bytes", "bytes", "huge", "sparse"],
)
def test_whatever_is_written_can_be_read(tmp_path: Path, value: Any) -> None:
    """Odd keys, bytes and tensors are refused with their place, or made plain: one or the other.

    A checkpoint that is whole and can't be read is worse than none.
    """
    told, found = "", None
    try:
        found = kept(tmp_path, value)
    except RunError as error:
        told = str(error)
    as_it_was = str(found) == str(value) or found == value
    assert told.startswith("the state, 'hooks', 'mine', 'kept'") if told else as_it_was


def test_shared_tensors_stay_shared(tmp_path: Path) -> None:
    """A tensor that stands in a state twice is one tensor again, and views are their own."""
    one = torch.arange(6.0)
    found = kept(tmp_path, [one, {"again": one}, one[:3], one.reshape(2, 3), torch.empty(0)])
    assert found[0] is found[1]["again"]
    assert torch.equal(found[2], one[:3])
    assert torch.equal(found[3], one.reshape(2, 3))
    found[0].fill_(9.0)
    assert torch.equal(found[2], one[:3])


def stopped(run: Trainer) -> threading.Event:
    """Keep the thread that writes busy until the event is set."""
    free = threading.Event()
    run.keeper.pool.submit(free.wait)
    return free


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """What is written is what there was when it was asked for, whatever changes meanwhile."""
    holding = Holding([1, {"tensor": torch.ones(2)}])
    run = trainer(tmp_path, {"mine": holding}, lr=0.5)
    module: Any = run.state.model.module
    run.state.step = 3
    run.state.metrics = {"val": {"loss": 1.0}}
    module.register_buffer("frozen", torch.zeros(3))
    before = copy.deepcopy(module.state_dict())
    free = stopped(run)
    generator = torch.get_rng_state()
    run.keeper.save(run.state, ["last"])
    assert not (tmp_path / "checkpoints").exists()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1.0)
    holding.kept[1]["tensor"].zero_()
    holding.kept.append(2)
    run.state.step, run.state.metrics["val"]["loss"] = 4, 2.0
    run.update.optimizer.param_groups[0]["lr"] = 7.0
    torch.rand(3)
    free.set()
    run.keeper.wait()
    saved = _checkpoints.read(tmp_path / "checkpoints" / "last")
    assert saved["counters"]["step"] == 3
    assert saved["counters"]["metrics"] == {"val": {"loss": 1.0}}
    assert saved["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert saved["hooks"]["mine"]["kept"][0] == 1
    assert len(saved["hooks"]["mine"]["kept"]) == 2
    assert torch.equal(saved["hooks"]["mine"]["kept"][1]["tensor"], torch.ones(2))
    assert torch.equal(saved["generators"][0]["torch"], generator)
    other: Any = net(5)
    other.register_buffer("frozen", torch.ones(3))
    checkpoint.load_weights(other, tmp_path / "checkpoints" / "step-3" / checkpoint.WEIGHTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_one_is_written_at_a_time_and_told_where_training_runs(tmp_path: Path) -> None:
    """The next waits for the one before; each is told once, in order, in the thread of training."""
    told: list[Any] = []

    class Listener:
        """Notes what is told."""

        @hookimpl
        def save_end(self, folder: Path) -> None:
            """Note."""
            there = sorted(path.name for path in folder.parent.glob("step-*"))
            told.append((folder.name, there, threading.current_thread()))

    run = trainer(tmp_path, {"listener": Listener()})
    for step in (1, 2, 3):
        run.state.step = step
        run.keeper.save(run.state, ["last"])
        assert len(told) == step - 1
    run.keeper.wait()
    run.keeper.wait()
    here = threading.current_thread()
    assert told == [
        (f"step-{step}", [f"step-{other}" for other in range(1, step + 1)], here)
        for step in (1, 2, 3)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_the_writer_gives_way(tmp_path: Path) -> None:
    """It has a lower priority than training, also where that is lowered later."""
    run = trainer(tmp_path)

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert run.keeper.pool.submit(priority).result() == min(19, priority() + 10)


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    """Where no callback asks for one there is no checkpoint."""
    trainer(tmp_path).fit()
    assert not (tmp_path / "checkpoints").exists()


class Waiting:
    """Waits at the start of a step for what is being written, so that it has surely failed."""

    def __init__(self) -> None:
        """Wait for nobody yet."""
        self.run: Trainer | None = None

    @hookimpl
    def step_start(self) -> None:
        """Wait."""
        if self.run is not None and self.run.keeper.writing is not None:
            futures.wait([self.run.keeper.writing])


@pytest.mark.parametrize(("step", "ended"), [(1, 2), (4, 5), (6, 6)])
def test_a_failed_write_ends_the_run_at_the_next_step(
    tmp_path: Path, step: int, ended: int
) -> None:
    """The error names checkpoint and reason; without a next step it may come behind the test."""
    (tmp_path / "checkpoints").touch()
    waiting, recorder = Waiting(), Recorder()
    save = At("step_end", step, lambda state: state.save("last"))
    run = trainer(tmp_path, {"save": save, "waiting": waiting, "recorder": recorder})
    waiting.run = run
    with pytest.raises(RunError) as caught:
        run.fit()
    target = tmp_path / "checkpoints" / f"step-{step}"
    assert str(caught.value) == f"{target}: can't write the checkpoint (Not a directory)"
    assert run.state.step == ended
    assert recorder.of("save_end") == []
    tested = "test" in [split for _, split in recorder.of("evaluate_start")]
    assert step == 6 or not tested  # the last one may be known to have failed only behind the test


def _draw() -> tuple[float, float, float, float]:
    legacy = np.random.normal()  # noqa: NPY002 - the global generator is what is saved
    return random.gauss(0, 1), float(legacy), float(torch.rand(1)), random.random()  # noqa: S311


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), drawn=st.integers(0, 3))
def test_every_generator_is_in_the_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, seed: int, drawn: int
) -> None:
    """Put back, the global generators go on with the numbers that came after the checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    run = trainer(folder)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    for _ in range(drawn):
        _draw()
    run.keeper.save(run.state, ["last"])
    expected = [_draw(), _draw()]
    run.keeper.wait()
    fresh = resumed(folder)
    assert [_draw(), _draw()] != expected
    # building and run_start may draw what they like: it counts from here
    fresh.keeper.go_on()
    assert [_draw(), _draw()] == expected


def resumed(folder: Path, **given: Any) -> Trainer:
    """Return a fresh trainer that has taken up the newest checkpoint of a folder."""
    found = newest(folder / "checkpoints")
    assert found is not None
    run = trainer(folder, **given)
    run.keeper.resume(run.state, *found)
    return run


COUNTERS = {
    "epoch": 1,
    "batch": 2,
    "step": 5,
    "items": 96,
    "skipped": 1,
    "over": True,
    "due": True,
    "micro_batch": 3,
    "learning_rate": 1e-3,
    "metrics": {"val": {"loss": float("nan"), "f1": 0.5}},
    "timing": {"train": 2.5},
    "best": Best(metric="val/f1", value=0.5, step=5, metrics={"val": {"f1": 0.5}}),
}


def test_every_counter_is_taken_up(tmp_path: Path) -> None:
    """Counters, the newest metrics and the best survive, undefined values too."""
    run = trainer(tmp_path)
    for name, value in COUNTERS.items():
        setattr(run.state, name, value)
    run.keeper.save(run.state, ["best"])
    run.keeper.wait()
    state = resumed(tmp_path).state
    assert {name: repr(getattr(state, name)) for name in COUNTERS} == {
        name: repr(value) for name, value in COUNTERS.items()
    }
    assert (state.stopping, state.status, state.reason) == (False, "running", "")
    # what a run decides anew, or its experiment
    fresh = {"folder", "name", "model", "optimizer", "schedule", "training", "epochs", "started"}
    fresh |= {"steps_per_epoch", "total_steps", "items_per_epoch", "status", "reason", "missed"}
    fresh |= {"stopping", "ended", "exit_code", "saves", "closing", "strategy", "meet"}
    assert {field.name for field in attrs.fields(State)} == fresh | COUNTERS.keys()


def test_an_early_stop_is_taken_up(tmp_path: Path) -> None:
    """A run that had stopped by itself isn't trained on when it is resumed."""
    stop = At("step_end", 2, lambda state: (state.stop("enough"), state.save("last")))
    run = trainer(tmp_path, {"stop": stop})
    run.fit()
    again = resumed(tmp_path)
    again.fit()
    state = again.state
    assert (state.step, state.status, state.reason) == (2, "stopped_early", "enough")


class Larger(torch.nn.Module):
    """A module of other shapes."""

    def __init__(self) -> None:
        """Make it."""
        super().__init__()
        self.body = torch.nn.Linear(4, 9)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """Weights that don't fit are a mistake of the user's, named with their file."""
    run = trainer(tmp_path)
    run.keeper.save(run.state, ["last"])
    run.keeper.wait()
    with pytest.raises(UserError, match=r"model\.safetensors: these weights can't be read into"):
        resumed(tmp_path, module=Larger())


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    """A state that doesn't fit the optimizer is a mistake of the user's, named with its folder."""
    run = trainer(tmp_path)
    run.keeper.save(run.state, ["last"])
    run.keeper.wait()
    module = net()
    groups = [{"params": [parameter]} for parameter in module.parameters()]
    with pytest.raises(UserError, match=r"step-0: doesn't fit this experiment \("):
        resumed(tmp_path, module=module, optimizer=torch.optim.SGD(groups, lr=0.1))


def test_a_callback_may_join_or_leave(tmp_path: Path) -> None:
    """States of callbacks that are gone are let be; one that is new begins at its beginning."""
    run = trainer(tmp_path, {"gone": Holding(1), "stays": Holding(2)})
    run.keeper.save(run.state, ["last"])
    run.keeper.wait()
    callbacks = {"stays": Holding(), "new": Holding(3)}
    resumed(tmp_path, callbacks=callbacks)
    assert [callbacks[label].kept for label in callbacks] == [2, 3]


def test_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """A resumed trainer has the weights that were saved, whatever it was built with."""
    run = trainer(tmp_path, module=net(3))
    run.keeper.save(run.state, ["last"])
    run.keeper.wait()
    fresh = resumed(tmp_path, module=net(4))
    assert torch.equal(weights(fresh.state.model.module), weights(net(3)))
