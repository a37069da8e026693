"""Benchmarks that need a machine of their own still run: in small, and with nothing claimed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, environment


def ran(*words: str | Path) -> str:
    """Run the benchmark of GPUs as if there were none; what it prints."""
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *words],
        cwd=ROOT,
        env=environment() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_gpu_nothing_is_claimed(tmp_path: Path) -> None:
    """Where there is no GPU its benchmark says so in a sentence, and leaves no file."""
    assert ran("--results", tmp_path) == "torch finds no GPU here: nothing was measured.\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_benchmark_of_gpus_runs_in_small(tmp_path: Path) -> None:
    """Its tables come of a CPU, too: every precision and length, packing, and an epoch."""
    parts = ("precisions", "packing", "epoch")
    said = ran("--device", "cpu", "--tiny", "--results", tmp_path, "--parts", *parts)
    found = json.loads((tmp_path / "cpu-tiny.json").read_text(encoding="utf-8"))
    rows = {(row["length"], row["precision"]) for row in found["precisions"]}
    names = ("strict fp32", "fp32", "bf16", "fp16")
    assert rows == {(length, name) for length in (128, 512) for name in names}
    assert all(row["ms a step"] > 0 for row in found["precisions"])
    assert [row["packing"] for row in found["packing"]] == [False, True]
    assert found["epoch"]["steps"] == 2
    assert "| 512 | fp16 |" in said
    assert "missed" not in said
