"""Reading checkpoints: which of a run's is whole, and what becomes of those that aren't."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from framework.checkpoint import MANIFEST, STATE, TENSORS, digest, walked
from framework.errors import UserError

_log = logging.getLogger("framework")


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest checkpoint that is whole, with its best one; None where there is none.

    Newer ones are said and set aside, so that their steps can be written again.
    """
    # a person may have put a copy beside them, `step-12.bak`
    steps = [path for path in root.glob("step-*") if path.name[5:].isdecimal()]
    steps.sort(key=lambda path: -int(path.name[5:]))
    found = None
    for folder in steps:
        try:
            saved = read(folder)
            if (best := root / f"step-{saved['best']}") != folder:
                verify(best)
        except UserError as error:
            _log.warning("%s; %s is set aside, taking the one before", error, folder.name)
        else:
            found = folder, saved
            break
    try:
        for path in root.glob(".step-*.part"):
            shutil.rmtree(path)
        for path in steps[: steps.index(found[0]) if found else None]:
            shutil.rmtree(aside := root / f"unused-{path.name}", ignore_errors=True)
            path.rename(aside)
        for path in [path for path in root.glob("*") if path.is_symlink() and not path.exists()]:
            path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or root}: can't be changed ({error.strerror})") from None
    return found


def verify(folder: Path, inside: str = "") -> None:
    """Raise `UserError` unless the files of the manifest, and no others, are there unchanged.

    Of those `inside` a folder of it alone, where it is given.
    """
    manifest = folder / MANIFEST
    if manifest.is_symlink() or not manifest.exists():
        raise UserError(f"{folder}: no checkpoint is here, or it was never finished")
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
        wanted = {name: (entry["size"], entry["sha256"]) for name, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{manifest}: unreadable; this checkpoint is damaged") from None
    paths = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    there = {str(path.relative_to(folder)): path for path in paths if path != manifest}
    for name in {**wanted, **there}:
        reason = name.startswith(inside) and _wrong(name, there.get(name), wanted.get(name))
        if reason:
            raise UserError(f"{folder}: damaged, {name}: {reason}")


def _wrong(name: str, path: Path | None, entry: tuple[int, str] | None) -> str:
    """Say what is wrong with one file of a checkpoint, or nothing; a link isn't followed."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return "leads out of the checkpoint"
    if path is None or path.is_symlink() or entry is None:
        return "missing" if path is None else "a link, or unknown to its manifest"
    size, sha256 = entry
    try:
        same = path.stat().st_size == size and digest(path) == sha256
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return "" if same else "its bytes changed"


def read(folder: Path) -> dict[str, Any]:
    """Verify a checkpoint and read its states; `UserError` where it is damaged or a pickle."""
    import safetensors.torch
    import torch

    verify(folder)
    try:
        # in memory of their own: the file may be deleted while they are in use
        tensors = {k: v.clone() for k, v in safetensors.torch.load_file(folder / TENSORS).items()}

        def put(value: Any, _: str) -> Any:
            return tensors[str(value[0])] if isinstance(value, torch.Size) else value

        saved = walked(torch.load(folder / STATE, weights_only=True), put)
        best = saved["counters"]["best"] or saved["counters"]
        return {**saved, "best": int(best["step"])}
    except Exception as error:
        reason = f"refused, it is nothing that a run wrote ({type(error).__name__})"
        raise UserError(f"{folder / STATE}: {reason}") from error
