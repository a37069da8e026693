"""What more data costs: time per step, memory, and start-up, from a thousand rows on.

Run it from the repository's root: `python benchmarks/scale.py`, with `--full` also on 10 million
rows (about half an hour, 4 GB of disk), with `--sizes 1000 10000` on these. It writes synthetic CSV
files of two classes (random words, said to be synthetic in each row), and trains 200 steps of a
tiny model on each with a real command: first with an empty cache, then `--repeat` times with a
full one, of which the least times and the most memory are told. The exit code is 1 where a target
is missed. Resident memory is sampled 50 times a second: *anonymous* is what the process itself
holds; the rest are pages of files, which the system takes back when it needs them. Other work on
the machine adds to times of the wall, less to the processor's: by that steps and the preparing of
rows are held to be flat (what steps read lies in the page cache; of sizes under 100,000 too little
is prepared to tell).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SIZES = (1_000, 10_000, 100_000, 1_000_000)
STEPS, HELD = 200, 500
"""Steps of a training, and records of `val` and of `test`."""
FLAT, GIB, STARTUP, PREPARED = 1.2, 1.5, 10.0, 1.2
"""Targets: the largest step over the smallest, resident, seconds warm, and preparing a row."""
EXPERIMENT = """\
name = "scale"
loss = "cross_entropy"
optimizer = { use = "adamw", lr = 1e-3 }
metrics = ["accuracy"]

[dataset]
use = "text"
train = "./FILE"
ratios = RATIOS

[model]
use = "hf_classifier"
max_length = 64
MODEL

[trainer]
batch_size = 32
log_every = 10
threads = 1
steps = STEPS

[callbacks]
checkpoint = false
"""
TINY = """
[model.config]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 64
vocab_size = 2000
"""


class Measure(NamedTuple):
    """What one command took."""

    start: float
    """Seconds from the command's beginning to the first step."""
    starting: float
    """Seconds of processor time until the first point, ten steps on."""
    step: float
    """Milliseconds of a step: the lower quartile of spans of ten."""
    processor: float
    """Milliseconds of the processor's time for a step."""
    resident: float
    """GiB, with pages of files."""
    anonymous: float
    """GiB, without them."""


def write(file: Path, count: int) -> None:
    """Write a synthetic table; its texts say so."""
    # the same words and parts in every size, so that texts are of one length in tokens
    rng = random.Random(0)  # noqa: S311 - no secret
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(3000)]
    # rows are put together of parts, for to draw each word would take longer than all else
    parts = [[" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(997)] for _ in "12"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        for at in range(count):
            label = rng.random() < 0.4
            mark = words[int(label)]
            text = f"synthetic {at % 1000} {mark} {rng.choice(parts[0])} {rng.choice(parts[1])}"
            rows.writerow([text, "yes" if label else "no"])


def describe(folder: Path, count: int, model: str) -> Path:
    """Write the experiment on a file of so many rows."""
    share = HELD / count if count > 4 * HELD else 0.1
    ratios = f"[{1 - 2 * share!r}, {share!r}, {share!r}]"
    text = EXPERIMENT.replace("FILE", f"{count}.csv").replace("RATIOS", ratios)
    file = folder / f"{count}.toml"
    file.write_text(text.replace("MODEL", model).replace("STEPS", str(STEPS)), encoding="utf-8")
    return file


def status(process: int) -> dict[str, float]:
    """Return what the system says of a process's memory, in GiB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith(("VmRSS", "RssAnon")))
    return {name: int(value.split()[0]) / 2**20 for name, value in pairs}


def processor(process: int) -> float:
    """Return the seconds of processor time that a process has used."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return math.nan
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def run(file: Path, *words: str) -> Measure:
    """Run an experiment as a process of its own; what it took."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings = {"PYTHONPATH": path, "XDG_CACHE_HOME": str(file.parent / "cache")}
    command = [sys.executable, "-m", "framework", "run", str(file), "--json", *words]
    with (file.parent / "out").open("w+b") as out, (file.parent / "err").open("w+b") as err:
        process = subprocess.Popen(
            command, cwd=file.parent, env=os.environ | settings, stdout=out, stderr=err
        )
        most = {"VmRSS": 0.0, "RssAnon": 0.0}
        begun, used = time.time(), [(0.0, 0.0)]
        while process.poll() is None:
            for name, value in status(process.pid).items():
                most[name] = max(most[name], value)
            used.append((time.time() - begun, processor(process.pid)))
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(err.read().decode())
        result = json.loads(out.read())
    newest = max((file.parent / "runs" / "scale").iterdir(), key=lambda p: p.stat().st_mtime)
    lines = (newest / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    times = {p["step"]: p["time"] for p in points if "train/loss" in p}
    spans = [(times[s] - times[s - 10]) / 10 for s in times if s - 10 in times]
    step = 1000 * quantiles(spans)[0]
    # the first steps, and the last point, may hold what belongs to start and end
    ends = min(times) + 20, max(times) - 10
    spent = [next(cpu for at, cpu in used if at >= times[step_]) for step_ in ends]
    busy = 1000 * (spent[1] - spent[0]) / (ends[1] - ends[0])
    start = result["timing"]["start"]
    first = next(cpu for at, cpu in used if at >= min(times.values()))
    return Measure(start, first, step, busy, most["VmRSS"], most["RssAnon"])


def best(found: list[Measure]) -> Measure:
    """Return the least times and the most memory of several runs."""
    *times, resident, anonymous = zip(*found, strict=True)
    return Measure(*map(min, times), max(resident), max(anonymous))


def main() -> int:
    """Measure every size and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="10 million rows, too")
    parser.add_argument("--sizes", type=int, nargs="+", default=[*SIZES], help="rows")
    parser.add_argument("--folder", type=Path, help="where files are written; default: a new one")
    parser.add_argument("--repeat", type=int, default=3, help="trainings with a full cache")
    options = parser.parse_args()
    sizes = sorted({*options.sizes, *([10_000_000] if options.full else [])})
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="scale-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return measure(folder, sizes, options.repeat)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, sizes: list[int], repeat: int) -> int:
    """Train on each size; the exit code."""
    write(folder / "1000.csv", 1000)
    # one vocabulary for all sizes: training it would count as preparing a row
    run(describe(folder, 1000, TINY), "--set", "callbacks.checkpoint.use=checkpoint")
    newest = max((folder / "runs" / "scale").iterdir(), key=lambda p: p.stat().st_mtime)
    shutil.copytree(newest / "checkpoints" / "last" / "model", folder / "tiny", dirs_exist_ok=True)
    warms, colds = {}, {}
    print(
        f"{'rows':>10} {'':>5} {'start s':>8} {'CPU':>6} {'ms/step':>8} {'CPU':>6} {'RSS GiB':>8}"
        f" {'anon GiB':>8}"
    )
    for count in sizes:
        write(folder / f"{count}.csv", count)
        file = describe(folder, count, 'pretrained = "./tiny"')
        shutil.rmtree(folder / "cache", ignore_errors=True)
        colds[count] = run(file)
        warms[count] = best([run(file) for _ in range(repeat)])
        for name, found in (("cold", colds[count]), ("warm", warms[count])):
            print(
                f"{count:>10} {name:>5} {found.start:8.2f} {found.starting:6.2f}"
                f" {found.step:8.2f} {found.processor:6.2f} {found.resident:8.2f}"
                f" {found.anonymous:9.2f}",
                flush=True,
            )
        (folder / f"{count}.csv").unlink()
    bare = min(found.starting for found in warms.values())
    rows = {n: 1e6 * (found.starting - bare) / n for n, found in colds.items() if n >= 100_000}
    steps = [found.processor for found in warms.values()]
    every = [*warms.values(), *colds.values()]
    print(
        "preparing a row, µs of the processor:",
        ", ".join(f"{n}: {each:.0f}" for n, each in rows.items()),
    )
    largest = rows.pop(sizes[-1], 0.0)
    targets = {
        f"step time within {FLAT} of the smallest's": max(steps) <= FLAT * min(steps),
        f"anonymous memory under {GIB} GiB": max(f.anonymous for f in every) < GIB,
        f"warm start of the largest under {STARTUP:.0f} s": warms[sizes[-1]].start < STARTUP,
        "preparing a row of the largest as of others": largest
        <= PREPARED * max(rows.values(), default=largest),
    }
    for name, met in targets.items():
        print("met   " if met else "MISSED", name)
    return 0 if all(targets.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
