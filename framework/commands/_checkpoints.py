"""Reading checkpoints: which of a run's is whole, and what becomes of those that aren't."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from framework.checkpoint import STATE, TENSORS, verify, walked
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
