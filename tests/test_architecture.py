"""The hard lines of the code: who imports whom, how long the loop is, what the core may name."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from support import ROOT

from framework.registry import KINDS
from framework.trainer import Trainer

CORE = [
    file
    for file in sorted((ROOT / "framework").rglob("*.py"))
    if not {"commands", "testing"} & set(file.relative_to(ROOT).parts)
]
BUDGET = 2000


def _tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def _code_lines(file: Path) -> int:
    """Lines of code: no blank ones, comments or docstrings."""
    text = file.read_text(encoding="utf-8")
    silent: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            silent |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in silent
    )


def test_the_core_keeps_its_budget() -> None:
    """The core, without commands and the kit, has fewer than 2,000 lines of code."""
    assert sum(map(_code_lines, CORE)) < BUDGET


def test_the_loop_fits_a_screen() -> None:
    """`fit` has at most 60 lines, and the trainer's file about 160."""
    assert len(inspect.getsource(Trainer.fit).splitlines()) <= 60
    assert len((ROOT / "framework" / "trainer.py").read_text().splitlines()) <= 170


def test_the_core_names_no_plugin() -> None:
    """No string of the core is a plugin's name; `defaults.toml` is the one place for them."""
    names = {
        entry.name
        for entry in distribution("composable-nlp").entry_points
        # checks are named after what they look at, and by no experiment
        if entry.group.startswith("framework.") and entry.group != "framework.check"
    }
    # kinds, a module of the core, and a type of values in error messages
    names -= {*KINDS, "checkpoint", "text"}
    found = [
        f"{file.name}:{node.lineno} {node.value!r}"
        for file in CORE
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []


def test_the_core_knows_no_task() -> None:
    """The core imports no library of a task and never speaks of tokenizers or classes' labels."""
    for file in CORE:
        # in the table of kinds it is a name among others
        text = file.read_text(encoding="utf-8").replace(" tokenizer=build ", "")
        for word in (
            "tokenizer",
            "transformers",
            "sklearn",
            "mlflow",
            "optuna",
            "redsm5",
            "logits",
        ):
            assert word not in text.lower(), f"{file}: {word}"


def test_no_first_party_import_stands_in_a_function() -> None:
    """Every import of ours stands at the top of its module."""
    for file in [*(ROOT / "framework").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                ours = [n for n in names if n.split(".")[0] in ("framework", "plugins")]
                assert not ours, f"{file}:{node.lineno}"


def test_no_plugin_subclasses_another() -> None:
    """No class of a plugin inherits from a class of ours."""
    for file in (ROOT / "plugins").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plugins")
            for alias in node.names
        } | {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases & ours, f"{file}: {node.name}"


def test_import_directions_hold() -> None:
    """The import contracts of pyproject.toml are kept, without exceptions."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "ignore_imports" not in text
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "words",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["lint and docstrings", "format", "types"],
)
def test_the_checkers_have_nothing_to_say(words: tuple[str, ...]) -> None:
    """Ruff's rules, docstrings among them, its format at 100 columns, and mypy --strict pass."""
    done = _tool(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_left_to_do() -> None:
    """No source file holds a note of unfinished work."""
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    for folder in ("framework", "plugins", "tests", "data", "experiments", "benchmarks"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".toml", ".md"):
                text = file.read_text(encoding="utf-8")
                assert not [mark for mark in marks if mark in text], file
