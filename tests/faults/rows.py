"""The table: every fault, and the function that injects it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from tests.faults import (
    arithmetic,
    departures,
    disk,
    files,
    hostile,
    interrupts,
    kills,
    leftovers,
    machine,
    mutants,
    nonfinite,
    outsiders,
    privacy,
    searches,
    services,
    shares,
    tables,
)
from tests.faults.outcome import Outcome

Check = Callable[[Path, int], Outcome]
"""Injects a fault in an empty folder, so many times; the program's `--rounds`."""


@attrs.frozen
class Row:
    """One fault; without a check it is missing."""

    number: int
    injection: str
    check: Check | None = None
    imports: tuple[str, ...] = ()
    """What its processes would each import for seconds: the one they are forked from does."""


MODEL = "transformers.models.bert.modeling_bert"
STORE = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
ROWS = (
    Row(1, "SIGKILL at a random step, loader workers 0 and 2", kills.moments),
    Row(2, "as 1 with random augmentation", kills.augmented),
    Row(3, "SIGKILL at a random millisecond, saving every step", kills.saving),
    Row(
        4,
        "each file of the newest checkpoint truncated, zeroed, deleted",
        files.damaged,
        imports=(MODEL,),
    ),
    Row(5, "one flipped bit in each file of a checkpoint", files.flipped, imports=(MODEL,)),
    Row(6, "disk full", disk.full),
    Row(7, "checkpoint folder not writable", disk.closed),
    Row(8, "SIGKILL between save and prune; reused folder", leftovers.check),
    Row(9, "SIGTERM, loader workers 0 and 2", interrupts.check),
    Row(10, "SIGTERM to rank 1 of 2", departures.one),
    Row(11, "SIGTERM to torchrun", departures.torchrun),
    Row(12, "SIGKILL of rank 1, --max-restarts", departures.killed),
    Row(13, "SIGKILL of a loader worker", machine.worker),
    Row(14, "out of memory at micro-batch k", machine.memory),
    Row(15, "NaN or inf in loss or gradient at step k", nonfinite.poisoned),
    Row(16, "16x1, 8x2, 4x4 with a short last window", arithmetic.accumulation),
    Row(17, "scaler, clipping, accumulation, forced overflow", arithmetic.scaling),
    Row(18, "20 combinations of size, batch, accumulation, epochs, ranks", shares.planned),
    Row(
        19,
        "evaluation of N = 1..17, 101 records on 1-4 ranks",
        shares.evaluated,
        imports=("sklearn.metrics",),
    ),
    Row(20, "uneven batches, absent classes", arithmetic.averaging),
    Row(21, "NaN metric; resume in mid-patience", nonfinite.patience),
    Row(22, "4 workers x 2 ranks x 2 epochs", shares.streams),
    Row(
        23,
        "MLflow killed at step 10, or absent",
        services.dying_server,
        imports=(*STORE, "mlflow.server"),
    ),
    Row(24, "4 processes on a fresh sqlite file", services.fresh_database, imports=STORE),
    Row(25, "SIGKILL over 4 search workers", searches.killed, imports=("optuna",)),
    Row(26, "a trial raises, gives NaN, runs out of memory", searches.failing, imports=STORE),
    Row(27, "broken, duplicate, mistyped plugin", outsiders.plugins),
    Row(28, "an exception in each hook", outsiders.hooks),
    Row(29, "mutated TOML files", mutants.check),
    Row(30, "bad CSV", tables.check),
    Row(
        31,
        "a hostile pickle in the place of every checkpoint file",
        hostile.check,
        imports=(MODEL,),
    ),
    Row(32, "a canary sentence in every post", privacy.check, imports=(MODEL, *STORE)),
)
