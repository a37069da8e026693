"""Problem, plan and code as a person uses it: trained, resumed, evaluated, predicting."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from support import RINGING, ROOT, SHARED, install, only_run, points, table

from framework import checkpoint
from framework.__main__ import main
from framework.config.experiment import load

FILE = ROOT / "experiments" / "plan_code.toml"
SHORT = (
    *("trainer.epochs=2", "trainer.threads=1", "trainer.log_every=1", "optimizer.lr=1e-2"),
    "trainer.eval_every=2",  # the first while every part still falls
    *("model.layers=1", "model.heads=2", "model.d_model=16", "model.context=256"),
    *("model.tokenizer.vocabulary=300", "model.dropout=0.1", "trainer.batch_size=50"),
    'callbacks.early_stopping={monitor="val/loss/plan", mode="min", patience=99}',
)
MBPP = SHARED / "mbpp"
PARTS = ("plan", "code", "refinement")


def ran(*sets: str, name: str, rc: int = 0) -> Path:
    """Train the shipped experiment for a few steps; its run."""
    words = [word for text in (*SHORT, f"name={name}", *sets) for word in ("--set", text)]
    assert main(["run", str(FILE), *words]) == rc
    return only_run(Path.cwd(), name).resolve()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        return ran(name="whole")


def test_every_part_falls_and_is_said(run: Path) -> None:
    """The usual folder; each part's validation loss, and refinement beside the majority."""
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 8)
    first, *_, last = (point for point in points(run) if "val/loss" in point)
    assert all(last[f"val/loss/{part}"] < first[f"val/loss/{part}"] - 0.02 for part in PARTS)
    parts = [last[f"val/loss/{part}"] for part in PARTS]
    assert last["val/loss"] == pytest.approx(sum(parts), rel=1e-12)
    assert last["val/refinement/majority"] == 0.5  # a whole one and a copy of each
    said = (run / "run.log").read_text()
    for name in ("loss/plan", "loss/code", "loss/refinement", "refinement/accuracy"):
        assert f"val/{name} {last[f'val/{name}']:.4f}  " in said
    assert "val/refinement/majority 0.5000" in said
    plugins = json.loads((run / "environment.json").read_text())["plugins"]
    used = {(one["kind"], one["name"]) for one in plugins}
    assert {("loss", "weighted_sum"), ("loss", "token_cross_entropy")} <= used


def test_evaluate_finds_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint alone, with its saved vocabulary, val has the values of the run."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == json.loads((run / "result.json").read_text())["best"]["value"]
    saved = {file.name for file in (run / "checkpoints" / "best" / "model").iterdir()}
    assert saved == {"tokenizer.json", "experiment.toml", "info.json", "model.safetensors"}


def test_predict_judges_code(run: Path, tmp_path: Path) -> None:
    """Each row gets a label and losses, those of whole code alone; no text is written."""
    rows = table(run / "predictions" / "test.csv")
    assert [row["id"] for row in rows[19:21]] == ["30", "11:corrupted"]
    assert (rows[0]["label"], rows[0]["prediction"] != "") == ("CONTINUE", True)
    assert rows[0]["code_loss"]
    assert not rows[-1]["code_loss"]
    one = {"text": "Count the bells.", "test_list": "assert f(2) == 2", "code": "def f(n"}
    (tmp_path / "new.jsonl").write_text(json.dumps(one), encoding="utf-8")
    output = tmp_path / "rows.csv"
    assert main(["predict", str(run), str(tmp_path / "new.jsonl"), "--output", str(output)]) == 0
    (row,) = table(output)
    assert row["id"] == "1"
    assert row["prediction"]
    assert "label" not in row
    assert "bells" not in output.read_text()


@pytest.mark.skipif(not MBPP.exists(), reason="the shared problems are not here")
def test_the_real_problems_are_split_as_they_say() -> None:
    """MBPP's own ranges of ids, every row of them whole; each has a copy with a fault."""
    splits = attrs.evolve(load(FILE).dataset.options, root=MBPP).build(42)
    assert splits.info["counts"] == {"train": 748, "val": 180, "test": 1000, "dropped": 0}
    assert splits.info["class_counts"][0] == 374


def test_it_resumes_exactly(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped and goes on ends bit for bit as one that is not."""
    monkeypatch.chdir(tmp_path)
    offers = {"framework.callback": {"ring": "ringing:Ring"}}
    install(monkeypatch, tmp_path, "ringing 1.0", offers, ringing=RINGING)
    halted = ran("callbacks.ring={}", name="halted", rc=143)
    assert json.loads((halted / "result.json").read_text())["steps"] == 4
    assert main(["run", "--resume", str(halted)]) == 0
    assert points(halted) == points(run)
    mine, theirs = (
        load_file(folder / "checkpoints" / "last" / checkpoint.WEIGHTS) for folder in (halted, run)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
