"""The strategy `auto`: one process on the device that is there."""

from __future__ import annotations

import pytest
import torch

from framework.errors import UserError
from plugins.strategies.auto import Auto

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


@without_cuda
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_cpu_where_there_is_nothing_else(device: str) -> None:
    """Without CUDA, `auto` and `cpu` run on the CPU, as the only rank."""
    live = Auto(device=device).build()
    assert (live.device, live.rank, live.world_size) == (torch.device("cpu"), 0, 1)


@without_cuda
def test_cuda_that_is_not_there() -> None:
    """A device asked for and absent is one line that says which option to change to what."""
    with pytest.raises(UserError, match=r'strategy\.device is "cuda".*"auto" or "cpu"') as error:
        Auto(device="cuda").build()
    assert "\n" not in str(error.value)


def test_reductions_over_one_rank() -> None:
    """The only rank's sums and gatherings are its own values, and wrapping keeps the module."""
    live = Auto(device="cpu").build()
    counts = {"focal": 3}
    assert live.sum(counts) == counts
    assert live.sum(counts) is not counts
    assert live.gather(counts) == [counts]
    module = torch.nn.Linear(2, 2)
    assert live.wrap(module) is module
    assert module.weight.device == live.device
