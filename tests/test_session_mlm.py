"""Event-session pretraining as a person uses it: trained, resumed, evaluated, searched."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import RINGING, ROOT, SHARED, install, only_run, points

from framework import checkpoint
from framework.__main__ import main
from plugins.commands import anomalies

FILE = ROOT / "experiments" / "session_mlm.toml"
DATA = ROOT / "data" / "sessions"
SHORT = (
    *("trainer.steps=8", "trainer.epochs=2", "trainer.eval_every=4", "trainer.threads=1"),
    *("trainer.log_every=1", "model.layers=1", "model.heads=2", "model.d_model=16"),
    *("model.passes=2", "model.vocabulary=80"),
)


def ran(*sets: str, name: str, rc: int = 0) -> Path:
    """Train the shipped experiment for a few steps; its run."""
    words = [word for text in (*SHORT, f"name={name}", *sets) for word in ("--set", text)]
    assert main(["run", str(FILE), *words]) == rc
    return only_run(Path.cwd(), name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        return ran(name="short").resolve()


def test_the_sample_is_what_its_script_writes(tmp_path: Path) -> None:
    """The shipped sessions are made again byte for byte, and are said to be synthetic."""
    words = [sys.executable, str(DATA / "make_sessions.py"), "--out", str(tmp_path)]
    subprocess.run(words, check=True, capture_output=True)
    for name in ("train_all.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
    assert (DATA / "README.md").read_text().startswith("# SYNTHETIC")


def test_a_run_has_what_every_run_has(run: Path) -> None:
    """The usual folder, with losses that fall and are never 0, and metrics that fit each other.

    It fails where a loss is shown as 0.0, as that of a step whose targets nobody counted.
    """
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 8)
    # and not val/loss, of which half is abnormal sessions'
    assert result["best"]["metric"] == "val/anomaly/average_precision"
    losses = [point["train/loss"] for point in points(run) if "train/loss" in point]
    assert len(losses) == 8
    assert min(losses) > 1.0
    assert losses[-1] < losses[0]
    saved = {file.name for file in (run / "checkpoints" / "best" / "model").iterdir()}
    assert saved == {
        *("experiment.toml", "info.json", "model.safetensors"),
        *("sessions.json", "tokenizer.json"),
    }


def test_every_validation_has_figures(run: Path) -> None:
    """Loss, perplexity, masked accuracy and what tells the abnormal, each time.

    It fails where training goes on with no figure of validation.
    """
    found = [point for point in points(run) if "val/loss" in point]
    assert [point["step"] for point in found] == [4, 8]
    for point in found:
        assert point["val/perplexity"] == pytest.approx(math.exp(point["val/loss"]), rel=1e-6)
        assert 0 <= point["val/masked_accuracy"] <= 1
        assert 0 < point["val/anomaly/auroc"] < 1
        sides = [point[f"val/by_group/{seen}/count"] for seen in ("no", "train")]
        assert sum(sides) == 46
        assert min(sides) > 0


def test_what_is_repeated_is_recorded(run: Path) -> None:
    """The run's record says how many sessions of val and test also occur in train."""
    info = json.loads((run / "environment.json").read_text())["info"]
    assert info["repeated"].keys() == {"val", "test"}
    assert info["repeated"]["val"]["train"] > 0
    last = points(run)[-1]
    test = {seen: last[f"test/by_group/{seen}/count"] for seen in ("train", "val")}
    assert info["repeated"]["test"] == test
    # abnormal sessions of train's share are left out of training
    assert info["class_counts"][1] == 0
    assert info["left_out"] > 0


def test_evaluate_finds_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint alone, with its saved vocabulary, test has the values of the run."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((run / "result.json").read_text())["metrics"]["test"]


def test_rows_are_scores_and_no_texts(run: Path, tmp_path: Path) -> None:
    """Predictions have id, label, tokens and mean loss; another file's need no labels."""
    with (run / "predictions" / "test.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 80
    assert rows[0].keys() == {"id", "label", "tokens", "loss"}
    assert {row["label"] for row in rows} == {"0", "1"}
    assert all(float(row["loss"]) > 0 for row in rows)
    (tmp_path / "new.jsonl").write_text('{"events": ["open", "close"]}\n{"events": ["never"]}\n')
    output = tmp_path / "rows.csv"
    assert main(["predict", str(run), str(tmp_path / "new.jsonl"), "--output", str(output)]) == 0
    head, first, second = output.read_text().splitlines()
    assert head == "id,tokens,loss"
    assert first.startswith("session:1,3,")
    # a name that training didn't have is not a likely one
    assert float(second.split(",")[2]) > math.log(20)


def test_it_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """A run that is stopped and goes on ends bit for bit as one that is not."""
    monkeypatch.chdir(tmp_path)
    offers = {"framework.callback": {"ring": "ringing:Ring"}}
    install(monkeypatch, tmp_path, "ringing 1.0", offers, ringing=RINGING)
    halted = ran("callbacks.ring={}", "model.keep=0.8", name="halted", rc=143)
    assert json.loads((halted / "result.json").read_text())["steps"] == 4
    assert main(["run", "--resume", str(halted)]) == 0
    whole = ran("model.keep=0.8", name="whole")
    assert points(halted) == points(whole)
    mine, theirs = (
        load_file(folder / "checkpoints" / "last" / checkpoint.WEIGHTS)
        for folder in (halted, whole)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    # and leaving events out makes another run of it
    assert points(whole)[0] != points(run)[0]


def test_anomalies_are_told_beside_simple_answers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command scores validation and test, and takes thresholds from validation alone."""
    capsys.readouterr()
    files = [DATA / "train_all.jsonl", DATA / "test.jsonl"]
    without = [word for file in files for word in ("--not-in", str(file))]
    assert main(["anomalies", str(run), "--json", *without]) == 0
    found = json.loads(capsys.readouterr().out)
    result = json.loads((run / "result.json").read_text())
    metrics, best = result["metrics"], result["best"]["step"]
    model = found["mean masked loss"]
    known = next(p for p in points(run) if "val/loss" in p and p["step"] == best)
    assert model["val"]["auroc"] == pytest.approx(known["val/anomaly/auroc"], abs=1e-6)
    assert model["test"]["auroc"] == pytest.approx(metrics["test"]["anomaly/auroc"], abs=1e-6)
    new = metrics["test"]["by_group/no/anomaly/auroc"]
    assert model["test, not in train nor val"]["auroc"] == pytest.approx(new, abs=1e-6)
    counts = {cut: model[cut]["sessions"] for cut in model if cut.startswith("test")}
    groups = {seen: metrics["test"][f"by_group/{seen}/count"] for seen in ("no", "train", "val")}
    assert counts["test"] == sum(groups.values())
    assert counts["test, not in train"] == groups["no"] + groups["val"]
    assert counts["test, not in train nor val"] == groups["no"]
    # abnormal sessions of train's file stand in neither
    assert 0 < counts["test, not in train_all.jsonl"] <= groups["no"]
    assert counts["test, not in test.jsonl"] == 0
    for answer in found.values():
        assert answer["val"]["f1"] > 0
    assert main(["anomalies", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "abnormal, by validation's best F1: " in shown
    assert "val: 46 sessions, 4 abnormal" in shown
    assert f"mean masked loss > {model['threshold']:.4g}" in shown


def test_a_threshold_never_comes_from_the_test(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is chosen once for each answer, by the scores of the 46 sessions of validation."""
    capsys.readouterr()
    real, asked = anomalies.threshold, []
    monkeypatch.setattr(
        anomalies, "threshold", lambda *given: asked.append(len(given[0])) or real(*given)
    )
    assert main(["anomalies", str(run), "--json"]) == 0
    assert asked == [46] * 3


def test_what_the_command_cannot_do_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quantile that is none, a label that isn't there, and other data are one line each."""
    for words, told in (
        (["--quantile", "2"], "--quantile is 2.0; it must be from 0 to 1"),
        (["--positive", "odd"], "sessions are labelled '0', '1'; expected 'odd', and another"),
        (["--set", "dataset.train_on="], "the data is not what this run was trained on"),
    ):
        capsys.readouterr()
        assert main(["anomalies", str(run), *words]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.exists(), reason="the shared sessions are not here")
def test_real_sessions_go_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDFS sessions, packed and of names alone, train and are scored by `dataset.root` alone."""
    monkeypatch.chdir(tmp_path)
    folder = ran(f"dataset.root={SHARED / 'hdfs_sessions'}", "model.passes=1", name="hdfs")
    info = json.loads((folder / "environment.json").read_text())["info"]
    assert info["counts"]["train"] + info["counts"]["val"] + info["left_out"] == 6352
    assert info["counts"]["test"] == 1588
    assert 1450 < info["repeated"]["test"]["train"] < sum(info["repeated"]["test"].values()) <= 1537
    assert 0 < points(folder)[-1]["test/anomaly/auroc"] < 1
