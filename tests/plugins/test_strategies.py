"""The strategies: one process on the device that is there, or several ranks under torchrun."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import ROOT, environment

from framework.errors import UserError
from framework.testing import check_strategy
from framework.testing.strategy import SUITE
from plugins.strategies.auto import Auto
from plugins.strategies.ddp import Ddp

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


@without_cuda
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_cpu_where_there_is_nothing_else(device: str) -> None:
    """Without CUDA, `auto` and `cpu` run on the CPU, as the only rank."""
    live = Auto(device=device).build()
    assert (live.device, live.rank, live.world_size) == (torch.device("cpu"), 0, 1)


FAULTS = """
import resource, sys
import torch
from plugins.strategies.auto import Auto
if sys.argv[1:]:
    Auto(device="cpu").build()
counts = []
for _ in range(20):
    torch.ones(64 << 20, dtype=torch.uint8)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[-1] - counts[-4])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_used_again() -> None:
    """Blocks of 64 MB that are freed and wanted again cost no page faults after some rounds."""
    faults = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS, *words], env=environment()))
        for words in ([], ["built"])
    ]
    pages = (64 << 20) // resource.getpagesize()
    assert faults[1] < min(pages, faults[0]) / 10


@without_cuda
def test_cuda_that_is_not_there() -> None:
    """A device asked for and absent is one line that says which option to change to what."""
    with pytest.raises(UserError, match=r'strategy\.device is "cuda".*"auto" or "cpu"') as error:
        Auto(device="cuda").build()
    assert "\n" not in str(error.value)


RANK = """
import sys
from pathlib import Path

from framework.testing import check_strategy
from plugins.strategies.auto import Auto
from plugins.strategies.ddp import Ddp

live = Auto(device="cpu").build()
words = [type(live).__name__, str(live.device), str(live.world_size)]
for options in (Ddp(device="cpu"), Auto(device="cpu")):
    words += [f"{o.check} {o.state}" for o in check_strategy(options).outcomes]
Path(sys.argv[1], str(live.rank)).write_text("\\n".join(words))
"""
ALONE = {"wrap_keeps_what_it_computes", "a_step_may_break_off"}
"""Checks of the kit that are of one process."""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_started_by_torchrun(ranks: int, tmp_path: Path) -> None:
    """Every rank keeps the contract of strategies: sums of gradients and counts among others.

    `auto` is `ddp` where there are several ranks, and one process where there is one.
    """
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    (tmp_path / "rank.py").write_text(RANK, encoding="utf-8")
    found = tmp_path / "found"
    found.mkdir()
    done = subprocess.run(
        [sys.executable, *words, tmp_path / "rank.py", found],
        cwd=ROOT,
        env=environment()
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in found.iterdir()) == [str(rank) for rank in range(ranks)]
    checks = [check.__name__ for check in SUITE.checks]
    states = [f"{name} {'skipped' if ranks > 1 and name in ALONE else 'passed'}" for name in checks]
    live = "LiveDdp" if ranks > 1 else "OneProcess"
    for path in found.iterdir():
        assert path.read_text().split("\n") == [live, "cpu", str(ranks), *states, *states]


@pytest.mark.parametrize("options", [Auto(), Ddp()], ids=["auto", "ddp"])
def test_one_of_several_without_torchrun(
    options: Auto | Ddp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't join its ranks it says how to start them, rather than training alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=r"torchrun --standalone --nproc-per-node 2") as error:
        options.build()
    assert "\n" not in str(error.value)


def test_ddp_is_not_blamed_where_there_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kit skips all of `ddp` outside torchrun, as it does where a device isn't there."""
    monkeypatch.delenv("RANK", raising=False)
    report = check_strategy(Ddp())
    assert {(outcome.state, outcome.absent) for outcome in report.outcomes} == {("skipped", True)}


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
