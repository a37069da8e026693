"""What checkpoints cost: the main job with one every 20 steps, against none.

Run it from the repository's root, on a machine that does nothing else:

    python benchmarks/checkpoints.py [--steps N] [--rounds 3]

Each round trains the main job, or only its first N steps, with and without, in turn, as real
commands in a scratch folder, and takes the seconds of the run but for starting and evaluating
(`result.json`): what remains is training, copying, waiting for what is written in the background,
and loading the best weights, which only a run with checkpoints does. The ratio is
that of the medians. Exits with 1 unless it is under 1.05.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.05
WAYS = {
    "every 20 steps": ("callbacks.checkpoint.every_steps=20",),
    "none": ("callbacks.checkpoint=false",),
}


def seconds(scratch: Path, steps: int, *sets: str) -> float:
    """Train once; the seconds but for starting and evaluating."""
    words = ["-m", "framework", "run", str(ROOT / "experiments" / "focal_bert.toml"), "--json"]
    length = [f"trainer.steps={steps}"] if steps else []
    for value in (*length, "callbacks.mlflow=false", *sets):
        words += ["--set", value]
    done = subprocess.run(
        [sys.executable, *words], cwd=scratch, stdout=subprocess.PIPE, text=True, check=True
    )
    timing = json.loads(done.stdout)["timing"]
    return float(timing["total"] - timing["start"] - timing["evaluate"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=0, help="0: all of them")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, sets in WAYS.items():
            with tempfile.TemporaryDirectory() as scratch:
                taken[name].append(seconds(Path(scratch), options.steps, *sets))
            print(f"{name:15} {taken[name][-1]:7.2f} s", flush=True)
    with_them, without = (statistics.median(values) for values in taken.values())
    ratio = with_them / without
    print(f"medians: {with_them:.2f} s with, {without:.2f} s without: {ratio:.3f}")
    return 0 if ratio < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
