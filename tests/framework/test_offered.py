"""Commands that plugins offer: found, listed, and run like those that are ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import install

from framework.__main__ import main

GREET = '''
import attrs

@attrs.frozen
class Greet:
    """Greet somebody. At length."""

    example = "example: python -m framework greet Ada"

    def arguments(self, parser):
        parser.add_argument("name", help="who it is")

    def execute(self, options, tools):
        print(f"hello {options.name}", type(tools).__name__)
        return 3

@attrs.frozen
class Needy:
    """Need a name."""

    name: str

    def execute(self, options, tools):
        return 0
'''


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Install a distribution with commands."""
    commands = {
        "greet": "greeting:Greet",
        "needy": "greeting:Needy",
        "broken": "nowhere:Greet",
        "run": "greeting:Greet",
    }
    offers = {"framework.command": commands}
    install(monkeypatch, tmp_path / "one", "greeters 1.0", offers, greeting=GREET)


@pytest.mark.usefixtures("offer")
def test_a_plugin_s_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It takes its arguments and the tools, and its exit code is the program's."""
    assert main(["greet", "Ada"]) == 3
    assert main(["greeters:greet", "Bo"]) == 3
    assert capsys.readouterr().out == "hello Ada Tools\nhello Bo Tools\n"


@pytest.mark.usefixtures("offer")
def test_it_stands_in_the_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--help` has its first line and what is broken, and imports neither; its own has an example.

    A command of ours stays ours, whoever offers another of its name.
    """
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "    greet " in shown
    assert " greet somebody. At length\n" in shown
    assert " broken: there is no module 'nowhere'\n" in shown
    assert shown.count("    run ") == 1
    with pytest.raises(SystemExit):
        main(["greet", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m framework greet ")
    assert "example: python -m framework greet Ada" in shown


@pytest.mark.usefixtures("offer")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "command 'broken' of greeters 1.0 can't be imported (nowhere:Greet)"),
        ("needy", "command 'needy' of greeters 1.0 can't be made without options"),
        ("other:greet", "no command is named 'other:greet'; did you mean 'greet'?"),
    ],
)
def test_one_that_cannot_run_is_told_with_its_owner(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line and exit code 2, and harms nobody who doesn't name it."""
    assert main([name]) == 2
    assert capsys.readouterr().err.startswith(words)
    assert main(["greet", "Ada"]) == 3


@pytest.mark.usefixtures("offer")
def test_a_name_of_two_owners_names_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which one is meant is said by `dist:name`."""
    offers = {"framework.command": {"greet": "greeting:Greet"}}
    install(monkeypatch, tmp_path / "two", "hosts 2.0", offers)
    assert main(["greet", "Ada"]) == 2
    said = capsys.readouterr().err
    assert "command 'greet' is offered by greeters 1.0 and hosts 2.0" in said
    assert main(["hosts:greet", "Ada"]) == 3
