"""What the tests of plugins share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing by threads, and wait long for them on a busy machine."""
    torch.set_num_threads(1)
