"""Hostile checkpoints: nothing in one is executed, and none that is no run's is gone on from."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from resuming import SEVERAL, Wishes, checkpoints_of
from support import Hostile, forge
from test_checkpoint import NAMES
from tiny_parts import (
    fitted,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    trainer,
)

from framework import checkpoint
from framework.commands import _checkpoints
from framework.commands._checkpoints import newest
from framework.errors import UserError
from framework.hooks import hookimpl

FILES = ["manifest.json", *NAMES]


def _pickles(marker: Path) -> dict[str, bytes]:
    """Return what a hostile hand may put in the place of a file."""
    hostile = Hostile(marker)
    plain = pickle.dumps(hostile)
    legacy, modern, inside = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"counters": hostile}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"counters": hostile}, modern)
    torch.save({"counters": {"best": None, "step": 1}, "hooks": [hostile]}, inside)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3\n")
    text = pickle.dumps(hostile, protocol=0)
    found = {"plain": plain, "protocol 0": text, "legacy": legacy.getvalue()}
    return found | {
        "modern": modern.getvalue(),
        "inside": inside.getvalue(),
        "zip": zipped.getvalue(),
    }


KINDS = list(_pickles(Path("marker")))


def test_the_pickles_are_hostile(tmp_path: Path) -> None:
    """Each does create its file when somebody unpickles it without care."""
    for number, kind in enumerate(KINDS):
        marker = tmp_path / str(number)
        content = _pickles(marker)[kind]
        if kind in ("plain", "protocol 0"):
            pickle.loads(content)  # noqa: S301 - that it is not safe is the claim
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        assert marker.exists(), kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_no_pickle_is_executed(interrupted: Path, memory: Path, kind: str, name: str) -> None:
    """In whatever file, with hashes that are right: refused or never read, and not executed."""
    marker = memory / "marker"
    folder = memory / "run"
    shutil.copytree(interrupted, folder, symlinks=True)
    for path in checkpoints_of(folder):
        (path / name).write_bytes(_pickles(marker)[kind])
        if name != "manifest.json":
            forge(path)
            _checkpoints.verify(path)
    run = SEVERAL.trainer(folder, {}, seed=1)
    read = name in ("manifest.json", "model/model.safetensors", "state.pt", "state.safetensors")
    refused = False
    try:
        found = newest(folder / "checkpoints")
        if found:
            run.keeper.resume(run.state, *found)
            run.keeper.go_on()
    except UserError:
        refused = True
    assert (refused or found is None) == read
    assert not marker.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_no_pickle_of_a_best_is_executed(memory: Path, kind: str) -> None:
    """The weights of the best, read at the end of training, are refused likewise."""
    marker = memory / "marker"

    @attrs.define
    class Swap:
        """Puts a pickle in the place of the best weights once they are written."""

        @hookimpl
        def save_end(self, folder: Path) -> None:
            """Swap, and forge."""
            (folder / checkpoint.WEIGHTS).write_bytes(_pickles(marker)[kind])
            forge(folder)

    run = trainer(memory / "run", {"wishes": Wishes((3,)), "swap": Swap()})
    with pytest.raises(UserError, match="these weights can't be read into the model"):
        run.fit()
    run.keeper.pool.shutdown()  # the last checkpoint may still be on its way
    assert not marker.exists()


SOUND: dict[str, Any] = {"counters": {"best": None, "step": 1}}


@pytest.mark.parametrize(
    "states",
    [
        [],
        3,
        {},
        {"counters": 3},
        {"counters": {}},
        {"counters": {"best": None}},
        {"counters": {"best": 3, "step": 1}},
        {"counters": {"best": {}, "step": 1}},
        {"counters": {"best": {"step": "../../x"}, "step": 1}},
        SOUND,
        SOUND | {"optimizer": {}, "precision": {}, "hooks": {}, "recent": {}},
    ],
    ids=lambda states: str(states)[:60],
)
def test_states_of_another_shape_are_refused(tmp_path: Path, states: Any) -> None:
    """A file that loads and isn't what a run writes is a damaged checkpoint or doesn't fit."""
    fitted(tmp_path, {"wishes": Wishes(())})
    root = tmp_path / "checkpoints"
    for path in root.glob("step-*"):
        torch.save(states, path / "state.pt")
        forge(path)
    run = trainer(tmp_path, module=net(2))
    with pytest.raises(UserError, match=r"doesn't fit this experiment|nothing whole"):  # noqa: PT012
        found = newest(root)
        if found is None:
            raise UserError("nothing whole")
        run.keeper.resume(run.state, *found)
