"""Row 32: a sentence that stands in every post must be found in nothing that a run leaves."""

from __future__ import annotations

import csv
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tests.faults.experiments import attempt
from tests.faults.outcome import Outcome
from tests.faults.processes import Ended, finished
from tests.support import NET

CANARY = "Quinoxaline lampshades beneath seventeen herons never quite apologise"
WORDS = CANARY.lower().split()
PHRASES = [" ".join(WORDS[at : at + 3]) for at in range(len(WORDS) - 2)]
"""Three words in a row are a find; one alone may stand in a vocabulary."""
FILLER = ["some", "days", "are", "fine", "and", "others", "take", "all", "there", "is", "of", "me"]
EXPERIMENT = (
    """\
name = "canary"
loss = "focal"
metrics = ["f1", "accuracy"]
precision = "fp32"

[dataset]
use = "text"
train = "./data/posts.csv"
id = "id"
meta = ["kind"]

"""
    + NET
    + """
[trainer]
epochs = 1
batch_size = 8
micro_batch = 4
log_every = 1
threads = 1

[callbacks.mlflow]
uri = "sqlite:///mlflow.db"
register = "canary"
"""
)
SMALL = (
    "model.use=fault_net",
    "dataset={use='text', train='../data/posts.csv', id='id'}",
    "trainer.batch_size=8",
)
TRACKED = "callbacks.mlflow.uri='sqlite:///../mlflow.db'"
CRASHES = {
    "a loss at step 3": ["loss=fault_leak", TRACKED],
    "a loss when it is built": ["loss={use='fault_leak', step=0}"],
    "encode": ["model={use='fault_net', leak='encode'}"],
    "augment": ["model={use='fault_net', leak='augment'}"],
    "collate": ["model={use='fault_net', leak='collate'}"],
    "collate in a worker": ["model={use='fault_net', leak='collate'}", "trainer.workers=1"],
    "decode": ["model={use='fault_net', leak='decode'}"],
    "a callback": ["callbacks.x={use='fault_raise', hook='step_end', file='../data/post.txt'}"],
    "a callback at the end": [
        "callbacks.x={use='fault_raise', hook='run_end', file='../data/post.txt'}"
    ],
    "a sink": [
        "callbacks.x={use='fault_raise', hook='log', file='../data/post.txt', sink=true}",
        TRACKED,
    ],
}


def check(folder: Path, rounds: int) -> Outcome:
    """Row 32: train, evaluate, predict and crash; every byte that is left is searched."""
    data = folder / "data"
    data.mkdir()
    _write(data / "posts.csv", 60)
    _write(data / "new.csv", 7)
    (data / "post.txt").write_text(CANARY)
    failures = [] if len(_finds(data)) == 3 else [f"the search itself finds {_finds(data)}"]
    (folder / "canary.toml").write_text(EXPERIMENT)
    said = {"run": finished("run", "canary.toml", cwd=folder)}
    if said["run"].code:
        raise RuntimeError(f"training ended with {said['run'].code}: {said['run'].last}")
    (run,) = (folder / "runs" / "canary").iterdir()
    said["evaluate"] = finished("evaluate", run, "--output", "test.csv", cwd=folder)
    said["predict"] = finished("predict", run, data / "new.csv", "--output", "new.csv", cwd=folder)
    failures += [f"{name} ended with {ended.code}" for name, ended in said.items() if ended.code]
    for name, sets in CRASHES.items():
        here = folder / name.replace(" ", "-")
        said[name] = attempt(here, *SMALL, *sets)
        if said[name].code == 0 and name != "a sink":
            failures.append(f"{name} didn't crash")
    failures += [f"{name} says it on the terminal" for name in said if _says(said[name])]
    files = [file for file in folder.rglob("*") if file.is_file() and data not in file.parents]
    failures += [f"it is in {name}" for name in _finds(folder) if not name.startswith("data/")]
    if not any(file.suffix == ".safetensors" for file in files) or len(files) < 60:
        failures.append(f"only {len(files)} files were left to search")
    size = sum(file.stat().st_size for file in files) / 1e6
    text = (
        f"{len(said)} commands, {len(CRASHES) - 1} of them crashes that quote a post:"
        f" no hit in what they said and in {len(files)} files of {size:.1f} MB"
    )
    return Outcome.of(text, failures)


def _write(file: Path, count: int) -> None:
    """Write posts, the canary in each, among words that differ."""
    rng = random.Random(count)  # noqa: S311 - draws of a test
    with file.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["id", "text", "label", "kind"])
        for index in range(count):
            words = " ".join(rng.sample(FILLER, 6))
            out.writerow([f"p{index}", f"{words}. {CANARY}. {words}", index % 2, "ab"[index % 2]])


def _says(ended: Ended) -> bool:
    said = f"{ended.out} {ended.err}".lower()
    return any(phrase in said for phrase in PHRASES)


def _finds(folder: Path) -> list[str]:
    """Return the files that hold three words of it in a row, in any of the usual encodings."""
    patterns = [
        phrase.encode(encoding) for phrase in PHRASES for encoding in ("utf-8", "utf-16-le")
    ]
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            raw = b"\n".join([file.read_bytes(), *_cells(file)]).lower()
            if any(pattern in raw for pattern in patterns):
                found.append(str(file.relative_to(folder)))
    return found


def _cells(file: Path) -> Iterator[bytes]:
    """Yield every cell of a sqlite file: a long one lies there in pieces."""
    with file.open("rb") as stream:
        if stream.read(15) != b"SQLite format 3":
            return
    with closing(sqlite3.connect(file)) as base:
        names: Sequence[tuple[str]] = base.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for (name,) in names:
            for row in base.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a name of its own
                yield from (str(cell).encode() for cell in row if cell is not None)
