"""Rows 25 and 26: searches whose processes are killed, and whose trials fail."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from plugins._mlflow import bounded, connect
from tests.faults.experiments import TEXT, result
from tests.faults.outcome import Outcome
from tests.faults.processes import Process, command, finished

WORKERS = 4
KILLS = 10
"""Kills in one search: each may cost a trial its second attempt."""
SEARCH = """
[search]
metric = "val/accuracy"
direction = "maximize"
trials = TRIALS
storage = "STORAGE"
retrain = 0
[search.space]
"optimizer.lr" = { low = 0.01, high = 1.0, log = true }
"""
WAYS = """
"loss" = { choices = ["cross_entropy", "fault_leak", "LOST"] }
"model" = { choices = ["fault_net", { use = "fault_hungry", record = "train0", most = 0 }] }
"""
LOST = "{ use = 'fault_poison', record = 'train0', value = nan, where = 'loss' }"


def killed(folder: Path, rounds: int) -> Outcome:
    """Row 25: processes of a search are killed at random moments, and others started."""
    rng = random.Random(25)  # noqa: S311 - draws of a test
    failures: list[str] = []
    trials = kills = retried = 0
    for number, first in enumerate(range(0, rounds, KILLS)):
        storage = "sqlite:///trials.db" if number % 2 else "journal"
        here = folder / str(number)
        struck = min(KILLS, rounds - first)
        found, wrong = _round(here, rng, storage, struck)
        failures += [f"{storage}: {what}" for what in wrong]
        kills += struck
        trials += len(found["trials"])
        retried += sum(trial["attempt"] > 1 for trial in found["trials"])
    said = (
        f"{kills} kills among {WORKERS} processes; {trials} trials, as many as were asked for, each"
        f" number once, none running; {retried} were tried again"
    )
    return Outcome.of(said, failures)


def _round(
    folder: Path, rng: random.Random, storage: str, kills: int
) -> tuple[dict[str, Any], list[str]]:
    """Kill some of the processes of one search, each followed by another; what it comes to."""
    asked = WORKERS + 2 * kills
    _write(folder, SEARCH.replace("TRIALS", str(asked)).replace("STORAGE", storage))
    crew = [_started(folder) for _ in range(WORKERS)]
    for _ in range(kills):
        time.sleep(rng.uniform(0.2, 1.0))
        place = rng.randrange(WORKERS)
        crew[place].kill()
        crew[place].wait()
        crew[place] = _started(folder)
    ends = [process.wait(300) for process in crew]
    wrong = [f"a process ended with {end.code}: {end.last}" for end in ends if end.code]
    found = json.loads((folder / "runs" / "fault" / "study" / "study.json").read_text())
    return found, [*wrong, *_amiss(folder, found, asked)]


def _started(folder: Path) -> Process:
    return command("tune", "fault.toml", cwd=folder)


def _write(folder: Path, search: str) -> None:
    folder.mkdir(parents=True)
    (folder / "fault.toml").write_text(TEXT + search)


def _amiss(folder: Path, found: dict[str, Any], asked: int) -> list[str]:
    """Say what is wrong with the trials of a study."""
    trials = found["trials"]
    states = Counter(trial["state"] for trial in trials)
    wrong = []
    if [trial["number"] for trial in trials] != [*range(asked)]:
        wrong.append(f"{len(trials)} trials of {asked}")
    if set(states) - {"complete", "fail"}:
        wrong.append(f"states {dict(states)}")
    runs = [*itertools.chain.from_iterable(trial["runs"] or () for trial in trials)]
    if len(set(runs)) != len(runs):
        wrong.append("a run is of two trials")
    ended = [result(folder / "runs" / "fault" / run)["status"] for run in runs]
    if set(ended) - {"completed", "running"}:
        wrong.append(f"runs ended as {dict(Counter(ended))}")
    return wrong


def failing(folder: Path, _: int) -> Outcome:
    """Row 26: one raises, one has no loss that is a number, one has no memory."""
    store = f"sqlite:///{folder / 'mlflow.db'}"
    search = (SEARCH + WAYS).replace("TRIALS", "12").replace("STORAGE", "journal")
    search = search.replace('"LOST"', LOST)
    _write(folder / "search", f"{search}\n[callbacks.mlflow]\nuri = '{store}'\n")
    ended = finished("tune", "fault.toml", cwd=folder / "search")
    if ended.code:
        return Outcome.of("", [f"ended with {ended.code}: {ended.last}"])
    root = folder / "search" / "runs" / "fault"
    trials = json.loads((root / "study" / "study.json").read_text())["trials"]
    wrong = [what for trial in trials for what in _told(root, trial)]
    reasons = [re.sub(r"\d+", "N", trial["reason"])[:20] for trial in trials if trial["reason"]]
    if len(set(reasons)) < 3:
        wrong.append(f"not every way to fail was drawn: {set(reasons)}")
    with bounded(60):
        client = connect(store)
        (experiment,) = client.search_experiments(filter_string="name = 'fault'")
        tracked = client.search_runs([experiment.experiment_id])
    kept = {run.info.run_name: run.info.status for run in tracked}
    parents = {run.info.run_id for run in tracked if run.info.run_name == "study"}
    nested = {run.data.tags.get("mlflow.parentRunId") for run in tracked} - {None}
    if len(parents) != 1 or nested != parents:
        wrong.append(f"{len(parents)} runs of the search, and {len(nested)} that others name")
    wrong += [f"tracked: {what}" for trial in trials for what in _recorded(kept, trial)]
    counts = Counter(trial["state"] for trial in trials)
    said = ", ".join(f"{number} trials {state}" for state, number in sorted(counts.items()))
    return Outcome.of(f"{said}; so are their runs and those in the store", wrong)


def _told(root: Path, trial: dict[str, Any]) -> list[str]:
    """Say what is wrong with the runs of a trial."""
    number, state, reason = trial["number"], trial["state"], trial["reason"]
    wrong = [f"trial {number} is {state}"] * (state not in _ENDS)
    wrong += [f"trial {number} doesn't say why it failed"] * ((state == "fail") != bool(reason))
    ended = [result(root / run)["status"] for run in trial["runs"]]
    return wrong + [f"trial {number}: its run {e}" for e in ended if e != _ENDS.get(state, e)[0]]


def _recorded(kept: dict[str, str], trial: dict[str, Any]) -> list[str]:
    """Say what is wrong with what the store says of the runs of a trial."""
    wanted = _ENDS.get(trial["state"], ("", ""))[1]
    found = [kept.get(run, "nothing") for run in trial["runs"]]
    return [f"trial {trial['number']}: {status}" for status in found if status != wanted]


_ENDS = {"complete": ("completed", "FINISHED"), "fail": ("failed", "FAILED")}
