"""Tensors on their way into a file: as they were, readable by the library, on any file system."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import RunError
from framework.image import Image, code

TYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3)
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter("__metadata__".__ne__),
    st.builds(
        lambda shape, dtype, seed: torch.randint(
            0, 2, shape, generator=torch.Generator().manual_seed(seed)
        ).to(dtype),
        SHAPES,
        st.sampled_from(TYPES),
        st.integers(0, 9),
    ),
    max_size=5,
)


def same(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Hold what the library reads of a file against what went into it."""
    found = safetensors.torch.load_file(file)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@given(st.lists(TENSORS, min_size=1, max_size=3))
def test_the_library_reads_what_was_filled_in(several: list[dict[str, torch.Tensor]]) -> None:
    """However often it is filled, with whatever, the file holds the last, and the hash is its."""
    image = Image()
    with tempfile.TemporaryDirectory() as folder:
        for at, tensors in enumerate(several):
            image.fill(tensors)
            file = Path(folder, str(at))
            sha256 = image.write(file)
            same(tensors, file)
            assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_was_filled_in_may_change_afterwards(tmp_path: Path) -> None:
    """Training goes on while it is written."""
    weight = torch.nn.Parameter(torch.ones(1000))
    image = Image()
    image.fill({"weight": weight, "across": weight.view(10, 100).T})
    with torch.no_grad():
        weight.zero_()
    image.write(tmp_path / "x")
    same({"weight": torch.ones(1000), "across": torch.ones(100, 10)}, tmp_path / "x")


def test_a_type_that_the_form_lacks_is_refused() -> None:
    """Nothing is written that couldn't be read."""
    assert (code(torch.float32), code(torch.complex128)) == ("F32", "")
    with pytest.raises(RunError, match=r"^x is of torch\.complex128, which no checkpoint can keep"):
        Image().fill({"x": torch.zeros(1, dtype=torch.complex128)})


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no way past its cache")
@pytest.mark.parametrize("refused", ["open", "write", ""])
def test_a_file_system_may_have_no_way_past_the_cache(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it refuses to open or to write past its cache, the file is written as any other."""
    tensors = {"x": torch.randn(50_001)}
    image = Image()
    image.fill(tensors)
    real = {"open": os.open, "write": os.write}
    direct: dict[int, bool] = {}

    def opened(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and refused == "open":
            raise OSError(errno.EINVAL, "Invalid argument")
        handle = int(real["open"](path, flags, mode))
        direct[handle] = bool(flags & os.O_DIRECT)
        return handle

    def written(handle: int, data: memoryview) -> int:
        if direct[handle] and refused == "write":
            if len(data) < 48 * 4096:
                raise OSError(errno.EINVAL, "Invalid argument")
            data = data[:4096]  # a part is there when it refuses the rest
        return int(real["write"](handle, data))

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", written)
    image.write(tmp_path / "x")
    monkeypatch.undo()
    same(tensors, tmp_path / "x")
    assert not (tmp_path / "x").stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def test_an_error_of_the_disk_is_raised(tmp_path: Path) -> None:
    """What the disk refuses is no matter of the cache, and comes through."""
    image = Image()
    image.fill({"x": torch.zeros(50_000)})
    with pytest.raises(OSError, match="No such file"):
        image.write(tmp_path / "nowhere" / "x")
