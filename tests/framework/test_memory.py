"""Out of memory: a step that doesn't fit is cut until it does, or the run says what to do."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from support import TINY
from tiny_parts import (
    At,
    CrossEntropy,
    Net,
    Processor,
    fitted,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    records,
    trainer,
    update,
    weights,
)

from framework import build
from framework.commands._checkpoints import newest
from framework.commands._sets import parsed
from framework.config.experiment import load
from framework.errors import ExperimentError, RunError, UserError
from framework.step import OutOfMemory, exhausted

ABSURD = 1 << 55
"""Bytes that no machine has."""


def allocated() -> Exception:
    """Return the error of an allocation that fails."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(ABSURD, dtype=torch.uint8)
    return caught.value


class Greedy(Net):
    """A net that finds no memory for more than some items at once, in training."""

    def __init__(self, limit: int, ids: Collection[str] = (), *, early: bool = False) -> None:
        """Copy the weights of a net; with `ids`, only batches with one of these are too large."""
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.limit, self.ids, self.early = limit, set(ids), early
        self.failures = 0

    def forward(self, x: torch.Tensor, **batch: Any) -> dict[str, torch.Tensor]:
        """Really allocate too much."""
        found = super().forward(x, **batch)
        concerned = not self.ids or not self.ids.isdisjoint(batch["id"])
        if self.training and concerned and len(x) > self.limit:
            self.failures += 1
            torch.empty(ABSURD, dtype=torch.uint8)
        return found


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level(logging.WARNING, logger="framework")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_is_out_of_memory(error: Exception) -> None:
    """Python's, torch's and the allocator's errors are known; no other error is one."""
    assert exhausted(error)
    assert exhausted(allocated())
    assert not exhausted(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not exhausted(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("limit", "micro", "said_sizes"), [(2, 2, [(4, 2)]), (1, 1, [(4, 2), (2, 1)]), (3, 2, [(4, 2)])]
)
def test_a_step_is_cut_until_it_fits(
    tmp_path: Path,
    said: Callable[[], list[str]],
    limit: int,
    micro: int,
    said_sizes: list[tuple[int, int]],
) -> None:
    """Cut in halves, a run ends bit by bit as one with that micro-batch from the start."""
    module = Greedy(limit)
    run, recorder = fitted(tmp_path / "cut", module=module, on_oom="split", log_every=1)
    whole, plain = fitted(tmp_path / "plain", micro_batch=micro, log_every=1)
    assert torch.equal(weights(run.state.model.module), weights(whole.state.model.module))
    points, expected = (
        [{**point, "time": 0} for _, point in seen.of("log") if "train/loss" in point]
        for seen in (recorder, plain)
    )
    assert points == expected
    assert module.failures == len(said_sizes)
    assert said() == [
        f"step 1: out of memory with {size} items at once; going on with {half}, the step stays"
        " as large"
        for size, half in said_sizes
    ]
    assert run.state.micro_batch == micro
    ends = [at["step"] for at, _ in recorder.of("step_end")]
    assert ends == list(range(1, run.state.total_steps + 1))


@pytest.mark.parametrize("ids", [["r5"], ["r9"]])
def test_no_gradient_of_a_failed_attempt_is_kept(tmp_path: Path, ids: list[str]) -> None:
    """Where the memory runs out behind some micro-batches of a step, these count only once.

    Without that the step would take their gradient twice. A cut elsewhere rounds differently.
    """
    run, _ = fitted(
        tmp_path / "cut", module=Greedy(1, ids), micro_batch=2, on_oom="split", epochs=3
    )
    whole, _ = fitted(tmp_path / "plain", micro_batch=2, epochs=3)
    assert run.state.micro_batch == 1
    found, expected = weights(run.state.model.module), weights(whole.state.model.module)
    assert (found - expected).abs().max() < 1e-6
    assert (found - weights(net())).abs().max() > 1e-3


def test_a_failed_attempt_leaves_everything_as_it_was() -> None:
    """Weights and moments stay, and there is no gradient, wherever in the window it failed."""
    module = Greedy(2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    step = update(module, optimizer=optimizer)
    parts = [Processor().collate(records(10)[at : at + size]) for at, size in ((0, 2), (2, 3))]
    assert step(parts[:1], 0)[2] == ""
    before, moments = weights(module), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(OutOfMemory):
        step(parts, 1)
    assert module.failures == 1
    assert torch.equal(weights(module), before)
    assert str(optimizer.state_dict()) == str(moments)
    assert all(parameter.grad is None for parameter in module.parameters())


class Failing(Net):
    """A net with a mistake."""

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Multiply what can't be."""
        return {"logits": x @ self.head.weight}


def test_another_error_is_told_as_it_is(tmp_path: Path) -> None:
    """A mistake of the model's is not taken for a want of memory, and is not tried again."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fitted(tmp_path, module=Failing(), on_oom="split")


def test_where_it_isnt_asked_for_the_run_ends(tmp_path: Path) -> None:
    """Without `split` one sentence says the step, what was too much and what to set."""
    run = trainer(tmp_path, module=Greedy(2))
    with pytest.raises(RunError) as caught:
        run.fit()
    assert str(caught.value) == (
        "step 1: out of memory with 4 items at once; set trainer.micro_batch to 2, or"
        " trainer.on_oom to 'split'"
    )
    assert run.state.step == 0


@pytest.mark.parametrize("on_oom", ["stop", "split"])
def test_a_single_item_cant_be_cut(tmp_path: Path, on_oom: str) -> None:
    """Where one item is too much there is nothing left to try."""
    run = trainer(tmp_path, module=Greedy(0), on_oom=on_oom, micro_batch=1)
    with pytest.raises(RunError) as caught:
        run.fit()
    assert str(caught.value) == (
        "step 1: out of memory with 1 items at once; the model or its longest record is too large"
    )


@pytest.mark.parametrize("step", [1, 2, 4])
def test_the_cut_is_kept_over_a_resume(tmp_path: Path, step: int) -> None:
    """A run that goes on begins with the micro-batch that fitted, and ends as if uninterrupted."""
    stop = At("step_end", step, lambda state: state.stop("received SIGTERM", "interrupted"))
    fitted(tmp_path / "run", {"stop": stop}, module=Greedy(2), on_oom="split")
    whole, _ = fitted(tmp_path / "whole", module=Greedy(2), on_oom="split")
    module = Greedy(2)
    run = trainer(tmp_path / "run", module=module, on_oom="split")
    found = newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    run.keeper.resume(run.state, *found)
    assert run.state.micro_batch == 2
    run.fit()
    assert module.failures == 0
    assert torch.equal(weights(run.state.model.module), weights(whole.state.model.module))


def test_workers_begin_again_with_the_smaller_batches(tmp_path: Path) -> None:
    """Batches that loader workers had made ready are made again."""
    run, recorder = fitted(
        tmp_path / "cut", module=Greedy(2), on_oom="split", workers=1, sizes={"train": 10, "val": 4}
    )
    whole, _ = fitted(tmp_path / "plain", micro_batch=2)
    assert torch.equal(weights(run.state.model.module), weights(whole.state.model.module))
    taken = [window for _, window in recorder.of("step_end")]
    assert all(len(batch["id"]) <= 2 for window in taken for batch in window)


@attrs.frozen
class Coupled:
    """A loss whose items depend on each other."""

    def build(self, info: Any) -> Any:
        """Build it."""
        return CrossEntropy(coupled=True)


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["trainer.on_oom=split"], "on_oom"),
        (["trainer.micro_batch=2"], "micro_batch"),
        (["trainer.on_oom=split", "trainer.micro_batch=2"], "micro_batch"),
        (["sampler={use='tokens', budget=99}"], "sampler"),
        (["trainer.micro_batch=32"], None),
        ([], None),
    ],
)
def test_a_coupled_loss_is_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: list[str], key: str | None
) -> None:
    """Where the loss is coupled within a batch, what would cut one is refused before it trains."""
    file = tmp_path / "x.toml"
    root = Path(__file__).resolve().parents[2]
    file.write_text(TINY.replace("ROOT", str(root)), encoding="utf-8")
    experiment = load(file, [*map(parsed, sets)])
    part = attrs.evolve(experiment.loss, options=Coupled())
    coupled = attrs.evolve(experiment, loss=part)
    one, budget = build.live(experiment.strategy), build.live(experiment.sampler).budget
    if key is None:
        assert build._loss(coupled, {}, one, budget).coupled
        return
    with pytest.raises(ExperimentError) as caught:
        build._loss(coupled, {}, one, budget)
    message = rf"this loss is coupled within a batch: {key} would change it; remove it"
    assert re.search(message, str(caught.value))
    assert isinstance(caught.value, UserError)
