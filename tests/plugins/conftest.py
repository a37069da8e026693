"""What the tests of plugins share."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from framework.protocols import Training
from framework.state import State
from plugins.strategies.auto import OneProcess

# the tiny trainer of the core's tests serves callbacks too
sys.path.append(str(Path(__file__).parents[1] / "framework"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing by threads, and wait long for them on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def state(tmp_path: Path) -> Callable[[], State]:
    """Make the state of a run of two epochs of ten steps, with an empty folder."""
    module = torch.nn.Linear(1000, 1500)
    training = Training(
        epochs=2,
        steps=0,
        batch_size=16,
        micro_batch=0,
        eval_every=0,
        log_every=10,
        max_grad_norm=1.0,
        deterministic=False,
        workers=0,
        threads=0,
        compile=False,
        on_oom="stop",
        on_nonfinite="stop",
    )

    def make() -> State:
        return State(
            folder=tmp_path,
            name="trial",
            model=SimpleNamespace(module=module),
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            schedule=lambda step: 1 - step / 20,
            training=training,
            strategy=OneProcess(torch.device("cpu")),
            epochs=2,
            steps_per_epoch=10,
            total_steps=20,
            items_per_epoch=320,
        )

    return make


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level(logging.WARNING, logger="framework")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
