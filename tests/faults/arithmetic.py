"""Rows 16, 17 and 20: sums that must come out right however they are cut."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from plugins.metrics.f1 import F1
from tests.faults.experiments import notes, ran, result
from tests.faults.outcome import Outcome
from tests.faults.parts import IGNORED, Layers, Letters, Texts

CLIP = 0.05
"""Below the gradients' norms, so that every step is clipped."""
CUTS = (1, 2, 3, 4, 8, 16)


def _plain(run: Path, texts: Texts, seed: int, rates: Sequence[float]) -> dict[str, Tensor]:
    """Train in plain torch on the whole windows that a run took; the weights at the end.

    `rates` has the learning rate of each window; one of 0 is left out.
    """
    splits = texts.build(seed)
    records = {record["id"]: record for record in splits["train"]}
    letters = Letters(splits.info)
    net = Layers(texts.classes, 0.0)
    net.load_state_dict(load_file(run / "initial.safetensors"))
    for note, rate in zip(notes(run, "step_start"), rates, strict=True):
        if not rate:
            continue
        whole = [records[name] for name in itertools.chain(*note["ids"])]
        batch = letters.collate(letters.encode(whole))
        net.zero_grad()
        logits_BC = net(batch["letters"])["logits"]
        nn.functional.cross_entropy(logits_BC, batch["labels"], ignore_index=IGNORED).backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        torch.optim.SGD(net.parameters(), lr=rate).step()
    return {name: value.detach() for name, value in net.state_dict().items()}


def _weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "last" / "model" / "model.safetensors")


def _farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in other)


def _sets(texts: Texts, seed: int, **trainer: Any) -> Iterator[str]:
    yield f"seed={seed}"
    for key in ("count", "classes", "unlabelled"):
        yield f"dataset.{key}={getattr(texts, key)}"
    for key, value in ({"max_grad_norm": CLIP} | trainer).items():
        yield f"trainer.{key}={value}"


def accumulation(folder: Path, rounds: int) -> Outcome:
    """Row 16: micro-batches against whole windows in plain torch, and against each other."""
    failures, worst, count = [], 0.0, 0
    for seed in range(1, 2 + rounds // 10):
        texts = Texts(count=69, unlabelled=0.2)  # windows of 16, 16, 16, 16 and 5
        for micro in CUTS:
            run, _ = ran(folder / f"{seed}-{micro}", *_sets(texts, seed, micro_batch=micro))
            steps = notes(run, "step_start")
            sizes = [len(list(itertools.chain(*step["ids"]))) for step in steps]
            if sizes != [16, 16, 16, 16, 5] * 2:
                failures.append(f"windows of {sizes} with micro-batches of {micro}")
                continue
            off = _farthest(_weights(run), _plain(run, texts, seed, [0.1] * 10))
            worst, count = max(worst, off), count + 1
            if off > 1e-6:
                failures.append(f"{off:.1e} off with micro-batches of {micro}, seed {seed}")
    said = f"{count} runs of 10 SGD steps: weights at most {worst:.1e} from plain torch's"
    return Outcome.of(said, failures)


def scaling(folder: Path, rounds: int) -> Outcome:
    """Row 17: float16 with a scale that jumps, so that windows overflow, against float32."""
    failures, worst, skips, windows = [], 0.0, 0, 0
    texts = Texts(count=69)
    for seed in range(1, 2 + rounds // 10):
        given = [*_sets(texts, seed, micro_batch=4, epochs=8), "scheduler=linear"]
        half, _ = ran(
            folder / f"half-{seed}", *given, "precision={use='fault_fp16', jumps=[0, 7, 20]}"
        )
        full, _ = ran(folder / f"full-{seed}", *given)
        planned = [note["rate"] for note in notes(full, "step_end")]
        rates, taken = [], 0
        for step, note in enumerate(notes(half, "step_end"), 1):
            windows += 1
            skipped = step - note["skipped"] == taken
            if note["unscaled"] != step:
                failures.append(f"{note['unscaled']} unscalings after {step} windows")
            if note["rate"] != planned[taken]:
                failures.append(f"step {step} had a rate of {note['rate']}, not {planned[taken]}")
            rates.append(0.0 if skipped else note["rate"])
            taken += not skipped
            skips += skipped
        off = _farthest(_weights(half), _plain(half, texts, seed, rates))
        worst = max(worst, off)
        if off > 1e-3:
            failures.append(f"weights {off:.1e} off, seed {seed}")
        if rates.count(0.0) < 2:
            failures.append(f"{rates.count(0.0)} windows overflowed: nothing was shown")
    said = (
        f"{windows} windows, each unscaled once, {skips} skipped without a step of the schedule,"
        f" weights at most {worst:.1e} from float32"
    )
    return Outcome.of(said, failures)


def averaging(folder: Path, rounds: int) -> Outcome:
    """Row 20: macro-F1 over uneven batches and ranks, with absent classes."""
    from sklearn.metrics import f1_score

    def reference(labels: Sequence[int], predictions: Sequence[int], classes: int) -> float:
        kwargs: Any = {"average": "macro", "zero_division": 0, "labels": range(classes)}
        return float(f1_score(labels, predictions, **kwargs))

    failures, worst, draws = [], 0.0, 40 * rounds
    rng = random.Random(20)  # noqa: S311 - draws of a test
    for _ in range(draws):
        classes = rng.randint(2, 7)
        present = rng.sample(range(classes), rng.randint(1, classes))
        pairs = [(rng.choice([*present, IGNORED]), rng.randrange(classes)) for _ in range(40)]
        pairs += [(present[0], rng.randrange(classes))]
        ranks = [F1(average="macro").build({"labels": list(range(classes))}) for _ in range(3)]
        rest = pairs
        while rest:
            size = rng.randint(1, 17)
            part, rest = rest[:size], rest[size:]
            labels_B, found_B = torch.tensor(part).unbind(1)
            logits_BC = nn.functional.one_hot(found_B, classes).float()
            rng.choice(ranks).update({"logits": logits_BC}, {"labels": labels_B})
        ranks[0].merge(ranks[1:])
        kept = [pair for pair in pairs if pair[0] != IGNORED]
        off = abs(ranks[0].compute()[""] - reference(*zip(*kept, strict=True), classes))
        worst = max(worst, off)
        if not off <= 1e-12:
            failures.append(f"{off:.1e} off over {classes} classes, {len(present)} of them present")
    sizes = (1, 3, 7, 16, 64)
    for size in sizes:
        run, _ = ran(
            folder / f"batches-of-{size}",
            "dataset={use='fault_texts', classes=5, tested=3}",
            *(f"trainer.batch_size={size}", "trainer.steps=4"),
        )
        with (run / "predictions" / "test.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        columns = [[int(row[key]) for row in rows] for key in ("label", "prediction")]
        off = abs(result(run)["metrics"]["test"]["f1"] - reference(*columns, 5))
        worst = max(worst, off)
        if not off <= 1e-12:
            failures.append(f"{off:.1e} off in a run with batches of {size}")
    said = f"{draws} draws and {len(sizes)} runs: macro-F1 at most {worst:.1e} from scikit-learn's"
    return Outcome.of(said, failures)
