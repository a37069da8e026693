"""What does a second process bring? The same steps by one process and by two, on CPUs, in turn.

Run it from the repository's root, on a machine that does nothing else and has two cores:

    python benchmarks/ddp.py [EXPERIMENT] [--steps 20] [--rounds 5]

Each round trains the first steps of EXPERIMENT (the main job), without dropout and in float32: in
one process with one thread, in two with one thread each under torchrun, and in one with two
threads, which are the same cores. Timing leaves out the first two steps. Prints the median items
per second and their spread, and the scaling figure: how much of twice one process's speed the other
two ways reach. Exits with 1 where the gradients of a step, of which the largest relative
difference is printed, are not those of one process to 1e-3.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from framework import build
from framework.commands._sets import parsed
from framework.config.experiment import load
from framework.hooks import Hooks

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1e-5
"""What sums of float32 in another order may differ by, relative to the largest gradient."""
WARM = 2
SETS = (
    "precision='fp32'",
    "model.config.hidden_dropout_prob=0.0",
    "model.config.attention_probs_dropout_prob=0.0",
)
WAYS: Mapping[str, tuple[int, int]] = {
    "1 process, 1 thread": (1, 1),
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
}
"""Processes, and threads of each."""


def work(experiment: Path, folder: Path, steps: int, threads: int) -> None:
    """Train the first steps, as one of the ranks; the first writes gradients and speed."""
    sets = [*SETS, "strategy={use='auto', device='cpu'}", f"trainer.threads={threads}"]
    loaded = load(experiment, [*map(parsed, sets)])
    splits = build.dataset(loaded)
    trainer = build.trainer(loaded, splits, Hooks({}), folder, lambda _: None)
    state, update = trainer.state, trainer.update
    gradients: dict[str, torch.Tensor] = {}

    def note(*_: object) -> None:
        if not gradients:
            named = state.model.module.named_parameters()
            gradients.update({k: p.grad.clone() for k, p in named if p.grad is not None})

    state.optimizer.register_step_pre_hook(note)
    update.forward.module.train()
    done, begun = 0, time.perf_counter()
    windows = trainer.feeds["train"].epoch(0)
    for step, window in enumerate(itertools.islice(windows, steps + WARM)):
        if step == WARM:
            begun = time.perf_counter()
        update(window, step)
        items = sum(len(batch["id"]) for batch in window) if step >= WARM else 0
        done += state.strategy.sum({"": items})[""]
    speed = done / (time.perf_counter() - begun)
    if not state.strategy.rank:
        torch.save(gradients, folder / "gradients.pt")
        (folder / "speed.json").write_text(json.dumps(speed))


def trained(way: str, experiment: Path, steps: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Train in processes of their own; items per second, and the first step's gradients."""
    processes, threads = WAYS[way]
    with tempfile.TemporaryDirectory() as scratch:
        words = [str(Path(__file__)), str(experiment), "--work", scratch]
        words += ["--steps", str(steps), "--threads", str(threads)]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": scratch}
        # the variable that libraries size their pools by: nobody may take more than is compared
        environment["OMP_NUM_THREADS"] = str(threads)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{way}: {done.stderr[-2000:]}")
        folder = Path(scratch)
        return json.loads((folder / "speed.json").read_text()), torch.load(folder / "gradients.pt")


def farthest(found: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of gradients, relative to the largest of them.

    Not to that of each parameter: biases of attention's keys have a gradient of rounding alone.
    """
    scale = max(float(value.abs().max()) for value in right.values())
    return max(float((found[name] - right[name]).abs().max()) for name in right) / scale


def main() -> int:
    """Measure and print; 1 where gradients differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = ROOT / "experiments" / "focal_bert.toml"
    parser.add_argument("experiment", type=Path, nargs="?", default=default)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.experiment, options.work, options.steps, options.threads)
        return 0
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    worst = dict.fromkeys(WAYS, 0.0)
    for _ in range(options.rounds):
        right: dict[str, torch.Tensor] = {}
        for way in WAYS:
            speed, gradients = trained(way, options.experiment, options.steps)
            right = right or gradients
            speeds[way].append(speed)
            worst[way] = max(worst[way], farthest(gradients, right))
            print(f"{way:28} {speed:8.2f} items/s", file=sys.stderr, flush=True)
    return told(speeds, worst)


def told(speeds: Mapping[str, list[float]], worst: Mapping[str, float]) -> int:
    """Print the table; 1 where gradients differ."""
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    alone = medians[next(iter(WAYS))]
    print("| way | items/s (least to most) | scaling | gradients differ by |")
    print("|---|---|---|---|")
    for way, values in speeds.items():
        cores = WAYS[way][0] * WAYS[way][1]
        print(
            f"| {way} | {medians[way]:.1f} ({min(values):.1f} to {max(values):.1f}) |"
            f" {medians[way] / (cores * alone):.2f} | {worst[way]:.1e} |"
        )
    missed = [way for way, most in worst.items() if not most <= LIMIT]
    for way in missed:
        print(f"missed: the gradients of {way} are not those of one process")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
