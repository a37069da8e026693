"""Bad input: one line, exit 2, nothing written, and quickly."""

from __future__ import annotations

import csv
import resource
import shutil
from pathlib import Path

import pytest
from support import ROOT, SHARED, Command

QUOTED = "a sentence that must never be repeated in a message"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A copy of the shipped corpus, to be broken."""
    folder = tmp_path / "corpus"
    shutil.copytree(ROOT / "data" / "redsm5", folder)
    shutil.copy(ROOT / "data" / "dsm5" / "MDD_Criteria.json", folder)
    return folder


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _write(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _missing(folder: Path) -> None:
    (folder / "redsm5_annotations.csv").unlink()


def _column(folder: Path) -> None:
    file = folder / "redsm5_annotations.csv"
    _write(file, [line.replace("DSM5_symptom", "symptom", 1) for line in _lines(file)])


def _label(folder: Path) -> None:
    file = folder / "redsm5_annotations.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[3] |= {"status": "7", "sentence_text": QUOTED}
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(folder: Path) -> None:
    file = folder / "redsm5_annotations.csv"
    lines = _lines(file)
    lines[6] = f'syn_x,syn_x_1,"{QUOTED}"'
    _write(file, lines)


def _encoding(folder: Path) -> None:
    file = folder / "redsm5_posts.csv"
    file.write_bytes(file.read_bytes() + b"syn_y,caf\xe9 and more\n")


def _criteria(folder: Path) -> None:
    file = folder / "MDD_Criteria.json"
    file.write_text(
        '{"diagnosis": "d", "criteria": [{"id": "A.1", "text": "sad"}]}', encoding="utf-8"
    )


def _empty(folder: Path) -> None:
    file = folder / "redsm5_annotations.csv"
    _write(file, _lines(file)[:1])


CASES = {
    "a missing file": (_missing, ["redsm5_annotations"]),
    "a missing column": (_column, ["DSM5_symptom", "symptom", "sentence_text"]),
    "a label outside the known set": (_label, ["5", "7", "status"]),
    "a broken row": (_row, ["7"]),
    "a text that is not UTF-8": (_encoding, ["redsm5_posts.csv", "UTF-8"]),
    "criteria without a symptom that is used": (_criteria, ["MDD_Criteria.json", "A."]),
    "an empty file": (_empty, ["redsm5_annotations.csv"]),
}


@pytest.mark.parametrize("case", CASES)
def test_broken_data_is_one_line_and_exit_2(
    case: str, command: Command, corpus: Path, tmp_path: Path
) -> None:
    """Broken data ends with one line that says where, exit 2, and no run folder."""
    harm, words = CASES[case]
    harm(corpus)
    done = command(
        "run",
        ROOT / "experiments" / "tiny_bert.toml",
        "--set",
        f"dataset.root={corpus}",
        "--set",
        f"dataset.criteria={corpus / 'MDD_Criteria.json'}",
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    for word in words:
        assert word in line
    assert QUOTED not in line
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trainer.batch_size=0", ["batch_size", ">= 1", "0"]),
        ("callbacks.early_stopping.monitor=val/f2", ["val/f2", "nothing computes", "val/f1"]),
        ("dataset.ratios=[0.9, 0.2, -0.1]", ["ratios"]),
        ("dataset.root=/nowhere/at/all", ["/nowhere/at/all"]),
        ("loss=focall", ["focall", "did you mean 'focal'?"]),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_2(
    change: str, words: list[str], command: Command, tmp_path: Path
) -> None:
    """A value that cannot be ends with one mistake that names it, exit 2, and nothing written."""
    done = command("run", ROOT / "experiments" / "tiny_bert.toml", "--set", change, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    # below it the argument and a caret, where it is the argument that is wrong
    (line,) = [text for text in done.stderr.splitlines() if text[0] != " "]
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_an_empty_split_is_one_line_and_exit_2(command: Command, tmp_path: Path) -> None:
    """Too few groups for three splits end with one line, exit 2, and nothing written."""
    file = tmp_path / "few.csv"
    file.write_text("text,label,who\na b,0,x\nc d,1,x\ne f,0,y\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    done = command(
        "run",
        ROOT / "experiments" / "scifact_evidence.toml",
        *("--set", f"dataset={{use='text', train='{file}', group='who'}}"),
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "few.csv" in line
    assert sorted(tmp_path.iterdir()) == before


MISSING = ("run", ROOT / "experiments" / "focal_bert.toml", "--set", "dataset.root=/nowhere")


def test_missing_input_fails_at_once(fresh: Command, tmp_path: Path) -> None:
    """A missing folder is told within two seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fresh(*MISSING, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert "/nowhere" in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_missing_input_is_told_before_anything_heavy_loads(fresh: Command, tmp_path: Path) -> None:
    """No library of models is imported before a missing folder is told, torch neither."""
    done = fresh(*MISSING, cwd=tmp_path, env={"PYTHONVERBOSE": "1"})
    assert done.returncode == 2
    assert "import 'attrs'" in done.stderr
    for heavy in ("torch", "transformers", "mlflow", "sklearn"):
        assert f"import '{heavy}'" not in done.stderr


@pytest.mark.skipif(not SHARED.exists(), reason="the shared sample is not here")
def test_the_authors_sample_trains_unchanged(command: Command, tiny: Path, tmp_path: Path) -> None:
    """The authors' 17 posts and 25 annotations go through training and evaluation as they are."""
    done = command(
        "run",
        tiny,
        *("--set", f"dataset.root={SHARED / 'redsm5_sample'}", "--set", "trainer.steps=3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
