"""Checkpoints: whole or not at all, verified when read, and all that must survive in them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import filled, save_weights
from tiny_parts import (
    At,
    LiveModel,
    fitted,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
)
from torch import nn

from framework import checkpoint
from framework.checkpoint import ModelFiles
from framework.commands import _checkpoints
from framework.errors import RunError, UserError
from tests.faults import processes

FILES = ModelFiles({"labels": ["no", "é"]}, 'name = "x"\n')
NAMES = [
    "counters.json",
    "model/config.json",
    "model/experiment.toml",
    "model/info.json",
    "model/model.safetensors",
    "state.pt",
    "state.safetensors",
]
"""The files of a checkpoint, but for its manifest."""


def saved(
    folder: Path,
    step: int = 3,
    module: nn.Module | None = None,
    tags: Sequence[str] = (),
    **more: Any,
) -> Path:
    """Write a checkpoint of a module, and of states, as a run in a folder does."""
    model = LiveModel(module or net())
    states = {"counters": {"step": step, "best": None}, **more}
    found: dict[Any, tuple[Any, torch.Tensor]] = {}
    plain = checkpoint.walked(states, lambda *thing: checkpoint._plain(found, *thing))
    images = {
        str(checkpoint.WEIGHTS): filled(checkpoint.distinct(model.module)),
        checkpoint.TENSORS: filled({str(at): t for at, t in found.values() if isinstance(at, int)}),
    }
    target = folder / "checkpoints" / f"step-{step}"
    return checkpoint.write(target, plain, images, model, FILES, tags)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A checkpoint that a trainer wrote in the middle of a run."""
    save = At("step_end", 2, lambda state: state.save("last"))
    fitted(tmp_path, {"save": save})
    return tmp_path / "checkpoints" / "step-2"


def test_a_checkpoint_holds_all_that_must_survive(written: Path) -> None:
    """Weights, assets, info, experiment, states, generators, and a manifest of the rest."""
    files = sorted(str(f.relative_to(written)) for f in written.rglob("*") if f.is_file())
    assert files == sorted([*NAMES, "manifest.json"])
    manifest = json.loads((written / "manifest.json").read_text())
    assert sorted(manifest) == [file for file in files if file != "manifest.json"]
    info = json.loads((written / "model" / "info.json").read_text(encoding="utf-8"))
    assert info == {"labels": ["a", "b", "c"]}
    assert (written / "model" / "experiment.toml").read_text() == 'name = "tiny"\n'
    assert sorted(path.name for path in written.parent.iterdir()) == ["last", "step-2"]
    states = _checkpoints.read(written)
    live = {"optimizer", "precision", "hooks", "recent"}
    assert set(states) == {*live, "counters", "generators", "best"}
    (of_the_only_rank,) = states["generators"]
    assert set(of_the_only_rank) == {"torch", "cuda", "numpy", "python"}
    counters = json.loads((written / "counters.json").read_text(encoding="utf-8"))
    assert counters == states["counters"]
    _checkpoints.verify(written)


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    """Info and experiment are those of the run, letter by letter."""
    folder = saved(tmp_path)
    info = json.loads((folder / "model" / "info.json").read_text(encoding="utf-8"))
    assert info == FILES.info
    text = (folder / "model" / "experiment.toml").read_text(encoding="utf-8")
    assert text == FILES.experiment


def test_weights_read_back_bit_by_bit(tmp_path: Path) -> None:
    """What is loaded is what was saved, whatever the module held before."""
    module, other = net(1), net(2)
    module.register_buffer("extra", torch.randn(3).half())
    other.register_buffer("extra", torch.zeros(3).half())
    save_weights(module, tmp_path / "w")
    checkpoint.load_weights(other, tmp_path / "w")
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
        assert other.state_dict()[name].dtype == value.dtype


class Tied(nn.Module):
    """An embedding whose weight is also that of the output."""

    def __init__(self) -> None:
        """Tie them."""
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def test_shared_tensors_are_written_once(tmp_path: Path) -> None:
    """Tied weights are one tensor in the file, and are one tensor again when read."""
    module, other = Tied(), Tied()
    save_weights(module, tmp_path / "w")
    assert len(safetensors.torch.load_file(tmp_path / "w")) == 1
    checkpoint.load_weights(other, tmp_path / "w")
    assert torch.equal(other.embedding.weight, module.embedding.weight)
    assert other.output.weight is other.embedding.weight


class Viewed(nn.Module):
    """Buffers that share memory without being one another, as views do."""

    def __init__(self, seed: int) -> None:
        """Draw them."""
        super().__init__()
        whole = torch.randn(6, generator=torch.Generator().manual_seed(seed))
        for name, view in (("whole", whole), ("part", whole[:2]), ("rest", whole[2:])):
            self.register_buffer(name, view)
        self.register_buffer("slice", torch.randn(9)[:4])
        self.register_buffer("across", torch.randn(3, 2).T)


def test_views_are_read_back(tmp_path: Path) -> None:
    """Whatever shares memory with what, each tensor is read back as it was."""
    module, other = Viewed(1), Viewed(2)
    save_weights(module, tmp_path / "w")
    checkpoint.load_weights(other, tmp_path / "w")
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_states_that_share_odd_tensors_share_them_again(tmp_path: Path) -> None:
    """One tensor under two names is one again, also where safetensors can't hold it."""
    across, numbers = torch.randn(3, 2).T, torch.zeros(2, dtype=torch.complex128)
    folder = saved(tmp_path, first=[across, numbers], second={"a": across, "n": numbers})
    found = _checkpoints.read(folder)
    assert found["first"][0] is found["second"]["a"]
    assert found["first"][1] is found["second"]["n"]
    assert torch.equal(found["first"][0], across)


def test_assets_cant_replace_the_weights(tmp_path: Path) -> None:
    """A model that writes them itself ends the run, not its checkpoints' trust."""

    class Writes(LiveModel):
        def save_assets(self, folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(b"mine")

    model = Writes(net())
    images = {str(checkpoint.WEIGHTS): filled(checkpoint.distinct(model.module))}
    with pytest.raises(RunError, match="File exists"):
        checkpoint.write(tmp_path / "step-1", {"counters": {}}, images, model, FILES, [])
    assert list(tmp_path.iterdir()) == []


def _broken(file: Path, kind: str) -> None:
    if kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("no weights")
    else:
        file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "short"])
def test_weights_that_cant_be_read_are_told(tmp_path: Path, kind: str) -> None:
    """A file of weights that is missing or broken is one line, and names the file."""
    file = tmp_path / "w.safetensors"
    save_weights(net(), file)
    _broken(file, kind)
    with pytest.raises(UserError) as caught:
        checkpoint.load_weights(net(), file)
    message = str(caught.value)
    assert message.startswith(f"{file}: these weights can't be read into the model (")
    assert "\n" not in message


def test_weights_of_another_module_are_told(tmp_path: Path) -> None:
    """Weights that don't fit are an error, and the module isn't half loaded in silence."""
    save_weights(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(UserError, match="these weights can't be read into the model"):
        checkpoint.load_weights(net(), tmp_path / "w")


def _damaged(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        _checkpoints.verify(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_byte_is_found(written: Path, name: str, where: str) -> None:
    """One changed byte, wherever in whichever file, is found and the file is named."""
    file = written / name
    content = bytearray(file.read_bytes())
    at = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[where]
    content[at] ^= 1
    file.write_bytes(content)
    assert _damaged(written) == f"{written}: damaged, {name}: its bytes changed"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "empty", "short", "longer"])
def test_a_file_of_another_length_is_found(written: Path, name: str, kind: str) -> None:
    """A file that is missing, cut or longer than it was is found and named."""
    file = written / name
    if kind == "longer":
        file.write_bytes(file.read_bytes() + b"\0")
    else:
        _broken(file, kind)
    what = "missing" if kind == "missing" else "its bytes changed"
    assert _damaged(written) == f"{written}: damaged, {name}: {what}"


def test_a_folder_without_a_manifest_is_no_checkpoint(written: Path, tmp_path: Path) -> None:
    """The manifest is written last: without it nothing was finished."""
    (written / "manifest.json").unlink()
    expected = "no checkpoint is here, or it was never finished"
    assert _damaged(written) == f"{written}: {expected}"
    assert _damaged(tmp_path / "none") == f"{tmp_path / 'none'}: {expected}"


@pytest.mark.parametrize("damage", ["empty", "cut", "key", "bytes", "list", "number"])
def test_a_damaged_manifest_is_found(written: Path, damage: str) -> None:
    """A manifest that is itself damaged is a damaged checkpoint like another."""
    manifest = written / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "key": content.replace(b'"size"', b'"sizf"', 1),
            "bytes": content.replace(b"state.pt", b"\xfftate.pt"),
            "list": b"[]",
            "number": content.replace(b'"size": ', b'"size": "', 1).replace(b",", b'",', 1),
        }[damage]
    )
    assert str(written) in _damaged(written)


@settings(max_examples=25)
@given(data=st.data())
def test_any_flipped_byte_of_the_manifest_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte of the manifest that changes is found, if only in what it says.

    Where it still says the same, nothing is lost.
    """
    folder = saved(tmp_path_factory.mktemp("run"))
    manifest = folder / "manifest.json"
    said = json.loads(manifest.read_bytes())
    content = bytearray(manifest.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.sampled_from([1, 2, 4, 8, 32, 128]))
    manifest.write_bytes(content)
    with contextlib.suppress(ValueError):
        if json.loads(content) == said:
            _checkpoints.verify(folder)
            return
    assert str(folder) in _damaged(folder)


def test_a_checkpoint_is_never_changed(tmp_path: Path) -> None:
    """A step that is already written is left as it is; only its tags are set."""
    first = saved(tmp_path, module=net(1))
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    assert saved(tmp_path, module=net(2), tags=["last"], more={"x": 1}) == first
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == before
    assert (first.parent / "last").readlink() == Path("step-3")


def test_what_a_killed_process_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    """A half-written checkpoint is hidden, is no checkpoint, and the next attempt replaces it."""
    part = tmp_path / "checkpoints" / ".step-3.part"
    (part / "model").mkdir(parents=True)
    (part / "stale").write_text("left")
    folder = saved(tmp_path)
    _checkpoints.verify(folder)
    assert not (folder / "stale").exists()
    assert not part.exists()


def test_a_link_is_relative_and_moves(tmp_path: Path) -> None:
    """A tag is a relative link, so that a moved run folder keeps it; it can be moved on."""
    root = tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        saved(root.parent, step, tags=["last"])
        assert (root / "last").readlink() == Path(f"step-{step}")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    _checkpoints.verify(moved / "checkpoints" / "last")
    assert sorted(path.name for path in (moved / "checkpoints").iterdir()) == [
        "last",
        "step-1",
        "step-2",
    ]


def test_a_link_is_there_at_every_moment(tmp_path: Path) -> None:
    """A reader that looks while the tag moves always finds a checkpoint under it."""
    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / "file").write_text(str(step))
    checkpoint.link(tmp_path / "step-1", "last")
    script = (
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1]) / 'last' / 'file'\n"
        "print('ready', flush=True)\n"
        "print(sorted({file.read_text() for _ in range(20_000)}))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        moves = 0
        while reader.poll() is None:
            checkpoint.link(tmp_path / f"step-{1 + moves % 2}", "last")
            moves += 1
        found = reader.stdout.read()
    assert reader.returncode == 0
    assert moves > 1
    assert found.strip() in ("['1', '2']", "['1']", "['2']")


def test_a_folder_that_cant_be_written_is_a_run_error(tmp_path: Path) -> None:
    """Where the disk refuses, the run ends with one line that names the checkpoint."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        saved(tmp_path / "file")
    target = tmp_path / "file" / "checkpoints" / "step-3"
    assert str(caught.value) == f"{target}: can't write the checkpoint (Not a directory)"


FULL = """
import resource, sys
from pathlib import Path
import torch
from tiny_parts import net
from test_checkpoint import saved
from framework.errors import RunError

module = torch.nn.Linear(400, 400) if sys.argv[2] == "weights" else net()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
try:
    saved(folder, module=module, optimizer={"moments": torch.zeros(200_000)})
except RunError as error:
    print(error)
print([path.name for path in (folder / "checkpoints").iterdir()])
"""


@pytest.mark.parametrize("large", ["weights", "optimizer"])
def test_a_disk_that_is_full_is_a_run_error(tmp_path: Path, large: str) -> None:
    """A file that can't be written to its end ends the run in one line, with no checkpoint left.

    The limit on the size of a file stands in for a full disk: writes fail in the same place.
    """
    ended = processes.script(FULL, tmp_path, large, cwd=tmp_path).wait()
    assert ended.code == 0, ended.err
    # nothing is left of the attempt: it may be what fills the disk
    message, left = ended.out.splitlines()
    target = tmp_path / "checkpoints" / "step-3"
    assert message.startswith(f"{target}: can't write the checkpoint (")
    assert left == "[]"


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    """A digest is the SHA-256 of all bytes, in whatever pieces they are read."""
    file = tmp_path / "file"
    file.write_bytes(b"a" * (1 << 20) + b"b")
    done = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True)
    assert checkpoint.digest(file) == done.stdout.split()[0]
