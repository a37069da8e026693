"""Rows 27 and 28: distributions that are broken, and callbacks that raise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from framework.hooks import NAMES
from tests.faults.experiments import attempt, notes, ran, result
from tests.faults.outcome import Outcome
from tests.faults.processes import finished
from tests.support import install

SOUND = """\
import attrs


@attrs.frozen
class Loss:
    \"\"\"A loss.\"\"\"

    def build(self, info):
        return None
"""


@attrs.frozen
class Broken:
    """A distribution that offers a loss which can't be used, and why, as a person must be told."""

    name: str
    target: str
    source: str | None
    told: str
    """Part of the reason."""
    seen: bool = True
    """Whether it shows without an import; else `plugins --check-env` tells the reason."""

    @property
    def distribution(self) -> str:
        """Its owner."""
        return f"{self.name.replace('_', '-')}-parts"


BROKEN = (
    Broken("absent", "absent_module:Loss", None, "absent_module"),
    Broken("syntax", "syntax_module:Loss", "def def\n", "syntax"),
    Broken("nameless", "nameless_module:Los", SOUND, "Los"),
    Broken("lacking", "lacking_module:Loss", f"import not_there\n{SOUND}", "not_there"),
    Broken("classless", "classless_module", SOUND, "classless_module"),
    Broken("encoded", "encoded_module:Loss", "# coding: no-such\n" + SOUND, "encoded_module"),
    Broken("raising", "raising_module:Loss", "1 / 0\n" + SOUND, "ZeroDivisionError", seen=False),
    Broken("leaving", "leaving_module:Loss", "raise SystemExit(0)\n" + SOUND, "SystemExit", False),
    Broken("plain", "plain_module:Loss", "class Loss:\n    pass\n", "attrs", seen=False),
    Broken("typed", "typed_module:Loss", SOUND.replace("build", "bild"), "build", seen=False),
    Broken("function", "function_module:loss", "def loss():\n    pass\n", "attrs", seen=False),
)
TWICE = ("first-twin", "second-twin")


def plugins(folder: Path, rounds: int) -> Outcome:
    """Row 27: unused, a row with its reason and no harm; used, exit 2 and the distribution."""
    failures: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        site = folder / "site"
        for broken in BROKEN:
            module = broken.target.partition(":")[0]
            sources = {} if broken.source is None else {module: broken.source}
            offers = {"framework.loss": {broken.name: broken.target}}
            install(patch, site, f"{broken.distribution} 1.2.3", offers, **sources)
        for owner in TWICE:
            module = owner.replace("-", "_")
            offers = {"framework.loss": {"twin": f"{module}:Loss"}}
            install(patch, site, f"{owner} 1.0", offers, **{module: SOUND})
        # what a kind is called is misspelt: nobody asks for it, and nothing breaks
        install(patch, site, "mistyped 1.0", {"framework.los": {"x": "nowhere:X"}})
        failures += _listed(folder)
        ran(folder / "others")
        for broken in BROKEN:
            failures += _used(folder, broken.name, broken.told, f"{broken.distribution} 1.2.3")
        failures += _used(folder, "twin", "first-twin:twin", "first-twin 1.0", "second-twin 1.0")
        failures += _used(folder, "raisin", "did you mean 'raising'")
        install(patch, site, "shadow 1.0", {"framework.loss": {"focal": "shadow:Loss"}})
        failures += _used(folder, "focal", "composable-nlp:focal", "shadow 1.0")
        ran(folder / "picked", "loss=composable-nlp:focal")
    said = (
        f"{len(BROKEN)} broken plugins, 2 twins and a mistyped group: listed with reasons,"
        " others run; used: exit 2 naming the distribution, nothing written"
    )
    return Outcome.of(said, failures)


def _listed(folder: Path) -> list[str]:
    """Return what the listings don't say."""
    failures = []
    listed = finished("plugins", "--json", cwd=folder)
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (row["distribution"], row["name"]): row for row in json.loads(listed.out)
    }
    checked = finished("plugins", "--check-env", cwd=folder)
    for broken in BROKEN:
        row = rows.get((broken.distribution, broken.name))
        if row is None:
            failures.append(f"{broken.name} isn't listed")
        elif broken.seen and broken.told not in row["broken"]:
            failures.append(f"{broken.name} is listed without its reason: {row['broken']!r}")
        if checked.code != 1:
            continue  # told below, once
        lines = [line for line in checked.out.splitlines() if broken.distribution in line]
        if not any(broken.told in line for line in lines):
            failures.append(f"--check-env doesn't tell {broken.name}: {lines}")
    table = finished("plugins", cwd=folder)
    for name, ended in {"plugins": table, "plugins --json": listed}.items():
        if ended.code or "Traceback" in ended.err:
            failures.append(f"{name} ended with {ended.code}: {ended.last}")
    if checked.code != 1:
        failures.append(f"plugins --check-env ended with {checked.code}: {checked.last}")
    if not all(owner in table.out.rpartition("warning: loss 'twin'")[2] for owner in TWICE):
        failures.append("plugins doesn't warn of the twins")
    return failures


def _used(folder: Path, name: str, *told: str) -> list[str]:
    """Return what is wrong with how a run that uses a loss is refused."""
    here = folder / f"used-{name}"
    ended = attempt(here, f"loss={name}")
    wrong = [f"ended with {ended.code}"] * (ended.code != 2)
    wrong += [f"said nothing of {word!r}" for word in told if word not in ended.err]
    wrong += ["said it with a traceback"] * ("Traceback" in ended.err)
    wrong += ["wrote a run folder"] * (here / "runs").exists()
    return [f"loss '{name}' {what}: {ended.last}" for what in wrong]


def hooks(folder: Path, rounds: int) -> Outcome:
    """Row 28: the run fails, the first error is told, and every other callback is ended once."""
    failures = []
    for hook in NAMES:
        run, ended = ran(
            folder / hook,
            f"callbacks.culprit={{use='fault_raise', hook='{hook}'}}",
            "callbacks.late={use='fault_raise', hook='run_end'}",
            "callbacks.last={use='fault_watch', file='last.jsonl'}",
            code=1,
        )
        for file in ("watch.jsonl", "last.jsonl"):
            if len(notes(run, "run_end", file)) != 1:
                count = len(notes(run, "run_end", file))
                failures.append(f"{hook}: run_end of another callback came {count} times")
        found = result(run)
        told = f"callback 'culprit' (tests.faults.callbacks.Raising) failed in {hook}"
        for place, text in {"result.json": found["reason"], "the terminal": ended.last}.items():
            if told not in text:
                failures.append(f"{hook}: {place} says {text!r}")
        if found["status"] != "failed":
            failures.append(f"{hook}: the status is {found['status']}")
        shown = [line for line in ended.err.splitlines() if line.startswith("RuntimeError at ")]
        if len(shown) != 1:
            failures.append(f"{hook}: the tracebacks end with {shown}")
    said = f"{len(NAMES)} hooks: exit code 1, status failed, the culprit named, finalizers once"
    return Outcome.of(said, failures)
