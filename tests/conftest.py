"""A Hypothesis profile, real commands, and a small experiment, for every test."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hypothesis
import pytest
import tomli
from support import ROOT, TINY, Command, environment

# beside other tests, two threads of torch are many times slower than one
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# the same examples every time, and no deadline: a busy machine is no defect
UNHURRIED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile("project", derandomize=True, **UNHURRIED)
# where .ci/run is in a hurry; `python -m pytest` by itself is the full sweep
hypothesis.settings.register_profile("short", derandomize=True, max_examples=40, **UNHURRIED)
hypothesis.settings.load_profile("short" if "CI" in os.environ else "project")


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `python -m framework …` in a process of its own that has nothing to import."""
    # for seconds otherwise, in each
    from transformers import BertForSequenceClassification  # noqa: F401

    from tests.faults import processes

    return processes.ran


@pytest.fixture(scope="session")
def fresh() -> Command:
    """Run `python -m framework …` by an interpreter of its own, as a person does."""

    def call(
        *words: str | Path, cwd: Path, env: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "framework", *map(str, words)],
            cwd=cwd,
            env=environment() | env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A file that trains a one-layer BERT for twenty steps on the shipped corpus."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("ROOT", str(ROOT)), encoding="utf-8")
    return file


@pytest.fixture(scope="session", autouse=True)
def outside_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package in tests/packages is found as if it were installed, here and in processes."""
    source = ROOT / "tests" / "packages" / "acme_parts"
    project = tomli.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = tmp_path_factory.mktemp("site")
    shutil.copy(source / "acme_parts.py", site)
    about = site / f"acme_parts-{project['version']}.dist-info"
    about.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (about / "METADATA").write_text(head, encoding="utf-8")
    lines = [
        line
        for group, offers in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in offers.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        before = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), before))))
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is cached goes where the tests' files go, not to the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """What a test does to the project's logger, as a command run in the process, ends with it."""
    logger = logging.getLogger("framework")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
