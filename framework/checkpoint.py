"""Checkpoints: all that must survive, written whole or not at all, and verified when read.

A checkpoint is a folder `step-N`: `model/` with the weights in safetensors and all that loading
the model alone needs, `state.safetensors` with the other tensors, `state.pt` with everything else
in a form that `torch.load` reads with `weights_only`, and a manifest of sizes and hashes, written
last. No pickle is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from framework.errors import RunError, UserError
from framework.image import Image, code
from framework.protocols import LiveModel, LiveStrategy
from framework.state import State

if TYPE_CHECKING:
    from torch import Tensor, nn

MANIFEST = "manifest.json"
WEIGHTS = Path("model", "model.safetensors")
COUNTERS = "counters.json"
"""For those who read a checkpoint without loading it, as what deletes old ones."""
STATE = "state.pt"
TENSORS = "state.safetensors"
_BITS = 1000
_log = logging.getLogger("framework")


@attrs.frozen
class ModelFiles:
    """What stands beside a model's weights and assets, so that it can be loaded alone."""

    info: Mapping[str, Any]
    """What the dataset says of itself."""
    experiment: str = attrs.field(repr=False)
    """The resolved experiment, in TOML."""


@attrs.define
class Keeper:
    """Writes a run's checkpoints in the background, one at a time, and takes them up again."""

    live: Mapping[str, Any]
    """What a checkpoint keeps the states of, by name."""
    files: ModelFiles
    strategy: LiveStrategy
    """The first rank writes; every rank's random generators go into it."""
    verify: Callable[[Path, str], object]
    """Raises `UserError` where files of a checkpoint, of those in a folder of it, have changed."""
    told: Callable[[Path], object]
    """Called with each folder that is whole, in the thread of training."""
    pool: ThreadPoolExecutor = attrs.field(
        factory=lambda: ThreadPoolExecutor(1, initializer=_give_way), repr=False
    )
    writing: Future[Path] | None = None
    randomness: Mapping[str, Any] | None = None
    images: Mapping[str, Image] = attrs.field(
        factory=lambda: {str(WEIGHTS): Image(), TENSORS: Image()}, repr=False
    )

    @property
    def failed(self) -> bool:
        """Whether the checkpoint that was being written could not be."""
        return bool(self.writing and self.writing.done() and self.writing.exception())

    def save(self, state: State, tags: Sequence[str]) -> None:
        """Copy all that must survive and begin to write it; `RunError` if the last one failed."""
        self.wait()
        ranks = self.strategy.gather(_randomness())
        target = state.folder / "checkpoints" / f"step-{state.step}"
        save: Any = getattr(self.strategy, "save", lambda weights, _: (weights, {}))
        weights, parts = save(distinct(state.model.module), target)
        if self.strategy.rank:
            return
        states = {name: item.state_dict() for name, item in self.live.items()}
        states |= {"counters": state.counters(), "generators": ranks}
        found: dict[Any, tuple[Any, Tensor]] = {}
        states = walked(states, lambda *thing: _plain(found, *thing), "the state")
        fit = {str(at): tensor for at, tensor in found.values() if isinstance(at, int)}
        self.images[TENSORS].fill(fit)
        self.images[str(WEIGHTS)].fill(weights)
        given = states, {**self.images, **parts}, state.model, self.files, tags
        self.writing = self.pool.submit(write, target, *given)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, and tell of it."""
        if self.writing:
            writing, self.writing = self.writing, None
            self.told(writing.result())

    def resume(self, state: State, folder: Path, saved: Mapping[str, Any]) -> None:
        """Take up the states of a checkpoint; `UserError` where it doesn't fit."""
        load_weights(state.model.module, folder / WEIGHTS)
        try:
            for name, item in self.live.items():
                item.load_state_dict(saved[name])
            getattr(self.strategy, "load", lambda _: None)(folder)
            state.restore(saved["counters"])
            ranks, planned = saved["generators"], saved["counters"]["total_steps"]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{folder}: doesn't fit this experiment ({error})") from error
        if state.total_steps < planned:
            told = f"{state.total_steps} steps are fewer than the {planned} that it was to take"
            raise UserError(f"{folder}: {told}; it can only go on with as many or more")
        if state.total_steps > planned and not getattr(state.schedule, "steady", False):
            _log.warning("%s: its schedule is now that of %s steps", folder, state.total_steps)
        if len(ranks) == self.strategy.world_size:
            self.randomness = ranks[self.strategy.rank]
        else:
            _log.warning("%s: of %s ranks; this run may end in other bits", folder, len(ranks))
        # the process may have died before it set them
        if not self.strategy.rank:
            link(folder, "last")
        if state.best and not self.strategy.rank:
            link(folder.with_name(f"step-{state.best.step}"), "best")

    def best(self, state: State) -> None:
        """Take the weights of the best checkpoint, if one was called so, and its metrics."""
        if state.best is not None:
            best = state.folder / "checkpoints" / f"step-{state.best.step}"
            if state.best.step != state.step:  # otherwise they are what the model has
                if not best.exists():
                    self.wait()
                self.strategy.gather(None)  # it is there for every rank
                self.verify(best, "model/")
                load_weights(state.model.module, best / WEIGHTS)
            state.metrics = dict(state.best.metrics)

    def whole(self, work: Callable[[], Any]) -> Any:
        """Do something; where nothing came of it, no random number has been drawn for it."""
        before = _randomness()
        found = work()
        if not found:
            _set_randomness(before)
        return found

    def go_on(self) -> None:
        """Put the random generators back, once nothing but training draws from them."""
        if self.randomness:
            _set_randomness(self.randomness)


def _give_way() -> None:
    """Have the calling thread take the processor time that training leaves, and a tenth."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        os.nice(10)


def write(
    target: Path,
    states: Mapping[str, Any],
    images: Mapping[str, Image],
    model: LiveModel,
    files: ModelFiles,
    tags: Sequence[str],
) -> Path:
    """Write copies of all that must survive as a checkpoint; its folder, linked under the tags.

    The folder `model` inside can be loaded alone. Raises `RunError` where the disk refuses.
    """
    import torch

    root, part = target.parent, target.with_name(f".{target.name}.part")
    try:
        if not target.exists():
            shutil.rmtree(part, ignore_errors=True)
            inside = part / WEIGHTS.parent
            inside.mkdir(parents=True)
            model.save_assets(inside)
            hashes = {name: image.write(part / name) for name, image in images.items()}
            (inside / "experiment.toml").write_text(files.experiment, encoding="utf-8")
            values = {inside / "info.json": files.info, part / COUNTERS: states["counters"]}
            for file, value in values.items():
                file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
            torch.save(states, part / STATE)
            _seal(part, hashes)
            part.rename(target)
        for tag in tags:
            link(target, tag)
        for folder in (root, *target.parents[1:3]):
            _sync(folder)
    except (OSError, RuntimeError) as error:
        # what was written of it may be what fills the disk
        shutil.rmtree(part, ignore_errors=True)
        # the libraries word a disk's refusal as errors of their own
        reason = getattr(error, "strerror", None) or _line(error)
        raise RunError(f"{target}: can't write the checkpoint ({reason})") from None
    return target


def link(target: Path, tag: str) -> None:
    """Point the link `tag` beside a checkpoint at it, in one atomic swap."""
    fresh = target.parent / f".{tag}.link"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(target.parent / tag)


def distinct(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's weights, of those that are the same tensor the first."""
    weights = reversed(module.state_dict().items())
    return dict({_same(tensor): (name, tensor) for name, tensor in weights}.values())


def _same(tensor: Tensor) -> Any:
    """Return what is equal for tensors that are one and the same memory."""
    if not tensor.numel() or str(tensor.layout) != "torch.strided" or not tensor.data_ptr():
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def load_weights(module: nn.Module, file: Path) -> None:
    """Read weights from safetensors; `UserError` where they don't fit the module."""
    import safetensors.torch

    try:
        found, state = safetensors.torch.load_file(file), module.state_dict()
        names = {_same(tensor): name for name, tensor in state.items() if name in found}
        shared = {name: found[names[_same(t)]] for name, t in state.items() if _same(t) in names}
        module.load_state_dict({**found, **shared}, strict=True)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        told = f"these weights can't be read into the model ({_line(error)})"
        raise UserError(f"{file}: {told}") from None


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def walked(value: Any, leaf: Callable[[Any, str], Any], where: str = "") -> Any:
    """Return a state with `leaf` of each thing in it, which is also told `where` that stands."""
    if isinstance(value, Mapping):
        pairs = value.items()
        return {walked(k, leaf, where): walked(v, leaf, f"{where}, {k!r}") for k, v in pairs}
    if type(value) in (list, tuple):
        return type(value)(walked(item, leaf, where) for item in value)
    return leaf(value, where)


def _plain(found: dict[Any, tuple[Any, Tensor]], value: Any, where: str) -> Any:
    """Take a tensor out of a state: a `Size` in its place is its number in what was `found`.

    One that safetensors can't hold as it is stays as a copy, found with its original, which keeps
    the memory that tells them apart from being used again.
    Shared tensors stay shared. Raises `RunError` for what `torch.load` would refuse to read back.
    """
    import torch

    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or not value.is_contiguous() or not code(value.dtype):
            copy = value.detach().to("cpu", copy=True)
            return found.setdefault(_same(value), (value, copy))[1]
        return torch.Size(found.setdefault(_same(value), (len(found), value))[:1])
    value = value.item() if isinstance(value, np.generic) else value
    # beyond so many bits it is written in a form that isn't read
    small = type(value) is int and value.bit_length() < _BITS
    if value is None or small or type(value) in (bool, float, str):
        return value
    holds = "may hold numbers, text, tensors, lists and dicts"
    raise RunError(f"{where} holds a {type(value).__name__}; what a checkpoint keeps {holds}")


def _randomness() -> dict[str, Any]:
    """The state of every global random generator, in forms that load without unpickling."""
    import torch

    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what third parties draw from
    name, keys, at, has_gauss, gauss = legacy
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), at, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def _set_randomness(saved: Mapping[str, Any]) -> None:
    import torch

    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002 - what third parties draw from
    version, internal, gauss_next = saved["python"]
    random.setstate((version, tuple(internal), gauss_next))


def _seal(part: Path, known: Mapping[str, str]) -> None:
    """Flush every file to the disk, then write the manifest of their hashes last."""
    entries = {}
    for file in sorted(part.rglob("*")):
        _sync(file)
        if file.is_dir():
            continue
        name = str(file.relative_to(part))
        entries[name] = {"size": file.stat().st_size, "sha256": known.get(name) or digest(file)}
    (part / MANIFEST).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    _sync(part / MANIFEST)
    _sync(part)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
