"""How fast is training, beside what people would use instead? The same work by each, alternating.

Run it from the repository's root, on a machine that does nothing else; the peers are installed
with `pip install lightning==2.6.6 accelerate` (transformers is here already):

    python benchmarks/throughput.py [--data FOLDER] [--pairs 640] [--epochs 1] [--rounds 5]

FOLDER holds SciFact's `claim_sentence_pairs_{train,dev}.jsonl.gz`; without it the pairs are those
of the synthetic corpus in `data/redsm5`. Each round trains once with each trainer, each in a
process of its own, with the round's number as the seed. Prints the median seconds of training and
their spread, the ratio of the medians to ours, the processor's seconds, and the average precision
on the test pairs with its standard error over the rounds. Exits with 1 unless ours is 3.0 times as
fast as the Trainer of transformers and Lightning with their defaults, 1.3 times as fast as that
Trainer with lengths grouped and bf16, and as good as the best of them within one standard error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _peers import WAYS

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"Trainer": 3.0, "Lightning": 3.0, "Trainer, lengths grouped, bf16": 1.3}


def scifact(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return SciFact's pairs: those to train on, and those to test on, which are other claims."""
    sides = []
    for name in ("train", "dev"):
        with gzip.open(folder / f"claim_sentence_pairs_{name}.jsonl.gz", "rt") as stream:
            rows = [json.loads(line) for line in stream]
        sides.append(
            [
                {"text": r["claim"], "text_pair": r["sentence"], "label": int(r["evidence"])}
                for r in rows
            ]
        )
    return sides[0], sides[1]


def synthetic() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the synthetic corpus's pairs as the main job splits them."""
    from framework.config.experiment import load

    experiment = load(ROOT / "experiments" / "focal_bert.toml")
    splits = experiment.dataset.options.build(experiment.seed)
    sides = [
        [{key: record[key] for key in ("text", "text_pair", "label")} for record in splits[name]]
        for name in ("train", "test")
    ]
    return sides[0], sides[1]


def written(rows: list[dict[str, Any]], file: Path) -> None:
    """Write rows as JSONL."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")


def prepared(folder: Path, data: Path | None, pairs: int) -> None:
    """Write the pairs that everyone trains on, and is tested on, into a folder."""
    train, test = scifact(data) if data else synthetic()
    rng = random.Random(0)  # noqa: S311 - a choice of pairs is no secret
    rng.shuffle(train)
    rng.shuffle(test)
    written(train[:pairs], folder / "train.jsonl")
    written(train[pairs : pairs + 32], folder / "val.jsonl")
    written(test[:pairs], folder / "test.jsonl")


def trained(way: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train once by a way."""
    words = [sys.executable, str(ROOT / "benchmarks" / "_peers.py"), way, str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*words, str(seed), str(epochs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure and print; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared(folder, options.data, options.pairs)
        for seed in range(options.rounds):
            for way in options.ways:
                found[way].append(trained(way, folder, seed, options.epochs))
                print(f"{way:34} {found[way][-1]['seconds']:7.2f} s", file=sys.stderr, flush=True)
    return told(found)


def told(found: dict[str, list[dict[str, float]]]) -> int:
    """Print the table; 1 where a target is missed."""
    seconds = {way: statistics.median(r["seconds"] for r in rows) for way, rows in found.items()}
    print("| trainer | seconds (least to most) | times ours | CPU seconds | average precision |")
    print("|---|---|---|---|---|")
    qualities = {}
    for way, rows in found.items():
        every = [row["seconds"] for row in rows]
        values = [row["ap"] for row in rows]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        qualities[way] = statistics.mean(values), error
        cpu = statistics.median(row["cpu"] for row in rows)
        print(
            f"| {way} | {seconds[way]:.1f} ({min(every):.1f} to {max(every):.1f}) |"
            f" {seconds[way] / seconds['ours']:.2f} | {cpu:.1f} |"
            f" {qualities[way][0]:.3f} ± {error:.3f} |"
        )
    slow = {w: t for w, t in TARGETS.items() if w in found and seconds[w] < t * seconds["ours"]}
    best = max(qualities.values())
    worse = qualities["ours"][0] + max(qualities["ours"][1], best[1]) < best[0]
    for way, target in slow.items():
        print(f"missed: {target} times {way}")
    if worse:
        print("missed: the quality of the best")
    return 1 if slow or worse else 0


if __name__ == "__main__":
    sys.exit(main())
