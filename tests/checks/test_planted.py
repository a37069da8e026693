"""`check`: each planted fault fails its own row and no other, and what is sound fails none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import install

from tests.checks.planted import OFFERS
from tests.faults import experiments, processes

SETS = (
    "optimizer={use='adamw', lr=0.05}",
    "scheduler=linear",
    "callbacks.watch=false",
    "trainer.batch_size=16",
    "trainer.epochs=4",
    "dataset={use='fault_texts', count=96, checked=40}",
)
STOPPING = "callbacks.early_stopping={{monitor='{}', mode='{}'}}"
FAULTS = [
    ("loss=planted_loss", "loss.fault=nan", "loss: finite and not 0"),
    ("model=planted_net", "model.fault=loud", "loss: near that of knowing nothing"),
    ("model=planted_net", "model.fault=deaf", "loss: differs between labels"),
    ("loss=planted_loss", "loss.fault='own labels'", "loss: differs between labels"),
    ("loss=planted_loss", "loss.fault=mean", "loss: adds up over parts of a batch"),
    ("loss=planted_loss", "loss.fault=nobody", "loss: of nobody it is no NaN"),
    (
        "trainer.batch_size=96",
        "loss={use='fault_poison', record='train1', value=nan, where='gradient'}",
        "gradient: norms are finite",
    ),
    ("model.idle=true", "", "gradient: every trainable parameter has one"),
    ("model=planted_net", "model.fault=dead", "gradient: no dead branch"),
    ("optimizer.lr=1e-6", "", "learning: one batch can be overfitted"),
    ("model=planted_net", "model.fault='sees labels'", "learning: labels by chance can't be learned"),
    ("scheduler={use='linear', warmup=1000}", "", "learning: the rate over the whole training"),
    ("scheduler=planted_half", "", "learning: the rate over the whole training"),
    ("precision=planted_precision", "precision.fault='in name only'", "precision: what products run in"),
    ("precision=bf16", "model={use='planted_net', fault='rounds'}", "precision: agrees with float32"),
    (
        "precision=planted_precision",
        "precision.fault='clips first'",
        "precision: gradients are unscaled, then clipped",
    ),
    ("precision=planted_precision", "precision.fault=stuck", "precision: the scaler adapts"),
    (STOPPING.format("val/f1/typo", "max"), "", "metrics: monitored names exist"),
    ("metrics=['accuracy', 'planted_metric']", "", "metrics: perfect outputs are told from others"),
    (STOPPING.format("val/accuracy", "min"), "", "metrics: monitored names go the way they are said to"),
    ("model=planted_net", "model.fault='keeps a count'", "checkpoint: a round trip gives the same outputs"),
    ("optimizer=planted_momentum", "", "checkpoint: going on from it equals going on"),
    ("loss=planted_loss", "loss.fault='keeps outputs'", "cost: memory stays from step to step"),
]  # fmt: skip
SOUND = [
    (),
    ("precision=bf16",),
    ("precision=fp16",),
    ("trainer.micro_batch=5", "model.dropout=0.3"),
]


@pytest.fixture(scope="module", autouse=True)
def _parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The faulty parts are found as those of installed distributions."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("parts")
        experiments.install_parts(patch, folder / "site")
        install(patch, folder / "more", "planted-parts 1.0", OFFERS)
        processes.warm()
        yield


def checked(folder: Path, *sets: str) -> list[dict[str, Any]]:
    """The rows of a whole check."""
    (folder / "fault.toml").write_text(experiments.TEXT, encoding="utf-8")
    words = [word for text in (*SETS, *sets) if text for word in ("--set", text)]
    done = processes.finished("check", "fault.toml", "--json", *words, cwd=folder)
    assert done.code in (0, 1), done.err
    found = json.loads(done.out)
    assert done.code == any(row["status"] == "fail" for row in found["rows"])
    return list(found["rows"])


@pytest.mark.parametrize(("first", "second", "row"), FAULTS, ids=[fault[-1] for fault in FAULTS])
def test_a_planted_fault_fails_its_row_alone(
    first: str, second: str, row: str, tmp_path: Path
) -> None:
    """Of the whole table the one row of the fault fails, and says what to do."""
    rows = checked(tmp_path, first, second)
    failed = {f"{each['area']}: {each['name']}": each for each in rows if each["status"] == "fail"}
    assert set(failed) == {row}, failed
    assert failed[row]["observed"]
    assert failed[row]["advice"]


@pytest.mark.parametrize("sets", SOUND, ids=str)
def test_what_is_sound_fails_nothing(sets: tuple[str, ...], tmp_path: Path) -> None:
    """No row of a sound experiment fails or warns, and each that is left out says why."""
    rows = checked(tmp_path, *sets)
    assert [row for row in rows if row["status"] in ("fail", "warn")] == []
    assert all(row["observed"] for row in rows)
    assert len(rows) > 20
