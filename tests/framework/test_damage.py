"""Damaged and hostile checkpoints: none is gone on from, nothing in one is executed."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resuming import (
    CASES,
    SEVERAL,
    Case,
    Wishes,
    checkpoints_of,
    different,
    interrupt,
    process,
    until_it_ends,
)
from test_checkpoint import NAMES
from tiny_parts import one_thread  # noqa: F401 - a fixture for every test here

from framework import checkpoint
from framework.commands import _checkpoints
from framework.commands._checkpoints import newest
from framework.errors import UserError
from plugins.callbacks.checkpoint import Checkpoint

FILES = ["manifest.json", *NAMES]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level(logging.WARNING, logger="framework")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def _add(file: Path) -> None:
    file.with_name("extra").touch()


def _link(file: Path) -> None:
    target = file.rename(file.parents[2] / f"elsewhere-{file.name}")
    file.symlink_to(target)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = {
    "cut": _cut,
    "zeroed": _zero,
    "flipped": _flip,
    "deleted": Path.unlink,
    "with a file more": _add,
    "a link": _link,
    "a folder": _folder,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How it ends when nothing is damaged."""
    return until_it_ends(tmp_path_factory.mktemp("whole") / "run", SEVERAL).outcome


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    interrupted: Path,
    expected: dict[str, Any],
    memory: Path,
    said: Callable[[], list[str]],
    name: str,
    damage: str,
) -> None:
    """The one before is taken, with a warning; the damaged one is set aside; all ends the same."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    damaged, before, *_ = checkpoints_of(folder)
    DAMAGES[damage](damaged / name)
    assert newest(folder / "checkpoints") is not None
    (warning,) = said()
    assert warning.startswith(str(damaged))
    assert warning.endswith("taking the one before")
    assert (damaged.parent / f"unused-{damaged.name}").is_dir()
    found = until_it_ends(folder, SEVERAL)
    assert found.found == before.name
    assert different(expected, found.outcome) == []
    for path in checkpoints_of(folder)[:2]:
        _checkpoints.verify(path)


def test_several_damaged_ones_are_passed_over(
    interrupted: Path, expected: dict[str, Any], memory: Path, said: Callable[[], list[str]]
) -> None:
    """However many are damaged, the newest whole one is found, and each other is told."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    first, second, third, *_ = checkpoints_of(folder)
    _cut(first / "state.pt")
    shutil.rmtree(second / "model")
    found = until_it_ends(folder, SEVERAL)
    assert found.found == third.name
    assert different(expected, found.outcome) == []
    assert [warning.split(":")[0].split("/step-")[1][0] for warning in said()] == [
        path.name[5:] for path in (first, second)
    ]


def test_none_that_is_whole_is_none(interrupted: Path, memory: Path) -> None:
    """Where every checkpoint is damaged the run starts over, and ends the same."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    steps = checkpoints_of(folder)
    for path in steps:
        _flip(path / "state.pt")
    assert newest(folder / "checkpoints") is None
    assert checkpoints_of(folder) == []
    assert newest(folder / "checkpoints") is None
    assert newest(folder / "nowhere") is None


def test_what_was_set_aside_before_is_replaced(interrupted: Path, memory: Path) -> None:
    """The same step may be damaged twice."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    latest = checkpoints_of(folder)[0]
    for _ in range(2):
        _cut(latest / "state.pt")
        assert newest(folder / "checkpoints") is not None
        assert not latest.exists()
        shutil.copytree(interrupted / "checkpoints" / latest.name, latest)
    assert (latest.parent / f"unused-{latest.name}").is_dir()


def test_what_was_never_finished_is_swept_away(interrupted: Path, memory: Path) -> None:
    """A folder that a killed process was still writing is no checkpoint, and goes."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    part = folder / "checkpoints" / ".step-99.part"
    shutil.copytree(checkpoints_of(folder)[0], part)
    (part / "manifest.json").unlink()
    found = newest(folder / "checkpoints")
    assert found is not None
    assert found[0] == checkpoints_of(folder)[0]
    assert not part.exists()


def test_folders_of_other_names_are_let_be(interrupted: Path, memory: Path) -> None:
    """What a person put beside the checkpoints is neither taken nor an obstacle."""
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    latest = checkpoints_of(folder)[0]
    copies = [latest.with_name(name) for name in ("step-3.bak", "step-x", "mine")]
    for path in copies:
        shutil.copytree(latest, path)
    found = newest(folder / "checkpoints")
    assert found is not None
    assert found[0] == latest
    assert all(path.is_dir() for path in copies)


def test_links_follow_what_was_taken(interrupted: Path, memory: Path) -> None:
    """After a fall back `last` and `best` lead to what the run has, and not nowhere.

    `best` keeps its checkpoint from being deleted until the run is over.
    """
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    root = folder / "checkpoints"
    _cut(checkpoints_of(folder)[0] / "state.pt")
    found = newest(root)
    assert found is not None
    run = SEVERAL.trainer(folder, {}, seed=1)
    run.keeper.resume(run.state, *found)
    assert (root / "last").resolve() == found[0].resolve()
    best = found[1]["counters"]["best"]
    assert (root / "best").resolve() == (root / f"step-{best['step']}").resolve()


@pytest.mark.parametrize(
    "damaged", [["step-6"], ["step-5", "step-6"], [f"step-{n}" for n in range(1, 7)]]
)
def test_no_link_leads_nowhere(memory: Path, damaged: list[str]) -> None:
    """Where no best is left, or no checkpoint at all, there is no link to one."""
    folder = memory / "run"
    case = _wished(6, keep=9)
    until_it_ends(folder, case)
    root = folder / "checkpoints"
    for step in damaged:
        _cut(root / step / "state.pt")
    found = newest(root)
    if found:
        run = case.trainer(folder, {}, seed=1)
        run.keeper.resume(run.state, *found)
    assert [path.name for path in root.iterdir() if path.is_symlink()] == ["last"] * bool(found)


def _wished(*best: int, keep: int) -> Case:
    def callbacks() -> dict[str, Any]:
        only_pruning = Checkpoint(every_epochs=0, every_minutes=0, keep=keep).build()
        return {"wishes": Wishes(best), "checkpoint": only_pruning}

    return Case({"sizes": {"train": 10, "test": 5}}, callbacks)


@pytest.mark.parametrize("damage", ["cut", "deleted", "flipped"])
def test_a_damaged_best_leads_back_to_before_it(
    memory: Path, said: Callable[[], list[str]], damage: str
) -> None:
    """A checkpoint whose best is damaged can't end as it should: the run goes back behind both."""
    case = _wished(3, keep=9)
    expected = until_it_ends(memory / "whole", case).outcome
    folder = memory / "run"
    process(folder, case, 22, interrupt)
    root = folder / "checkpoints"
    assert (root / "best").readlink().name == "step-3"
    latest = checkpoints_of(folder)[0]
    assert int(latest.name[5:]) > 3
    DAMAGES[damage](root / "step-3" / "model" / "model.safetensors")
    found = until_it_ends(folder, case)
    assert found.found == "step-2"
    assert different(expected, found.outcome) == []
    assert len(said()) > 1
    assert all("/step-3: damaged, model/model.safetensors: " in told for told in said())


def test_the_one_before_the_newest_can_be_gone_on_from(memory: Path) -> None:
    """Where the newest is the best, the one before still has the best of its own time."""
    case = _wished(2, 6, keep=2)
    expected = until_it_ends(memory / "run", case).outcome
    folder = memory / "run"
    assert {path.name for path in checkpoints_of(folder)} >= {"step-5", "step-6"}
    _cut(folder / "checkpoints" / "step-6" / "state.pt")
    found = until_it_ends(folder, case)
    assert found.found == "step-5"
    assert different(expected, found.outcome) == []


# verify


def _refused(folder: Path) -> bool:
    try:
        _checkpoints.verify(folder)
    except UserError as error:
        return "\n" not in str(error) and str(error).startswith(str(folder))
    return False


def _attacks(folder: Path) -> dict[str, Callable[[], object]]:
    """Return every damage of every file by its name."""
    rng = random.Random(3)  # noqa: S311 - places to damage
    found: dict[str, Callable[[], object]] = {}
    for name in FILES:
        file = folder / name
        for kind, damage in DAMAGES.items():
            found[f"{name} {kind}"] = lambda file=file, damage=damage: damage(file)
        content = file.read_bytes()
        for size in {0, 1, len(content) - 1, *rng.sample(range(len(content)), 5)}:
            found[f"{name} cut at {size}"] = lambda f=file, c=content[:size]: f.write_bytes(c)
        for at in rng.sample(range(len(content) * 8), 20):
            changed = bytearray(content)
            changed[at // 8] ^= 1 << at % 8
            found[f"{name} bit {at}"] = lambda f=file, c=bytes(changed): f.write_bytes(c)
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text())
    outside = folder.parent / "outside"
    outside.write_text("out")
    entry = {"size": 3, "sha256": checkpoint.digest(outside)}
    names = ["../outside", str(outside), "model/../../outside", "model/../state.pt", "./state.pt"]
    for name in [*names, "", ".", "model", "model/", "state.pt\0", "/dev/null", "manifest.json"]:
        forged = json.dumps(entries | {name: entry})
        found[f"a manifest with {name!r}"] = lambda text=forged: manifest.write_text(text)
    for name in ("state.pt", "model/model.safetensors"):
        forged = json.dumps({key: value for key, value in entries.items() if key != name})
        found[f"a manifest without {name}"] = lambda text=forged: manifest.write_text(text)
    for text in ("", "[]", "null", "3", '{"state.pt": 1}', '{"state.pt": {}}', "[" * 100_000):
        found[f"a manifest of {text[:20]!r}"] = lambda text=text: manifest.write_text(text)
    for name in ("link", "model/link", ".hidden", "model/deep/file"):
        found[f"a link {name}"] = lambda name=name: _linked(folder / name, outside)
    found["a link for the folder"] = lambda: _link_folder(folder / "model")
    return found


def _linked(file: Path, target: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(target)


def _link_folder(folder: Path) -> None:
    folder.rename(folder.parent.parent / "moved")
    folder.symlink_to(folder.parent.parent / "moved")


def _says_the_same(folder: Path, before: bytes) -> bool:
    """Return whether a flipped bit of the manifest is one of white space alone."""
    try:
        return bool(json.loads((folder / "manifest.json").read_bytes()) == json.loads(before))
    except (ValueError, RecursionError):
        return False


def test_verifying_refuses_every_damage(interrupted: Path, memory: Path) -> None:
    """Every file cut, flipped, deleted or linked, one more, and forged names are all refused."""
    whole = checkpoints_of(interrupted)[0]
    folder = memory / "checkpoints" / "step-5"
    shutil.copytree(whole, folder)
    manifest = (whole / "manifest.json").read_bytes()
    accepted, refused = [], 0
    for name in list(_attacks(folder)):
        shutil.rmtree(memory / "checkpoints")
        shutil.copytree(whole, folder)
        shutil.rmtree(memory / "checkpoints" / "moved", ignore_errors=True)
        _attacks(folder)[name]()
        try:
            if _refused(folder) or (" link" not in name and _says_the_same(folder, manifest)):
                refused += 1
            else:
                accepted.append(name)
        except Exception as error:  # noqa: BLE001 - anything else is a defect to be listed
            accepted.append(f"{name}: {type(error).__name__}")
    print(f"damages refused: {refused} of {refused + len(accepted)}")  # noqa: T201 - the figure
    assert accepted == []


def test_the_cases_here_are_those_of_resuming() -> None:
    """A damaged checkpoint is no other case than a killed run."""
    assert SEVERAL.settings == CASES["evaluated every two steps"].settings
