"""Files, the chain of `extends` and `--set`, merged into one tree."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from framework.commands import terminal
from framework.commands._sets import parsed
from framework.config.merge import DEFAULTS, Draft, read
from framework.errors import ExperimentError, Problem

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str | bytes, name: str = "x.toml") -> Path:
    """Write an experiment."""
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def merged(child: str, *sets: str, base: str = "", name: str = "x.toml") -> Draft:
    """Merge a file, what it extends if anything, and `--set` arguments."""
    if base:
        written(base, "base.toml")
        child = f'extends = "base.toml"\n{child}'
    return read(written(child, name), [*map(parsed, sets)])


def problems(file: Path, sets: Sequence[str] = ()) -> Sequence[Problem]:
    """Return what can't be read of an experiment."""
    try:
        return read(file, [*map(parsed, sets)]).problems
    except ExperimentError as error:
        return error.problems


def refused(child: str | bytes, *sets: str, base: str = "") -> str:
    """Return the message that a text is refused with."""
    if base:
        written(base, "base.toml")
        child = f'extends = "base.toml"\n{child}'
    found = problems(written(child), sets)
    assert found
    return "\n".join(map(terminal.text, found))


def test_an_empty_file_is_the_defaults() -> None:
    """What a file doesn't say is what `framework/defaults.toml` says."""
    assert merged("").tree == tomli.loads(DEFAULTS.read_text()) | {"metrics": {}}


MERGES = {
    "a bare name replaces a table": (
        'loss = { use = "focal", gamma = 3 }',
        'loss = "cross_entropy"',
        "cross_entropy",
    ),
    "a table with use replaces a table": (
        'loss = { use = "focal", gamma = 3 }',
        'loss = { use = "focal", alpha = 1 }',
        {"use": "focal", "alpha": 1},
    ),
    "a table with use replaces a bare name": (
        'loss = "focal"',
        'loss = { use = "x" }',
        {"use": "x"},
    ),
    "a table without use joins a table": (
        'loss = { use = "focal", gamma = 3, eps = 1 }',
        "[loss]\ngamma = 4",
        {"use": "focal", "gamma": 4, "eps": 1},
    ),
    "a table without use joins a bare name": (
        'loss = "focal"',
        "loss.gamma = 4",
        {"use": "focal", "gamma": 4},
    ),
    "joining goes deep": (
        'loss = { use = "l", config = { a = { b = 1, c = 2 }, d = 3 } }',
        "loss.config.a.b = 9",
        {"use": "l", "config": {"a": {"b": 9, "c": 2}, "d": 3}},
    ),
    "a list is replaced whole": (
        'loss = { use = "l", weights = [1, 2, 3] }',
        "loss.weights = [4]",
        {"use": "l", "weights": [4]},
    ),
    "a table without use where nothing stands": ('name = "n"', "loss.gamma = 4", {"gamma": 4}),
}


@pytest.mark.parametrize(("base", "child", "expected"), MERGES.values(), ids=MERGES.keys())
def test_a_component_is_replaced_or_joined(base: str, child: str, expected: Any) -> None:
    """A bare name or a table with `use` replaces its parent's whole; one without joins it."""
    assert merged(child, base=base).tree["loss"] == expected


@pytest.mark.parametrize(
    ("child", "argument"),
    [
        ('loss = "cross_entropy"', "loss=cross_entropy"),
        ("loss.gamma = 3", "loss.gamma=3"),
        ('loss = { use = "x", a = [1, "b"] }', 'loss={ use = "x", a = [1, "b"] }'),
        ("metrics.f1.average = 'macro'", "metrics.f1.average=macro"),
        ("callbacks.jsonl = false", "callbacks.jsonl=false"),
        ('metrics = ["a"]', 'metrics=["a"]'),
        ("trainer.epochs = 1", "trainer.epochs=1"),
        ("seed = 7", " seed = 7 "),
    ],
)
def test_a_set_is_the_same_as_a_line(child: str, argument: str) -> None:
    """`--set K=V` gives the tree that the line `K = V` in a child file gives."""
    base = 'loss = { use = "focal", gamma = 2 }\nmetrics = ["f1"]'
    assert merged("", argument, base=base).tree == merged(child, base=base).tree


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        ("3.0", 3.0),
        ("1e-5", 1e-5),
        ("true", True),
        ("True", "True"),
        ('"3"', "3"),
        ("'a\\b'", "a\\b"),
        ("[1, 2]", [1, 2]),
        ("{ a = 1 }", {"a": 1}),
        ("2020-01-02", dt.date(2020, 1, 2)),
        ("", ""),
        ("cross_entropy", "cross_entropy"),
        ("../data/x y", "../data/x y"),
        ("a=b", "a=b"),
        ("run #1", "run #1"),
        ('say "hi"', 'say "hi"'),
        ("back\\slash", "back\\slash"),
        ("[unclosed", "[unclosed"),
        ("3 4", "3 4"),
        ("é漢", "é漢"),
        ("data/😀", "data/😀"),
    ],
)
def test_a_set_that_is_no_toml_is_a_string(value: str, expected: Any) -> None:
    """The value of `--set` is TOML where it can be read as that, else it is text as it stands."""
    found = merged("", f"loss.a={value}").tree["loss"]["a"]
    assert found == expected
    assert type(found) is type(expected)


@given(TEXT)
def test_any_text_can_be_set(text: str) -> None:
    """Words that aren't TOML arrive as they were typed, whatever is in them."""
    typed = f"a {text} z"
    assert read(DEFAULTS, [parsed(f"name={typed}")]).tree["name"] == typed


@given(TEXT)
def test_any_key_can_be_set(text: str) -> None:
    """A quoted key of `--set` may hold anything, an equals sign too."""
    quoted = "".join(f"\\U{ord(c):08x}" for c in text)
    assert read(DEFAULTS, [parsed(f'loss."{quoted}"=1')]).tree["loss"][text] == 1


@pytest.mark.parametrize("argument", ["seed", "=3", " =3", ""])
def test_a_set_without_key_or_value_is_refused(argument: str) -> None:
    """`--set` wants KEY=VALUE, and the message shows how."""
    message = refused("", argument)
    assert message.split("\n") == [
        "--set:1:1: expected KEY=VALUE, as in --set loss.gamma=3",
        f"    {argument}",
        "    ^",
    ]


@pytest.mark.parametrize("argument", ["a b=3", "a..b=3", "[loss]=3", ".a=1"])
def test_a_set_with_a_broken_key_is_refused(argument: str) -> None:
    """A key that TOML can't read is told with its place in the argument."""
    head, shown, caret = refused("", argument).split("\n")
    assert head.startswith(f"--set:1:{len(caret) - 4}: ")
    assert shown == f"    {argument}"


def test_a_set_sets_one_key() -> None:
    """A line break in a value begins no second key: the argument is refused, or all text."""
    seed = 42
    with contextlib.suppress(ExperimentError):
        seed = merged("", "name=3\nseed=5").tree["seed"]
    assert seed == 42


def test_later_sets_win() -> None:
    """`--set` arguments are laid on in their order."""
    tree = merged("", "loss=a", "loss.x=1", "loss.x=2", "loss.y=3").tree
    assert tree["loss"] == {"use": "a", "x": 2, "y": 3}


def test_a_chain_is_merged_from_its_far_end() -> None:
    """Each file is laid over the one it extends, in whatever folder that is."""
    written('name = "far"\nseed = 1\ntrainer.epochs = 1\nloss = { use = "l", a = 1 }', "a/far.toml")
    written('extends = "../a/far.toml"\nname = "middle"\nseed = 2\nloss.b = 2', "b/middle.toml")
    tree = merged('extends = "b/middle.toml"\nname = "near"\nloss.c = 3').tree
    assert (tree["name"], tree["seed"], tree["trainer"]["epochs"]) == ("near", 2, 1)
    assert tree["loss"] == {"use": "l", "a": 1, "b": 2, "c": 3}
    assert "extends" not in tree


LABELLED = {
    "a table joins a list of names": (
        'metrics = ["f1", "accuracy"]',
        '[metrics.macro]\nuse = "f1"',
        {"f1": "f1", "accuracy": "accuracy", "macro": {"use": "f1"}},
    ),
    "a table joins a name of the list": (
        'metrics = ["f1", "accuracy"]',
        'metrics.f1.average = "macro"',
        {"f1": {"use": "f1", "average": "macro"}, "accuracy": "accuracy"},
    ),
    "a list replaces a list": ('metrics = ["f1"]', 'metrics = ["recall"]', {"recall": "recall"}),
    "a list replaces tables": ("metrics.f1 = {}", 'metrics = ["recall"]', {"recall": "recall"}),
    "a table joins a table of its label": (
        "metrics.f1 = { average = 'macro', b = 1 }",
        "metrics.f1.b = 2",
        {"f1": {"average": "macro", "b": 2}},
    ),
    "a table with use replaces that of its label": (
        "metrics.f1 = { average = 'macro' }",
        "metrics.f1 = { use = 'f1', b = 2 }",
        {"f1": {"use": "f1", "b": 2}},
    ),
    "false drops a label": (
        "metrics.f1 = {}\nmetrics.accuracy = {}",
        "metrics.f1 = false",
        {"f1": False, "accuracy": {}},
    ),
    "what was dropped can come back": (
        "metrics.f1 = false",
        "metrics.f1.average = 'macro'",
        {"f1": {"average": "macro"}},
    ),
}


@pytest.mark.parametrize(("base", "child", "expected"), LABELLED.values(), ids=LABELLED.keys())
def test_labelled_parts_merge_under_their_labels(base: str, child: str, expected: Any) -> None:
    """Metrics and callbacks merge label by label; a list of names is tables without options."""
    assert merged(child, base=base).tree["metrics"] == expected


def test_a_default_callback_can_be_dropped_or_changed() -> None:
    """The callbacks of the defaults are there to be joined by label."""
    tree = merged("callbacks.jsonl = false\n[callbacks.progress]\nevery = 1.0").tree
    others: dict[str, object] = {"signals": {}, "guard": {}, "checkpoint": {}}
    assert tree["callbacks"] == {"progress": {"every": 1.0}, "jsonl": False} | others


def test_a_nested_component_is_replaced_too() -> None:
    """An option that is a component follows the rule of components: `use` replaces it whole."""
    base = 'loss = { use = "sum", first = { use = "focal", gamma = 3 } }'
    tree = merged('loss.first = { use = "cross_entropy" }', base=base).tree
    assert tree["loss"]["first"] == {"use": "cross_entropy"}


def test_a_nested_bare_name_is_joined_too() -> None:
    """An option that is a bare component name takes options in a child as any component does."""
    tree = merged("loss.first.gamma = 3", base='loss = { use = "sum", first = "focal" }').tree
    assert tree["loss"]["first"] == {"use": "focal", "gamma": 3}


def test_relative_paths_start_where_they_were_written() -> None:
    """A path is relative to its file's folder, and to the current folder on the command line."""
    written("dataset = { use = 'd', a = 'x', b = 'x', c = 'x' }", "far/base.toml")
    child = written('extends = "../far/base.toml"\n[dataset]\nb = "y"', "near/x.toml")
    draft = read(child, [parsed("dataset.c=z")])
    here = Path.cwd()
    assert draft.folder(("dataset", "a")) == here / "far"
    assert draft.folder(("dataset", "b")) == here / "near"
    assert draft.folder(("dataset", "c")) == here
    assert draft.folder(("dataset", "never", "written")) == here / "far"
    assert draft.folder(("optimizer",)) == DEFAULTS.parent


def test_a_replaced_table_keeps_no_old_origin() -> None:
    """When a component is replaced, the places of its old options are forgotten."""
    draft = merged('loss = "b"', base='loss = { use = "a", gamma = 3 }')
    assert {path for path in draft.origins if path[0] == "loss"} == {("loss",)}
    assert terminal.text(draft.problem(("loss", "gamma"), "wrong")) == (
        'x.toml:2:1: wrong\n    loss = "b"\n    ^'
    )


def test_a_problem_shows_its_line_and_a_caret() -> None:
    """A mistake is shown with its line and a caret under the key, or under the value."""
    draft = merged("[loss]\n\tgamma = 3")
    assert terminal.text(draft.problem(("loss", "gamma"), "too high")) == (
        "x.toml:2:10: too high\n     gamma = 3\n             ^"
    )
    assert terminal.text(draft.problem(("loss", "gamma"), "unknown", at_value=False)) == (
        "x.toml:2:2: unknown\n     gamma = 3\n     ^"
    )


def test_a_problem_of_an_argument_names_the_argument() -> None:
    """A mistake made by `--set` is told under the argument as it was typed."""
    draft = merged("", "loss.gamma=3")
    assert terminal.text(draft.problem(("loss", "gamma"), "too high")) == (
        "--set:1:12: too high\n    loss.gamma=3\n               ^"
    )


def test_a_problem_of_nothing_written_names_the_file() -> None:
    """What is written nowhere is told of the file, without a line."""
    assert terminal.text(merged("").problem(("loss",), "missing")) == "x.toml: missing"


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\u2029"])
def test_only_line_feeds_end_a_line(character: str) -> None:
    """The line that is shown is the one whose number is given."""
    draft = merged(f"# a{character}b\nseed = 'x'\nname = 'y'")
    assert (
        terminal.text(draft.problem(("seed",), "wrong"))
        == "x.toml:2:8: wrong\n    seed = 'x'\n           ^"
    )


def test_files_outside_the_current_folder_are_told_in_full(tmp_path: Path) -> None:
    """A file below the current folder is named as a person would; another by its whole path."""
    file = written("seed = = 1", "experiments/x.toml")
    with pytest.raises(ExperimentError) as caught:
        read(file.resolve())
    assert str(caught.value).startswith("experiments/x.toml:1:8: ")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    with pytest.raises(ExperimentError) as caught:
        read(Path("../experiments/x.toml"))
    assert str(caught.value).startswith(f"{tmp_path}/experiments/x.toml:1:8: ")


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        ("a = 1\nb = 2 2\n", "x.toml:2:7", "b = 2 2"),
        ("a = 1\na = 2\n", "x.toml:2:6", "a = 2"),
        ("[loss\n", "x.toml:1:6", "[loss"),
        ('a = "x\n', "x.toml:1:7", 'a = "x'),
        ("\r\nb = 2 2\r\n", "x.toml:2:7", "b = 2 2"),
        ("é = 1", "x.toml:1:1", "é = 1"),
        ("a = [\n", "x.toml:2:1", ""),
        ('a = """\n', "x.toml:2:1", ""),
        ("a = {\n\n", "x.toml:3:1", ""),
    ],
)
def test_a_syntax_error_has_its_place(text: str, where: str, line: str) -> None:
    """A text that is no TOML is refused with file, line, column and the line itself."""
    head, shown, caret = refused(text).split("\n")
    assert head.startswith(f"{where}: ")
    column = int(where.rpartition(":")[2])
    assert shown == f"    {line}"
    assert caret == "    " + " " * (column - 1) + "^"


def test_a_byte_order_mark_is_no_mistake() -> None:
    """A file that begins with a byte order mark reads like one without."""
    draft = read(written(b"\xef\xbb\xbfseed = 5\n"))
    assert draft.tree["seed"] == 5
    assert draft.origins["seed",].at[:2] == (1, 1)


def test_a_file_that_isnt_utf8_is_refused() -> None:
    """Bytes that are no UTF-8 are told with the number of the first of them."""
    assert refused(b"name = '\xe9'\n") == "x.toml: not UTF-8 text (byte 9)"


def test_a_missing_file_is_refused() -> None:
    """A file that isn't there is told by the name it was given."""
    with pytest.raises(ExperimentError) as caught:
        read(Path("none.toml"))
    assert str(caught.value) == (
        "none.toml: can't read this experiment (No such file or directory)"
    )


def test_a_folder_is_refused() -> None:
    """A folder is no experiment."""
    Path("folder").mkdir()
    with pytest.raises(ExperimentError, match=r"folder: can't read this experiment \(Is a dir"):
        read(Path("folder"))


def test_a_missing_parent_is_told_where_it_is_named() -> None:
    """A file to extend that isn't there is told at the line that names it."""
    assert refused('seed = 1\nextends = "none.toml"') == (
        "x.toml:2:11: none.toml: can't read this experiment (No such file or directory)\n"
        '    extends = "none.toml"\n'
        "              ^"
    ).replace("none.toml: can't", f"{Path.cwd()}/none.toml: can't")


def test_the_home_of_nobody_is_a_missing_parent() -> None:
    """A parent in the folder of a user that there isn't is told like any other that is missing."""
    assert refused('extends = "~nobody-here/x.toml"').startswith("x.toml:1:11: ")


@pytest.mark.parametrize("value", ["3", "['base.toml']", "false"])
def test_extends_must_be_text(value: str) -> None:
    """`extends` names one file."""
    message = refused(f"extends = {value}")
    assert message.startswith(f"x.toml:1:11: 'extends' must be text, found {tomli_value(value)}")


def tomli_value(text: str) -> Any:
    """Return what tomli reads."""
    return tomli.loads(f"v = {text}")["v"]


@pytest.mark.parametrize("names", [["x"], ["x", "a"], ["x", "a", "b"]])
def test_a_cycle_is_refused(names: list[str]) -> None:
    """A chain that leads back to itself is told in full, at the line that closes it."""
    files = [f"{name}.toml" for name in names]
    for file, parent in zip(files, [*files[1:], "x.toml"], strict=True):
        written(f'extends = "{parent}"', file)
    chain = " -> ".join([*files, "x.toml"])
    (problem,) = problems(Path("x.toml"))
    assert terminal.text(problem).split("\n")[0] == (
        f"{files[-1]}:1:11: 'extends' leads back to itself: {chain}"
    )


def test_extends_understands_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent may be named by `~`."""
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    written("seed = 8", "home/base.toml")
    assert merged('extends = "~/base.toml"').tree["seed"] == 8


def test_a_text_nested_too_deeply_is_refused() -> None:
    """Brackets without end are a mistake like another, not a crash."""
    assert refused("a = " + "[" * 5000).startswith("x.toml: nested too deeply")


def test_a_number_of_too_many_digits_is_refused() -> None:
    """A number that Python won't read is a mistake with a place, not a crash."""
    assert refused("seed = " + "1" * 5000).startswith("x.toml")
