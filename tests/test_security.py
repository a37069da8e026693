"""What we promise of safety, a test a line: data is never code, and stays where it is."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import NET, ROOT, Command, environment, only_run, table

from framework import checkpoint
from framework.__main__ import main

CANARY = "the quick canary sings of a private sorrow"
SECRETS = ("hunter2", "s3cr3t")
STORE = "http://ada:hunter2@127.0.0.1:9/?token=s3cr3t"
EXPERIMENT = (
    """
name = "safe"
loss = "focal"
metrics = ["accuracy"]
precision = "fp32"

[dataset]
use = "text"
train = "./texts.csv"
id = "id"

"""
    + NET
    + """
[trainer]
epochs = 1
batch_size = 16
threads = 1
log_every = 1

[callbacks.mlflow]
"""
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder with a run whose texts hold a sentence, whose ids are formulas, with a secret."""
    cwd = tmp_path_factory.mktemp("safe")
    lines = [f"=1+{at},{CANARY} {at} times,{'ab'[at % 2]}" for at in range(60)]
    (cwd / "texts.csv").write_text("id,text,label\n" + "\n".join(lines) + "\n")
    (cwd / "safe.toml").write_text(EXPERIMENT)
    before = os.umask(0)
    try:
        done = command("run", "safe.toml", cwd=cwd, env={"MLFLOW_TRACKING_URI": STORE})
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    (cwd / "said").write_text(done.stdout + done.stderr)
    return cwd


@pytest.fixture
def run(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that run, to be spoilt; its folder is the current one's."""
    shutil.copytree(ran, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE)
    yield only_run(tmp_path / "copy", "safe")
    assert not (tmp_path / "executed").exists()


def whole(cwd: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that a run has left, but the one it was given."""
    for file in cwd.rglob("*"):
        if file.is_file() and file.name != "texts.csv":
            yield str(file.relative_to(cwd)), file.read_bytes()


def sealed(folder: Path) -> None:
    """Forge the manifest of a checkpoint, so that its hashes fit what lies there now."""
    entries = {
        str(path.relative_to(folder)): {
            "size": path.stat().st_size,
            "sha256": checkpoint.digest(path),
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != checkpoint.MANIFEST
    }
    (folder / checkpoint.MANIFEST).write_text(json.dumps(entries))


class Bomb:
    """A pickle that leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        """Take the file."""
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Make the file."""
        return Path.touch, (self.mark,)


def test_code_of_a_repository_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No source sets `trust_remote_code`; a model that brings code is refused, its code unread."""
    for folder in ("framework", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"trust_remote_code\W+True", file.read_text()), file
    evil = tmp_path / "evil"
    evil.mkdir()
    modules = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Net"}
    (evil / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": modules}))
    (evil / "model.safetensors").write_bytes(b"")
    (evil / "code.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    lines = [f"{at},words {at},{'ab'[at % 2]}" for at in range(60)]
    (tmp_path / "texts.csv").write_text("id,text,label\n" + "\n".join(lines) + "\n")
    (tmp_path / "safe.toml").write_text(EXPERIMENT.replace("[callbacks.mlflow]", ""))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "safe.toml", "--set", "model.pretrained=./evil"]) == 2
    assert str(evil) in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "file", ["state.pt", "state.safetensors", "model/model.safetensors", "model/info.json"]
)
@pytest.mark.parametrize("forged", [False, True], ids=["", "manifest forged"])
def test_a_planted_pickle_is_refused(
    run: Path, file: str, capsys: pytest.CaptureFixture[str], *, forged: bool
) -> None:
    """A pickle in a checkpoint's place is not executed, by whoever loads it; nor if hashes fit."""
    for step in (run / "checkpoints").glob("step-*"):
        (step / file).write_bytes(pickle.dumps(Bomb(run.parents[3] / "executed")))
        if forged:
            sealed(step)
    for words in (["evaluate", str(run)], ["predict", str(run), "texts.csv"]):
        code = main(words)
        if not file.startswith("state") or not forged:  # which is none of the model's files
            assert code == 2
            assert "Traceback" not in capsys.readouterr().err
    code = main(["run", "safe.toml", "--resume", str(run)])
    said = capsys.readouterr().err
    assert code in (0, 2)
    assert "starting over" in said or code == 2


@pytest.mark.parametrize(
    "plant",
    ["checkpoints/best", "checkpoints/step-0", "metrics.jsonl", "predictions", "model file"],
)
def test_links_that_lead_out_of_a_run_are_refused(
    run: Path, plant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder with a link to somewhere else is neither read nor written through it."""
    outside = run.parents[2] / "outside"
    (step,) = (run / "checkpoints").glob("step-*")
    shutil.copytree(step, outside)
    place = step / "model" / "info.json" if plant == "model file" else run / plant
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(outside / "model" / "info.json" if plant == "model file" else outside)
    before = {path: path.stat() for path in outside.rglob("*")}
    for words in (
        ["evaluate", str(run)],
        ["predict", str(run), "texts.csv"],
        ["run", "safe.toml", "--resume", str(run)],
        ["sync", str(run)],
    ):
        assert main(words) == 2, words
        assert str(place) in capsys.readouterr().err
    assert {path: path.stat() for path in outside.rglob("*")} == before


@pytest.mark.parametrize("name", ["../../../texts.csv", "/etc/hostname", "model/../../x"])
def test_names_that_lead_out_of_a_checkpoint_are_refused(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that names a file outside of its folder is refused, the file unopened."""
    (step,) = (run / "checkpoints").glob("step-*")
    entries = json.loads((step / checkpoint.MANIFEST).read_text())
    (step / checkpoint.MANIFEST).write_text(
        json.dumps(entries | {name: {"size": 1, "sha256": "0"}})
    )
    assert main(["evaluate", str(run)]) == 2
    assert f"{name}: leads out of the checkpoint" in capsys.readouterr().err


def test_a_run_is_its_owners_alone(ran: Path) -> None:
    """Folders of a run have mode 0700 and its files 0600, whatever the umask is."""
    run = only_run(ran, "safe")
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in [run, *run.rglob("*")]}
    modes = {p: m for p, m in found.items() if not p.is_symlink()}
    assert len(modes) > 15
    assert {p for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)} == set()


def test_secrets_of_the_store_are_masked(
    ran: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither password nor token of a tracking URI stands in any file, or is said."""
    assert main(["sync", str(run)]) == 1
    said = (ran / "said").read_text() + "".join(capsys.readouterr())
    assert "127.0.0.1:9" in said
    for secret in SECRETS:
        assert secret not in said
        assert [name for name, content in whole(ran) if secret.encode() in content] == []


def test_cells_are_no_formulas(ran: Path) -> None:
    """What a spreadsheet would run is written as text."""
    file = only_run(ran, "safe") / "predictions" / "test.csv"
    ids = [row["id"] for row in table(file)]
    assert ids
    assert all(re.fullmatch(r"'=1\+\d+", cell) for cell in ids)


def test_texts_of_records_stay_at_home(ran: Path) -> None:
    """No file that a run has left holds a planted sentence, and it was never said."""
    assert CANARY in (ran / "texts.csv").read_text()
    words = CANARY.split()
    parts = [" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)]
    found = {name for name, content in whole(ran) for part in parts if part in content.lower()}
    assert found == set()
    assert "said" in dict(whole(ran))


def test_the_environment_of_the_tests_is_not_the_users() -> None:
    """What the tests above show doesn't hang on a setting of the machine's user."""
    assert "MLFLOW_TRACKING_URI" not in environment()
