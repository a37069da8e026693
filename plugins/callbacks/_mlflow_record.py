"""What a run folder holds for its run in MLflow: `mlflow.json`, and the points."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from plugins._mlflow import name

_FILE = "mlflow.json"


class Point(NamedTuple):
    """One value as MLflow takes it."""

    key: str
    value: float
    at: int
    """Milliseconds since 1970."""
    step: int


@attrs.define
class Record:
    """Which run of which store a folder is, so that a later process goes on with that run."""

    store: str = ""
    """Its URI, masked."""
    run: str = ""
    starts: list[tuple[int, float]] = attrs.field(factory=list)
    """The step that each process began at, and what its points' times count from."""
    files: dict[str, str] = attrs.field(factory=dict)
    """SHA-256 of the files as they were uploaded."""
    parent: str = ""
    """The run that it is nested under, if it is."""

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read a folder's record; one that is absent or damaged is empty: the store is asked."""
        try:
            found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            starts = [(int(step), float(time)) for step, time in found["starts"]]
            files = {str(file): str(digest) for file, digest in found["files"].items()}
            parent = str(found.get("parent", ""))
            record = cls(str(found["store"]), str(found["run"]), starts, files, parent)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            record = cls()
        record.starts = record.starts or [(0, _begun(folder))]
        return record

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        part = folder / f".{_FILE}.part"
        part.write_text(json.dumps(attrs.asdict(self), indent=1) + "\n", encoding="utf-8")
        part.replace(folder / _FILE)

    def begin(self, step: int, started: float) -> None:
        """Note that a process begins at a step; what came after that step is void."""
        self.starts = [start for start in self.starts if start[0] < step] + [(step, started)]

    def adopt(self, run: str) -> None:
        """Note which run the folder is; another one has none of its files yet."""
        if run != self.run:
            self.run, self.files = run, {}

    @property
    def resumed(self) -> int:
        """The step that the newest process went on from; 0 where it was the first."""
        return self.starts[-1][0]

    def points(self, folder: Path) -> Iterator[Point]:
        """Yield what `metrics.jsonl` holds, in its order; an undefined value is NaN."""
        file = folder / "metrics.jsonl"
        for line in file.read_bytes().splitlines() if file.is_file() else ():
            try:
                point = json.loads(line)
                before = [time for step, time in self.starts if step < point["step"]]
                found = list(values(point, before[-1] if before else self.starts[0][1]))
            except (ValueError, KeyError, TypeError):
                continue  # a line that a killed process has not ended
            yield from found


def values(point: Mapping[str, Any], started: float) -> Iterator[Point]:
    """Yield a logged point's values; `started` is what its time counts from."""
    at = int(1000 * (started + point["time"]))
    for key, value in point.items():
        if key not in ("step", "time") and (value is None or isinstance(value, (int, float))):
            number = float("nan") if value is None else float(value)
            yield Point(name(key), number, at, int(point["step"]))


def _begun(folder: Path) -> float:
    """Return when a run without a record began: its folder is named after that."""
    try:
        return dt.datetime.strptime(folder.name[:16], "%Y%m%dT%H%M%S%z").timestamp()
    except ValueError:
        return folder.stat().st_mtime
