"""`python -m tests.faults [--rounds N] [--rows 1,3,9] [--json]`, from the repository root."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import experiments, processes
from tests.faults.outcome import Outcome
from tests.faults.rows import ROWS, Row
from tests.support import environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject faults and print the table; the exit code is 0 where none failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="repetitions of what is random")
    parser.add_argument("--rows", type=_numbers, default=[], help="only these, as in 1,3,9")
    parser.add_argument("--json", action="store_true", help="print an object a line")
    options = parser.parse_args(arguments)
    variables = environment()
    os.environ.clear()
    os.environ.update(variables)
    # so that whoever is terminated ends its children
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    tempfile.tempdir = str(scratch)
    verdicts: Counter[str] = Counter()
    try:
        with pytest.MonkeyPatch.context() as patch:
            experiments.install_parts(patch, scratch / "site")
            processes.warm()
            for row in ROWS:
                if options.rows and row.number not in options.rows:
                    continue
                begun = time.monotonic()
                verdict, said = _inject(row, scratch / f"row-{row.number}", options.rounds)
                verdicts[verdict] += 1
                _print(row, verdict, said, time.monotonic() - begun, as_json=options.json)
        if not options.json:
            counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
            left = f"; what they left is in {scratch}" if verdicts["FAIL"] else ""
            print(f"{counts}{left}")  # noqa: T201 - the program's output
    finally:
        if not verdicts["FAIL"]:
            shutil.rmtree(scratch)
    return 1 if verdicts["FAIL"] else 0


def _inject(row: Row, folder: Path, rounds: int) -> tuple[str, str]:
    """Check a row in a process and a folder of its own; its verdict and figures."""
    if row.check is None:
        return "FAIL", "missing: its check is not written yet"
    folder.mkdir()
    for name in row.imports:
        importlib.import_module(name)
    limit = 300.0 + 60.0 * rounds
    try:
        found: Outcome = processes.call(row.check, folder, rounds, cwd=folder, seconds=limit)
    except (RuntimeError, TimeoutError) as error:
        (folder / "traceback.txt").write_text(str(error))
        return "FAIL", str(error).splitlines()[-1]
    return "pass" if found.passed else "FAIL", found.said


def _print(row: Row, verdict: str, said: str, seconds: float, *, as_json: bool) -> None:
    """Print a row of the table."""
    if as_json:
        told = {"row": row.number, "injection": row.injection, "said": said, "verdict": verdict}
        line = json.dumps(told | {"seconds": round(seconds, 1)})
    else:
        line = f"{row.number:>2}  {verdict:<7}  {row.injection}: {said}  ({seconds:.1f} s)"
    print(line, flush=True)  # noqa: T201 - the program's output


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    unknown = set(numbers) - {row.number for row in ROWS}
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no row {min(unknown)}")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
