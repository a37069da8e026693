"""The loop: what is due when, what is logged, saved and restored; with real, tiny parts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import (
    At,
    Modes,
    Poisoned,
    Recorder,
    amp,
    fitted,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    records,
    trainer,
    weights,
)
from torch import nn

from framework import checkpoint
from framework.commands import _checkpoints
from framework.hooks import hookimpl
from plugins.callbacks.checkpoint import Checkpoint


def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """Two epochs of three steps: every hook in its place, with the counters of that moment."""
    run, recorder = fitted(tmp_path)
    seen = [
        (name, at["epoch"], at["batch"], at["step"], given if isinstance(given, str) else None)
        for name, at, given in recorder.events
        if name not in ("evaluate_end", "log")
    ]
    expected: list[Any] = []
    for epoch in range(2):
        expected.append(("epoch_start", epoch, 0, 3 * epoch, None))
        for batch in range(3):
            expected.append(("step_start", epoch, batch, 3 * epoch + batch, None))
            expected.append(("step_end", epoch, batch + 1, 3 * epoch + batch + 1, None))
        expected.append(("evaluate_start", epoch, 3, 3 * epoch + 3, "val"))
        expected.append(("epoch_end", epoch + 1, 0, 3 * epoch + 3, None))
    expected.append(("evaluate_start", 2, 0, 6, "test"))
    assert seen == expected
    state = run.state
    assert (state.epoch, state.batch, state.step, state.items, state.skipped) == (2, 0, 6, 20, 0)
    assert state.learning_rate == 0.1
    assert (state.status, state.stopping, state.best) == ("running", False, None)
    assert set(state.metrics) == {"val", "test"}
    assert set(state.timing) == {"train", "evaluate", "checkpoint"}
    assert all(spent > 0 for spent in state.timing.values())


@pytest.mark.parametrize(
    ("log_every", "expected"),
    [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 3, 4, 6]), (3, [3, 6]), (10, [3, 6])],
)
def test_points_are_logged_when_due(tmp_path: Path, log_every: int, expected: list[int]) -> None:
    """Training is logged every `log_every` steps and at the end of each epoch."""
    _, recorder = fitted(tmp_path, log_every=log_every)
    points = [point for _, point in recorder.of("log")]
    training = [point for point in points if "train/loss" in point]
    assert [point["step"] for point in training] == expected
    assert [point["epoch"] for point in training] == pytest.approx([s / 3 for s in expected])
    names = ["step", "epoch", "time", "train/loss", "train/grad_norm", "train/learning_rate"]
    assert all(list(point) == names for point in training)
    times = [point["time"] for point in points]
    assert times == sorted(times)
    assert times[0] > 0


def test_a_point_is_the_mean_since_the_last(tmp_path: Path) -> None:
    """What is logged is the mean over the steps since the last point, whatever the interval."""
    _, every = fitted(tmp_path, log_every=1)
    _, some = fitted(tmp_path, log_every=2)
    single = {p["step"]: p for _, p in every.of("log") if "train/loss" in p}
    for point in [p for _, p in some.of("log") if "train/loss" in p]:
        steps = {2: [1, 2], 3: [3], 4: [4], 6: [5, 6]}[point["step"]]
        for name in ("train/loss", "train/grad_norm"):
            mean = sum(single[step][name] for step in steps) / len(steps)
            assert point[name] == pytest.approx(mean, rel=1e-6)


def test_an_evaluation_is_logged(tmp_path: Path) -> None:
    """After an evaluation one point has its values, under the split's name."""
    _, recorder = fitted(tmp_path)
    ends = recorder.of("evaluate_end")
    assert [split for _, (split, _) in ends] == ["val", "val", "test"]
    points = [point for _, point in recorder.of("log") if "train/loss" not in point]
    for point, (at, (split, values)) in zip(points, ends, strict=True):
        assert list(values) == ["loss", "right", "right/seen"]
        named = {f"{split}/{name}": value for name, value in values.items()}
        assert {name: point[name] for name in point if "/" in name} == named
        assert point["step"] == at["step"]
    assert [point["epoch"] for point in points] == [1.0, 2.0, 2.0]
    assert [point.get("val/right/seen") for point in points] == [6.0, 6.0, None]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [3, 6]),
        ({"eval_every": 1}, [1, 2, 3, 4, 5, 6]),
        ({"eval_every": 2}, [2, 4, 6]),
        ({"steps": 4}, [3, 4]),
        ({"steps": 4, "eval_every": 2}, [2, 4]),
        ({"sizes": {"train": 10, "test": 5}}, []),
    ],
)
def test_validation_is_due(tmp_path: Path, settings: Any, expected: list[int]) -> None:
    """Validation comes every `eval_every` steps, or at the end of each epoch or of training."""
    _, recorder = fitted(tmp_path, **settings)
    found = [at["step"] for at, (split, _) in recorder.of("evaluate_end") if split == "val"]
    assert found == expected


def test_the_end_of_training_is_validated(tmp_path: Path) -> None:
    """Training ends with a validation, also where `eval_every` doesn't divide its steps."""
    _, recorder = fitted(tmp_path, eval_every=4)
    found = [at["step"] for at, (split, _) in recorder.of("evaluate_end") if split == "val"]
    assert found == [4, 6]


@pytest.mark.parametrize(
    ("steps", "epoch", "batch", "taken"), [(0, 2, 0, 6), (2, 0, 2, 2), (3, 1, 0, 3), (4, 1, 1, 4)]
)
def test_steps_end_training(tmp_path: Path, steps: int, epoch: int, batch: int, taken: int) -> None:
    """`steps` ends training in the middle of an epoch; the test split is evaluated then."""
    run, recorder = fitted(tmp_path, steps=steps)
    state = run.state
    assert (state.epoch, state.batch, state.step) == (epoch, batch, taken)
    assert recorder.names().count("epoch_end") == recorder.names().count("epoch_start")
    assert recorder.of("evaluate_end")[-1][1][0] == "test"


def test_a_window_is_what_was_trained_on(tmp_path: Path) -> None:
    """Hooks see the step's micro-batches, each record once an epoch."""
    _, recorder = fitted(tmp_path, micro_batch=3)
    windows = [window for _, window in recorder.of("step_start")]
    assert [[len(b["id"]) for b in w] for w in windows[:3]] == [[3, 1], [3, 1], [2]]
    for epoch in (windows[:3], windows[3:]):
        ids = [i for window in epoch for batch in window for i in batch["id"]]
        assert sorted(ids) == sorted(record["id"] for record in records(10))
    ends = [window for _, window in recorder.of("step_end")]
    assert all(one is other for one, other in zip(windows, ends, strict=True))


def test_training_is_the_same_however_it_is_watched(tmp_path: Path) -> None:
    """Logging, evaluating and saving, often or seldom, change no weight, with dropout on."""

    def trained(name: str, **settings: Any) -> torch.Tensor:
        torch.manual_seed(4)
        module = nn.ModuleDict({"net": net(), "drop": nn.Dropout(0.5)})
        module.forward = lambda x, **_: {"logits": module["net"](module["drop"](x))["logits"]}
        run, _ = fitted(tmp_path / name, module=module, **settings)
        return weights(run.state.model.module)

    seldom = trained("a")
    often = trained("b", log_every=1, eval_every=1)
    assert torch.equal(seldom, often)
    saves = {f"s{step}": At("step_end", step, lambda state: state.save("last")) for step in (1, 4)}
    assert torch.equal(seldom, trained("c", callbacks=saves))


def test_evaluations_are_without_dropout_and_gradients(tmp_path: Path) -> None:
    """Training runs in training mode; evaluations don't, and leave the mode as it was."""
    module = Modes()
    # twice as many in a batch as in training: two batches each
    fitted(tmp_path, module=module, sizes={"train": 10, "val": 10, "test": 9})
    train, evaluate = (True, True), (False, False)
    epoch = [train] * 3 + [evaluate] * 2
    assert module.seen == epoch * 2 + [evaluate] * 2


def test_rows_of_the_test_split_are_in_its_order(tmp_path: Path) -> None:
    """Every record of the test split gives one row, in the split's own order; no other split's."""
    rows: dict[str, Any] = {}
    run, _ = fitted(tmp_path, rows=rows, sizes={"train": 10, "val": 6, "test": 9})
    assert list(rows) == ["test"]
    assert [row["id"] for row in rows["test"]] == [f"r{i}" for i in range(9)]
    test = records(9, seed=2)
    scores = run.state.model.module(torch.stack([record["x"] for record in test]))["logits"]
    assert [row["prediction"] for row in rows["test"]] == scores.argmax(-1).tolist()


def test_an_evaluation_by_itself(tmp_path: Path) -> None:
    """A trainer evaluates any split without training; the values are those that it keeps."""
    run = trainer(tmp_path)
    found: list[Any] = []
    values = run.evaluate("val", found.extend)
    assert run.state.metrics == {"val": values}
    assert [row["id"] for row in found] == [f"r{i}" for i in range(6)]
    assert run.state.step == 0


def test_without_a_test_split_training_just_ends(tmp_path: Path) -> None:
    """A dataset without a test split gets no test."""
    rows: dict[str, Any] = {}
    run, recorder = fitted(tmp_path, rows=rows, sizes={"train": 10, "val": 6})
    assert rows == {}
    assert [split for _, (split, _) in recorder.of("evaluate_end")] == ["val", "val"]
    assert run.state.step == 6


@pytest.mark.parametrize("step", [3, 6])
def test_a_request_to_save_at_an_epochs_end_is_met(tmp_path: Path, step: int) -> None:
    """A checkpoint that `epoch_end` asks for is one of that step."""
    save = At("epoch_end", step, lambda state: state.save("mine"))
    fitted(tmp_path, {"save": save})
    assert (tmp_path / "checkpoints" / "mine").readlink() == Path(f"step-{step}")


@attrs.define
class Snapshots:
    """Asks for a checkpoint after each step, calls one of them best, and keeps the weights."""

    best: int
    kept: dict[int, torch.Tensor] = attrs.field(factory=dict)

    @hookimpl
    def step_end(self, state: Any) -> None:
        """Ask, and keep."""
        self.kept[state.step] = weights(state.model.module)
        state.save("last")
        if state.step == self.best:
            state.save("best", metric="val/mine", value=0.25)


@pytest.mark.parametrize("best", [1, 3, 5, 6])
def test_the_test_sees_the_best_weights(tmp_path: Path, best: int) -> None:
    """After training the best weights are back, whichever step they are of, and are tested."""
    snapshots = Snapshots(best)
    run, recorder = fitted(tmp_path, {"snapshots": snapshots}, eval_every=1)
    state = run.state
    assert torch.equal(weights(state.model.module), snapshots.kept[best])
    assert len({tuple(kept.tolist()) for kept in snapshots.kept.values()}) == 6
    assert attrs.asdict(state.best) == {
        "metric": "val/mine",
        "value": 0.25,
        "step": best,
        "metrics": {"val": recorder.of("evaluate_end")[best - 1][1][1]},
    }
    assert state.metrics["val"] == state.best.metrics["val"]
    reference = trainer(tmp_path / "other", module=net())
    reference.state.model.module.load_state_dict(state.model.module.state_dict())
    assert reference.evaluate("test") == state.metrics["test"]


def test_checkpoints_that_are_kept(tmp_path: Path) -> None:
    """Of a checkpoint each step, the two newest and those under a link are kept."""
    callbacks = {"snapshots": Snapshots(2), "checkpoint": Checkpoint(every_epochs=0).build()}
    _, recorder = fitted(tmp_path, callbacks, sizes={"train": 10, "test": 3})
    root = tmp_path / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == [
        "best",
        "last",
        "step-2",
        "step-5",
        "step-6",
    ]
    assert (root / "best").readlink() == Path("step-2")
    assert (root / "last").readlink() == Path("step-6")
    # each is told of before the next is begun, and the last when training has ended
    saved = dict.fromkeys((at["step"], folder.name) for at, folder in recorder.of("save_end"))
    assert list(saved) == [(step + 1, f"step-{step}") for step in range(1, 6)] + [(6, "step-6")]


def test_the_checkpoint_callback_finds_the_best(tmp_path: Path) -> None:
    """With the built-in callback the best is the step of the lowest validation loss."""
    callbacks = {"checkpoint": Checkpoint(monitor="val/loss", mode="min").build()}
    run, recorder = fitted(tmp_path, callbacks, lr=8.0, epochs=4)
    losses = {
        at["step"]: values["loss"]
        for at, (split, values) in recorder.of("evaluate_end")
        if split == "val"
    }
    best = min(losses, key=lambda step: losses[step])
    assert best != 12
    assert (run.state.best.step, run.state.best.value) == (best, losses[best])
    assert run.state.metrics["val"]["loss"] == losses[best]


def test_a_checkpoint_can_be_trusted_while_hooks_read_it(tmp_path: Path) -> None:
    """When `save_end` is called the checkpoint is whole, and linked under its tags."""
    found: list[Any] = []

    class Reader:
        """Reads what was just written."""

        @hookimpl
        def save_end(self, state: Any, folder: Path) -> None:
            """Verify it, and where the tags point."""
            _checkpoints.verify(folder)
            found.append((folder.name, (folder.parent / "last").readlink().name))

    fitted(tmp_path, {"snapshots": Snapshots(1), "reader": Reader()})
    assert found == [(f"step-{step}", f"step-{step}") for step in range(1, 7)]


def test_a_step_that_isnt_finite_is_counted_and_not_taken(tmp_path: Path) -> None:
    """Hooks see why a step was not taken, what its loss was, and weights as they were before."""
    seen: list[Any] = []

    class Watch:
        """Notes each step."""

        @hookimpl
        def step_end(self, state: Any, window: Any, loss: Any, norm: Any) -> None:
            """Note."""
            ids = [i for batch in window for i in batch["id"]]
            means = {name: float(value) for name, value in loss.items()}
            seen.append(("r7" in ids, state.missed, means, weights(state.model.module)))

    sizes = {"train": 10, "test": 3}
    run, _ = fitted(tmp_path, {"watch": Watch()}, loss=Poisoned(), sizes=sizes, on_nonfinite="skip")
    assert [missed for _, missed, _, _ in seen] == ["loss" if bad else "" for bad, *_ in seen]
    assert sum(bad for bad, *_ in seen) == run.state.skipped == 2
    before = weights(net())
    for bad, _, means, after in seen:
        assert math.isnan(means["ce"]) == bad
        assert torch.equal(after, before) == bad
        before = after
    assert run.state.step == 6


def test_a_step_that_isnt_finite_ends_training(tmp_path: Path) -> None:
    """Also where no callback looks: the run has failed, is saved as it was, and isn't tested."""
    run, recorder = fitted(tmp_path, loss=Poisoned())
    state = run.state
    (at, window) = recorder.of("step_start")[-1]
    assert "r7" in [i for batch in window for i in batch["id"]]
    assert (state.status, state.step) == ("failed", at["step"] + 1)
    assert state.reason == f"step {state.step}: the loss is not finite"
    assert recorder.of("evaluate_start") == [
        e for e in recorder.of("evaluate_start") if e[0]["step"] < state.step
    ]
    last = tmp_path / "checkpoints" / "last"
    assert last.readlink() == Path(f"step-{state.step}")
    other = net(5)
    checkpoint.load_weights(other, last / checkpoint.WEIGHTS)
    assert bool(weights(other).isfinite().all())


def test_skipped_steps_dont_move_the_schedule(tmp_path: Path) -> None:
    """Under fp16 a step that overflows counts as a step, and the schedule waits for it."""
    precision = amp(torch.float16)
    precision.scaler.load_state_dict(precision.scaler.state_dict() | {"scale": 2.0**22})
    asked: list[int] = []
    taken: list[int] = [0]

    class Counter:
        """Counts the steps that were taken."""

        @hookimpl
        def step_end(self, state: Any) -> None:
            """Count."""
            taken.append(state.step - state.skipped)

    def factor(step: int) -> float:
        asked.append(step)
        return 1 / (step + 1)

    run, recorder = fitted(
        tmp_path, {"counter": Counter()}, precision=precision, factor=factor, epochs=4, log_every=1
    )
    state = run.state
    assert state.step == 12
    assert 2 < state.skipped < 10
    assert asked == taken[:-1]
    assert asked[:3] == [0, 0, 0]
    assert asked[-1] > 2
    rates = [p["train/learning_rate"] for _, p in recorder.of("log") if "train/loss" in p]
    assert rates == pytest.approx([0.1 / (step + 1) for step in asked])
    assert state.items == 40


def test_skipped_steps_dont_spoil_the_logged_norm(tmp_path: Path) -> None:
    """A logged norm is one of the steps that were taken."""
    precision = amp(torch.float16)
    precision.scaler.load_state_dict(precision.scaler.state_dict() | {"scale": 2.0**22})
    sizes = {"train": 60, "val": 6}
    run, recorder = fitted(tmp_path, precision=precision, epochs=1, log_every=15, sizes=sizes)
    assert 0 < run.state.skipped < 15
    (point,) = [point for _, point in recorder.of("log") if "train/loss" in point]
    assert math.isfinite(point["train/grad_norm"])


@pytest.mark.parametrize("start", [0, 1, 2])
def test_an_epoch_is_taken_up_where_it_stood(tmp_path: Path, start: int) -> None:
    """A state in the middle of an epoch goes on with the windows that are left of it."""
    _, whole = fitted(tmp_path / "a")
    recorder = Recorder()
    run = trainer(tmp_path / "b", {"recorder": recorder})
    run.state.epoch, run.state.batch, run.state.step = 1, start, 3 + start
    run.fit()
    seen = [window[0]["id"] for _, window in recorder.of("step_start")]
    assert seen == [window[0]["id"] for _, window in whole.of("step_start")][3 + start :]
    assert (run.state.epoch, run.state.batch, run.state.step) == (2, 0, 6)


@settings(max_examples=25)
@given(
    train=st.integers(1, 13),
    batch=st.integers(1, 6),
    micro=st.integers(0, 4),
    epochs=st.integers(1, 3),
    steps=st.integers(0, 20),
    eval_every=st.integers(0, 5),
    log_every=st.integers(1, 5),
)
def test_counters_add_up(
    tmp_path_factory: pytest.TempPathFactory, train: int, steps: int, **given: int
) -> None:
    """Whatever the settings: steps, epochs, items and points are those that they say."""
    renamed = {"batch_size": given.pop("batch"), "micro_batch": given.pop("micro")}
    sizes = {"train": train, "val": 3}
    folder = tmp_path_factory.mktemp("run")
    run, recorder = fitted(folder, sizes=sizes, steps=steps, **renamed, **given)
    state, size = run.state, renamed["batch_size"]
    per_epoch = -(-train // size)
    taken = min(steps or 10**9, per_epoch * given["epochs"])
    assert state.step == taken
    assert (state.epoch, state.batch) == divmod(taken, per_epoch)
    full, rest = divmod(taken, per_epoch)
    assert state.items == full * train + min(rest * size, train)
    ends = {taken} | {per_epoch * epoch for epoch in range(1, full + 1)}
    logged = [point["step"] for _, point in recorder.of("log") if "train/loss" in point]
    regular = set(range(given["log_every"], taken + 1, given["log_every"]))
    assert logged == sorted(regular | ends)
    every = given["eval_every"]
    validated = [at["step"] for at, _ in recorder.of("evaluate_end")]
    assert set(range(every, taken + 1, every) if every else ends) <= set(validated)
    assert len(set(validated)) == len(validated)
