"""`new-plugin NAME --kind KIND`."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import keyword
import os
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import attrs

from framework import __version__
from framework.commands import _installed
from framework.errors import UserError
from framework.registry import KINDS, Registry

EXAMPLE = "example: python -m framework new-plugin patient-loss --kind loss"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
_TOOLS = ("pyproject", "conftest", "setup")
_PROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "{summary}"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["composable-nlp>={core}"]

[project.optional-dependencies]
test = ["pytest>=9"]

# a plugin's name in experiments, and where its options are
[project.entry-points."framework.{kind}"]
{module} = "{module}:{cls}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""
_TEST = '''\
"""The conformance kit over {cls}."""

from framework.testing import check_{kind}

from {module} import {cls}


def test_{module}_keeps_its_contract() -> None:
    """Every check of kind {kind} passes."""
    check_{kind}({cls}())
'''
_SOURCE_TEST = '''\
"""The conformance kit over {cls}."""

from pathlib import Path

from framework.testing import check_source

from {module} import {cls}


def test_{module}_keeps_its_contract(tmp_path: Path) -> None:
    """Every check of kind source passes, over a folder that might be a model."""
    (tmp_path / "experiment.toml").touch()
    check_source({cls}(), address=f"{module}:{{tmp_path}}")
'''
_README = """\
# {name}

{summary} A plugin of kind {kind} for composable-nlp.

```bash
python -m pip install -e '.[test]'
python -m pytest
python -m framework plugins {kind} {module}
python -m framework run {module}.toml
python -m framework schema schema.json
{more}```

`{module}.py` is the plugin, `test_{module}.py` holds it against its contract, and
`{module}.toml` is an experiment of two steps{data}. An editor that reads `#:schema`
(Tombi, Even Better TOML) completes it from `schema.json`, which the last command writes.
"""
_SOURCE_USE = """\
python -m framework evaluate "{module}:$(ls -d "$PWD"/runs/{name}/* | tail -1)"
"""
_DATA = " on `rows.csv`, whose sentences are **synthetic**"
_EXPERIMENT = """\
#:schema ./schema.json
# Two steps of a tiny model{data}: python -m framework run {module}.toml
name = "{name}"
{parts}
[trainer]
steps = 2
batch_size = 8
threads = 1
"""
_MODEL = """\

[model]
use = "hf_classifier"
max_length = 16

[model.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
max_position_embeddings = 16
vocab_size = 100
"""
_ANIMALS = ("cat", "dog", "owl", "hen", "fox", "cow")
_DEEDS = ("sleeps", "runs", "rests", "jumps", "dreams", "swims")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="of the package, as in patient-loss")
    parser.add_argument("--kind", required=True, metavar="KIND", help=", ".join(KINDS))


def execute(options: argparse.Namespace) -> int:
    """Write the package into a new folder of its name; it installs and passes at once."""
    package = Package(options.name, options.kind)
    folder = Path(package.name)
    package.check(folder)
    texts = package.files()
    _write(folder, texts)
    print(f"written: {', '.join(str(folder / name) for name in texts)}")
    print("next:")
    print(f"  cd {folder}")
    for command in re.findall(r"^python -m .*", texts["README.md"], re.MULTILINE):
        print(f"  {command}")
    return 0


@attrs.frozen
class Package:
    """A package of one plugin: its names, checked, and its files."""

    name: str
    kind: str

    @property
    def module(self) -> str:
        """Name of its module, and of the plugin in experiments."""
        return self.name.replace("-", "_").lower()

    @property
    def cls(self) -> str:
        """Name of its class."""
        words = re.split("[-_]", self.name)
        return "".join(word[:1].upper() + word[1:] for word in words)

    def check(self, folder: Path) -> None:
        """Raise `UserError` for a name or kind that can't be, or a name that is taken."""
        _installed.check_kind(self.kind)
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"{self.name!r} can't name a package: use letters, digits and single hyphens or"
                " underscores between them, a letter first, as in patient-loss"
            )
        unfit = self._unfit()
        if unfit:
            raise UserError(f"'{self.name}' can't name a plugin of kind {self.kind}: {unfit}")
        if os.path.lexists(folder):
            raise UserError(f"{folder}: it is there already; give another name or remove it")
        for offer in Registry().of_kind(self.kind):
            if offer.name == self.module:
                owner = f"{offer.distribution} {offer.version}"
                raise UserError(f"{self.kind} '{self.module}' is offered by {owner}: name another")
        self._check_imports()

    def _unfit(self) -> str:
        """Return why it can't name a module and a class, or nothing."""
        if {self.cls, f"Live{self.cls}", self.module} & self._words():
            return "the template uses it"
        if any(map(keyword.iskeyword, (self.module, self.cls))):
            return "it is a word of Python"
        if self.module in _TOOLS:
            return "pip or pytest would take its file for their own"
        if self.cls.startswith("Test"):
            return "pytest would take it for a test"
        return ""

    def _check_imports(self) -> None:
        """Refuse what would hide, or be hidden by, something that is installed."""
        try:
            found = importlib.util.find_spec(self.module) is not None
        except ValueError:  # a module that is loaded and has no spec
            found = True
        if found:
            raise UserError(f"a module '{self.module}' can be imported already: name another")
        try:
            taken = version(self.name)
        except PackageNotFoundError:
            return
        raise UserError(f"'{self.name}' {taken} is installed already: name another")

    def files(self) -> Mapping[str, str]:
        """Return its files, text by name."""
        source = self._template()
        renamed = re.sub(r"\b(Live)?Template\b", rf"\g<1>{self.cls}", source)
        doc = ast.get_docstring(ast.parse(source)) or ""
        reads, fetches = self.kind != "dataset", self.kind == "source"
        facts = {
            "name": self.name,
            "kind": self.kind,
            "module": self.module,
            "cls": self.cls,
            "summary": doc.splitlines()[0],
            "core": __version__,
            "data": _DATA if reads else "",
        }
        more = _SOURCE_USE.format(**facts) if fetches else ""
        test = _SOURCE_TEST if fetches else _TEST
        about = facts | {"parts": self._parts(), "data": " on synthetic sentences"}
        made = {
            "pyproject.toml": _PROJECT.format(**facts),
            "README.md": _README.format(**facts, more=more),
            f"{self.module}.py": renamed,
            f"test_{self.module}.py": test.format(**facts),
            f"{self.module}.toml": _EXPERIMENT.format(**about),
        }
        return made | ({"rows.csv": _rows()} if reads else {})

    def _template(self) -> str:
        """Return the template's text; nothing of it is imported."""
        folder = files("framework.testing.templates")
        return (folder / f"{self.kind}.py").read_text(encoding="utf-8")

    def _words(self) -> set[str]:
        """Names that the template uses, for itself or from elsewhere."""
        found: set[str] = set()
        for node in ast.walk(ast.parse(self._template())):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.alias):
                found.add(node.asname or node.name)
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(node.name)
        return found

    def _parts(self) -> str:
        """Return the parts of its experiment: the plugin, and the least of the others."""
        chosen = {"dataset": '{ use = "text", train = "./rows.csv" }', "loss": '"cross_entropy"'}
        chosen["metrics"] = '["accuracy"]'
        tables = "" if self.kind == "model" else _MODEL
        table = KINDS[self.kind].table
        if self.kind == "callback":
            tables += f"\n[callbacks.{self.module}]\n"
        elif self.kind == "metric":
            chosen["metrics"] = f'["accuracy", "{self.module}"]'
        elif table:
            chosen[table] = f'"{self.module}"'
        return "".join(f"{key} = {value}\n" for key, value in chosen.items()) + tables


def _rows() -> str:
    """Return a table of made-up sentences with labels."""
    lines = [
        f"the {animal} {deed},{'calm' if index % 2 == 0 else 'lively'}"
        for animal in _ANIMALS
        for index, deed in enumerate(_DEEDS)
    ]
    return "\n".join(["text,label", *lines]) + "\n"


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files into a new folder; what can't be finished leaves nothing behind."""
    try:
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{folder}: can't create the folder ({error.strerror})") from None
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: can't write into it ({error.strerror})") from None
