"""How the checks copy, compare and cut values that may hold tensors, and seed what is random."""

from __future__ import annotations

import copy
import hashlib
import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch


def frozen_copy(value: Any) -> Any:
    """Return a deep copy in which tensors are detached, to compare with later."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: frozen_copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(frozen_copy(item) for item in value)
    return copy.deepcopy(value)


def equal(one: Any, other: Any) -> bool:
    """Compare values that may hold tensors, bit for bit; NaN equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and bool(np.array_equal(one, other, equal_nan=True))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and bool(torch.equal(one.nan_to_num(), other.nan_to_num()))
            and bool(torch.equal(one.isnan(), other.isnan()))
        )
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)  # noqa: PLR0124 - NaN
    return bool(one == other)


def digest(value: Any) -> bytes:
    """Return a digest of a value of JSON, tensors and arrays: equal values have the same."""
    found = hashlib.blake2b(digest_size=16)
    _feed(found, value)
    return found.digest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        _feed(found, [str(value.dtype), value.tolist()])
    elif isinstance(value, np.ndarray):
        _feed(found, [str(value.dtype), value.tolist()])
    elif isinstance(value, Mapping):
        found.update(f"{{{len(value)}".encode())
        for key in sorted(value, key=repr):
            _feed(found, key)
            _feed(found, value[key])
    elif isinstance(value, (list, tuple)):
        found.update(f"[{len(value)}".encode())
        for item in value:
            _feed(found, item)
    elif value is None or isinstance(value, (str, bytes, bool, int, float, Path)):
        text = repr(value).encode()
        found.update(f"{len(text)}:".encode() + text)
    else:
        found.update(pickle.dumps(value))


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Compare tensors to a tolerance, relative to the larger of 1 and the values."""
    scale = max(1.0, float(other.detach().abs().max()) if other.numel() else 1.0)
    return bool(torch.allclose(one.double(), other.double(), rtol=0.0, atol=tolerance * scale))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators in this context, and put them back as they were."""
    of_python = random.getstate()
    of_numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what third parties draw from
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - likewise
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002 - likewise


def items(values: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the chosen items of a batch or of outputs: of tensors' first dimension, of lists.

    A tensor without dimensions belongs to no item and is left as it is.
    """
    index = torch.tensor(list(chosen), dtype=torch.int64)
    return {
        key: (value[index] if value.ndim else value)
        if isinstance(value, torch.Tensor)
        else [value[i] for i in chosen]
        for key, value in values.items()
    }
