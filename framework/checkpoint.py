"""Checkpoints: all that must survive, written whole or not at all, and verified when read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from framework.errors import RunError, UserError
from framework.state import State

if TYPE_CHECKING:
    from torch import nn

MANIFEST = "manifest.json"


@attrs.frozen
class ModelFiles:
    """What stands beside a model's weights and assets, so that it can be loaded alone."""

    info: Mapping[str, Any]
    """What the dataset says of itself."""
    experiment: str = attrs.field(repr=False)
    """The resolved experiment, in TOML."""


def write(state: State, live: Mapping[str, Any], files: ModelFiles) -> Path:
    """Write a checkpoint of the running step; the folder, `checkpoints/step-N`.

    `live` holds objects with `state_dict` by name (optimizer, precision, callbacks). The folder
    `model` inside can be loaded alone. Raises `RunError` where the disk refuses.
    """
    import torch
    from safetensors import SafetensorError

    root = state.folder / "checkpoints"
    target = root / f"step-{state.step}"
    if target.exists():
        return target
    part = root / f".step-{state.step}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        model = part / "model"
        model.mkdir(parents=True)
        save_weights(state.model.module, model / "model.safetensors")
        state.model.save_assets(model)
        (model / "info.json").write_text(json.dumps(files.info, indent=1) + "\n", encoding="utf-8")
        (model / "experiment.toml").write_text(files.experiment, encoding="utf-8")
        states = {name: item.state_dict() for name, item in live.items()}
        torch.save(states | {"counters": state.counters()}, part / "state.pt")
        torch.save(_randomness(), part / "random.pt")
        _seal(part)
        part.rename(target)
        _sync(root)
    except (OSError, SafetensorError, RuntimeError) as error:
        # the libraries word a disk's refusal as errors of their own
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(f"{target}: can't write the checkpoint ({reason})") from None
    return target


def link(target: Path, tag: str) -> None:
    """Point the link `tag` beside a checkpoint at it, in one atomic swap."""
    fresh = target.parent / f".{tag}.link"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(target.parent / tag)


def prune(root: Path, keep: int) -> None:
    """Delete the oldest checkpoints, but the newest `keep` and those under a link."""
    steps = sorted(root.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    linked = {path.resolve() for path in root.iterdir() if path.is_symlink()}
    for path in steps[:-keep]:
        if path.resolve() not in linked:
            shutil.rmtree(path)


def verify(folder: Path) -> None:
    """Raise `UserError` unless every file is there with the hash the manifest gives."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{folder}: no checkpoint is here, or it was never finished")
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
        wanted = {
            folder / name: (entry["size"], entry["sha256"]) for name, entry in entries.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{manifest}: unreadable; this checkpoint is damaged") from None
    for file, (size, sha256) in wanted.items():
        if not file.is_file() or file.stat().st_size != size:
            raise UserError(f"{file}: missing or cut short; this checkpoint is damaged")
        if digest(file) != sha256:
            raise UserError(f"{file}: its bytes changed; this checkpoint is damaged")


def save_weights(module: nn.Module, file: Path) -> None:
    """Write a module's weights as safetensors; tensors that are shared are written once."""
    import safetensors.torch

    safetensors.torch.save_model(module, str(file), metadata={"format": "pt"})


def load_weights(module: nn.Module, file: Path) -> None:
    """Read weights that `save_weights` wrote; `UserError` where they don't fit the module."""
    import safetensors.torch

    try:
        safetensors.torch.load_model(module, str(file), strict=True)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: these weights can't be read into the model ({reason})") from None


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _randomness() -> dict[str, Any]:
    """The state of every global random generator, in forms that load without unpickling."""
    import torch

    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what third parties draw from
    name, keys, at, has_gauss, gauss = legacy
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.copy()), at, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def _seal(part: Path) -> None:
    """Flush every file to the disk, then write the manifest of their hashes last."""
    files = sorted(path for path in part.rglob("*") if path.is_file())
    entries = {}
    for file in files:
        _sync(file)
        name = str(file.relative_to(part))
        entries[name] = {"size": file.stat().st_size, "sha256": digest(file)}
    manifest = part / MANIFEST
    manifest.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    _sync(manifest)
    _sync(part)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
