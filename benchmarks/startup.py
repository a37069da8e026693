"""What it costs to start: processor time, what is imported, a crowd of plugins, and the linter.

Run it from the repository's root: `python benchmarks/startup.py`. One table; the exit code is 1
where a budget is missed. Times are processor seconds of a process of its own, the least of
`--repeat`; other work on the machine adds to wall time, less to these.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = "experiments/focal_bert.toml"
HEAVY = ("torch", "transformers", "mlflow", "optuna", "sklearn", "matplotlib", "pandas", "scipy")
KINDS = ("dataset", "model", "loss", "metric", "callback")
CLASS = '''
@attrs.frozen
class {name}:
    """The part number {name} of a synthetic package."""

    width: int = 0

    def build(self, *_: object) -> None:
        """Build nothing."""
'''
Row = tuple[str, str, str, bool]


def environment(**variables: str) -> dict[str, str]:
    """Return this environment, without what measures coverage: it would be measured too."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTHONPATH"))}
    return kept | variables


def seconds(words: list[str], repeat: int, **variables: str) -> tuple[float, float, str]:
    """Return the least processor and wall time of a Python process, and what it printed."""
    best = wall = float("inf")
    said = ""
    for _ in range(repeat):
        begun = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best, said = min(best, spent), done.stdout
        wall = min(wall, time.perf_counter() - begun)
    return best, wall, said


def imported(words: list[str]) -> list[str]:
    """Return which of the heavy packages a command imports."""
    script = (
        "import sys\n"
        "from framework.__main__ import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1].split()


def crowd(site: Path, count: int, each: int) -> None:
    """Write distributions as pip leaves them, each with a module of classes and entry points."""
    for number in range(count):
        name = f"crowd_{number}"
        about = site / f"{name}-1.{number}.dist-info"
        about.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.{number}\n"
        readme = "A synthetic package. " * 100
        (about / "METADATA").write_text(f"{head}Summary: One of a crowd.\n\n{readme}\n")
        lines = [
            f"[framework.{KINDS[part % len(KINDS)]}]\n{name}_{part} = {name}:Part{part}\n"
            for part in range(each)
        ]
        (about / "entry_points.txt").write_text("".join(lines))
        classes = "".join(CLASS.format(name=f"Part{part}") for part in range(each))
        (site / f"{name}.py").write_text(f"import attrs\n{classes}")


def commands(repeat: int) -> Iterator[Row]:
    """Measure what should be instant, and checking the main experiment."""
    for words in (["--help"], ["plugins"], ["schema", "--help"]):
        spent, _, _ = seconds(["-m", "framework", *words], repeat)
        heavy = imported(words)
        shown = f"{spent:.2f} s, imports {', '.join(heavy) or 'nothing heavy'}"
        yield " ".join(words), shown, "0.25 s, nothing heavy", spent < 0.25 and not heavy
    alone, _, _ = seconds(["-c", "import torch"], repeat)
    whole, _, _ = seconds(["-m", "framework", "validate", MAIN], repeat)
    heavy = imported(["validate", MAIN])
    shown = f"{whole - alone:.2f} s, imports {', '.join(heavy)}"
    within = whole - alone <= 0.5 and heavy == ["torch"]
    yield f"validate {MAIN}, beyond torch's {alone:.2f} s", shown, "0.5 s, torch alone", within


def listing(repeat: int, count: int, each: int) -> Iterator[Row]:
    """Measure the listing of a crowd of plugins."""
    with tempfile.TemporaryDirectory() as site:
        crowd(Path(site), count, each)
        spent, wall, said = seconds(["-m", "framework", "plugins"], repeat, PYTHONPATH=site)
    rows = sum("crowd-" in line and "synthetic package" in line for line in said.splitlines())
    shown = f"{spent:.2f} s ({wall:.2f} s by the clock), {rows} rows"
    what = f"plugins, with {count} distributions of {each} more"
    yield what, shown, "1 s, every row", spent < 1 and rows == count * each


def linter() -> Iterator[Row]:
    """Compare what a TOML linter finds by the schema with what `validate` finds."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_schema as breaks

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        breaks.write_schema(folder)
        clean = breaks.agreement(folder, breaks.GOOD) == (set(), set())
        pairs = [
            breaks.agreement(folder, breaks.GOOD.replace(*pair)) for pair in breaks.BREAKS.values()
        ]
    same = sum(bool(ours) and ours == theirs for ours, theirs in pairs)
    files = sorted((ROOT / "experiments").glob("*.toml"))
    quiet = breaks.linted(*files, cwd=ROOT / "experiments") == []
    shown = f"{same} of {len(pairs)} told at the same lines by both"
    yield "tombi lint, broken files", shown, "all", same == len(pairs)
    shown = f"{len(files) + 1 if clean and quiet else 'some'} found clean by both"
    yield f"tombi lint, {len(files) + 1} good files", shown, "all", clean and quiet


def main() -> int:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description="what it costs to start")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each process")
    repeat = parser.parse_args().repeat
    rows = [*commands(repeat), *listing(repeat, 1000, 5), *linter()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *words, within in rows:
        shown = (str(word).ljust(width) for word, width in zip(words, widths, strict=True))
        print(*shown, "ok" if within else "MISSED", sep="  ")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
