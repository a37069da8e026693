"""Datasets that are wrong about what they offer beside records."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from broken import Defect
from broken.dataset import RIGHT, live
from framework.protocols import Info


class Readable:
    """It is right."""

    def build(self, _: int) -> Any:
        """Build it."""
        return live()

    def read(self, file: Path, info: Info) -> Any:
        """Read nothing."""
        return []


class NoRead:
    """It can't be used to predict."""

    def build(self, _: int) -> Any:
        """Build it."""
        return live()


class ReadsFileOnly(Readable):
    """It takes a file, and not what the dataset said of itself."""

    def read(self, file: Path) -> Any:  # type: ignore[override]
        """Read nothing."""
        return []


class ChecksAFile(Readable):
    """Its check wants to be told what to check."""

    def check(self, file: Path) -> None:
        """Check."""


class OtherManifest(Readable):
    """Its manifest is another in each build."""

    builds = itertools.count()

    def build(self, _: int) -> Any:
        """Build it."""
        return live(manifest={**RIGHT, "spare": [f"spare{next(self.builds)}"]})


DEFECTS = [
    Defect("unlabelled_files_can_be_read", NoRead(), "NoRead has no method read(file, info)"),
    Defect("unlabelled_files_can_be_read", ReadsFileOnly(), "can't be called as read(file, info)"),
    Defect("check_finds_no_fault", ChecksAFile(), "can't be called as check()"),
    Defect("same_seed_same_splits", OtherManifest(), "the manifest differs when built again"),
]
