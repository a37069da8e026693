"""The experiment that faults are injected into, and what its runs leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framework.__main__ import main
from tests.faults import processes
from tests.support import install

TEXT = """\
name = "fault"
dataset = "fault_texts"
model = "fault_net"
loss = "cross_entropy"
optimizer = { use = "fault_sgd", lr = 0.1 }
scheduler = "constant"
precision = "fp32"
metrics = [{ use = "f1", average = "macro" }, "accuracy"]

[trainer]
epochs = 2
batch_size = 16
threads = 1

[callbacks.watch]
use = "fault_watch"
"""
OFFERS = {
    "framework.dataset": {"fault_texts": "tests.faults.parts:Texts"},
    "framework.model": {
        "fault_net": "tests.faults.parts:Net",
        "fault_hungry": "tests.faults.faulty:Hungry",
        "fault_streams": "tests.faults.streams:Streams",
    },
    "framework.loss": {
        "fault_leak": "tests.faults.parts:Leak",
        "fault_poison": "tests.faults.faulty:Poison",
        "fault_coupled": "tests.faults.faulty:Coupled",
    },
    "framework.metric": {
        "fault_moody": "tests.faults.faulty:Moody",
        "fault_bell": "tests.faults.faulty:Bell",
    },
    "framework.optimizer": {"fault_sgd": "tests.faults.parts:Sgd"},
    "framework.precision": {"fault_fp16": "tests.faults.parts:Jumping"},
    "framework.callback": {
        "fault_watch": "tests.faults.callbacks:Watch",
        "fault_raise": "tests.faults.callbacks:Raise",
        "fault_signal": "tests.faults.callbacks:Signal",
        "fault_fall": "tests.faults.callbacks:Fall",
    },
}


def install_parts(patch: pytest.MonkeyPatch, site: Path) -> None:
    """Have the parts found as those of an installed distribution."""
    install(patch, site, "fault-parts 1.0", OFFERS)


def attempt(folder: Path, *sets: str) -> processes.Ended:
    """Run the experiment in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fault.toml").write_text(TEXT)
    words = [word for value in sets for word in ("--set", value)]
    return processes.finished("run", "fault.toml", *words, cwd=folder)


def started(
    folder: Path, *sets: str, resume: bool = False, group: bool = False, first: Any = None
) -> processes.Process:
    """Start the experiment, or go on with its newest run, after calling `first` in the process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fault.toml").write_text(TEXT)
    words = [word for value in sets for word in ("--set", value)] + ["--resume"] * resume

    def work() -> int:
        if first:
            first()
        return main(["run", "fault.toml", *words])

    return processes.start(work, folder, group=group)


def ran(folder: Path, *sets: str, code: int = 0) -> tuple[Path, processes.Ended]:
    """Run the experiment in a folder; its run folder. `RuntimeError` for another exit code."""
    ended = attempt(folder, *sets)
    if ended.code != code:
        raise RuntimeError(f"exit code {ended.code}, expected {code}: {ended.last}")
    (run,) = (folder / "runs" / "fault").iterdir()
    return run, ended


def notes(run: Path, hook: str, file: str = "watch.jsonl") -> list[dict[str, Any]]:
    """What the run's `fault_watch` wrote down in one hook, if it was ever called."""
    if not (run / file).exists():
        return []
    lines = map(json.loads, (run / file).read_text().splitlines())
    return [line for line in lines if line["hook"] == hook]


def result(run: Path) -> dict[str, Any]:
    """The run's `result.json`."""
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found
