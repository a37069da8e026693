"""`plugins`: what is installed and what of it is broken, without importing it; then with."""

from __future__ import annotations

import json
import sys
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
}


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
    for name in [*BROKEN, "raising"]:
        assert sum(f"loss '{name}' of crowd-parts 1.5 can't be" in line for line in lines) == 1
    assert "SystemError: at import" in told
    assert "loss 'bare' of crowd-parts 1.5 is no attrs class of options (of_bare:Loss)" in lines
    assert not [line for line in lines if "'good'" in line]
    assert lines[-1].endswith("distributions: 6 problems")
    assert main(["plugins", "loss", "--check-env", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 6


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


@pytest.mark.parametrize(
    "name", ["os:system", "framework.build:trainer", "plugins.losses.focal:Focal", "../focal", ""]
)
def test_only_a_registered_name_names_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    """No file, and no record that a checkpoint or a store holds, can name code by its path."""
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
    assert "os" not in [path.name for path in tmp_path.iterdir()]
