"""Tensors as a file of safetensors, by way of memory that is used again for each."""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.errors import RunError

if TYPE_CHECKING:
    import torch

_PAGE = 4096
"""What must divide address and size of what is written past the page cache."""
_DIRECT = getattr(os, "O_DIRECT", 0)


class Image:
    """What such a file holds, in memory.

    Memory in use takes a copy several times faster than fresh memory does. The form is that of
    https://github.com/huggingface/safetensors: a length, a header in JSON, the bytes of all.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._bytes, self._size = mmap.mmap(-1, _PAGE), 0

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy tensors into it, from any device; they may change afterwards.

        Raises `RunError` for a type that the form doesn't know.
        """
        import torch

        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        # the widest first, so that each begins at a multiple of its width
        for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
            tensor, begin = tensors[name], end
            if not code(tensor.dtype):
                raise RunError(f"{name} is of {tensor.dtype}, which no checkpoint can keep")
            end += tensor.nbytes
            header[name] = {"dtype": code(tensor.dtype), "shape": list(tensor.shape)}
            header[name]["data_offsets"] = [begin, end]
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        start = 8 + len(text)
        self._size = start + end
        if len(self._bytes) < self._size:
            self._bytes = mmap.mmap(-1, self._size)
        self._bytes[:start] = len(text).to_bytes(8, "little") + text
        for name, tensor in tensors.items():
            if count := tensor.numel():
                at = start + header[name]["data_offsets"][0]
                place = torch.frombuffer(self._bytes, dtype=tensor.dtype, count=count, offset=at)
                place.view(tensor.shape).copy_(tensor.detach())

    def write(self, path: Path) -> str:
        """Write it as a new file; its SHA-256.

        A checkpoint is hardly ever read again, and in the page cache it would take the place of
        what training reads; filling fresh pages of that also costs more than all else here. So
        the system is asked to write past it, where the file system can.
        """
        path.touch(mode=0o666, exist_ok=False)
        data = memoryview(self._bytes)[: self._size]
        whole = self._size // _PAGE * _PAGE
        try:
            _append(path, data[:whole], _DIRECT)
        except OSError:
            os.truncate(path, 0)
            whole = 0
        _append(path, data[whole:])
        return hashlib.sha256(data).hexdigest()


@functools.cache
def code(dtype: torch.dtype) -> str:
    """Return what safetensors calls a type; nothing if it doesn't know it."""
    import safetensors.torch
    import torch

    try:
        header = safetensors.torch.save({"": torch.empty(0, dtype=dtype)})[8:]
    except (KeyError, RuntimeError, safetensors.SafetensorError):
        return ""
    return str(json.loads(header)[""]["dtype"])


def _append(path: Path, data: memoryview, flags: int = 0) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | flags), "ab", buffering=0) as stream:
        while data:
            data = data[stream.write(data) :]
