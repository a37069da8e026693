"""Checkpoints: whole or not at all, verified when read, and all that must survive in them."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import (
    LiveModel,
    net,
    one_thread,  # noqa: F401 - a fixture for every test here
    trainer,
)
from torch import nn

from framework import checkpoint
from framework.checkpoint import ModelFiles
from framework.errors import RunError, UserError
from framework.state import Best, State

FILES = ModelFiles({"labels": ["no", "é"]}, 'name = "x"\n')


def state_in(folder: Path, step: int = 3, module: nn.Module | None = None) -> State:
    """Return the state of a run at some step."""
    return State(
        folder=folder,
        name="x",
        model=LiveModel(module or net()),
        epochs=2,
        steps_per_epoch=5,
        total_steps=10,
        items_per_epoch=40,
        epoch=1,
        batch=step - 1,
        step=step,
        items=96,
        skipped=1,
        learning_rate=1e-3,
        metrics={"val": {"loss": float("nan"), "f1": 0.5}},
        best=Best(metric="val/f1", value=0.5, step=2, metrics={"val": {"f1": 0.5}}),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A checkpoint that a trainer wrote in the middle of a run."""
    run = trainer(tmp_path, steps=2)
    run.fit()
    return checkpoint.write(
        run.state,
        {"optimizer": run.update.optimizer, "precision": run.update.forward.precision},
        FILES,
    )


def test_a_checkpoint_holds_all_that_must_survive(written: Path) -> None:
    """Weights, assets, info, experiment, states, generators, and a manifest of the rest."""
    files = sorted(str(f.relative_to(written)) for f in written.rglob("*") if f.is_file())
    assert files == [
        "manifest.json",
        "model/config.json",
        "model/experiment.toml",
        "model/info.json",
        "model/model.safetensors",
        "random.pt",
        "state.pt",
    ]
    manifest = json.loads((written / "manifest.json").read_text())
    assert sorted(manifest) == [file for file in files if file != "manifest.json"]
    assert written.name == "step-2"
    assert json.loads((written / "model" / "info.json").read_text()) == FILES.info
    assert (written / "model" / "experiment.toml").read_text() == FILES.experiment
    assert [path.name for path in written.parent.iterdir()] == ["step-2"]
    checkpoint.verify(written)


def test_weights_read_back_bit_by_bit(tmp_path: Path) -> None:
    """What is loaded is what was saved, whatever the module held before."""
    module, other = net(1), net(2)
    module.register_buffer("extra", torch.randn(3).half())
    other.register_buffer("extra", torch.zeros(3).half())
    checkpoint.save_weights(module, tmp_path / "w")
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
    checkpoint.save_weights(module, tmp_path / "w")
    assert len(safetensors.torch.load_file(tmp_path / "w")) == 1
    checkpoint.load_weights(other, tmp_path / "w")
    assert torch.equal(other.embedding.weight, module.embedding.weight)
    assert other.output.weight is other.embedding.weight


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
    checkpoint.save_weights(net(), file)
    _broken(file, kind)
    with pytest.raises(UserError) as caught:
        checkpoint.load_weights(net(), file)
    message = str(caught.value)
    assert message.startswith(f"{file}: these weights can't be read into the model (")
    assert "\n" not in message


def test_weights_of_another_module_are_told(tmp_path: Path) -> None:
    """Weights that don't fit are an error, and the module isn't half loaded in silence."""
    checkpoint.save_weights(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(UserError, match="these weights can't be read into the model"):
        checkpoint.load_weights(net(), tmp_path / "w")


def test_states_load_without_unpickling(written: Path) -> None:
    """Optimizer, precision, counters and generators load with `weights_only`."""
    states = torch.load(written / "state.pt", weights_only=True)
    assert set(states) == {"optimizer", "precision", "counters"}
    counters = states["counters"]
    assert (counters["step"], counters["batch"], counters["items"]) == (2, 2, 8)
    fresh = trainer(written.parent / "fresh")
    fresh.update.optimizer.load_state_dict(states["optimizer"])
    randomness = torch.load(written / "random.pt", weights_only=True)
    assert set(randomness) == {"torch", "cuda", "numpy", "python"}


def test_an_optimizer_reads_back(tmp_path: Path) -> None:
    """Moments and rates of an optimizer survive, bit by bit."""
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    module(torch.randn(3, 4))["logits"].sum().backward()
    optimizer.step()
    folder = checkpoint.write(state_in(tmp_path, module=module), {"optimizer": optimizer}, FILES)
    saved = torch.load(folder / "state.pt", weights_only=True)["optimizer"]
    expected = optimizer.state_dict()
    assert saved["param_groups"] == expected["param_groups"]
    assert saved["state"].keys() == expected["state"].keys()
    for index, moments in expected["state"].items():
        assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(saved["state"][index][name], m) for name, m in moments.items())


def test_counters_read_back(tmp_path: Path) -> None:
    """Every counter, the newest metrics and the best survive, undefined values too."""
    state = state_in(tmp_path)
    folder = checkpoint.write(state, {}, FILES)
    counters = torch.load(folder / "state.pt", weights_only=True)["counters"]
    assert np.isnan(counters["metrics"]["val"].pop("loss"))
    assert counters == {
        "epoch": 1,
        "batch": 2,
        "step": 3,
        "items": 96,
        "skipped": 1,
        "learning_rate": 1e-3,
        "metrics": {"val": {"f1": 0.5}},
        "best": {"metric": "val/f1", "value": 0.5, "step": 2, "metrics": {"val": {"f1": 0.5}}},
    }


def _draw() -> tuple[float, float, float, float]:
    legacy = np.random.normal()  # noqa: NPY002 - the global generator is what is saved
    return random.gauss(0, 1), float(legacy), float(torch.rand(1)), random.random()  # noqa: S311


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), drawn=st.integers(0, 3))
def test_every_generator_is_in_the_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, seed: int, drawn: int
) -> None:
    """Put back, the global generators go on with the numbers that came after the checkpoint."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    for _ in range(drawn):
        _draw()
    folder = checkpoint.write(state_in(tmp_path_factory.mktemp("run")), {}, FILES)
    expected = [_draw(), _draw()]
    saved = torch.load(folder / "random.pt", weights_only=True)
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, at, has, value = saved["numpy"]
    np.random.set_state((name, keys.numpy(), at, has, value))  # noqa: NPY002
    torch.set_rng_state(saved["torch"])
    assert [_draw(), _draw()] == expected


NAMES = [
    "model/config.json",
    "model/experiment.toml",
    "model/info.json",
    "model/model.safetensors",
    "random.pt",
    "state.pt",
]


def _damaged(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.verify(folder)
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
    assert _damaged(written) == f"{file}: its bytes changed; this checkpoint is damaged"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "empty", "short", "longer"])
def test_a_file_of_another_length_is_found(written: Path, name: str, kind: str) -> None:
    """A file that is missing, cut or longer than it was is found and named."""
    file = written / name
    if kind == "longer":
        file.write_bytes(file.read_bytes() + b"\0")
    else:
        _broken(file, kind)
    assert _damaged(written) == f"{file}: missing or cut short; this checkpoint is damaged"


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
    folder = checkpoint.write(state_in(tmp_path_factory.mktemp("run")), {}, FILES)
    manifest = folder / "manifest.json"
    said = json.loads(manifest.read_bytes())
    content = bytearray(manifest.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.sampled_from([1, 2, 4, 8, 32, 128]))
    manifest.write_bytes(content)
    with contextlib.suppress(ValueError):
        if json.loads(content) == said:
            checkpoint.verify(folder)
            return
    assert str(folder) in _damaged(folder)


def test_a_checkpoint_is_never_changed(tmp_path: Path) -> None:
    """A step that is already written is left as it is."""
    first = checkpoint.write(state_in(tmp_path, module=net(1)), {}, FILES)
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    assert checkpoint.write(state_in(tmp_path, module=net(2)), {}, FILES) == first
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == before


def test_what_a_killed_process_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    """A half-written checkpoint is hidden, is no checkpoint, and the next attempt replaces it."""
    part = tmp_path / "checkpoints" / ".step-3.part"
    (part / "model").mkdir(parents=True)
    (part / "stale").write_text("left")
    folder = checkpoint.write(state_in(tmp_path), {}, FILES)
    checkpoint.verify(folder)
    assert not (folder / "stale").exists()
    assert not part.exists()


def test_a_link_is_relative_and_moves(tmp_path: Path) -> None:
    """A tag is a relative link, so that a moved run folder keeps it; it can be moved on."""
    root = tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        target = checkpoint.write(state_in(root.parent, step), {}, FILES)
        checkpoint.link(target, "last")
        assert (root / "last").readlink() == Path(f"step-{step}")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    checkpoint.verify(moved / "checkpoints" / "last")
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


@given(
    st.sets(st.integers(1, 120), max_size=8),
    st.integers(1, 4),
    st.lists(st.integers(0, 7), max_size=2),
)
@settings(max_examples=40)
def test_pruning_keeps_the_newest_and_the_linked(
    tmp_path_factory: pytest.TempPathFactory, steps: set[int], keep: int, linked: list[int]
) -> None:
    """The newest stay, by number and not by name, and those under a link; the others go."""
    root = tmp_path_factory.mktemp("checkpoints")
    order = sorted(steps)
    for step in order:
        (root / f"step-{step}").mkdir()
        (root / f"step-{step}" / "file").touch()
    kept = set(order[-keep:])
    for tag, index in zip(("best", "last"), linked, strict=False):
        if index < len(order):
            checkpoint.link(root / f"step-{order[index]}", tag)
            kept.add(order[index])
    checkpoint.prune(root, keep)
    assert {int(path.name[5:]) for path in root.glob("step-*")} == kept
    assert all(path.exists() for path in root.iterdir())


def test_a_folder_that_cant_be_written_is_a_run_error(tmp_path: Path) -> None:
    """Where the disk refuses, the run ends with one line that names the checkpoint."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        checkpoint.write(state_in(tmp_path / "file"), {}, FILES)
    target = tmp_path / "file" / "checkpoints" / "step-3"
    assert str(caught.value) == f"{target}: can't write the checkpoint (Not a directory)"


FULL = """
import resource, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
from tiny_parts import net
from test_checkpoint import FILES, state_in
from framework import checkpoint
from framework.errors import RunError

class Live:
    def state_dict(self):
        return {"moments": torch.zeros(200_000)}

module = torch.nn.Linear(400, 400) if sys.argv[3] == "weights" else net()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
try:
    checkpoint.write(state_in(folder, module=module), {"optimizer": Live()}, FILES)
except RunError as error:
    print(error)
print([path.name for path in (folder / "checkpoints").iterdir() if path.name[0] != "."])
"""


@pytest.mark.parametrize("large", ["weights", "optimizer"])
def test_a_disk_that_is_full_is_a_run_error(tmp_path: Path, large: str) -> None:
    """A file that can't be written to its end ends the run in one line, with no checkpoint left.

    The limit on the size of a file stands in for a full disk: writes fail in the same place.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent), large],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message, left = done.stdout.splitlines()
    target = tmp_path / "checkpoints" / "step-3"
    assert message.startswith(f"{target}: can't write the checkpoint (")
    assert left == "[]"


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    """A digest is the SHA-256 of all bytes, in whatever pieces they are read."""
    file = tmp_path / "file"
    file.write_bytes(b"a" * (1 << 20) + b"b")
    done = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True)
    assert checkpoint.digest(file) == done.stdout.split()[0]
