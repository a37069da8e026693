"""What the tests share: real commands, small experiments, and readers of what they leave."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from framework.image import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

Command = Callable[..., subprocess.CompletedProcess[str]]

NET = """\
[model]
use = "hf_classifier"
max_length = 64

[model.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 64
vocab_size = 500
"""
"""The smallest encoder that learns words."""
TINY = (
    """\
name = "tiny"
loss = "focal"
optimizer = { use = "adamw", lr = 1e-3 }
metrics = ["accuracy", "f1"]

[dataset]
use = "redsm5"
root = "ROOT/data/redsm5"
criteria = "ROOT/data/dsm5/MDD_Criteria.json"

"""
    + NET
    + """
[trainer]
epochs = 1
threads = 1
steps = 20
"""
)
SHORT = TINY.replace("ROOT", str(ROOT)).replace("steps = 20", "steps = 6\neval_every = 3")
"""Six steps with two evaluations."""
EXACT = ("model.config.hidden_dropout_prob=0", "model.config.attention_probs_dropout_prob=0")
"""Such a model without dropout, as `--set` says it."""
RINGING = """
import signal
import attrs
from framework.hooks import hookimpl

@attrs.frozen
class Ring:
    def build(self):
        return Live()

@attrs.define
class Live:
    sink: bool = True
    @hookimpl
    def step_end(self, state):
        if state.step == 4:
            signal.raise_signal(signal.SIGTERM)
"""
"""The module of a callback that is told to end by a signal after the fourth step."""


def environment() -> dict[str, str]:
    """The environment of a real process: no hub, no telemetry, no tracking store of the user's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HF_"))}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}


def points(folder: Path) -> list[dict[str, Any]]:
    """The points of a run, without the times, which no two runs share."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def only_run(cwd: Path, name: str) -> Path:
    """The one run folder of a name."""
    (folder,) = (cwd / "runs" / name).iterdir()
    return folder


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        """Take the file."""
        self.marker = marker

    def __reduce__(self) -> Any:
        """Say how it is made again."""
        return Path.touch, (self.marker,)


def forge(folder: Path) -> None:
    """Write a manifest that fits whatever is in a checkpoint's folder."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    entries = {
        str(p.relative_to(folder)): {
            "size": p.stat().st_size,
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        }
        for p in files
    }
    (folder / "manifest.json").write_text(json.dumps(entries))


def install(
    monkeypatch: pytest.MonkeyPatch,
    site: Path,
    name: str,
    offers: Mapping[str, Any],
    **sources: str,
) -> None:
    """Install a distribution, `name version`, for one test: entry points and modules by name."""
    name, version = name.split()
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in offers.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in sources.items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        monkeypatch.setitem(sys.modules, module, sys)  # so that undoing it forgets the module
        del sys.modules[module]
    monkeypatch.syspath_prepend(str(site))


def filled(tensors: Mapping[str, Tensor]) -> Image:
    """Return an image of tensors."""
    from framework.image import Image

    image = Image()
    image.fill(tensors)
    return image


def save_weights(module: nn.Module, file: Path) -> None:
    """Write a module's weights, as a checkpoint does."""
    from framework import checkpoint

    filled(checkpoint.distinct(module)).write(file)
