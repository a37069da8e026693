"""The experiments that ship: each is without mistakes and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from support import ROOT, SHARED, Command, only_run, points

FILES = sorted((ROOT / "experiments").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_without_mistakes(file: Path, command: Command, tmp_path: Path) -> None:
    """`validate` finds nothing, and what it shows is an experiment that is valid too."""
    done = command("validate", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = command("validate", file, "--show", cwd=tmp_path)
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout, encoding="utf-8")
    assert command("validate", again, "--show", cwd=tmp_path).stdout == shown.stdout
    assert tomli.loads(shown.stdout)["name"]


def test_there_are_those_that_the_readme_names() -> None:
    """The main job, its larger encoders, the tiny one and the real public pairs are there."""
    names = {"focal_bert", "bert_base", "bert_large", "deberta_v3", "tiny_bert", "scifact_evidence"}
    names |= {"char_lm", "char_lm_large", "plan_code", "session_mlm", "gaussian_retriever"}
    assert {file.stem for file in FILES} >= names


@pytest.mark.skipif(not SHARED.exists(), reason="the shared pairs are not here")
def test_real_pairs_go_through(command: Command, tmp_path: Path) -> None:
    """SciFact's claim-sentence pairs train and evaluate from end to end with a small model."""
    config = (
        "{ hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2,"
        " intermediate_size = 16, max_position_embeddings = 128, vocab_size = 500 }"
    )
    model = f"{{ use = 'hf_classifier', max_length = 128, config = {config} }}"
    words = (f"dataset.root={SHARED / 'scifact'}", f"model={model}", "trainer.steps=20")
    short = ("trainer.threads=1", "trainer.batch_size=64", "callbacks.mlflow=false")
    sets = [word for text in (*words, *short) for word in ("--set", text)]
    done = command("run", ROOT / "experiments" / "scifact_evidence.toml", *sets, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = points(only_run(tmp_path, "scifact-evidence"))[-1]
    assert 0 < last["test/pr_auc"] < 1
