"""What does pruning save, and does it cost anything? The same search with and without, by seeds.

Run it from the repository's root:

    python benchmarks/tune.py [--seeds 5] [--trials 20] [--evaluations 12]

Each seed searches learning rate, weight decay and gamma of `tiny_bert.toml` twice, in one process
each: every trial to its end, and with the best quarter alone going on after the fourth evaluation,
before which so small a model has learned nothing. Both draw their first trials alike and go on from
what they saw. Prints for each seed the optimizer steps of all trials and the best value,
then the steps saved in all and the difference of the best values with its standard error over the
seeds. Exit code 1 where less than 40 % is saved, or the best is worse by more than that error.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAVED = 0.4
SEARCH = """
extends = "EXPERIMENT"
name = "pruning"
seed = SEED
callbacks.mlflow = false
callbacks.progress = false
callbacks.early_stopping = false
callbacks.checkpoint.monitor = "val/roc_auc"
[trainer]
steps = STEPS
epochs = 30
batch_size = 16
eval_every = EVERY
[search]
metric = "val/roc_auc"
direction = "maximize"
trials = TRIALS
retrain = 0
pruner = PRUNER
[search.space]
"optimizer.lr" = { low = 1e-5, high = 1e-2, log = true }
"optimizer.weight_decay" = { low = 1e-4, high = 1.0, log = true }
"loss.gamma" = { low = 0.0, high = 5.0 }
"""
EVERY = 30
PRUNER = '{ use = "successive_halving", min_resource = 4, reduction_factor = 4 }'


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=12)
    parser.add_argument("--pruner", default=PRUNER, help="as in the file")
    options = parser.parse_args()
    steps, differences = {"none": 0, "pruned": 0}, []
    print("| seed | steps, none pruned | steps, pruned | best, none pruned | best, pruned |")
    print("|---|---|---|---|---|")
    for seed in range(options.seeds):
        found = {}
        for way, pruner in (("none", '"none"'), ("pruned", options.pruner)):
            found[way] = searched(seed, pruner, options.trials, options.evaluations)
            steps[way] += found[way][0]
        (taken, best), (fewer, kept) = found["none"], found["pruned"]
        differences.append(kept - best)
        print(f"| {seed} | {taken} | {fewer} | {best:.4f} | {kept:.4f} |", flush=True)
    saved = 1 - steps["pruned"] / steps["none"]
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) if len(differences) > 1 else math.nan
    error = spread / math.sqrt(len(differences))
    print(f"\n{saved:.1%} of the steps saved; the best {mean:+.4f} (standard error {error:.4f})")
    return 0 if saved >= SAVED and (mean >= -error or math.isnan(error)) else 1


def searched(seed: int, pruner: str, trials: int, evaluations: int) -> tuple[int, float]:
    """Search in a folder of its own; the steps of all trials, and the best value."""
    text = SEARCH.replace("EXPERIMENT", str(ROOT / "experiments" / "tiny_bert.toml"))
    words = {"SEED": seed, "STEPS": EVERY * evaluations, "EVERY": EVERY, "TRIALS": trials}
    for word, value in words.items():
        text = text.replace(f"= {word}\n", f"= {value}\n")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pruning.toml")
        file.write_text(text.replace("PRUNER", pruner), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "framework", "tune", file.name, "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return sum(trial["steps"] for trial in found["trials"]), found["best"][0]["values"][0]


if __name__ == "__main__":
    sys.exit(main())
