"""`check` of the shipped experiments: no false alarm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support import ROOT, Command

QUICK = ("tiny_bert", "plan_code")
OTHERS = ("char_lm", "session_mlm", "focal_bert", "gaussian_retriever")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK if "CI" in os.environ else QUICK + OTHERS)
def test_a_shipped_experiment_passes_every_row(name: str, command: Command, tmp_path: Path) -> None:
    """No row fails or warns, and one that is left out says why; of two, where it's urgent."""
    file = ROOT / "experiments" / f"{name}.toml"
    done = command("check", file, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row for row in rows if row["status"] in ("fail", "warn")] == []
    assert {"loss", "gradient", "learning", "precision", "optimizer"} <= {r["area"] for r in rows}
    assert all(row["observed"] for row in rows)
    assert [*tmp_path.iterdir()] == []
