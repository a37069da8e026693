"""The callback `guard`: what isn't finite stops the run, or is left out where that is asked."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from guarding import Said, falling, guarded
from tiny_parts import CrossEntropy, Net, Poisoned, Recorder, amp, trainer, weights
from torch import nn

from framework.commands._checkpoints import newest
from framework.hooks import Hooks, hookimpl
from plugins.callbacks.guard import Guard


class Root(Net):
    """Scores that are finite and whose gradient is NaN, for a batch with one record in it."""

    def __init__(self) -> None:
        """Add a weight of 0."""
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Add the root of 0, whose slope is infinite, times 0."""
        logits = super().forward(x)["logits"]
        return {"logits": logits + (self.zero * 0.0).sqrt() if "r7" in batch["id"] else logits}


@attrs.define
class Infinite(CrossEntropy):
    """Gives infinity for a batch with some record in it."""

    def __call__(self, outputs: Any, batch: Any) -> dict[str, torch.Tensor]:
        """Add it."""
        found = super().__call__(outputs, batch)["ce"]
        return {"ce": found + (math.inf if "r7" in batch["id"] else 0.0)}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a loss of NaN": ({"loss": Poisoned()}, "loss (ce nan), gradient norm nan"),
    "an infinite loss": ({"loss": Infinite()}, "loss (ce inf), gradient norm nan"),
    "a gradient of NaN": ({"module": Root()}, r"loss (ce NUMBER), gradient norm nan"),
}


def watched(folder: Path, guard: Guard | None = None, **settings: Any) -> tuple[Any, Recorder]:
    """Return a trainer under the guard, with a recorder before it, that goes on if it can."""
    recorder = Recorder()
    callbacks = {"recorder": recorder, "guard": (guard or Guard()).build()}
    run = trainer(folder, callbacks, **{"factor": falling, "micro_batch": 3} | settings)
    found = newest(folder / "checkpoints")
    if found:
        run.keeper.resume(run.state, *found)
    run.hooks.call.run_start(state=run.state)
    return run, recorder


def poisoned(recorder: Recorder) -> list[str]:
    """Return the records of the last step."""
    _, window = recorder.of("step_start")[-1]
    return [record for batch in window for record in batch["id"]]


@pytest.mark.parametrize("name", BROKEN)
def test_what_isnt_finite_ends_the_run(tmp_path: Path, name: str) -> None:
    """The run stops before the update; one line has the step, the loss's parts and the records."""
    settings, numbers = BROKEN[name]
    seen: list[torch.Tensor] = []

    class Watch:
        """Keeps the weights before each step."""

        @hookimpl
        def step_start(self, state: Any) -> None:
            """Keep."""
            seen.append(weights(state.model.module))

    recorder = Recorder()
    callbacks = {"guard": Guard().build(), "recorder": recorder, "watch": Watch()}
    run = trainer(tmp_path, callbacks, factor=falling, micro_batch=3, **settings)
    run.hooks.call.run_start(state=run.state)
    run.fit()
    state, ids = run.state, poisoned(recorder)
    assert "r7" in ids
    pattern = re.escape(
        f"step {state.step}: {numbers}; the weights were left as they were. Resuming leaves this"
        " step out; for more of them set trainer.on_nonfinite to 'skip'. Look at the records: "
        + ", ".join(ids)
    )
    assert re.fullmatch(pattern.replace("NUMBER", r"\d\.\d+"), state.reason)
    assert (state.status, state.step, state.skipped) == ("failed", len(seen), 1)
    assert torch.equal(weights(state.model.module), seen[-1])
    assert all(parameter.grad is None for parameter in state.model.module.parameters())
    assert "test" not in [split for _, split in recorder.of("evaluate_start")]


@pytest.mark.parametrize("name", BROKEN)
def test_resuming_leaves_the_step_out(tmp_path: Path, name: str) -> None:
    """The checkpoint of such a step is sound: the run goes on behind it, until the next one."""
    settings, _ = BROKEN[name]
    left_out = []
    status = ""
    while status != "running":
        run, recorder = watched(tmp_path, epochs=3, **settings)
        run.fit()
        status = run.state.status
        if status == "failed":
            assert "r7" in poisoned(recorder)
            left_out.append(run.state.step)
            assert bool(weights(run.state.model.module).isfinite().all())
        assert len(left_out) <= 3
    assert len(left_out) == len(set(left_out)) == run.state.skipped == 3
    skipping, _ = watched(tmp_path / "skipping", epochs=3, on_nonfinite="skip", **settings)
    skipping.fit()
    assert torch.equal(weights(run.state.model.module), weights(skipping.state.model.module))


@pytest.mark.parametrize("name", BROKEN)
def test_steps_may_be_left_out(tmp_path: Path, said: Said, name: str) -> None:
    """With `skip` the run goes on to its end; the schedule waits for the steps left out."""
    settings, numbers = BROKEN[name]
    run, recorder = guarded(tmp_path, on_nonfinite="skip", epochs=3, **settings)
    state = run.state
    assert (state.step, state.skipped, state.status) == (9, 3, "running")
    rates = [p["train/learning_rate"] for _, p in recorder.of("log") if "train/loss" in p]
    taken, expected, last = 0, [], 0.1
    for _, window in recorder.of("step_start"):
        bad = any("r7" in batch["id"] for batch in window)
        # the rate is set where the gradient is looked at; a loss alone is told before
        last = last if bad and "gradient" not in name else 0.1 * falling(taken)
        taken += not bad
        expected.append(last)
    assert rates == pytest.approx(expected)
    told = re.escape(f": {numbers}; the step is left out (said once)").replace("NUMBER", r"[\d.]+")
    (warning,) = said()
    assert re.fullmatch(rf"step \d{told}", warning)
    assert bool(torch.isfinite(weights(state.model.module)).all())


def _always(*ids: str) -> Poisoned:
    return Poisoned(ids=ids or tuple(f"r{i}" for i in range(10)))


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    """After `skips` steps in a row that were left out the run stops: it learns nothing."""
    run, recorder = watched(tmp_path, Guard(skips=3), loss=_always(), on_nonfinite="skip")
    run.fit()
    assert (run.state.status, run.state.step) == ("failed", 4)
    assert run.state.reason == (
        "step 4: loss (ce nan), gradient norm nan; 4 steps in a row were left out; lower the"
        " learning rate"
    )
    assert len(recorder.of("step_end")) == 4


def test_a_step_in_between_starts_the_count_anew(tmp_path: Path) -> None:
    """Steps left out that don't follow each other may be as many as there are."""
    # a step of each epoch has the record: never more than two in a row, and seven in all
    guard = Guard(skips=2)
    sizes = {"train": 12, "val": 3}
    run, _ = guarded(
        tmp_path, guard, loss=_always("r7"), on_nonfinite="skip", epochs=7, sizes=sizes
    )
    assert run.state.skipped == 7


def test_overflows_of_a_loss_scale_are_no_fault(tmp_path: Path, said: Said) -> None:
    """Under float16 steps that overflow are left out in silence, also where faults stop the run."""
    precision = amp(torch.float16)
    precision.scaler.load_state_dict(precision.scaler.state_dict() | {"scale": 2.0**22})
    run, _ = guarded(tmp_path, precision=precision, epochs=4)
    assert run.state.skipped > 2
    assert run.state.step == 12
    assert said() == []


def test_overflows_without_end_are_one(tmp_path: Path) -> None:
    """A scale that overflows forever stops the run too, and what to do is said."""
    precision = amp(torch.float16)
    precision.scaler.load_state_dict(precision.scaler.state_dict() | {"scale": 2.0**60})
    run, _ = watched(tmp_path, Guard(skips=5), precision=precision, epochs=9)
    run.fit()
    assert (run.state.status, run.state.step) == ("failed", 6)
    assert run.state.reason.endswith("; 6 steps in a row were left out; use bf16")


def test_its_state_loads_without_unpickling(tmp_path: Path) -> None:
    """Whatever it has counted stands in a file that is read with `weights_only`."""
    run, _ = guarded(tmp_path, loss=Poisoned(), on_nonfinite="skip")
    stream = io.BytesIO()
    torch.save(Hooks({"guard": run.hooks.callbacks["guard"]}).state_dict(), stream)
    stream.seek(0)
    fresh: Any = Guard().build()
    fresh.load_state_dict(torch.load(stream, weights_only=True)["guard"])
    live: Any = run.hooks.callbacks["guard"]
    assert str(fresh.state_dict()) == str(live.state_dict())
    assert fresh.told == live.told != []


@pytest.mark.parametrize("options", [{"skips": 0}, {"patience": 1}, {"skips": -1}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    """To leave out no step at all is `stop`; a patience of one would warn of everything."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Guard(**options)
