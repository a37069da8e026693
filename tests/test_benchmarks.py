"""Benchmarks that need a machine of their own still run: in small, and with nothing claimed."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the script defines."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))


def figures(seconds: float = 200.0, **half: float) -> dict[str, Any]:
    """Figures of fp32, and of bf16 as they are given."""
    base = {"length": 128, "precision": "fp32", "ms a step": 100.0, "GiB": 10.0}
    rows = [base, base | {"precision": "bf16", "ms a step": 50.0, "GiB": 7.0} | half]
    return {"precisions": rows, "epoch": {"seconds": seconds}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (figures(), []),
        (figures(**{"ms a step": 50.1}), ["bf16 at 128 tokens: 2.0 times as fast as fp32"]),
        (figures(GiB=7.1), ["bf16 at 128 tokens: 30 % less memory than fp32"]),
        (figures(seconds=301.0), ["an epoch of the main experiment in 300 s"]),
    ],
)
def test_a_missed_target_is_told(gpu: Any, found: dict[str, Any], words: list[str]) -> None:
    """Each target by itself, and none that is just met."""
    assert gpu["missed"](found) == words


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40", None),
        ("CPU", None),
    ],
)
def test_the_data_sheet_is_the_devices_own(gpu: Any, name: str, rate: float | None) -> None:
    """A device whose name only begins like another's has no rate, and so no MFU."""
    assert gpu["sheet"](name) == rate
