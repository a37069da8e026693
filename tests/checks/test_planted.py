"""`check`: each planted fault fails its own row and no other, and what is sound fails none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli
from support import install

from plugins.checks import checkpoint, cost, gradient, learning, loss, metrics, precision
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
BROKEN = "model={{use='planted_net', fault='{}'}}"
WRONG = "loss={{use='planted_loss', fault='{}'}}"
ROUGH = "precision={{use='planted_precision', fault='{}'}}"
POISON = "loss={use='fault_poison', record='train1', value=nan, where='gradient'}"
FAULTS: list[tuple[Sequence[str], str, str]] = [
    ([WRONG.format("nan")], "loss", loss.FINITE),
    ([BROKEN.format("loud")], "loss", loss.THEORY),
    ([BROKEN.format("deaf")], "loss", loss.DIFFERS),
    ([WRONG.format("own labels")], "loss", loss.DIFFERS),
    ([WRONG.format("mean")], "loss", loss.ADDS),
    ([WRONG.format("nobody")], "loss", loss.NOBODY),
    (["trainer.batch_size=96", POISON], "gradient", gradient.NORMS),
    (["model.idle=true"], "gradient", gradient.RECEIVED),
    ([BROKEN.format("dead")], "gradient", gradient.DEAD),
    (["optimizer.lr=1e-6"], "learning", learning.OVERFIT),
    ([BROKEN.format("sees labels")], "learning", learning.SHUFFLED),
    (["scheduler={use='linear', warmup=1000}"], "learning", learning.RATE),
    (["scheduler=planted_half"], "learning", learning.RATE),
    ([ROUGH.format("in name only")], "precision", precision.PRODUCTS),
    (["precision=bf16", BROKEN.format("rounds")], "precision", precision.AGREES),
    ([ROUGH.format("clips first")], "precision", precision.CLIPPED),
    ([ROUGH.format("stuck")], "precision", precision.SCALER),
    ([STOPPING.format("val/f1/typo", "max")], "metrics", metrics.NAMES),
    (["metrics=['accuracy', 'planted_metric']"], "metrics", metrics.PERFECT),
    ([STOPPING.format("val/accuracy", "min")], "metrics", metrics.DIRECTION),
    ([BROKEN.format("keeps a count")], "checkpoint", checkpoint.TRIP),
    (["optimizer=planted_momentum"], "checkpoint", checkpoint.GOES_ON),
    ([WRONG.format("keeps outputs")], "cost", cost.STAYS),
]
SOUND = [[], ["precision=bf16"], ["precision=fp16"], ["trainer.micro_batch=5", "model.dropout=0.3"]]


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
    words = [word for text in (*SETS, *sets) for word in ("--set", text)]
    done = processes.finished("check", "fault.toml", "--json", *words, cwd=folder)
    assert done.code in (0, 1), done.err
    found = json.loads(done.out)
    assert done.code == any(row["status"] == "fail" for row in found["rows"])
    return list(found["rows"])


@pytest.mark.parametrize(("sets", "area", "row"), FAULTS, ids=str)
def test_a_planted_fault_fails_its_row_alone(
    sets: Sequence[str], area: str, row: str, tmp_path: Path
) -> None:
    """Of the whole table the one row of the fault fails, and says what to do."""
    rows = checked(tmp_path, *sets)
    failed = {(each["area"], each["name"]): each for each in rows if each["status"] == "fail"}
    assert set(failed) == {(area, row)}, failed
    assert failed[area, row]["observed"]
    assert failed[area, row]["advice"]


def test_every_row_has_a_planted_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of these areas, but for figures that only tell; the count is printed."""
    areas = {area for _, area, _ in FAULTS}
    told = {cost.TIME, cost.MEMORY}
    rows = [row for row in checked(tmp_path) if row["area"] in areas and row["name"] not in told]
    planted = {(area, name) for _, area, name in FAULTS}
    assert planted == {(row["area"], row["name"]) for row in rows}
    with capsys.disabled():
        print(f"\ncheck: {len(FAULTS)} planted faults, each found in its row")  # noqa: T201


def test_the_fastest_way_is_told_to_be_pasted(tmp_path: Path) -> None:
    """`--tune-speed` tries precisions, sizes and workers; its lines are an experiment's."""
    (tmp_path / "fault.toml").write_text(experiments.TEXT, encoding="utf-8")
    words = ("--tune-speed", "--only", "cost", "--set", "callbacks.watch=false")
    done = processes.finished("check", "fault.toml", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    lines = [line.strip() for line in done.out.splitlines() if line.startswith("    ")]
    pasted = tomli.loads("\n".join(lines[lines.index("[trainer]") - 1 :]))
    assert pasted["precision"] in ("auto", "fp32", "bf16", "fp16", "fault_fp16")
    assert pasted["trainer"].keys() == {"batch_size", "workers"}
    assert pasted["trainer"]["batch_size"] in (16, 32, 64)


@pytest.mark.parametrize("sets", SOUND, ids=str)
def test_what_is_sound_fails_nothing(sets: Sequence[str], tmp_path: Path) -> None:
    """No row of a sound experiment fails or warns, and each says what was seen or why not."""
    rows = checked(tmp_path, *sets)
    assert [row for row in rows if row["status"] in ("fail", "warn")] == []
    assert all(row["observed"] for row in rows)
    assert len(rows) > 20
