"""Finished models from a folder of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs

from framework.errors import UserError


@attrs.frozen
class Template:
    """Copies a model folder; the address is the plugin's name, a colon and an absolute path."""

    def fetch(self, address: str, folder: Path) -> Path:
        """Copy it into `folder`; `UserError` where there is no model."""
        found = Path(address.partition(":")[2])
        if not (found / "experiment.toml").is_file():
            raise UserError(f"{address}: no model is here: {found} holds no experiment.toml")
        return shutil.copytree(found, folder / "model", symlinks=True)
