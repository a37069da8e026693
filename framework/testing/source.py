"""The suite of kind source."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from framework.errors import UserError, listing
from framework.protocols import Source
from framework.testing.suite import Report, Skip, Suite, require, require_takes

MODEL = "experiment.toml"


@attrs.frozen(kw_only=True)
class SourceCase:
    """A source with addresses that it must refuse, and one that it can fetch."""

    options: Any
    addresses: Sequence[str] = ("scheme:/nonsense",)
    address: str = ""
    seconds: float = 5.0
    """Within which a refusal must come."""

    @property
    def source(self) -> Source:
        """The source: its options are the live object."""
        source: Source = self.options
        return source

    def good(self) -> str:
        """Return the good address; skip the check without one."""
        if not self.address:
            raise Skip("give an address that it can fetch, as address=…")
        return self.address


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name).resolve()


def _refusal(case: SourceCase, address: str, folder: Path) -> BaseException | None:
    """Return what fetching a bad address raises."""
    try:
        case.source.fetch(address, folder)
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return error
    return None


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def has_the_protocol(case: SourceCase) -> None:
    """It has `fetch(address, folder)`."""
    require_takes(case.source.fetch, "fetch", "address", "folder")


def bad_addresses_are_refused(case: SourceCase) -> None:
    """An address that it can't read is a `UserError`."""
    for address in case.addresses:
        with _folder() as folder:
            error = _refusal(case, address, folder)
        require(error, f"it raises nothing for the address '{address}'")
        kind = type(error).__name__
        require(isinstance(error, UserError), f"'{address}' is a {kind}; raise UserError: {error}")


def refusals_name_the_address(case: SourceCase) -> None:
    """What it says of a bad address is one line, with the address in it."""
    for address in case.addresses:
        with _folder() as folder:
            text = str(_refusal(case, address, folder))
        lines = text.splitlines()
        require(len(lines) == 1, f"it says {len(lines)} lines of the address '{address}', not one")
        require(address in text, f"it says '{text}', and not the address '{address}'")


def refusals_are_quick(case: SourceCase) -> None:
    """A bad address is refused within seconds: a person waits for it."""
    for address in case.addresses:
        with _folder() as folder:
            start = time.monotonic()
            _refusal(case, address, folder)
            taken = time.monotonic() - start
        require(
            taken <= case.seconds,
            f"it takes {taken:.1f} s to refuse '{address}', and may take {case.seconds:g} s",
        )


def refusals_leave_nothing(case: SourceCase) -> None:
    """A bad address leaves nothing in the folder."""
    for address in case.addresses:
        with _folder() as folder:
            _refusal(case, address, folder)
            left = _files(folder)
        require(not left, f"refusing '{address}' leaves {listing(left)} in the folder")


def fetches_into_the_folder(case: SourceCase) -> None:
    """A good address gives a folder, inside the one that was given, with `experiment.toml`."""
    address = case.good()
    with _folder() as folder:
        found = case.source.fetch(address, folder)
        require(isinstance(found, Path), f"fetch returns a {type(found).__name__}, no Path")
        inside = found.resolve().is_relative_to(folder)
        require(inside, f"fetch returns {found}, which is not inside the folder it was given")
        there = _files(folder)
        require((found / MODEL).is_file(), f"no {MODEL} in what it returns; there are {there}")


def fetches_the_same_again(case: SourceCase) -> None:
    """A good address gives the same files a second time, in another folder."""
    address = case.good()
    found: list[dict[str, bytes]] = []
    for _ in range(2):
        with _folder() as folder:
            case.source.fetch(address, folder)
            # of the given folder: what it returns may be anywhere
            files = {name: folder / name for name in _files(folder)}
            found.append({name: p.read_bytes() for name, p in files.items() if p.is_file()})
    one, other = found
    changed = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    require(not changed, f"{listing(changed)} of '{address}' are other files the second time")


SUITE = Suite(
    "source",
    SourceCase,
    (
        has_the_protocol,
        bad_addresses_are_refused,
        refusals_name_the_address,
        refusals_are_quick,
        refusals_leave_nothing,
        fetches_into_the_folder,
        fetches_the_same_again,
    ),
    method="fetch",
)


def check_source(
    options: Any,
    *,
    addresses: Sequence[str] | None = None,
    address: str | None = None,
    seconds: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a source against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MySource()`.
        addresses: Addresses that it must refuse; by default one of nonsense.
        address: One that it can fetch; without it the checks of fetching are skipped.
        seconds: Within which a bad address must be refused; by default 5.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(
        options, expected_failures, addresses=addresses, address=address, seconds=seconds
    )
