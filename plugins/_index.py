"""The index of a retriever's run: ids of documents and their Gaussians in one file, no text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from framework.errors import UserError
from plugins._gaussian import Gaussians

if TYPE_CHECKING:
    from torch import Tensor

NAME = "index.safetensors"
"""Its file in a run's folder."""
_NAMES = "names"


@attrs.frozen(eq=False)
class Index:
    """Documents as a model embeds them."""

    names: Sequence[str]
    documents: Gaussians
    weights: str
    """The fingerprint of that model: what it embeds with."""

    def write(self, file: Path) -> None:
        """Write it, whole or not at all."""
        import numpy as np
        import torch
        from safetensors.torch import save_file

        part = file.with_name(f".{file.name}.part")
        tensors = {name: x.contiguous() for name, x in self.documents._asdict().items()}
        # the format's header has a limit, which many ids would pass
        listed = np.frombuffer(json.dumps([*self.names]).encode(), np.uint8)
        tensors[_NAMES] = torch.from_numpy(listed.copy())
        # of several keys the order would be another every time
        facts = json.dumps({"weights": self.weights, "digest": _digest(tensors)})
        save_file(tensors, part, {"facts": facts})
        os.replace(part, file)  # noqa: PTH105 - it is the one that replaces everywhere


def read(file: Path) -> Index:
    """Read an index; `UserError` where there is none, or one that is damaged."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(
            f"{file}: there is no index; a run with the callback 'index' writes it when it is done"
        )
    try:
        with safe_open(file, framework="pt") as stream:
            facts = json.loads(stream.metadata()["facts"])
            tensors = {name: stream.get_tensor(name) for name in (*Gaussians._fields, _NAMES)}
        whole = facts["digest"] == _digest(tensors)
        names = json.loads(tensors.pop(_NAMES).numpy().tobytes()) if whole else []
        found = Index(names, Gaussians(**tensors), facts["weights"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file}: no whole index ({type(error).__name__}); write it again"
        ) from None
    if not whole:
        raise UserError(f"{file}: no whole index (its digest is another); write it again")
    return found


def fingerprint(model: Any) -> str:
    """Return a hash of a live model's weights and of how it embeds, its `embeds`."""
    return _digest(model.module.state_dict(), str(getattr(model, "embeds", "")))


def _digest(tensors: Mapping[str, Tensor], first: str = "") -> str:
    found = hashlib.blake2b(first.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
    return found.hexdigest()
