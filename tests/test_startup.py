"""What it costs to start: the budgets, and the lists of what each command imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from support import ROOT, environment

PROBE = """
import json, sys, sysconfig
{before}
known = set(sys.modules)
from framework.__main__ import main
try:
    main({words!r})
except SystemExit:
    pass
site = (sysconfig.get_path("purelib"), {root!r})
new = {{name: sys.modules[name] for name in set(sys.modules) - known}}
files = {{name: getattr(module, "__file__", None) or "" for name, module in new.items()}}
found = {{name.partition(".")[0] for name, file in files.items() if file.startswith(site)}}
found -= {{name.partition(".")[0] for name in known}}
print(json.dumps(sorted(found)), file=sys.stderr)
"""
CONFIGURING = ["attr", "attrs", "cattrs", "framework", "tomli"]
IMPORTED = {
    "--help": ["attr", "attrs", "framework"],
    "--version": ["attr", "attrs", "framework"],
    "plugins": ["attr", "attrs", "framework"],
    "plugins loss --json": ["attr", "attrs", "framework"],
    "schema --help": [*CONFIGURING, "typing_extensions"],
    "new-plugin --help": ["attr", "attrs", "framework"],
}


def imported(*words: str, before: str = "") -> list[str]:
    """Return the packages outside the standard library that a command imports."""
    script = PROBE.format(before=before, words=list(words), root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    # those in hexadecimal are what a compiled package is linked with
    return [name for name in found if not re.match(r"_|[0-9a-f]{16}", name)]


@pytest.mark.parametrize("command", IMPORTED)
def test_what_a_command_imports(command: str) -> None:
    """Help and lists import what reads entry points and nothing else, no torch among it."""
    assert imported(*command.split()) == IMPORTED[command]


def test_what_validating_imports() -> None:
    """Checking the main experiment imports torch, the plugins, and nothing that is heavy."""
    found = imported("validate", "experiments/focal_bert.toml", before="import torch")
    assert found == sorted([*CONFIGURING, "filelock", "pluggy", "plugins"])
    assert "torch" in imported("validate", "experiments/focal_bert.toml")


@pytest.mark.slow
def test_the_budgets_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """`benchmarks/startup.py` prints its table, and every budget in it is kept."""
    done = subprocess.run(
        [sys.executable, "benchmarks/startup.py", "--repeat", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")  # noqa: T201 - the figures of the issue
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok\n") == 7
