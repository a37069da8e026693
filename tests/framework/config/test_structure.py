"""Strict structuring: every type takes what it says and nothing else, every mistake is told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.commands import terminal
from framework.commands._resolved import tree
from framework.commands._sets import parsed
from framework.config.experiment import Experiment, load
from framework.config.merge import Draft
from framework.config.structure import Structurer
from framework.errors import ExperimentError
from framework.protocols import option
from framework.registry import Offer, Registry


def _even(_: object, field: attrs.Attribute[int], value: int) -> None:
    if value % 2:
        raise ValueError(f"'{field.name}' must be even: {value}")


@attrs.frozen
class Everything:
    """An option of every type."""

    flag: bool = option(False, help="yes or no")
    count: int = option(0, help="how many")
    rate: float = option(0.0, help="how fast")
    text: str = option("", help="words")
    mode: Literal["min", "max"] = option("min", help="which way")
    level: Literal["low", 0, 1] = option("low", help="how much")
    weights: Literal["balanced", "none"] | list[float] = option("none", help="per class")
    warmup: int | float = option(0, help="steps or a share")
    limit: int | None = option(None, help="none when it isn't set")
    names: list[str] = option([], help="several words")
    grid: list[list[int]] = option([], help="rows")
    sizes: dict[str, int] = option({}, help="by name")
    free: dict[str, Any] = option({}, help="whatever it holds")
    file: Path = option(Path("/nowhere"), help="a file")
    source: Path | str = option("", help="a file or a name")
    files: list[Path] = option([], help="files")
    places: dict[str, Path] = option({}, help="files by name")
    share: float = option(
        0.5, help="part", validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)]
    )
    even: int = option(0, help="no odd number", validator=_even)
    inner: Any = option("leaf", help="a loss", kind="loss")
    parts: Any = option({}, help="losses by label", kind="loss")

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Leaf:
    """A loss with two options that depend on each other."""

    low: float = option(0.0, help="the least")
    high: float = option(1.0, help="the most")

    def __attrs_post_init__(self) -> None:
        """Hold them against each other."""
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Needy:
    """A loss with options that must be given."""

    width: int = option(help="how wide")
    height: int = option(help="how high")

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Bounds:
    """A loss with a validator that looks at another option."""

    top: int = option(1, help="the most")
    bottom: int = option(0, help="the least")

    @bottom.validator
    def _check(self, _: object, value: int) -> None:
        if value > self.top:
            raise ValueError(f"'bottom' must be at most {self.top}: {value}")

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Foreign:
    """Options as somebody writes them who hasn't read of `option`."""

    width: int
    pair: tuple[int, ...] = ()
    many: Sequence[int] = ()
    inner: Leaf = attrs.field(factory=Leaf)

    def build(self, _: Any) -> None:
        """Nothing."""


def _silent(*_: object) -> None:
    raise ValueError


@attrs.frozen
class Silent:
    """A validator that says nothing."""

    width: int = attrs.field(default=0, validator=_silent)

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Unresolved:
    """An annotation that can't be read at run time, as one under TYPE_CHECKING."""

    width: "Nowhere" = 0  # noqa: F821, UP037

    def build(self, _: Any) -> None:
        """Nothing."""


CLASSES = {"everything": Everything, "leaf": Leaf, "needy": Needy, "bounds": Bounds}
OFFERS = tuple(
    Offer(kind, name, "tests", "1", EntryPoint(name, f"{__name__}:{cls.__name__}", ""))
    for kind in ("dataset", "model", "loss", "metric")
    for name, cls in CLASSES.items()
)
BUILT_IN = (
    *("adamw", "linear", "bucket", "auto", "accuracy"),
    *("signals", "guard", "progress", "jsonl", "checkpoint"),
)
REGISTRY = Registry((*(o for o in Registry().offers if o.name in BUILT_IN), *OFFERS))
BASE = 'dataset = "leaf"\nmodel = "leaf"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str, *sets: str, base: str = BASE) -> Experiment:
    """Load an experiment whose dataset and model have no options to speak of."""
    file = Path("x.toml")
    file.write_text(base + text, encoding="utf-8")
    return load(file, [*map(parsed, sets)], REGISTRY)


def told(text: str, *sets: str, base: str = BASE) -> list[str]:
    """Return every problem of an experiment as a person reads it."""
    with pytest.raises(ExperimentError) as caught:
        loaded(text, *sets, base=base)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [terminal.text(problem) for problem in caught.value.problems]


def options(**table: Any) -> tuple[Any, list[str]]:
    """Structure a table into `Everything`: the options, and what was wrong."""
    structurer = Structurer(Draft({}, {}), REGISTRY)
    made = structurer.options(Everything, table, ("loss",), "loss 'everything'")
    return made, [problem.message for problem in structurer.problems]


def _is(*kinds: type) -> Any:
    return lambda value: type(value) in kinds


def _every(test: Any) -> Any:
    def check(value: Any) -> bool:
        inside = value.values() if type(value) is dict else value
        return type(value) in (list, dict) and all(map(test, inside))

    return check


WELL_TYPED = {
    "flag": _is(bool),
    "count": _is(int),
    "rate": _is(int, float),
    "text": _is(str),
    "mode": lambda v: v in ("min", "max"),
    "level": lambda v: type(v) in (str, int) and v in ("low", 0, 1),
    "weights": lambda v: (
        v in ("balanced", "none") or (type(v) is list and _every(_is(int, float))(v))
    ),
    "warmup": _is(int, float),
    "limit": _is(int),
    "names": lambda v: type(v) is list and _every(_is(str))(v),
    "grid": lambda v: (
        type(v) is list and all(type(row) is list and _every(_is(int))(row) for row in v)
    ),
    "sizes": lambda v: type(v) is dict and _every(_is(int))(v),
    "free": _is(dict),
    "file": _is(str),
    "source": _is(str),
    "files": lambda v: type(v) is list and _every(_is(str))(v),
    "places": lambda v: type(v) is dict and _every(_is(str))(v),
}
WORDS = st.sampled_from(["", "min", "max", "mini", "low", "balanced", "none", "true", "1", "a/b"])
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-2, 2),
    st.sampled_from([float("inf"), float("-inf"), 2**80]),
    WORDS,
    st.just(dt.date(2020, 1, 2)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", WELL_TYPED)
@settings(max_examples=60)
@given(value=VALUES)
def test_an_option_takes_exactly_its_type(name: str, value: Any) -> None:
    """A value is taken, as it is, when it has the option's type, and is told otherwise."""
    made, problems = options(**{name: value})
    assert bool(problems) == (not WELL_TYPED[name](value)), problems
    if problems:
        assert made is None
        assert all(problem.startswith(f"'{name}': expected ") for problem in problems)
    elif "Path" not in str(attrs.fields_dict(Everything)[name].type):
        assert getattr(made, name) == value


@pytest.mark.parametrize(
    ("name", "value", "expected", "kind"),
    [
        ("rate", 3, 3.0, float),
        ("warmup", 3, 3, int),
        ("warmup", 3.0, 3.0, float),
        ("level", 1, 1, int),
        ("weights", [1, 2.5], [1.0, 2.5], list),
        ("flag", True, True, bool),
    ],
)
def test_a_whole_number_becomes_a_float_only_where_one_is_wanted(
    name: str, value: Any, expected: Any, kind: type
) -> None:
    """The one conversion is of whole numbers to numbers, and only where the option says number."""
    made, _ = options(**{name: value})
    assert getattr(made, name) == expected
    assert type(getattr(made, name)) is kind


REFUSED = [
    ("flag", '"false"', "'flag': expected true or false, found the text 'false'"),
    ("flag", "1", "'flag': expected true or false, found 1"),
    ("count", "3.7", "'count': expected a whole number, found 3.7"),
    ("count", "3.0", "'count': expected a whole number, found 3.0"),
    ("count", "true", "'count': expected a whole number, found true"),
    ("count", "'3'", "'count': expected a whole number, found the text '3'"),
    ("rate", "false", "'rate': expected a number, found false"),
    ("rate", "'1e-5'", "'rate': expected a number, found the text '1e-5'"),
    ("text", "3", "'text': expected text, found 3"),
    ("text", "2020-01-02", "'text': expected text, found 2020-01-02"),
    ("text", "['a']", "'text': expected text, found a list"),
    (
        "mode",
        "'Max'",
        "'mode': expected one of 'min', 'max', found the text 'Max'; did you mean 'max'?",
    ),
    ("mode", "'up'", "'mode': expected one of 'min', 'max', found the text 'up'"),
    ("mode", "1", "'mode': expected one of 'min', 'max', found 1"),
    ("level", "true", "'level': expected one of 'low', '0', '1', found true"),
    (
        "weights",
        "'balance'",
        (
            "'weights': expected one of 'balanced', 'none' or a list of a number,"
            " found the text 'balance'"
        ),
    ),
    ("warmup", "'1'", "'warmup': expected a whole number or a number, found the text '1'"),
    ("limit", "'x'", "'limit': expected a whole number, found the text 'x'"),
    ("names", "'a'", "'names': expected a list of text, found the text 'a'"),
    ("names", "['a', 1]", "'names': expected text, found 1"),
    ("grid", "[[1], [2, 'x']]", "'grid': expected a whole number, found the text 'x'"),
    ("sizes", "{ a = 1, b = 1.5 }", "'sizes': expected a whole number, found 1.5"),
    ("sizes", "[1]", "'sizes': expected a table, found a list"),
    ("file", "3", "'file': expected a path, found 3"),
    ("source", "[]", "'source': expected a path or text, found a list"),
    ("files", "[1]", "'files': expected a path, found 1"),
    ("share", "1.0", "'share' must be < 1.0: 1.0"),
    ("share", "-0.5", "'share' must be >= 0.0: -0.5"),
    ("share", "nan", "'share' must be >= 0.0: nan"),
    ("even", "3", "'even' must be even: 3"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_a_wrong_value_is_told(name: str, value: str, message: str) -> None:
    """A wrong value is told with what was expected and what was found, at the value itself."""
    (problem,) = told(f"[loss]\nuse = 'everything'\n{name} = {value}\n")
    where, shown, caret = problem.split("\n")
    column = len(caret) - 4
    assert where == f"x.toml:5:{column}: {message}"
    assert shown == f"    {name} = {value}"
    assert caret.strip() == "^"


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("names = ['a', 1]", 15),
        ("grid = [[1], [2, 'x']]", 18),
        ("sizes = { a = 1, b = 1.5 }", 22),
        ("sizes.b = 1.5", 11),
        ("count = 3.5", 9),
    ],
)
def test_a_wrong_item_is_told_at_its_own_place(text: str, column: int) -> None:
    """Inside lists and tables the caret stands under the item that is wrong."""
    (problem,) = told(f"[loss]\nuse = 'everything'\n{text}\n")
    assert problem.startswith(f"x.toml:5:{column}: ")


def test_several_wrong_items_are_told_together() -> None:
    """Every wrong item of a list is told, each at its place."""
    problems = told("[loss]\nuse = 'everything'\nnames = [1, 'a', 2]\n")
    assert [problem.split(": ")[0] for problem in problems] == ["x.toml:5:10", "x.toml:5:18"]


def test_a_choice_of_words_and_numbers_is_told() -> None:
    """A misspelt choice is told where some of the choices are numbers, too."""
    (problem,) = told("[loss]\nuse = 'everything'\nlevel = 'lowe'\n")
    assert problem.startswith("x.toml:5:9: 'level': expected one of 'low', '0', '1'")


def test_a_number_beyond_floats_is_told() -> None:
    """A whole number that no float can hold is a mistake like another."""
    (problem,) = told(f"[loss]\nuse = 'everything'\nrate = 1{'0' * 400}\n")
    assert problem.startswith("x.toml:5:8: 'rate': expected a number")


PATHS = [
    ("file = 'a/b'", "file", "here/a/b"),
    ("file = '/a/b'", "file", "/a/b"),
    ("file = '~/a'", "file", "home/a"),
    ("source = './a'", "source", "here/a"),
    ("source = '../a'", "source", "here/../a"),
    ("source = '/a'", "source", "/a"),
    ("source = '~/a'", "source", "home/a"),
    ("files = ['a', '/b']", "files", ["here/a", "/b"]),
    ("places = { x = 'a' }", "places", {"x": "here/a"}),
]


@pytest.mark.parametrize(("text", "name", "expected"), PATHS)
def test_paths_are_absolute(
    text: str, name: str, expected: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path starts from the folder of its file, or from home, and is kept absolute."""
    monkeypatch.setenv("HOME", "/root/home")

    def full(path: str) -> Path:
        return Path(path.replace("here", str(here)).replace("home", "/root/home"))

    found = getattr(loaded(f"[loss]\nuse = 'everything'\n{text}").loss.options, name)
    if isinstance(expected, str):
        assert found == full(expected)
    elif isinstance(expected, list):
        assert found == [full(path) for path in expected]
    else:
        assert found == {key: full(path) for key, path in expected.items()}


def test_the_home_of_nobody_is_told() -> None:
    """A path in the folder of a user that there isn't is a mistake with a place."""
    (problem,) = told("[loss]\nuse = 'everything'\nfile = '~nobody-here/x'")
    assert problem.startswith("x.toml:5:8: loss 'everything' of tests 1: 'file' is no ")


@pytest.mark.parametrize("text", ["bert-base-uncased", "package:x/model", "org/name", "a.b", ""])
def test_text_that_is_no_path_stays_text(text: str) -> None:
    """In a `Path | str` only what begins with `.`, `/` or `~` is a path."""
    found = loaded(f"[loss]\nuse = 'everything'\nsource = '{text}'").loss.options.source
    assert found == text
    assert type(found) is str


def test_each_path_of_a_table_starts_where_it_was_written(here: Path) -> None:
    """A path that the command line adds to a table is relative to the current folder."""
    (here / "far").mkdir()
    base = f"{BASE}[loss]\nuse = 'everything'\nplaces = {{ a = 'x', b = 'x' }}"
    (here / "far" / "base.toml").write_text(base)
    made = loaded('extends = "far/base.toml"', "loss.places.b=y", base="")
    assert made.loss.options.places == {"a": here / "far" / "x", "b": here / "y"}


def test_every_mistake_is_told_at_once() -> None:
    """One error holds every mistake of a file, each with its place, line, caret and a hint."""
    text = (
        "seeds = 1\n"
        "seed = 1.5\n"
        "loss = { use = 'everything', cuont = 3, flag = 'yes', share = 2.0 }\n"
        "metrics = ['leaf', 'accuray', 3]\n"
        "[trainer]\n"
        "epochs = 3.7\n"
        "batch_size = 0\n"
        "[callbacks.checkpoint]\n"
        "mode = 'lowest'\n"
        "[callbacks.nobody]\n"
    )
    assert told(text, "optimizer=adam", "trainer.log_every=x") == [
        "x.toml:3:1: an experiment has no key 'seeds'; did you mean 'seed'?\n    seeds = 1\n    ^",
        "x.toml:4:8: 'seed': expected a whole number, found 1.5\n    seed = 1.5\n           ^",
        (
            "x.toml:5:30: loss 'everything' has no option 'cuont'; did you mean 'count'?\n"
            "    loss = { use = 'everything', cuont = 3, flag = 'yes', share = 2.0 }\n"
            "                                 ^"
        ),
        (
            "x.toml:5:48: 'flag': expected true or false, found the text 'yes'\n"
            "    loss = { use = 'everything', cuont = 3, flag = 'yes', share = 2.0 }\n"
            "                                                   ^"
        ),
        (
            "x.toml:5:63: 'share' must be < 1.0: 2.0\n"
            "    loss = { use = 'everything', cuont = 3, flag = 'yes', share = 2.0 }\n"
            "                                                                  ^"
        ),
        (
            "x.toml:6:20: no metric is named 'accuray'; did you mean 'accuracy'?\n"
            "    metrics = ['leaf', 'accuray', 3]\n"
            "                       ^"
        ),
        (
            "x.toml:6:31: metric: expected a name or a table, found 3\n"
            "    metrics = ['leaf', 'accuray', 3]\n"
            "                                  ^"
        ),
        (
            "x.toml:8:10: 'epochs': expected a whole number, found 3.7\n"
            "    epochs = 3.7\n"
            "             ^"
        ),
        "x.toml:9:14: 'batch_size' must be >= 1: 0\n    batch_size = 0\n                 ^",
        (
            "x.toml:11:8: 'mode': expected one of 'min', 'max', found the text 'lowest'\n"
            "    mode = 'lowest'\n"
            "           ^"
        ),
        (
            "x.toml:12:1: no callback is named 'nobody'; the choices are"
            " 'checkpoint', 'guard', 'jsonl', 'progress', 'signals'\n"
            "    [callbacks.nobody]\n"
            "    ^"
        ),
        (
            "--set:1:11: no optimizer is named 'adam'; did you mean 'adamw'?\n"
            "    optimizer=adam\n"
            "              ^"
        ),
        (
            "--set:1:19: 'log_every': expected a whole number, found the text 'x'\n"
            "    trainer.log_every=x\n"
            "                      ^"
        ),
    ]


def test_missing_options_are_told_with_their_help() -> None:
    """Each option that must be given is named with its line of help, at its table."""
    text = "[loss]\nuse = 'needy'\n"
    assert told(text) == [
        f"x.toml:3:1: loss 'needy' needs the option '{name}' ({help_})\n    [loss]\n    ^"
        for name, help_ in (("width", "how wide"), ("height", "how high"))
    ]


def test_an_unknown_option_without_a_near_one_lists_them() -> None:
    """Where no option is near, all of them are listed."""
    assert told("loss = { use = 'leaf', xyzzy = 1 }") == [
        (
            "x.toml:3:24: loss 'leaf' has no option 'xyzzy'; its options are 'low', 'high'\n"
            "    loss = { use = 'leaf', xyzzy = 1 }\n"
            "                           ^"
        )
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss = 3", "x.toml:3:8: loss: expected a name or a table, found 3"),
        ("loss = ['leaf']", "x.toml:3:8: loss: expected a name or a table, found a list"),
        ("loss = { low = 1.0 }", 'x.toml:3:8: loss: no plugin is named; write use = "…"'),
        ("loss = { use = 3 }", "x.toml:3:16: loss: expected a plugin's name, found 3"),
        ("loss = ''", 'x.toml:3:8: loss: no plugin is named; write use = "…"'),
        ("loss = 'laef'", "x.toml:3:8: no loss is named 'laef'; did you mean 'leaf'?"),
        (
            "loss = { low = 1.0, use = 'laef' }",
            "x.toml:3:27: no loss is named 'laef'; did you mean 'leaf'?",
        ),
        (
            "loss = 'xyzzy'",
            (
                "x.toml:3:8: no loss is named 'xyzzy'; the choices are"
                " 'bounds', 'everything', 'leaf', 'needy'"
            ),
        ),
        ("loss = 'leaf'\ntrainer = 3", "x.toml:4:11: 'trainer': expected a table, found 3"),
        (
            "loss = 'leaf'\nmetrics = 'leaf'",
            "x.toml:4:11: expected a list of names, or tables with labels, found the text 'leaf'",
        ),
        (
            "loss = 'leaf'\nmetrics = ['leaf', 'leaf']",
            "x.toml:4:20: 'leaf' stands twice; give tables with labels",
        ),
        (
            "loss = 'leaf'\ncallbacks = ['leaf']",
            "x.toml:4:13: expected tables with labels, found a list",
        ),
        (
            "loss = { use = 'everything', parts = ['leaf'] }",
            "x.toml:3:38: expected tables with labels, found a list",
        ),
        (
            "loss = 'leaf'\nmetrics.x = true",
            "x.toml:4:13: metric: expected a name or a table, found true",
        ),
        (
            "loss = { use = 'leaf', low = 2.0 }",
            "x.toml:3:8: loss 'leaf': low = 2.0 is above high = 1.0",
        ),
        (
            "loss = { use = 'bounds', bottom = 2 }",
            "x.toml:3:8: loss 'bounds': 'bottom' must be at most 1: 2",
        ),
    ],
)
def test_a_wrong_component_is_told(text: str, message: str) -> None:
    """A component that isn't one is told at its value or at its `use`."""
    (problem,) = told(text)
    assert problem.split("\n")[0] == message


def test_a_validator_that_reads_another_option_runs_on_the_whole() -> None:
    """A validator that compares options sees all of them."""
    made = loaded("loss = { use = 'bounds', top = 5, bottom = 5 }").loss.options
    assert (made.top, made.bottom) == (5, 5)


@pytest.mark.parametrize("missing", ["dataset", "model", "loss"])
def test_a_missing_component_is_told(missing: str) -> None:
    """What no file names is told with the key to write."""
    rest = [f'{key} = "leaf"' for key in ("dataset", "model", "loss") if key != missing]
    assert told("", base="\n".join(rest)) == [
        f"x.toml: the experiment names no {missing}; write {missing} = …"
    ]


NESTED: Sequence[tuple[str, Any]] = [
    ("inner = 'leaf'", Leaf()),
    ("inner = { use = 'leaf', low = 0.25 }", Leaf(low=0.25)),
    ("inner = { use = 'needy', width = 1, height = 2 }", Needy(width=1, height=2)),
    ("", Leaf()),
]


@pytest.mark.parametrize(("text", "expected"), NESTED)
def test_an_option_may_be_a_component(text: str, expected: Any) -> None:
    """A nested component is structured by the same rules, its default too."""
    made = loaded(f"[loss]\nuse = 'everything'\n{text}")
    assert made.loss.options.inner == expected
    assert [part.use for part in made.used if part.kind == "loss"] == [
        next(name for name, cls in CLASSES.items() if isinstance(expected, cls)),
        "everything",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parts.leaf.low = 0.5", {"leaf": Leaf(low=0.5)}),
        ("parts.mine = { use = 'leaf' }", {"mine": Leaf()}),
        ("parts = { mine = 'leaf', yours = 'bounds' }", {"mine": Leaf(), "yours": Bounds()}),
        ("parts = { mine = 'leaf', bounds = false }", {"mine": Leaf()}),
        ("", {}),
    ],
)
def test_an_option_may_hold_components_under_labels(text: str, expected: Any) -> None:
    """Several nested components stand under labels, as metrics do."""
    assert loaded(f"[loss]\nuse = 'everything'\n{text}").loss.options.parts == expected


def test_mistakes_in_nested_components_have_their_places() -> None:
    """A nested component gets the same errors, deep down too."""
    text = (
        "[loss]\nuse = 'everything'\ninner = { use = 'laef' }\n"
        "[loss.parts.mine]\nuse = 'everything'\ncount = 'x'\n"
        "[loss.parts.mine.inner]\nuse = 'leaf'\nlwo = 1.0\n"
    )
    assert told(text) == [
        (
            "x.toml:5:17: no loss is named 'laef'; did you mean 'leaf'?\n"
            "    inner = { use = 'laef' }\n"
            "                    ^"
        ),
        (
            "x.toml:8:9: 'count': expected a whole number, found the text 'x'\n"
            "    count = 'x'\n"
            "            ^"
        ),
        "x.toml:11:1: loss 'leaf' has no option 'lwo'; did you mean 'low'?\n    lwo = 1.0\n    ^",
    ]


def test_metrics_in_a_list_and_under_labels_are_the_same() -> None:
    """A list of names is tables without options, keyed by name."""
    listed = loaded("loss = 'leaf'\nmetrics = ['leaf', 'bounds']")
    tables = loaded("loss = 'leaf'\n[metrics.leaf]\n[metrics.bounds]")
    assert listed.metrics == tables.metrics
    assert tree(listed) == tree(tables)


def test_a_table_in_a_list_keeps_its_label() -> None:
    """A table in a list of metrics has one label, whether or not a table joins the list."""
    alone = loaded("loss = 'leaf'\nmetrics = [{ use = 'leaf' }]").metrics
    joined = loaded("loss = 'leaf'\nmetrics = [{ use = 'leaf' }]", "metrics.bounds={}").metrics
    assert list(joined) == [*alone, "bounds"]


def test_a_mistake_in_a_table_in_a_list_keeps_its_place() -> None:
    """A wrong option is told at its own place, also after a table joined the list."""
    text = "loss = 'leaf'\nmetrics = [{ use = 'leaf', low = 'x' }]"
    assert told(text, "metrics.bounds={}")[0].startswith("x.toml:4:34: ")


def test_a_name_that_stands_twice_isnt_lost() -> None:
    """A list with the same name twice stays a mistake when a table joins it."""
    (problem,) = told("loss = 'leaf'\nmetrics = ['leaf', 'leaf']", "metrics.bounds={}")
    assert "'leaf' stands twice" in problem


def test_false_in_a_list_is_a_mistake() -> None:
    """`false` drops a label; in a list it drops nothing and is told."""
    (problem,) = told("loss = 'leaf'\nmetrics = ['leaf', false]")
    assert problem.startswith("x.toml:4:20: metric: expected a name or a table, found false")


def test_a_table_without_use_in_a_list_is_told() -> None:
    """A table in a list has no label to take its name from, and must say `use`."""
    (problem,) = told("loss = 'leaf'\nmetrics = [{ low = 1.0 }]")
    assert problem.split("\n")[0] == 'x.toml:4:12: metric: no plugin is named; write use = "…"'


@pytest.mark.parametrize(
    ("cls", "table"),
    [
        (Foreign, {}),
        (Foreign, {"width": 1, "pair": [1, "x"]}),
        (Foreign, {"width": 1, "pair": "ab"}),
        (Foreign, {"width": 1, "many": 3}),
        (Foreign, {"width": 1, "inner": {"low": "x"}}),
        (Foreign, {"width": 1, "inner": {"lwo": 1.0}}),
        (Silent, {"width": 1}),
    ],
)
def test_any_attrs_class_is_read_strictly(cls: Any, table: dict[str, Any]) -> None:
    """Options of types that the core has no rule for are told as mistakes, never a traceback."""
    structurer = Structurer(Draft({}, {}), REGISTRY)
    assert structurer.options(cls, table, ("loss",), "loss 'foreign'") is None
    assert structurer.problems
    assert all("\n" not in problem.message for problem in structurer.problems)


@attrs.frozen
class Odd:
    """Fields that no file sets, under a private name, and of a type that no file holds."""

    _width: int = 1
    area: int = attrs.field(default=4, init=False)
    raw: Path | bytes = b""
    when: EntryPoint | None = None

    def build(self, _: Any) -> None:
        """Nothing."""


def foreign(cls: type[Any], text: str) -> Experiment:
    """Load an experiment whose loss is somebody else's class."""
    offer = Offer(
        "loss", "far", "faraway", "7", EntryPoint("far", f"{__name__}:{cls.__name__}", "")
    )
    Path("x.toml").write_text(f"{BASE}[loss]\nuse = 'far'\n{text}")
    return load(Path("x.toml"), (), Registry((*REGISTRY.offers, offer)))


@pytest.mark.parametrize(
    ("cls", "text", "message"),
    [
        (Unresolved, "", "x.toml:4:7: loss 'far' of faraway 7 can't be imported"),
        (Odd, "when = 'x'", "x.toml:5:8: loss 'far' of faraway 7: 'when' is no "),
        (Odd, "area = 3", "x.toml:5:1: loss 'far' has no option 'area'"),
        (Foreign, "", "x.toml:3:1: loss 'far' needs the option 'width'"),
        (Foreign, "width = 1\npair = [1, 'x']", "x.toml:6:8: 'pair': expected a whole number"),
    ],
)
def test_a_fault_of_a_plugin_names_the_plugin(cls: type[Any], text: str, message: str) -> None:
    """What a plugin's class gets wrong is told with distribution and version, in one line."""
    with pytest.raises(ExperimentError) as caught:
        foreign(cls, text)
    (problem,) = caught.value.problems
    assert terminal.text(problem).startswith(message)


def test_fields_that_no_file_sets_are_left_alone() -> None:
    """A field under a private name is an option; one that `__init__` doesn't take is none."""
    made = foreign(Odd, "_width = 3")
    assert made.loss.options == Odd(width=3)
    assert list(tree(made)["loss"]) == ["use", "_width", "raw", "when"]
