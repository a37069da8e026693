"""Requests to stop and interrupts: what is still done, what stays open, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import (
    At,
    Modes,
    fitted,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    trainer,
    weights,
)

from framework import checkpoint
from framework.commands import _checkpoints
from framework.commands._checkpoints import newest
from plugins.callbacks.early_stopping import EarlyStopping


@pytest.mark.parametrize(
    ("hook", "step", "taken", "evaluations"),
    [
        ("step_end", 2, 2, ["test"]),
        ("step_start", 1, 2, ["test"]),
        ("step_end", 3, 3, ["test"]),
        ("epoch_end", 3, 3, ["val", "test"]),
        ("epoch_start", 3, 3, ["val", "test"]),
        ("evaluate_end", 3, 3, ["val", "test"]),
    ],
)
def test_a_request_to_stop(
    tmp_path: Path, hook: str, step: int, taken: int, evaluations: list[str]
) -> None:
    """Training ends after the running step, if any; then comes the test; the reason is kept."""
    stop = At(hook, step, lambda state: state.stop("enough"))
    run, recorder = fitted(tmp_path, {"stop": stop}, log_every=10)
    state = run.state
    assert stop.done
    assert (state.step, state.status, state.reason) == (taken, "stopped_early", "enough")
    assert [split for _, (split, _) in recorder.of("evaluate_end")] == evaluations
    logged = [point["step"] for _, point in recorder.of("log") if "train/loss" in point]
    assert logged[-1] == taken


@pytest.mark.parametrize("status", ["failed", "interrupted"])
@pytest.mark.parametrize(
    ("hook", "step", "taken", "evaluations"),
    [
        ("step_end", 2, 2, []),
        ("step_start", 1, 2, []),
        ("step_end", 3, 3, []),
        ("epoch_end", 3, 3, ["val"]),
        ("epoch_start", 3, 3, ["val"]),
        ("evaluate_end", 3, 3, ["val"]),
    ],
)
def test_a_request_to_leave(
    tmp_path: Path, hook: str, step: int, taken: int, evaluations: list[str], status: Any
) -> None:
    """A run that has failed or is interrupted is saved after the running step, and not tested."""
    stop = At(hook, step, lambda state: state.stop("enough", status))
    run, recorder = fitted(tmp_path, {"stop": stop}, log_every=10)
    state = run.state
    assert (state.step, state.status, state.reason) == (taken, status, "enough")
    assert [split for _, (split, _) in recorder.of("evaluate_end")] == evaluations
    assert [split for _, split in recorder.of("evaluate_start")] == evaluations
    assert (tmp_path / "checkpoints" / "last").readlink() == Path(f"step-{taken}")
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    again = trainer(tmp_path)
    again.keeper.resume(again.state, *found)
    assert (again.state.stopping, again.state.status) == (False, "running")


def test_the_first_reason_to_stop_stays(tmp_path: Path) -> None:
    """A second request changes neither reason nor status."""
    first = At("step_end", 2, lambda state: state.stop("first"))
    second = At("step_end", 2, lambda state: state.stop("second", "failed"))
    run, _ = fitted(tmp_path, {"first": first, "second": second})
    assert (run.state.reason, run.state.status) == ("first", "stopped_early")


@pytest.mark.parametrize("order", [("early", "signal"), ("signal", "early")])
def test_an_interrupt_is_told_beside_another_reason(tmp_path: Path, order: tuple[str, str]) -> None:
    """An interrupt ends what stopping early leaves to do, and the early stop isn't forgotten."""
    stops = {
        "early": At("step_end", 2, lambda state: state.stop("enough")),
        "signal": At("step_end", 2, lambda state: state.stop("received SIGTERM", "interrupted")),
    }
    run, recorder = fitted(tmp_path, {label: stops[label] for label in order})
    state = run.state
    assert (state.step, state.reason, state.status) == (2, "received SIGTERM", "interrupted")
    assert recorder.of("evaluate_end") == []
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    again = trainer(tmp_path)
    again.keeper.resume(again.state, *found)
    assert (again.state.stopping, again.state.reason) == (True, "enough")
    assert again.state.status == "stopped_early"


def test_early_stopping(tmp_path: Path) -> None:
    """A metric that stops improving ends training after `patience` evaluations."""
    stopping = EarlyStopping(monitor="val/right/seen", mode="max", patience=2).build()
    run, recorder = fitted(tmp_path, {"early": stopping}, epochs=9)
    assert run.state.step == 9
    assert run.state.epoch == 3
    assert run.state.status == "stopped_early"
    assert run.state.reason == "val/right/seen has not improved for 2 evaluations"
    splits = [split for _, (split, _) in recorder.of("evaluate_end")]
    assert splits == ["val"] * 3 + ["test"]


@pytest.mark.parametrize(("hook", "step"), [("step_end", 2), ("evaluate_end", 3)])
def test_an_interrupt_saves_and_leaves(tmp_path: Path, hook: str, step: int) -> None:
    """An interrupted run saves `last` at its step and evaluates nothing more."""
    stop = At(hook, step, lambda state: state.stop("received SIGINT", "interrupted"))
    run, recorder = fitted(tmp_path, {"stop": stop})
    last = tmp_path / "checkpoints" / "last"
    _checkpoints.verify(last)
    assert last.readlink() == Path(f"step-{step}")
    other = net(5)
    checkpoint.load_weights(other, last / "model" / "model.safetensors")
    assert torch.equal(weights(other), weights(run.state.model.module))
    assert "test" not in [split for _, (split, _) in recorder.of("evaluate_end")]
    assert recorder.of("save_end") == [
        ({"step": step, "epoch": 0, "batch": step}, last.parent / f"step-{step}")
    ]


@pytest.mark.parametrize("hook", ["epoch_start", "step_start", "step_end", "epoch_end"])
def test_an_interrupt_saves_at_whatever_moment(tmp_path: Path, hook: str) -> None:
    """An interrupted run saves `last` at its step, also between epochs."""
    stop = At(hook, 3, lambda state: state.stop("received SIGINT", "interrupted"))
    run, _ = fitted(tmp_path, {"stop": stop})
    step = 4 if hook == "step_start" else 3
    assert run.state.step == step
    last = tmp_path / "checkpoints" / "last"
    assert last.readlink() == Path(f"step-{step}")
    _checkpoints.verify(last)


@pytest.mark.parametrize(("step", "logged"), [(2, []), (3, [3])])
def test_an_interrupted_epoch_stays_open(tmp_path: Path, step: int, logged: list[int]) -> None:
    """It has no end, no point but those that were due anyway, and no evaluation; that stays due."""
    stop = At("step_end", step, lambda state: state.stop("received SIGINT", "interrupted"))
    run, recorder = fitted(tmp_path, {"stop": stop}, eval_every=step)
    assert recorder.names().count("epoch_end") == 0
    assert [point["step"] for _, point in recorder.of("log")] == logged
    assert recorder.of("evaluate_start") == []
    assert (run.state.epoch, run.state.batch, run.state.due) == (0, step, True)
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    counters = found[1]["counters"]
    assert (counters["epoch"], counters["batch"], counters["due"]) == (0, step, True)


def test_an_interrupted_evaluation_is_none(tmp_path: Path) -> None:
    """An interrupt ends an evaluation at its next batch: without values, and still due."""
    stop = At("evaluate_start", 3, lambda state: state.stop("received SIGINT", "interrupted"))
    module = Modes()
    run, recorder = fitted(tmp_path, {"stop": stop}, module=module, sizes={"train": 10, "val": 20})
    assert module.seen == [(True, True)] * 3 + [(False, False)]
    assert recorder.of("evaluate_end") == []
    assert [point["step"] for _, point in recorder.of("log")] == [3]
    assert (run.state.metrics, run.state.due, module.training) == ({}, True, True)


def test_an_interrupted_test_leaves_no_values(tmp_path: Path) -> None:
    """An interrupt of the test leaves a run whose training has ended, and no test: no row of it.

    It ends at its next batch: six batches of training, one after each epoch, one of the test.
    """
    stop = At("evaluate_start", 6, lambda state: state.stop("received SIGINT", "interrupted"))
    stop.split = "test"
    rows: dict[str, Any] = {}
    module, sizes = Modes(), {"train": 10, "val": 6, "test": 20}
    run, _ = fitted(tmp_path, {"stop": stop}, module=module, rows=rows, sizes=sizes)
    assert stop.done
    assert (run.state.step, run.state.status) == (6, "interrupted")
    assert set(run.state.metrics) == {"val"}
    assert rows == {"test": []}
    assert (len(module.seen), module.seen[-1]) == (6 + 2 + 1, (False, False))


def test_an_interrupted_test_leaves_a_checkpoint(tmp_path: Path) -> None:
    """Also where nothing but the interrupt asks for one: what was trained is not lost."""
    stop = At("evaluate_start", 6, lambda state: state.stop("received SIGINT", "interrupted"))
    stop.split = "test"
    run, _ = fitted(tmp_path, {"stop": stop})
    assert run.state.status == "interrupted"
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].name == "step-6"
