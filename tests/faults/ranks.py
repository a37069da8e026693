"""Several ranks of one run: forks that join each other, and the ones that torchrun starts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch.distributed.run
from torch.distributed import TCPStore

from framework.__main__ import main
from tests.faults import experiments
from tests.faults.experiments import notes
from tests.faults.processes import TICK, Ended, Process, start
from tests.support import ROOT


@attrs.frozen
class Ranks:
    """Processes that run together; the first is rank 0."""

    processes: Sequence[Process]
    store: TCPStore
    """Where they find each other: it lives as long as this."""

    def wait(self, seconds: float = 120.0) -> list[Ended]:
        """Wait for the end of each; `TimeoutError`, after killing all, if that takes longer."""
        try:
            return [process.wait(seconds) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


def together(
    count: int, work: Callable[[], int | None], cwd: Path, store: TCPStore | None = None
) -> Ranks:
    """Start so many ranks that do the same in a folder, as torchrun would start them.

    With the `store` of others they are those whom it starts again after these.
    """
    # listening already: a port that is only drawn may be another's by then
    store = store or TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }

    def joined(rank: int) -> Callable[[], int | None]:
        def joining() -> int | None:
            os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
            return work()

        return joining

    return Ranks([start(joined(rank), cwd) for rank in range(count)], store)


def _words(folder: Path, sets: Sequence[str]) -> list[str]:
    """Write the experiment into a folder, which is made; what the command is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fault.toml").write_text(experiments.TEXT)
    return ["run", "fault.toml", *(word for value in sets for word in ("--set", value))]


def started(folder: Path, count: int, *sets: str, resume: bool = False) -> Ranks:
    """Start the experiment on so many ranks, or go on with its newest run."""
    words = _words(folder, sets) + ["--resume"] * resume
    return together(count, lambda: main(words), folder)


def ran(folder: Path, count: int, *sets: str) -> tuple[Path, list[Ended]]:
    """Run the experiment on so many ranks; its run folder. `RuntimeError` where that fails."""
    every = started(folder, count, *sets).wait()
    for rank, ended in enumerate(every):
        if ended.code:
            raise RuntimeError(f"rank {rank} of {count} ended with {ended.code}: {ended.last}")
    (run,) = (folder / "runs" / "fault").iterdir()
    return run, every


def torchrun(folder: Path, count: int, *sets: str, restarts: int = 0) -> Process:
    """Start the experiment by torchrun itself: each rank is a new interpreter."""
    words = _words(folder, sets)
    options = ["--standalone", f"--nproc-per-node={count}", f"--max-restarts={restarts}"]
    sites = [str(ROOT), *(path for path in sys.path if (Path(path) / _PARTS).exists())]

    def work() -> None:
        os.environ["PYTHONPATH"] = os.pathsep.join(sites)
        torch.distributed.run.main([*options, "-m", "framework", *words])

    return start(work, folder)


_PARTS = "fault_parts-1.0.dist-info"


def reached(folder: Path, count: int, hook: str, times: int, processes: Sequence[Process]) -> None:
    """Wait until a hook was called so many times on each rank; `RuntimeError` if one ends first."""
    while not all(noted(folder, hook, rank, times) for rank in range(count)):
        if not all(process.alive() for process in processes):
            raise RuntimeError("a process has ended too early")
        time.sleep(TICK)


def noted(folder: Path, hook: str, rank: int, times: int = 1) -> list[dict[str, Any]]:
    """What a rank wrote down in a hook of the one run, once it did so often; nothing before."""
    name = f"{rank}-watch.jsonl" if rank else "watch.jsonl"
    for run in folder.glob("runs/fault/*"):
        found = notes(run, hook, name)
        if len(found) >= times:
            return found
    return []
