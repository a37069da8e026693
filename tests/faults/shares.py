"""Rows 18, 19 and 22: what ranks share must come out as if there were one of them."""

from __future__ import annotations

import json
import math
import os
import random
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

from framework import build
from framework.commands import _checkpoints
from framework.commands._sets import parsed
from framework.config.experiment import load
from framework.hooks import Hooks
from framework.protocols import Row
from tests.faults import experiments, ranks
from tests.faults.outcome import Outcome

RATE = 0.01
MOST = 4
"""Ranks."""
COUNTS = (*range(1, 18), 101)
"""Records of a split; with batches of two, those of the last come in several spans."""
WORKERS = 4


def planned(folder: Path, rounds: int) -> Outcome:
    """Row 18: steps of optimizer and schedule, and the last learning rate, from the sizes alone."""
    rng = random.Random(18)  # noqa: S311 - draws of a test
    failures, count, worst, total = [], max(20, rounds), 0.0, 0
    for number in range(count):
        size, batch, epochs = rng.randint(1, 60), rng.randint(1, 24), rng.randint(1, 3)
        many, micro = 1 + number % MOST, rng.choice([0, 1, 3, 5])
        settings = {"batch_size": batch, "micro_batch": micro, "epochs": epochs}
        run, _ = ranks.ran(
            folder / str(number),
            many,
            f"dataset={{use='fault_texts', count={size}, checked=1}}",
            "callbacks.checkpoint.every_epochs=0",
            *(f"trainer.{key}={value}" for key, value in settings.items()),
            f"optimizer={{use='adamw', lr={RATE}}}",
            "scheduler=linear",
        )
        steps = epochs * math.ceil(size / batch)
        total += steps
        saved = _checkpoints.read(run / "checkpoints" / "last")
        moved = {int(each["step"]) for each in saved["optimizer"]["state"].values()}
        wrong = [f"the optimizer took {moved} steps"] * (moved != {steps})
        for rank in range(many):
            rates = [note["rate"] for note in ranks.noted(folder / str(number), "step_end", rank)]
            wrong += [f"rank {rank} saw {len(rates)} steps"] * (len(rates) != steps)
            off = abs(rates[-1] - RATE / steps)
            worst = max(worst, off)
            wrong += [f"rank {rank} ended with a rate {off:.1e} off"] * (not off <= 1e-12)
        where = f"{size} records on {many} ranks, {settings}, {steps} steps"
        failures += [f"{what} ({where})" for what in wrong]
    said = (
        f"{count} combinations, {total} steps: as many of the optimizer as of the schedule, the"
        f" last learning rate at most {worst:.1e} off"
    )
    return Outcome.of(said, failures)


def evaluated(folder: Path, rounds: int) -> Outcome:
    """Row 19: each record once and in order, and values as of one process, on every rank."""
    del rounds  # nothing is random
    (folder / "fault.toml").write_text(experiments.TEXT)
    found = {many: _evaluations(folder, many) for many in range(1, MOST + 1)}
    failures, worst, (alone,) = [], 0.0, found.pop(1)
    for many, every in found.items():
        for rank, sizes in enumerate(every):
            for count, (rows, values) in sizes.items():
                where = f"{count} records, rank {rank} of {many}"
                ids = [row["id"] for row in rows]
                right = ids == [f"val{index}" for index in range(int(count))]
                if not right or rows != alone[count][0]:
                    failures.append(f"{where}: rows of {ids}")
                for name, value in alone[count][1].items():
                    if math.isnan(value) and math.isnan(values[name]):
                        continue
                    off = abs(values[name] - value)
                    worst = max(worst, off)
                    if not off <= 1e-9:
                        failures.append(f"{where}: {name} is {off:.1e} off")
    said = (
        f"{len(COUNTS)} sizes on 1 to {MOST} ranks: each id once and in order, values at most"
        f" {worst:.1e} from one process's"
    )
    return Outcome.of(said, failures)


def _evaluations(folder: Path, many: int) -> list[dict[str, tuple[list[Row], dict[str, float]]]]:
    """Evaluate splits of all sizes on so many ranks; what each has found."""

    def work() -> None:
        rank = os.environ["RANK"]
        found = {str(count): _evaluation(folder, count) for count in COUNTS}
        (folder / f"{many}-{rank}.json").write_text(json.dumps(found))

    for rank, ended in enumerate(ranks.together(many, work, folder).wait()):
        if ended.code:
            raise RuntimeError(f"rank {rank} of {many} ended with {ended.code}: {ended.last}")
    return [json.loads((folder / f"{many}-{rank}.json").read_text()) for rank in range(many)]


def _evaluation(folder: Path, count: int) -> tuple[list[Row], dict[str, float]]:
    """Evaluate a split of so many records on this rank, in float64; rows and values."""
    names = "metrics=['accuracy', 'pr_auc', {use='f1', average='macro'}]"
    sets = ["strategy={use='ddp', device='cpu'}", "trainer.batch_size=2", names]
    experiment = load(folder / "fault.toml", [*map(parsed, [*sets, f"dataset.checked={count}"])])
    splits, hooks, rows = build.dataset(experiment), Hooks({}), list[Row]()
    given = experiment, splits, hooks, folder, lambda _: nullcontext(rows.extend)
    trainer = build.trainer(*given, only="val")
    trainer.state.model.module.double()
    return rows, trainer.evaluate("val", rows.extend)


def streams(folder: Path, rounds: int) -> Outcome:
    """Row 22: no number that a rank, a worker or an epoch drew is drawn again by another."""
    del rounds  # nothing is random
    sets = ("model=fault_streams", "dataset.count=80", f"trainer.workers={WORKERS}")
    ranks.ran(folder, 2, *sets, "trainer.epochs=2", "trainer.micro_batch=3")
    seen: dict[str, list[int]] = defaultdict(list)
    failures = []
    for rank in range(2):
        lines = (folder / f"streams-{rank}.jsonl").read_text().splitlines()
        batches = [json.loads(line) for line in lines]
        seen["dropout"] += [batch["dropout"] for batch in batches]
        records = [record for batch in batches for record in batch["drawn"]]
        workers = {record.pop("worker") for record in records}
        if workers != set(range(WORKERS)):
            failures.append(f"rank {rank} had the workers {workers}")
        for name in records[0]:
            seen[name] += [record[name] for record in records]
    for name, values in seen.items():
        again = len(values) - len(set(values))
        failures += [f"{again} of {len(values)} of {name} were drawn before"] * (again > 0)
    told = ", ".join(f"{len(values)} of {name}" for name, values in seen.items())
    return Outcome.of(f"no draw repeated: {told}", failures)
