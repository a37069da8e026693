"""What the tests of plugins share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from framework.state import State


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing by threads, and wait long for them on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def state(tmp_path: Path) -> Callable[[], State]:
    """Make the state of a run of two epochs of ten steps, with an empty folder."""

    def make() -> State:
        return State(
            folder=tmp_path,
            name="trial",
            model=SimpleNamespace(module=torch.nn.Linear(1000, 1500)),
            epochs=2,
            steps_per_epoch=10,
            total_steps=20,
            items_per_epoch=320,
        )

    return make
