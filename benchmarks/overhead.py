"""What does the trainer add to a step? A model so small that it shows, against a plain loop.

Run it from the repository's root, on a machine that does nothing else:

    python benchmarks/overhead.py [--steps 2000] [--rounds 7]

Both train the same two-layer network with fused AdamW, clipping and a linear schedule, on one
thread, on batches of 8 that the same function collates, and keep the loss. Ours is the whole
trainer with the callbacks of `framework/defaults.toml` (and no terminal); the plain loop is the
shortest that does the same arithmetic. Rounds alternate; a round's figure is its wall time but for
what comes once (checkpoints at the end, evaluations), by its steps. Prints the medians and their
difference with its spread; with `--profile`, where ours goes. Exits with 1 if the difference is
above 60 microseconds a step.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIMIT = 60.0
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH, WIDTH, CLASSES, RATE, CLIP = 8, 16, 2, 1e-3, 1.0


def collate(features: Sequence[Any]) -> dict[str, Any]:
    """Stack a batch, as both loops do."""
    import torch

    return {
        "id": [item["id"] for item in features],
        "x": torch.stack([item["x"] for item in features]),
        "labels": torch.tensor([item["label"] for item in features]),
    }


def network(torch: Any) -> Any:
    """Make the network, the same each time."""
    torch.manual_seed(1)

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, CLASSES)
            )

        def forward(self, x: Any, **_: Any) -> dict[str, Any]:
            return {"logits": self.layers(x)}

    return Net()


def records(count: int) -> list[dict[str, Any]]:
    """Make random features with a label each."""
    import torch

    made = torch.Generator().manual_seed(2)
    x = torch.randn(count, WIDTH, generator=made)
    return [{"id": str(i), "length": 4, "x": x[i], "label": int(x[i, 0] > 0)} for i in range(count)]


def plain(features: list[dict[str, Any]], steps: int) -> float:
    """Train by the shortest loop; seconds."""
    import torch

    net = network(torch)
    parameters = list(net.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))
    losses = []
    begun, done = time.perf_counter(), 0
    while done < steps:
        order = torch.randperm(len(features)).tolist()
        for at in range(0, len(order), BATCH):
            batch = collate([features[i] for i in order[at : at + BATCH]])
            logits = net(batch["x"])["logits"]
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            done += 1
            if done == steps:
                break
    return time.perf_counter() - begun


def ours(features: list[dict[str, Any]], steps: int, profile: cProfile.Profile | None) -> float:
    """Train by the trainer with the default callbacks; seconds."""
    import attrs
    import torch

    from framework import build
    from framework.batching import Feed
    from framework.checkpoint import ModelFiles
    from framework.hooks import Hooks
    from framework.protocols import Training
    from framework.state import State
    from framework.step import Forward, Update
    from plugins.callbacks.checkpoint import Checkpoint
    from plugins.callbacks.guard import Guard
    from plugins.callbacks.jsonl import Jsonl
    from plugins.callbacks.progress import Progress
    from plugins.callbacks.signals import Signals
    from plugins.losses.cross_entropy import CrossEntropy
    from plugins.precisions.fp32 import Fp32
    from plugins.samplers.bucket import Bucket
    from plugins.schedulers.linear import Linear
    from plugins.strategies.auto import Auto

    @attrs.frozen
    class Processor:
        augments = False

        def collate(self, items: Sequence[Any]) -> dict[str, Any]:
            return collate(items)

    @attrs.frozen
    class Model:
        module: Any
        processor: Any

        def save_assets(self, folder: Path) -> None:
            pass

    module, strategy = network(torch), Auto(device="cpu").build()
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, fused=True)
    optimizer.param_groups[0]["initial_lr"] = RATE
    schedule = Linear().build(steps)
    training = Training(
        epochs=1, steps=steps, batch_size=BATCH, micro_batch=0, eval_every=0, log_every=10,
        max_grad_norm=CLIP, deterministic=False, workers=0, threads=1, compile=False,
        on_oom="stop", on_nonfinite="stop",
    )  # fmt: skip
    update = Update(
        Forward(module, Fp32().build(strategy.device), strategy),
        CrossEntropy().build({"labels": ["a", "b"], "class_counts": [1, 1]}),
        optimizer,
        schedule,
        CLIP,
    )
    live = {
        "signals": Signals(),
        "guard": Guard(),
        "progress": Progress(),
        "jsonl": Jsonl(),
        "checkpoint": Checkpoint(),
    }
    hooks = Hooks({name: options.build() for name, options in live.items()})
    model = Model(module, Processor())
    with tempfile.TemporaryDirectory() as folder:
        state = State(
            folder=Path(folder), name="overhead", model=model, optimizer=optimizer,
            schedule=schedule, training=training, strategy=strategy,
            epochs=-(-steps * BATCH // len(features)), steps_per_epoch=len(features) // BATCH,
            total_steps=steps, items_per_epoch=len(features),
        )  # fmt: skip
        trainer = build.assembled(
            ModelFiles({}, ""), state=state, update=update, hooks=hooks,
            feeds={"train": Feed(model.processor, features, Bucket().build(), BATCH)},
            metrics=dict, rows=lambda _: None,
        )  # fmt: skip
        if profile:
            profile.enable()
        hooks.call.run_start(state=state)
        begun = time.perf_counter()
        trainer.fit()
        took = time.perf_counter() - begun - state.timing.get("checkpoint", 0.0)
        if profile:
            profile.disable()
        trainer.keeper.pool.shutdown()
        hooks.finish(state)
        state.closing.close()
    return took


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    logging.getLogger("framework").setLevel(logging.ERROR)
    features = records(8000)
    if options.profile:
        profile = cProfile.Profile()
        ours(features, options.steps, profile)
        pstats.Stats(profile).sort_stats("cumulative").print_stats("framework|plugins")
        return 0
    taken: dict[str, list[float]] = {"plain": [], "ours": []}
    for number in range(options.rounds + 1):
        pair = {
            "plain": plain(features, options.steps),
            "ours": ours(features, options.steps, None),
        }
        for name, seconds in pair.items() if number else ():  # the first warms up
            taken[name].append(1e6 * seconds / options.steps)
    for name, values in taken.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{name:6} {statistics.median(values):7.1f} microseconds a step ({spread})")
    more = [one - other for one, other in zip(taken["ours"], taken["plain"], strict=True)]
    median = statistics.median(more)
    print(f"more   {median:7.1f} microseconds a step ({min(more):.0f} to {max(more):.0f})")
    return 0 if median <= LIMIT else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
