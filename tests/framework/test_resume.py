"""Resuming: wherever and however often a run is ended, it ends bit by bit as one that never was."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import (
    CASES,
    Case,
    Ended,
    Noisy,
    checkpoints,
    different,
    interrupt,
    kill,
    process,
    rewound,
    until_it_ends,
)
from tiny_parts import one_thread  # noqa: F401 - a fixture for every test here
from torch import nn

from framework.commands import _checkpoints
from framework.commands._checkpoints import newest

WHOLE: dict[str, Ended] = {}
"""The runs that were never ended, by case."""


def whole(name: str) -> Ended:
    """Return how a case ends when nothing ends it."""
    if name not in WHOLE:
        with tempfile.TemporaryDirectory() as folder:
            WHOLE[name] = until_it_ends(Path(folder), CASES[name])
    return WHOLE[name]


def test_the_cases_are_what_they_say() -> None:
    """The cases overflow, leave out, stop early and end in mid-epoch; all but one learn more."""
    left_out = {"float16 that overflows": {"overflow"}, "steps left out": {"loss"}}
    for name in CASES:
        outcome = whole(name).outcome
        steps = [event for event in outcome["hooks"]["past"]["events"] if event[0] == "step_end"]
        assert len(steps) == outcome["counters"]["step"]
        assert {counters[-1] for _, counters, *_ in steps} - {""} == left_out.get(name, set())
        assert whole(name).status == ("stopped_early" if "early" in name else "completed")
        ends_within = "mid-epoch" in name or "epoch's end" in name
        assert bool(outcome["counters"]["batch"] % 3) == ends_within
        assert len(outcome["rows"]["test"]) == 5
        losses = {json.dumps(event[2]) for event in steps if not event[1][-1]}
        assert len(losses) == len(steps) - outcome["counters"]["skipped"]


def moments(name: str) -> list[tuple[int, str]]:
    """Return the calls of hooks at which a case is ended: all, or a third where it's urgent."""
    stride = 3 if "CI" in os.environ else 1
    return list(enumerate(whole(name).moments))[list(CASES).index(name) % stride :: stride]


def _same(found: Ended, name: str) -> None:
    assert different(whole(name).outcome, found.outcome) == []


@pytest.mark.parametrize("name", CASES)
def test_an_interrupt_at_any_moment_changes_nothing(name: str, memory: Path) -> None:
    """Interrupted at each call of a hook and resumed, a run ends as if it had not been.

    Alike are weights, optimizer, scaler, generators, points, metrics, best, predictions, the
    states of callbacks, and the steps and epochs that these have seen.
    """
    for at, moment in moments(name):
        folder = memory / str(at)
        ended = process(folder, CASES[name], at, interrupt, first=at % 2 == 0)
        assert ended.status == "interrupted"
        found = until_it_ends(folder, CASES[name])
        assert found.found or not CASES[name].callbacks()
        changed = different(whole(name).outcome, found.outcome)
        assert changed == [], f"interrupted at call {at}, {moment}"


@pytest.mark.parametrize(
    "name", ["evaluated every two steps", "a checkpoint every step", "stopped early in mid-epoch"]
)
def test_a_kill_at_any_moment_changes_nothing(name: str, memory: Path) -> None:
    """Ended without notice at each call of a hook, a run goes on from what it had written."""
    found = []
    for at, moment in moments(name):
        folder = memory / str(at)
        assert process(folder, CASES[name], at, kill).status == "killed"
        ended = until_it_ends(folder, CASES[name])
        found.append(ended.found)
        changed = different(whole(name).outcome, ended.outcome)
        assert changed == [], f"killed at call {at}, {moment}"
    assert len(set(found)) > 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([name for name in CASES if name != "nor an epoch's end"]),
    ends=st.lists(
        st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), min_size=2, max_size=4
    ),
)
def test_however_often_a_run_is_ended(
    name: str, ends: list[tuple[int, bool, bool]], memory: Path
) -> None:
    """Interrupts and kills may follow each other, each in what the one before has left."""
    with tempfile.TemporaryDirectory(dir=memory) as place:
        for at, gently, first in ends:
            process(Path(place), CASES[name], at, interrupt if gently else kill, first=first)
        _same(until_it_ends(Path(place), CASES[name]), name)


@pytest.mark.parametrize(
    "name", ["evaluated every two steps", "float16 that overflows", "stopped early in mid-epoch"]
)
def test_every_checkpoint_leads_to_the_same_end(name: str, memory: Path) -> None:
    """Whichever checkpoint a killed run had got to, it ends the same."""
    case = CASES[name]
    keeping = attrs.evolve(
        case, callbacks=lambda: case.callbacks() | checkpoints(every_steps=1, keep=100)()
    )
    expected = until_it_ends(memory / "whole", keeping)
    taken = expected.outcome["counters"]["step"]
    for step in range(1, taken + 1):
        folder = memory / str(step)
        until_it_ends(folder, keeping)
        rewound(folder, step)
        found = until_it_ends(folder, keeping)
        assert found.found == f"step-{step}"
        assert different(expected.outcome, found.outcome) == []


class Sampling(Noisy):
    """A net that draws numbers in evaluations too, as sampling over dropout does."""

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Drop out in any mode."""
        return super().forward(nn.functional.dropout(x, 0.1, training=True), **batch)


def test_numbers_of_an_interrupted_evaluation_are_drawn_again(memory: Path) -> None:
    """What is evaluated anew when the run goes on draws what it would have drawn at once."""
    case = Case({"eval_every": 2, "sizes": {"train": 10, "val": 20, "test": 5}}, module=Sampling)
    expected = until_it_ends(memory / "whole", case)
    starts = [at for at, name in enumerate(expected.moments) if name == "evaluate_start val"]
    for at in starts:
        folder = memory / str(at)
        process(folder, case, at, interrupt)
        assert different(expected.outcome, until_it_ends(folder, case).outcome) == []


@pytest.mark.parametrize(("at", "epochs"), [(0, 2), (3, 1), (7, 1), (11, 1), (15, 0), (19, 0)])
def test_an_epoch_that_goes_on_doesnt_begin(at: int, epochs: int, memory: Path) -> None:
    """A run that is taken up in mid-epoch begins only the epochs that come after it."""
    case = CASES["evaluated every epoch"]
    process(memory / "run", case, at, interrupt)
    found = until_it_ends(memory / "run", case)
    assert found.moments.count("epoch_start") == epochs


def test_a_run_that_has_ended_ends_again(memory: Path) -> None:
    """Resumed once more, a finished run trains nothing, is tested again and says the same."""
    for name in CASES:
        if not CASES[name].callbacks():
            continue
        folder = memory / name
        until_it_ends(folder, CASES[name])
        again = until_it_ends(folder, CASES[name])
        assert "step_start" not in again.moments
        _same(again, name)


def test_more_epochs_are_as_if_asked_for_at_once(memory: Path) -> None:
    """A finished run that goes on for more epochs is the run that had them from the start."""
    long = Case({"epochs": 4})
    until_it_ends(memory / "run", Case({"epochs": 2}))
    found = until_it_ends(memory / "run", long)
    assert found.found == "step-6"
    expected = until_it_ends(memory / "long", long).outcome
    # the shorter run had tested too, and its points were cut off with that
    assert different(expected, found.outcome) == []


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("at", [4, 7, 20])
def test_loader_workers_change_nothing(before: int, at: int, memory: Path) -> None:
    """Before and after a resume any number of workers may load the batches."""
    name = "augmented at random"
    case = CASES[name]

    def loading(workers: int) -> Case:
        return attrs.evolve(case, settings={**case.settings, "workers": workers})

    process(memory / "run", loading(before), at, interrupt)
    _same(until_it_ends(memory / "run", loading(2 - before)), name)


def test_a_run_without_a_checkpoint_starts_over(memory: Path) -> None:
    """Killed before the first checkpoint, a run begins again, and its points do too."""
    name = "evaluated every epoch"
    assert process(memory / "run", CASES[name], 8, kill).status == "killed"
    assert newest(memory / "run" / "checkpoints") is None
    assert (memory / "run" / "metrics.jsonl").stat().st_size > 0
    found = until_it_ends(memory / "run", CASES[name])
    assert found.found == ""
    _same(found, name)


def test_the_time_in_between_doesnt_count(memory: Path) -> None:
    """Points of a resumed run go on from the time that the run had taken, not from the clock."""
    name = "evaluated every two steps"
    folder = memory / "run"
    process(folder, CASES[name], 20, interrupt)
    (saved,) = (_checkpoints.read(path) for path in [folder / "checkpoints" / "last"])
    kept = saved["counters"]["elapsed"]
    run = CASES[name].trainer(folder, {}, seed=1)
    run.state.restore(saved["counters"] | {"elapsed": 5000.0})
    run.fit()
    times = [float(line.split('"time": ')[1].split(",")[0]) for line in _lines(folder)]
    assert 0 < kept < 5000
    assert [time > 5000 for time in times] == sorted(time > 5000 for time in times)
    assert 5000 < times[-1] < 5000 + 600


def _lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_tied_weights_stay_tied(memory: Path) -> None:
    """Two parameters that are one still are, and are trained as one, after a resume."""
    case = CASES["tied weights"]
    process(memory / "run", case, 12, interrupt)
    found = newest(memory / "run" / "checkpoints")
    assert found is not None
    run = case.trainer(memory / "run", {}, seed=3)
    run.keeper.resume(run.state, *found)
    module: Any = run.state.model.module
    assert module.twin.weight is module.body.weight
    run.fit()
    assert torch.equal(module.twin.weight, module.body.weight)
    assert module.twin.weight is module.body.weight
