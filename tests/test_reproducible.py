"""The same experiment gives the same numbers, and the same change the same run."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
import tomli
from safetensors.torch import load_file
from support import ROOT, TINY, Command, only_run, points, table


def _weights(folder: Path) -> str:
    file = folder / "checkpoints" / "last" / "model" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _ran(command: Command, cwd: Path, *words: str | Path, name: str = "tiny") -> Path:
    cwd.mkdir()
    done = command("run", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return only_run(cwd, name)


@pytest.fixture(scope="module")
def first(fresh: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, with dropout, of an interpreter of its own."""
    folder = tmp_path_factory.mktemp("first")
    file = folder / "tiny.toml"
    file.write_text(TINY.replace("ROOT", str(ROOT)), encoding="utf-8")
    return _ran(fresh, folder / "a", file)


def test_the_same_run_twice_is_identical(
    first: Path, fresh: Command, tiny: Path, tmp_path: Path
) -> None:
    """With dropout on, two runs give identical points and identical weights."""
    second = _ran(fresh, tmp_path / "b", tiny)
    assert points(first) == points(second)
    assert len(points(first)) > 2
    assert _weights(first) == _weights(second)


def test_loader_workers_change_nothing(
    first: Path, command: Command, tiny: Path, tmp_path: Path
) -> None:
    """Two loader workers give the same points and weights as none."""
    second = _ran(command, tmp_path / "b", tiny, "--set", "trainer.workers=2")
    assert points(first) == points(second)
    assert _weights(first) == _weights(second)


def test_another_seed_is_another_run(
    first: Path, command: Command, tiny: Path, tmp_path: Path
) -> None:
    """The seed reaches the weights: another one gives others."""
    second = _ran(command, tmp_path / "b", tiny, "--set", "seed=43")
    assert _weights(first) != _weights(second)


def test_set_equals_the_edited_line(command: Command, tiny: Path, tmp_path: Path) -> None:
    """`--set loss=cross_entropy` and the edited line give the same run and the same record."""
    edited = tmp_path / "edited.toml"
    text = tiny.read_text(encoding="utf-8")
    edited.write_text(text.replace('loss = "focal"', 'loss = "cross_entropy"'), encoding="utf-8")
    first = _ran(command, tmp_path / "a", tiny, "--set", "loss=cross_entropy")
    second = _ran(command, tmp_path / "b", edited)
    assert points(first) == points(second)
    assert _weights(first) == _weights(second)
    resolved = (first / "experiment.toml").read_text(encoding="utf-8")
    assert resolved == (second / "experiment.toml").read_text(encoding="utf-8")
    assert tomli.loads(resolved)["loss"]["use"] == "cross_entropy"


def test_the_resolved_experiment_runs_again(first: Path, command: Command, tmp_path: Path) -> None:
    """The run folder's own experiment gives the same run, from another folder."""
    second = _ran(command, tmp_path / "b", first / "experiment.toml")
    assert points(first) == points(second)
    assert _weights(first) == _weights(second)
    assert (first / "experiment.toml").read_text() == (second / "experiment.toml").read_text()


def _texts(folder: Path, counts: dict[str, int]) -> list[str]:
    """Write files of sentences from the shipped corpus; the options that read them."""
    rows = table(ROOT / "data" / "redsm5" / "redsm5_annotations.csv")
    at = 0
    for split, count in counts.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows([r["sentence_text"], r["status"]] for r in rows[at : at + count])
        at += count
    files = ", ".join(f"{split} = '{folder}/{split}.csv'" for split in counts)
    return ["--set", f"dataset={{ use = 'text', {files} }}"]


def test_accumulation_equals_the_large_batch(command: Command, tiny: Path, tmp_path: Path) -> None:
    """Without dropout, 4 x 8 equals 32 over 20 steps to float32 rounding, the last one short."""
    words = [
        *_texts(tmp_path, {"train": 19 * 32 + 20, "val": 40, "test": 40}),
        *("--set", "precision=fp32", "--set", "trainer.log_every=1"),
        *("--set", "model.config.hidden_dropout_prob=0.0"),
        *("--set", "model.config.attention_probs_dropout_prob=0.0"),
    ]
    large = _ran(command, tmp_path / "a", tiny, *words)
    small = _ran(command, tmp_path / "b", tiny, *words, "--set", "trainer.micro_batch=8")
    mine, theirs = points(large), points(small)
    assert len([point for point in mine if "train/loss" in point]) == 20
    for one, other in zip(mine, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    file = Path("checkpoints") / "last" / "model" / "model.safetensors"
    one, other = load_file(large / file), load_file(small / file)
    for name, weights in one.items():
        assert (weights - other[name]).abs().max() <= 1e-6, name
