"""The conformance kit: it catches every planted defect and passes every built-in."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys

import attrs
import broken
import pytest
from broken import Defect
from support import ROOT, environment

from framework.registry import KINDS
from framework.testing.suite import ConformanceError, Suite

KITS = {kind: importlib.import_module(f"framework.testing.{kind}").SUITE for kind in KINDS}
MODULES = [module.name for module in pkgutil.iter_modules(broken.__path__)]
PLANTED = [
    (kind, defect)
    for kind in KINDS
    for name in MODULES
    if name == kind or name.startswith(f"{kind}_")
    for defect in importlib.import_module(f"broken.{name}").DEFECTS
]


@pytest.mark.parametrize(("kind", "defect"), PLANTED, ids=str)
def test_a_planted_defect_is_caught(kind: str, defect: Defect) -> None:
    """The check that is meant to catch a defect does, in words that say what is wrong."""
    suite: Suite = KITS[kind]
    if "CI" in os.environ:  # where it's urgent the others aren't run, but for the first
        first, *others = suite.checks
        meant = [check for check in others if check.__name__ == defect.check]
        suite = attrs.evolve(suite, checks=[first, *meant])
    with pytest.raises(ConformanceError) as caught:
        suite.run(defect.options, **defect.given)
    reasons = {o.check: o.reason for o in caught.value.report.failures}
    assert defect.check in reasons
    assert defect.words in reasons[defect.check]


def test_every_check_has_a_planted_defect(capsys: pytest.CaptureFixture[str]) -> None:
    """For each check of each kind there is a broken plugin that it catches; the list is printed."""
    checks = {(kind, check.__name__) for kind, suite in KITS.items() for check in suite.checks}
    planted = {(kind, defect.check) for kind, defect in PLANTED}
    with capsys.disabled():
        print(f"\nkit: {len(PLANTED)} planted defects for {len(checks)} checks")  # noqa: T201
    assert planted == checks


@pytest.mark.slow
def test_every_built_in_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """`pytest --framework-plugin composable-nlp` finds nothing wrong; what it says is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--framework-plugin", "composable-nlp", "-rs"],
        cwd=ROOT / "tests" / "built_ins",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (summary,) = re.findall(r"^(\d+ passed.*) in ", done.stdout, re.MULTILINE)
    skipped = re.findall(r"^SKIPPED \[(\d+)\] \S+ (.*)$", done.stdout, re.MULTILINE)
    with capsys.disabled():
        print(f"\nkit: built-ins: {summary}")  # noqa: T201 - the figure of the issue
        for count, reason in skipped:
            print(f"  {count} skipped: {reason}")  # noqa: T201 - likewise
    # nobody's suite is left out for want of options
    assert "pytest_framework_case" not in done.stdout
