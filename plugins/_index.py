"""The index of a retriever's run: ids of documents and their Gaussians in one file, no text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from framework.errors import UserError
from plugins._gaussian import Gaussians

if TYPE_CHECKING:
    from torch import nn

NAME = "index.safetensors"
"""Its file in a run's folder."""


@attrs.frozen(eq=False)
class Index:
    """Documents as a model embeds them."""

    names: Sequence[str]
    documents: Gaussians
    weights: str
    """The fingerprint of that model."""

    def write(self, file: Path) -> None:
        """Write it, whole or not at all."""
        from safetensors.torch import save_file

        part = file.with_name(f".{file.name}.part")
        tensors = {name: x.contiguous() for name, x in self.documents._asdict().items()}
        # of several keys the order would be another every time
        facts = json.dumps({"names": self.names, "weights": self.weights})
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
            found = Gaussians(*(stream.get_tensor(name) for name in Gaussians._fields))
        return Index(facts["names"], found, facts["weights"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file}: no whole index ({type(error).__name__}); write it again"
        ) from None


def fingerprint(module: nn.Module) -> str:
    """Return a hash of a module's weights."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
    return found.hexdigest()
