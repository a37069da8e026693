"""What is a GPU worth? An encoder of bert-base's shapes: precisions, packing, and the Trainer.

Run it from the repository's root, on a machine with one that does nothing else; the peer is there
with `pip install accelerate`, and packing is worth most with `flash-attn`:

    python benchmarks/gpu.py [--rounds 3] [--steps 20] [--tokens 16384] [--pairs 4000] [--parts …]

The weights are random: figures are of time and memory alone. At 128 and 512 tokens a text, without
padding, and so many tokens a step, it trains in each precision, by the framework's own step, after
some steps that aren't counted; each is alone on the device. `fp32` is the precision of that name,
whose products run in TF32; `strict fp32` is without. Memory is the most that was allocated. MFU is
the arithmetic of training (see `limit.py`) by the time and the rate that the data sheet gives for
dense products of 16 bits; beside it, by the best rate of products that was measured in the same
precision. Then texts of many lengths, as in `packing.py`, padded and packed; an epoch of pairs of
the synthetic corpus by our command and by the Trainer of transformers (see `_peers.py`), each in a
process of its own; and an epoch of the main experiment, from the command to its end.

Exits with 1 unless bf16 and fp16 are 2.0 times as fast as `fp32` and take 30 % less memory, at both
lengths, and the epoch of the main experiment takes less than 5 minutes. All figures go to a file in
`benchmarks/results`, named after the device. Where there is no GPU it says so and claims nothing;
to try it out there, with small shapes and no targets:

    python benchmarks/gpu.py --device cpu --tiny [--results FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from limit import arithmetic
from throughput import prepared, trained

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FASTER, SMALLER, EPOCH = 2.0, 0.7, 300.0
WARM = 5
"""Steps before the clock: kernels are chosen, and fp16's scale is found."""
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
    "vocab_size": 2000,
}
SHEETS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Operations a second of dense products of 16 bits, by what stands in a device's name."""
WAYS = ("ours", "Trainer", "Trainer, lengths grouped, bf16")
INFO = {"labels": ["no", "yes"], "class_counts": [1, 1]}
Figures = dict[str, Any]


def model_folder(folder: Path, shape: Mapping[str, int]) -> None:
    """Write a random encoder of a shape, with a vocabulary of the pairs that were prepared."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from plugins.models import _wordpiece

    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    tokenizer = _wordpiece.train(rows, shape["vocab_size"], token_types=True)
    torch.manual_seed(0)
    config = BertConfig(**_wordpiece.ids(tokenizer) | dict(shape))
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def texts(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Return random texts of these lengths, the same every time, as the processor's features."""
    rng = np.random.default_rng(0)
    return [
        {
            "id": str(at),
            "length": length,
            "input_ids": rng.integers(5, 500, length),
            "token_type_ids": np.zeros(length, dtype=np.int64),
            "label": at % 2,
        }
        for at, length in enumerate(lengths)
    ]


class Way:
    """One way to train, with a model of its own that is alone on the device."""

    def __init__(self, folder: Path, device: Any, precision: str, *, packing: bool = False) -> None:
        """Build it; `strict fp32` is `fp32` without TF32."""
        import torch

        from framework.step import Forward, Update
        from plugins.losses.cross_entropy import CrossEntropy
        from plugins.models.hf_classifier import HfClassifier
        from plugins.optimizers.adamw import AdamW
        from plugins.precisions import bf16, fp16, fp32
        from plugins.strategies.auto import OneProcess

        emptied(device)
        kinds = {"bf16": bf16.Bf16, "fp16": fp16.Fp16}
        live = HfClassifier(
            pretrained=folder / "model",
            max_length=512,
            packing=packing,
            cache=False,
            attention="flash_attention_2" if packing and device.type == "cuda" else "sdpa",
        ).build(INFO)
        self.device, self.processor, strategy = device, live.processor, OneProcess(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        module = strategy.wrap(live.module).train()
        optimizer = AdamW(lr=1e-5).build(live.labelled())
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        scaled = kinds.get(precision, fp32.Fp32)().build(device)
        if precision == "strict fp32":
            torch.backends.cuda.matmul.fp32_precision = "ieee"
        loss = CrossEntropy().build(INFO)
        self.update = Update(
            Forward(module, scaled, strategy), loss, optimizer, lambda _: 1.0, max_norm=1.0
        )

    def epoch(self, items: Sequence[Any], batch: int, number: int) -> float:
        """Train an epoch; its seconds."""
        from framework.batching import Feed
        from plugins.samplers.random import Random

        synchronize(self.device)
        begun = time.perf_counter()
        for window in Feed(self.processor, items, Random().build(), batch).epoch(number):
            self.update(window, number)
        synchronize(self.device)
        return time.perf_counter() - begun

    def memory(self) -> float | None:
        """Return the most memory that was allocated since it was built, in GiB; not of a CPU."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None


def emptied(device: Any) -> None:
    """Give a device's memory back that nothing holds any more."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: Any) -> None:
    """Wait for a device."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def best_rate(device: Any, precision: str, size: int) -> float:
    """Measure square products in a precision, once that precision was used; operations a second."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    found = 0.0
    for _ in range(7):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        synchronize(device)
        found = max(found, 10 * 2 * size**3 / (time.perf_counter() - begun))
    return found


def sheet(name: str) -> float | None:
    """Return the rate of a device's data sheet, if it is known."""
    known = (rate for words, rate in SHEETS.items() if re.search(rf"\b{words}\b", name))
    return next(known, None)


def precisions(folder: Path, device: Any, options: argparse.Namespace) -> list[Figures]:
    """Train at each length in each precision."""
    rate, shape = sheet(name_of(device)), TINY if options.tiny else BASE
    found = []
    for length in (128, 512):
        batch = max(1, options.tokens // length)
        items = texts([length] * batch * options.steps)
        work = arithmetic(
            [length] * len(items),
            shape["hidden_size"],
            shape["intermediate_size"],
            shape["num_hidden_layers"],
        )
        for precision in ("strict fp32", "fp32", "bf16", "fp16"):
            way = Way(folder, device, precision)
            way.epoch(items[: batch * WARM], batch, 0)
            taken = [way.epoch(items, batch, 1 + number) for number in range(options.rounds)]
            seconds, memory = statistics.median(taken), way.memory()
            del way
            best = best_rate(device, precision, 256 if options.tiny else 8192)
            half = precision in ("bf16", "fp16")
            found.append(
                {
                    "length": length,
                    "batch": batch,
                    "precision": precision,
                    "ms a step": 1e3 * seconds / options.steps,
                    "rounds": [1e3 * each / options.steps for each in taken],
                    "GiB": memory,
                    "MFU": work / seconds / rate if half and rate else None,
                    "of the best products": work / seconds / best,
                    "best products, TFLOP/s": best / 1e12,
                }
            )
    return found


def packed(folder: Path, device: Any, options: argparse.Namespace) -> list[Figures]:
    """Train on texts of many lengths, padded and packed."""
    rng = np.random.default_rng(0)
    count, batch = (8, 4) if options.tiny else (64 * options.steps, 64)
    lengths = rng.gamma(2, 31, count).round().clip(3, 256).astype(int).tolist()
    items, found = texts(lengths), []
    for packing in (False, True):
        way = Way(folder, device, "bf16", packing=packing)
        way.epoch(items[: batch * WARM], batch, 0)
        taken = [way.epoch(items, batch, 1 + number) for number in range(options.rounds)]
        net: Any = way.update.forward.module.net
        found.append(
            {
                "packing": packing,
                "attention": net.config._attn_implementation,  # noqa: SLF001 - it has no public name
                "texts a second": count / statistics.median(taken),
                "rounds": [count / each for each in taken],
                "GiB": way.memory(),
            }
        )
        del way, net
    return found


def peers(folder: Path, device: Any, options: argparse.Namespace) -> list[Figures]:
    """Train an epoch of pairs by our command and by the Trainer, alternating."""
    emptied(device)
    ways = WAYS if importlib.util.find_spec("accelerate") else WAYS[:1]
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(options.rounds):
        for way in ways:
            taken[way].append(trained(way, folder, seed, 1)["seconds"])
    return [
        {"trainer": way, "seconds": statistics.median(every), "rounds": every}
        for way, every in taken.items()
    ]


def epoch(folder: Path, device: Any, options: argparse.Namespace) -> Figures:
    """Train an epoch of the main experiment with the encoder of a folder, by the command."""
    emptied(device)
    sets = [f"model.pretrained={folder / 'model'}", "model.sha256=", "trainer.epochs=1"]
    if options.tiny:
        sets += ["trainer.steps=2", "callbacks.mlflow=false"]
    words = ["run", str(ROOT / "experiments" / "focal_bert.toml"), "--json"]
    words += [word for each in sets for word in ("--set", each)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "framework", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"the main experiment: {done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    return {
        "seconds": time.perf_counter() - begun,
        "steps": result["steps"],
        "timing": result["timing"],
    }


PARTS: dict[str, Callable[[Path, Any, argparse.Namespace], Any]] = {
    "precisions": precisions,
    "packing": packed,
    "peers": peers,
    "epoch": epoch,
}


def name_of(device: Any) -> str:
    """Return the device's own name."""
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def measured(device: Any, options: argparse.Namespace) -> Figures:
    """Measure what is asked for."""
    import torch
    import transformers

    from plugins.models import _networks

    _networks.quiet()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared(folder, None, options.pairs)
        model_folder(folder, TINY if options.tiny else BASE)
        return {
            "device": name_of(device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tiny": options.tiny,
            "rounds": options.rounds,
        } | {part: PARTS[part](folder, device, options) for part in options.parts}


def told(found: Figures) -> None:
    """Print the tables of what was measured."""
    print(f"{found['device']}, torch {found['torch']}, {found['rounds']} rounds")
    if rows := found.get("precisions"):
        table("tokens", "precision", "ms a step", "times fp32", "GiB", "MFU", "of best products")
        for row in rows:
            times = fp32(found, row["length"])["ms a step"] / row["ms a step"]
            shares = (number(row[key]) for key in ("GiB", "MFU", "of the best products"))
            ms = spread(row, "ms a step")
            line(row["length"], row["precision"], ms, f"{times:.2f}", *shares)
    if rows := found.get("packing"):
        table("packing", "attention", "texts a second", "GiB")
        for row in rows:
            switch, rate = "on" if row["packing"] else "off", spread(row, "texts a second")
            line(switch, row["attention"], rate, number(row["GiB"]))
    if rows := found.get("peers"):
        table("trainer", "seconds of training", "times ours")
        for row in rows:
            times = row["seconds"] / rows[0]["seconds"]
            line(row["trainer"], spread(row, "seconds"), f"{times:.2f}")
        if len(rows) == 1:
            line("the Trainer needs accelerate, which isn't here", "-", "-")
    if one := found.get("epoch"):
        table("an epoch of the main experiment", "seconds")
        line(f"{one['steps']} steps", f"{one['seconds']:.1f}")


def table(*names: str) -> None:
    """Print the head of a table."""
    print()
    line(*names)
    print("|---" * len(names) + "|")


def line(*cells: Any) -> None:
    """Print a row of it."""
    print(f"| {' | '.join(map(str, cells))} |")


def number(value: float | None) -> str:
    """Return a figure that may not be there."""
    return "-" if value is None else f"{value:.2f}"


def spread(row: Figures, key: str) -> str:
    """Return a median, with the least and the most of its rounds."""
    return f"{row[key]:.1f} ({min(row['rounds']):.1f} to {max(row['rounds']):.1f})"


def fp32(found: Figures, length: int) -> Figures:
    """Return the figures that others are compared with."""
    rows = {(row["length"], row["precision"]): row for row in found["precisions"]}
    base: Figures = rows[length, "fp32"]
    return base


def missed(found: Figures) -> list[str]:
    """Return the targets that were missed."""
    missing = []
    for row in found.get("precisions", ()):
        base, where = fp32(found, row["length"]), f"{row['precision']} at {row['length']} tokens"
        if row["precision"] in ("bf16", "fp16"):
            if base["ms a step"] < FASTER * row["ms a step"]:
                missing.append(f"{where}: {FASTER} times as fast as fp32")
            if row["GiB"] > SMALLER * base["GiB"]:
                missing.append(f"{where}: 30 % less memory than fp32")
    if "epoch" in found and found["epoch"]["seconds"] > EPOCH:
        missing.append(f"an epoch of the main experiment in {EPOCH:.0f} s")
    return missing


def main() -> int:
    """Measure, print and keep; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, no targets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens of a step")
    parser.add_argument("--pairs", type=int, default=4000, help="pairs for the trainers")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.steps, options.tokens, options.pairs = 1, 1, 512, 32
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the processes, too
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was measured.")
        return 0
    found = measured(torch.device(options.device), options)
    told(found)
    options.results.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()) + "-tiny" * options.tiny
    file = options.results / f"{name}.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"all figures: {file}")
    missing = [] if options.tiny or options.device == "cpu" else missed(found)
    for target in missing:
        print(f"missed: {target}")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
