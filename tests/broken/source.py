"""Sources that are wrong on purpose."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from broken import Defect
from framework.errors import UserError

GOOD = "scheme:/model"


class Right:
    """A right source of one model; subclasses break a piece each."""

    def fetch(self, address: str, folder: Path) -> Any:
        """Write the model into a folder, or refuse the address."""
        if address != GOOD:
            raise self.refusal(address, folder)
        made = folder / "model"
        made.mkdir()
        (made / "experiment.toml").write_text("name = 'x'\n", encoding="utf-8")
        return made

    def refusal(self, address: str, _: Path) -> Exception:
        """Return the error of a bad address."""
        return UserError(f"{address}: there is no such model; the only one is {GOOD}")


class NoFetch:
    """It fetches nothing."""


class KeyErrors(Right):
    """A bad address is an error of a table inside."""

    def refusal(self, address: str, _: Path) -> Exception:
        """Return an error of Python's."""
        return KeyError(address)


class TakesAnything:
    """It returns a folder for every address."""

    def fetch(self, _: str, folder: Path) -> Path:
        """Return it."""
        return folder


class TwoLines(Right):
    """It says how it came about, on more lines."""

    def refusal(self, address: str, _: Path) -> Exception:
        """Return the error."""
        return UserError(f"{address}: there is no such model\nin the store")


class NamesNothing(Right):
    """It doesn't say which address was wrong."""

    def refusal(self, _address: str, _: Path) -> Exception:
        """Return the error."""
        return UserError("there is no such model")


class Slow(Right):
    """It tries again for a while."""

    def refusal(self, address: str, folder: Path) -> Exception:
        """Wait."""
        time.sleep(0.05)
        return super().refusal(address, folder)


class LeavesAFile(Right):
    """It begins to write before it knows whether there is a model."""

    def refusal(self, address: str, folder: Path) -> Exception:
        """Write."""
        (folder / "model.part").write_bytes(b"")
        return super().refusal(address, folder)


class TextPath(Right):
    """It returns the folder as text."""

    def fetch(self, address: str, folder: Path) -> Any:
        """Fetch it."""
        return str(super().fetch(address, folder))


class Elsewhere(Right):
    """It returns a folder of its own, a cache say."""

    def fetch(self, address: str, folder: Path) -> Any:
        """Fetch it."""
        super().fetch(address, folder)
        return folder.parent


class FolderAbove(Right):
    """It returns the folder above the model's."""

    def fetch(self, address: str, folder: Path) -> Any:
        """Fetch it."""
        return super().fetch(address, folder).parent


class OtherEachTime(Right):
    """It writes when it was fetched."""

    def __init__(self) -> None:
        """Count what was fetched."""
        self.fetched = itertools.count()

    def fetch(self, address: str, folder: Path) -> Any:
        """Fetch it."""
        made = super().fetch(address, folder)
        (made / "info.json").write_text(str(next(self.fetched)), encoding="utf-8")
        return made


class AddressOnly(Right):
    """It takes no folder."""

    def fetch(self, address: str) -> Any:
        """Fetch it somewhere."""
        return Path(address)


FETCHED = {"address": GOOD}
DEFECTS = [
    Defect("has_the_protocol", NoFetch(), "lacks fetch"),
    Defect("has_the_protocol", AddressOnly(), "can't be called as fetch(address, folder)"),
    Defect("bad_addresses_are_refused", KeyErrors(), "is a KeyError; raise UserError"),
    Defect("bad_addresses_are_refused", TakesAnything(), "it raises nothing for the address"),
    Defect("refusals_name_the_address", TwoLines(), "it says 2 lines"),
    Defect("refusals_name_the_address", NamesNothing(), "and not the address 'scheme:/nonsense'"),
    Defect("refusals_are_quick", Slow(), "s to refuse 'scheme:/nonsense'", {"seconds": 0.01}),
    Defect("refusals_leave_nothing", LeavesAFile(), "leaves 'model.part' in the folder"),
    Defect("fetches_into_the_folder", TextPath(), "fetch returns a str, no Path", FETCHED),
    Defect("fetches_into_the_folder", Elsewhere(), "which is not inside the folder", FETCHED),
    Defect("fetches_into_the_folder", FolderAbove(), "no experiment.toml in what it", FETCHED),
    Defect("fetches_the_same_again", OtherEachTime(), "model/info.json' of", FETCHED),
]
