"""A package that nothing here knows: installed with pip, used from a TOML file by name."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support import ROOT, environment, only_run

PACKAGE = ROOT / "tests" / "packages" / "acme_parts"

EXPERIMENT = """\
name = "acme"
dataset = { use = "acme_words", count = 40 }
loss = { use = "acme_poly", epsilon = 2.0 }
metrics = ["accuracy"]

[model]
use = "hf_classifier"
max_length = 16

[model.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
max_position_embeddings = 16
vocab_size = 100

[trainer]
epochs = 2
batch_size = 8
threads = 1

[callbacks.acme_diary]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the test's own, which sees what is installed here beside it."""
    folder = tmp_path_factory.mktemp("venv") / "env"
    venv.create(folder, with_pip=True)
    inside = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    here = [*site.getsitepackages(), str(ROOT)]
    (inside / "here.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def _run(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *words],
        cwd=cwd,
        env={k: v for k, v in environment().items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_package_from_elsewhere_is_used_by_name(python: Path, tmp_path: Path) -> None:
    """Its dataset, loss and callback work after pip install, and are an error after uninstall."""
    for word in ("acme_parts", "acme-parts"):
        assert not [f for f in (ROOT / "framework").rglob("*.py") if word in f.read_text()]
    file = tmp_path / "acme.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    pip = ("-m", "pip", "--disable-pip-version-check")

    installed = _run(
        python,
        *(*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", str(PACKAGE)),
        cwd=tmp_path,
    )
    assert installed.returncode == 0, installed.stderr
    listed = _run(python, "-m", "framework", "plugins", "loss", cwd=tmp_path)
    assert "acme_poly" in listed.stdout
    assert "acme-parts 0.3.1" in listed.stdout

    done = _run(python, "-m", "framework", "run", "acme.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path, "acme")
    assert (folder / "diary.txt").read_text() == "10 steps, completed\n"
    plugins = json.loads((folder / "environment.json").read_text())["plugins"]
    theirs = {p["name"]: p for p in plugins if p["distribution"] == "acme-parts"}
    assert set(theirs) == {"acme_words", "acme_poly", "acme_diary"}
    assert all(p["version"] == "0.3.1" and len(p["source_sha256"]) == 64 for p in theirs.values())

    gone = _run(python, *pip, "uninstall", "-y", "acme-parts", cwd=tmp_path)
    assert gone.returncode == 0, gone.stderr
    missing = _run(python, "-m", "framework", "validate", "acme.toml", cwd=tmp_path)
    assert missing.returncode == 2
    assert "acme.toml:3:16: no loss is named 'acme_poly'" in missing.stderr
