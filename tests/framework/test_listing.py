"""`plugins`: what is installed and what of it is broken, without importing it; then with."""

from __future__ import annotations

import importlib
import json
import py_compile
import sys
import zipfile
from pathlib import Path

import pytest
from support import install

from framework.__main__ import main

Capture = pytest.CaptureFixture[str]
CLASS = '''
import attrs

@attrs.frozen
class Good:
    """Sums what is there.

    More words.
    """

    def build(self, info):
        return None
'''
BROKEN = {
    "gone": ("no_such_module:Loss", "there is no module 'no_such_module'"),
    "nameless": ("of_crowd:Missing", "of_crowd.py has no 'Missing'"),
    "needy": ("of_needy:Loss", "of_needy.py imports 'not_installed_here', which is not installed"),
    "unreadable": ("of crowd", "its entry point 'of crowd' is not 'module:class'"),
    "classless": ("of_crowd", "its entry point 'of_crowd' is not 'module:class'"),
    "second": ("of_second:Good", "of_second.py imports 'not_there', which is not installed"),
    "torn": (
        "of_torn:Good",
        "of_torn.py can't be parsed: '(' was never closed (of_torn.py, line 1)",
    ),
}
HEAD, TAIL = CLASS.split("class Good:\n", 1)
WORKING = {
    "of_prose": '"""Forgives noise\nfrom wrong labels, and\nimport duties.\n"""\n' + CLASS,
    "of_several": f"import os, sys\n{CLASS}",
    "of_wide": f"{HEAD}class Good(\n    object,\n):\n{TAIL}",
    "of_remark": f"{HEAD}class Good:  # noqa: D\n    # a remark\n{TAIL}",
    "of_brackets": HEAD
    + 'class Good:\n    ("Sums what "\n     "is there.")\n    def build(self, info): ...\n',
    "of_quotes": HEAD
    + "class Good:\n    'Sums what is\\x20there.'\n    def build(self, info): ...\n",
    "of_older": f"OLD = '''\nclass Good:\n    \"\"\"Old words.\"\"\"\n'''\n{CLASS}",
    "of_branch": f"try:\n    import not_there\nexcept ImportError:\n    pass\n{CLASS}",
    "of_path": f"import sys\nsys.path.append(PLACE)\nimport of_placed\n{CLASS}",
}
"""Modules with the class Good, which can be imported, and whose source has its first line."""
INDIRECT = {
    "of_star": "from of_prose import *\n",
    "of_lazy": "import of_prose\n\ndef __getattr__(name):\n"
    "    return getattr(of_prose, 'Go' + 'od')\n",
    "of_filled": "import of_prose\nglobals().update(vars(of_prose))\n",
}
"""Modules that come by the class in a way that their source doesn't show."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions: a good loss, and one for each way of being broken."""
    folder = tmp_path / "site"
    losses = {name: target for name, (target, _) in BROKEN.items()}
    losses |= {"good": "of_crowd:Good", "raising": "of_raising:Loss", "bare": "of_bare:Loss"}
    install(
        monkeypatch,
        folder,
        "crowd-parts 1.5",
        {"framework.loss": losses},
        of_crowd=CLASS,
        of_needy="import os\nfrom not_installed_here import Loss\n",
        of_raising="class Loss:\n    '''Says nothing.'''\n\nraise SystemError('at import')\n",
        of_bare="Loss = 3\n",
        of_second=f"import os, not_there\n{CLASS}",
        of_torn=f"WIDTH = (1,\nimport os, not_there\n{CLASS}",
    )
    return folder


def rows(capsys: Capture, *words: str) -> dict[str, dict[str, str]]:
    """Return the rows of the crowd, by name."""
    assert main(["plugins", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {row["name"]: row for row in found if row["distribution"] == "crowd-parts"}


def test_a_summary_is_the_classes_first_line(site: Path, capsys: Capture) -> None:
    """Each plugin has a line of what it is, read from its source without importing it."""
    found = rows(capsys, "loss")
    assert found["good"]["summary"] == "Sums what is there."
    assert found["raising"]["summary"] == "Says nothing."
    assert not [name for name in sys.modules if name.startswith("of_")]


def test_a_broken_plugin_is_a_row_with_its_reason(site: Path, capsys: Capture) -> None:
    """What can be seen from outside is told in the plugin's row; the others are listed as ever."""
    found = rows(capsys)
    assert {name: found[name]["broken"] for name in BROKEN} == {
        name: reason for name, (_, reason) in BROKEN.items()
    }
    assert found["good"]["broken"] == ""
    assert main(["plugins", "loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " gone " in line]
    assert line.split() == [
        *("loss", "gone", "crowd-parts", "1.5"),
        *["broken:", "there", "is", "no", "module", "'no_such_module'"],
    ]
    assert [line.split()[1] for line in lines if "focal" in line] == ["focal"]


def test_a_summary_of_a_class_without_words_is_its_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A class that says nothing of itself is told by its distribution's summary."""
    source = "import attrs\n\n@attrs.frozen\nclass Mute:\n    def build(self, info): ...\n"
    offers = {"framework.loss": {"mute": "of_mute:Mute"}}
    install(monkeypatch, tmp_path / "site", "mute-parts 1.0", offers, of_mute=source)
    (about,) = (tmp_path / "site").glob("*.dist-info")
    file = about / "METADATA"
    file.write_text(file.read_text() + "Summary: Parts that say little.\n")
    assert main(["plugins", "loss", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "mute"]
    assert (row["summary"], row["broken"]) == ("Parts that say little.", "")


def test_checking_the_environment_imports_everything(site: Path, capsys: Capture) -> None:
    """`--check-env` tells what fails at import, too; each problem is one line, and it exits 1."""
    assert main(["plugins", "--check-env"]) == 1
    told = capsys.readouterr().out
    lines = told.splitlines()
    for name in [*BROKEN.keys() - {"classless"}, "raising"]:
        assert sum(f"loss '{name}' of crowd-parts 1.5 can't be" in line for line in lines) == 1
    assert "SystemError: at import" in told
    for name, target in (("bare", "of_bare:Loss"), ("classless", "of_crowd")):
        assert f"loss '{name}' of crowd-parts 1.5 is no attrs class of options ({target})" in lines
    assert not [line for line in lines if "'good'" in line]
    assert lines[-1].endswith("distributions: 9 problems")
    assert main(["plugins", "loss", "--check-env", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 9


def test_what_works_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """What only looks broken is parsed before it is said; words are found however they stand."""
    folder = tmp_path / "site"
    placed = tmp_path / "placed"
    placed.mkdir()
    (placed / "of_placed.py").touch()
    sources = {name: text.replace("PLACE", repr(str(placed))) for name, text in WORKING.items()}
    offers = {name: f"{name}:Good" for name in [*WORKING, *INDIRECT, "of_latin"]}
    sources |= INDIRECT
    install(
        monkeypatch, folder, "crowd-parts 1.5", {"framework.loss": offers}, **sources, of_latin=""
    )
    latin = f"# -*- coding: latin-1 -*-\n{CLASS}".replace("Sums", "Summiert \u00f6fter,")
    (folder / "of_latin.py").write_bytes(latin.encode("latin-1"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # of_path adds to it
    found = rows(capsys, "loss")
    assert {row["broken"] for row in found.values()} == {""}
    assert {name: found[name]["summary"] for name in WORKING} == dict.fromkeys(
        WORKING, "Sums what is there."
    )
    assert found["of_latin"]["summary"] == "Summiert \u00f6fter, what is there."
    # true of them all: each can be imported and shown
    for name in offers:
        assert main(["plugins", "loss", name]) == 0


def test_modules_that_stand_elsewhere_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Folders without `__init__.py`, zips, compiled files, failing finders: none ends the list."""
    folder = tmp_path / "site"
    offers = {
        "inner": "of_pkg.losses.good:Good",
        "deep": "of_space.losses.good:Good",
        "lost": "of_space.losses.bad:Good",
        "zipped": "of_zipped:Good",
        "compiled": "of_compiled:Good",
        "spread": "of_spread.good:Good",
        "odd": "of_odd:Good",
    }
    install(
        monkeypatch,
        folder,
        "crowd-parts 1.5",
        {"framework.loss": offers},
        of_compiled=CLASS,
        of_zipped="",
    )
    for place in ("of_pkg/losses", "of_space/losses"):
        (folder / place).mkdir(parents=True)
        (folder / place / "good.py").write_text(CLASS)
    (folder / "of_pkg" / "__init__.py").touch()
    (folder / "of_zipped.py").unlink()
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("of_zipped.py", CLASS)
    monkeypatch.syspath_prepend(str(tmp_path / "parts.zip"))
    source = folder / "of_compiled.py"
    py_compile.compile(str(source), cfile=str(source.with_suffix(".pyc")))
    source.unlink()
    (folder / "of_spread").mkdir()
    (folder / "of_spread" / "__init__.py").write_text("__path__.append('/elsewhere')\n")

    class Odd:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "of_odd":
                raise RuntimeError("odd")

    monkeypatch.setattr(sys, "meta_path", [Odd, *sys.meta_path])
    found = rows(capsys, "loss")
    broken = {name: row["broken"] for name, row in found.items()}
    assert broken == dict.fromkeys(offers, "") | {
        "lost": "there is no module 'of_space.losses.bad'"
    }
    assert found["inner"]["summary"] == found["deep"]["summary"] == "Sums what is there."
    for name, place in (
        ("deep", f"{folder}/of_space/losses/good.py:4"),
        ("zipped", f"{tmp_path}/parts.zip/of_zipped.py:4"),
        ("compiled", f"{folder}/of_compiled.pyc"),
    ):
        assert main(["plugins", "loss", name]) == 0
        assert f"\ndefined in {place}\n" in capsys.readouterr().out


def test_a_class_made_at_run_time_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A class that no text defines is shown with the file of its module, without a line."""
    source = f"{CLASS}\nMade = attrs.make_class('Made', [], bases=(Good,))\n"
    offers = {"framework.loss": {"made": "of_made:Made"}}
    install(monkeypatch, tmp_path / "site", "made-parts 1.0", offers, of_made=source)
    assert main(["plugins", "loss", "made", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["defined_in"] == str(tmp_path / "site" / "of_made.py")


def test_a_requirement_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A distribution whose requirement is no requirement is a problem, not the end of the check."""
    offers = {"framework.scheduler": {"sums": "of_twin:Good"}}
    install(monkeypatch, tmp_path / "site", "twin-parts 1.0", offers, of_twin=CLASS)
    (about,) = (tmp_path / "site").glob("*.dist-info")
    with (about / "METADATA").open("a") as file:
        file.write("Requires-Dist: attrs >> 1\n")
    assert main(["plugins", "scheduler", "--check-env"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "twin-parts: requires 'attrs >> 1', which can't be read"


def test_checking_the_environment_tells_duplicates_and_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A name with two owners and a requirement that isn't met are problems of the environment."""
    offers = {"framework.scheduler": {"linear": "of_twin:Good"}}
    install(monkeypatch, tmp_path / "site", "twin-parts 1.0", offers, of_twin=CLASS)
    (about,) = (tmp_path / "site").glob("*.dist-info")
    file = about / "METADATA"
    requires = ("attrs>=1", "attrs>=999", "no-such-parts", "nothing; python_version < '3'")
    file.write_text(file.read_text() + "".join(f"Requires-Dist: {r}\n" for r in requires))
    assert main(["plugins", "scheduler", "--check-env"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("scheduler 'linear' is offered by composable-nlp ")
    assert lines[0].endswith(" and twin-parts 1.0; pick one as 'distribution:linear'")
    assert lines[1].startswith("twin-parts: requires 'attrs>=999', and ")
    assert lines[2] == (
        "twin-parts: requires 'no-such-parts', which is not installed; pip install 'no-such-parts'"
    )
    assert lines[3].endswith(" distributions: 3 problems")
    assert main(["plugins", "scheduler"]) == 0
    assert "warning: scheduler 'linear' is offered by" in capsys.readouterr().out


def test_a_sound_environment_has_no_problem(capsys: Capture) -> None:
    """What is installed for these tests can all be imported."""
    assert main(["plugins", "--check-env"]) == 0
    assert capsys.readouterr().out.endswith(" distributions: no problems\n")


TRAP = "from pathlib import Path\n\nPath('sprung').touch()\n\n\nclass Loss: ...\n"


@pytest.mark.parametrize(
    "name",
    [
        *("os:system", "framework.build:trainer", "plugins.losses.focal:Focal", "../focal", ""),
        *("of_trap:Loss", "of_trap.Loss", "of_trap", "crowd-parts:of_trap:Loss"),
    ],
)
def test_only_a_registered_name_names_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    """No file, and no record that a checkpoint or a store holds, can name code by its path."""
    install(monkeypatch, tmp_path / "site", "trap-parts 1.0", {}, of_trap=TRAP)
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    text = f"dataset = 'acme_words'\nmodel = 'hf_classifier'\nloss = {{ use = '{name}' }}\n"
    for file in ("x.toml", "model/experiment.toml"):
        (tmp_path / file).write_text(text)
    (model / "info.json").write_text("{}")
    (model / "model.safetensors").touch()
    for words in (["validate", "x.toml"], ["evaluate", "model"], ["run", "x.toml"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert ":3:" in told
        assert f"no loss is named '{name}'" in told or "no plugin is named" in told
    assert not (tmp_path / "sprung").exists()
    importlib.import_module("of_trap")
    assert (tmp_path / "sprung").exists()  # it would have been seen
