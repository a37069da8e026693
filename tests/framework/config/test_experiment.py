"""The frozen experiment, and the document it is written out as."""

from __future__ import annotations

import datetime as dt
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.commands import _requires, _sets, _toml
from framework.commands._experiment import find_inputs
from framework.commands._resolved import document, toml, tree
from framework.commands.validate import explained
from framework.config.experiment import Experiment, load
from framework.config.merge import DEFAULTS
from framework.errors import ExperimentError, UserError
from framework.protocols import option
from framework.registry import KINDS, Offer, Registry


@attrs.frozen
class Plain:
    """Options of the types that a file can hold."""

    flag: bool = option(False, help="yes or no")
    count: int = option(0, help="how many")
    rate: float = option(0.0, help="how fast")
    text: str = option("", help="words")
    mode: Literal["min", "max"] = option("min", help="which way")
    weights: Literal["balanced"] | list[float] = option("balanced", help="per class")
    names: list[str] = option([], help="several words")
    free: dict[str, Any] = option({}, help="whatever it holds")
    file: Path = option(Path("/nowhere"), help="a file")
    source: Path | str = option("", help="a file or a name")
    inner: Any = option("small", help="a loss", kind="loss")
    parts: Any = option({}, help="losses by label", kind="loss")

    def build(self, _: Any) -> None:
        """Nothing."""


@attrs.frozen
class Small:
    """A loss with one option."""

    gamma: float = option(2.0, help="a number")

    def build(self, _: Any) -> None:
        """Nothing."""


OFFERS = tuple(
    Offer(kind, name, "tests", "1", EntryPoint(name, f"{__name__}:{cls.__name__}", ""))
    for kind in ("dataset", "model", "loss", "metric", "callback")
    for name, cls in {"plain": Plain, "small": Small}.items()
)
BUILT_IN = (
    *("adamw", "linear", "bucket", "auto"),
    *("signals", "guard", "progress", "jsonl", "checkpoint"),
)
REGISTRY = Registry((*(o for o in Registry().offers if o.name in BUILT_IN), *OFFERS))
BASE = 'dataset = "small"\nmodel = "small"\nloss = "plain"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str = "", *sets: str, base: str = BASE, name: str = "x.toml") -> Experiment:
    """Load an experiment."""
    file = Path(name)
    file.write_text(text if text.startswith("extends") else base + text, encoding="utf-8")
    return load(file, [*map(_sets.parsed, sets)], REGISTRY, {"requires": _requires.check})


def again(experiment: Experiment, *, origins: bool = False) -> Experiment:
    """Write an experiment out, and read it back in another folder."""
    folder = Path("elsewhere")
    folder.mkdir(exist_ok=True)
    file = folder / "experiment.toml"
    text = explained(experiment) if origins else toml(experiment)
    file.write_text(text, encoding="utf-8")
    return load(file, (), REGISTRY)


def same(first: Any, second: Any) -> bool:
    """Compare trees with their types and order; NaN equals NaN, a path its text."""

    def shown(item: Any) -> Any:
        if isinstance(item, dict):
            return [(key, shown(value)) for key, value in item.items()]
        if isinstance(item, list):
            return [shown(value) for value in item]
        return repr(str(item) if isinstance(item, Path) else item)

    return bool(shown(first) == shown(second))


def test_the_name_is_the_files_by_default() -> None:
    """An experiment without a name is called as its file is."""
    assert loaded(name="my-run.v2.toml").name == "my-run.v2"
    assert loaded('name = "other"').name == "other"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "../x", "-x", "a\n", "é"])
def test_a_name_that_no_folder_should_have_is_refused(name: str) -> None:
    """The name becomes a folder: nothing but letters, digits, dots, dashes, underscores."""
    with pytest.raises(ExperimentError, match="'name' must match regex"):
        loaded(f"name = {_toml.value(name)}")


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    """A seed below 0 or beyond 64 bits is told before anything is built."""
    with pytest.raises(ExperimentError, match=r"x.toml:4:8: 'seed' "):
        loaded(f"seed = {seed}")


def test_the_defaults_are_those_of_the_file() -> None:
    """Every key of `defaults.toml` is what an experiment gets that says nothing of it."""
    defaults = tomli.loads(DEFAULTS.read_text())
    resolved = tree(loaded())
    assert resolved["seed"] == defaults["seed"]
    assert resolved["trainer"] == defaults["trainer"]
    assert list(resolved["callbacks"]) == list(defaults["callbacks"])
    for kind in KINDS.values():
        if kind.table in defaults and not kind.many:
            assert resolved[kind.table]["use"] == defaults[kind.table]


def test_the_tree_names_every_option() -> None:
    """The resolved experiment says every option of every part, given or not, in one order."""
    resolved = tree(loaded("[metrics.mine]\nuse = 'small'"))
    assert list(resolved) == [
        "name",
        "seed",
        *(str(kind.table) for kind in KINDS.values() if kind.table and not kind.many),
        "trainer",
        "metrics",
        "callbacks",
    ]
    assert list(resolved["loss"]) == ["use", *(field.name for field in attrs.fields(Plain))]
    assert resolved["loss"]["inner"] == {"use": "small", "gamma": 2.0}
    assert resolved["metrics"] == {"mine": {"use": "small", "gamma": 2.0}}


@attrs.frozen
class Checked:
    """A dataset that looks for its file."""

    file: Path = option(help="a file that must be there")

    def check(self) -> None:
        """Raise `UserError` if it isn't."""
        if not self.file.exists():
            raise UserError(f"{self.file.name}: there is no such file")

    def build(self, _: Any) -> None:
        """Nothing."""


def test_missing_input_is_told_before_other_plugins_are_loaded(here: Path) -> None:
    """With `inputs`, the dataset's check comes first; what stands after it isn't looked at."""
    offers = [
        Offer("dataset", "checked", "tests", "1", EntryPoint("c", f"{__name__}:Checked", "")),
        Offer("model", "broken", "tests", "1", EntryPoint("b", "no_such_module:Model", "")),
    ]
    registry = Registry((*REGISTRY.offers, *offers))
    text = "seeds = 1\nloss = 'small'\nmodel = 'broken'\ndataset = { use = 'checked', file = 'a' }"
    file = here / "x.toml"
    file.write_text(text)
    first = "x.toml:1:1: an experiment has no key 'seeds'; did you mean 'seed'?"
    missing = "x.toml:4:11: a: there is no such file"
    broken = "x.toml:3:9: model 'broken' of tests 1 can't be imported"

    def told(*, inputs: bool) -> list[str]:
        with pytest.raises(ExperimentError) as caught:
            load(file, (), registry, {"dataset": find_inputs} if inputs else {})
        return [str(problem).split(" (")[0] for problem in caught.value.problems]

    assert told(inputs=True) == [first, missing]
    assert told(inputs=False) == [first, broken]
    (here / "a").touch()
    assert told(inputs=True) == [first, broken]


def test_an_experiment_is_frozen() -> None:
    """Neither an experiment nor its options can be changed."""
    experiment = loaded()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        experiment.seed = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        experiment.loss.options.count = 1


def test_every_component_is_on_record() -> None:
    """`used` holds each component once, nested ones and defaults too, and who offers it."""
    used = loaded("[metrics.small]", "loss.parts.a=small", "loss.parts.b=small").used
    assert [(part.kind, part.use, part.offer.distribution) for part in used] == [
        ("dataset", "small", "tests"),
        ("model", "small", "tests"),
        ("loss", "small", "tests"),
        ("loss", "small", "tests"),
        ("loss", "small", "tests"),
        ("loss", "plain", "tests"),
        ("optimizer", "adamw", "composable-nlp"),
        ("scheduler", "linear", "composable-nlp"),
        ("sampler", "bucket", "composable-nlp"),
        ("precision", "auto", "composable-nlp"),
        ("strategy", "auto", "composable-nlp"),
        ("metric", "small", "tests"),
        ("callback", "signals", "composable-nlp"),
        ("callback", "guard", "composable-nlp"),
        ("callback", "progress", "composable-nlp"),
        ("callback", "jsonl", "composable-nlp"),
        ("callback", "checkpoint", "composable-nlp"),
    ]


def test_a_swap_by_set_and_by_the_file_is_the_same() -> None:
    """`--set loss=…` and the edited line give the same experiment, and its document shows it."""
    by_set = loaded("", "loss=small")
    by_line = loaded("", base=BASE.replace('loss = "plain"', 'loss = "small"'))
    assert by_set == by_line
    assert toml(by_set) == toml(by_line)
    assert tomli.loads(toml(by_set))["loss"] == {"use": "small", "gamma": 2.0}


def test_a_plugin_picked_by_distribution_stays_picked() -> None:
    """`dist:name` is kept in the document."""
    experiment = loaded("", "loss=tests:small")
    assert tree(experiment)["loss"]["use"] == "tests:small"
    assert tree(again(experiment)) == tree(experiment)


NASTY = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("\"'\\\n\r\t\x00\x1f\x7f\x85\u2028\ufeff#[]{}=.,$😀"),
    max_size=8,
)
FLOATS = st.floats() | st.sampled_from([-0.0, 5e-324, 1e16, 1e22, 1e-5, 2**53 + 0.0])
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
LEAVES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    FLOATS,
    NASTY,
    st.dates(),
    st.times().map(lambda time: time.replace(fold=0)),  # which TOML doesn't know
    (st.datetimes() | st.datetimes(timezones=ZONES)).map(lambda time: time.replace(fold=0)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_written_reads_back(item: Any) -> None:
    """Whatever a file can hold reads back as it was, type and order included."""
    assert same(tomli.loads(f"k = {_toml.value(item)}")["k"], item)


@given(NASTY, NASTY)
def test_a_key_written_reads_back(first: str, second: str) -> None:
    """Any text can be a key, plain, dotted, or in a header."""
    keys = f"{_toml.key(first)}.{_toml.key(second)}"
    assert tomli.loads(f"{keys} = 1") == {first: {second: 1}}
    assert tomli.loads(f"[{keys}]") == {first: {second: {}}}


def plain_first(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with its plain keys before its tables: the order of both is kept."""
    inner = {k: plain_first(v) for k, v in table.items() if isinstance(v, dict)}
    return {k: v for k, v in table.items() if k not in inner} | inner


@given(
    st.dictionaries(NASTY.filter(lambda k: k not in ("metrics", "callbacks")), VALUES, max_size=4),
    st.dictionaries(NASTY, st.dictionaries(NASTY, VALUES, max_size=3), max_size=3),
)
def test_a_document_written_reads_back(tree: dict[str, Any], labelled: dict[str, Any]) -> None:
    """A whole document reads back as it was, its labelled tables under headers of their own."""
    tree |= {"callbacks": labelled}
    assert same(tomli.loads(document(tree)), plain_first(tree))


def test_a_document_is_meant_to_be_read() -> None:
    """Plain keys come first, then a header per table and per label; what isn't set is left out."""
    tree = {
        "loss": {"use": "x", "a": None, "deep": {"b": [1, 2.5]}},
        "name": "n",
        "callbacks": {"one": {"use": "one"}, "odd label": {}},
        "metrics": {},
    }
    assert document(tree) == (
        'name = "n"\n'
        "\n"
        "[loss]\n"
        'use = "x"\n'
        "\n"
        "[loss.deep]\n"
        "b = [1, 2.5]\n"
        "\n"
        "[callbacks.one]\n"
        'use = "one"\n'
        "\n"
        '[callbacks."odd label"]\n'
        "\n"
        "[metrics]\n"
    )


SETTINGS: dict[str, Any] = {
    "flag": st.booleans(),
    "count": st.integers(-(2**40), 2**40),
    "rate": FLOATS,
    "text": NASTY,
    "mode": st.sampled_from(["min", "max"]),
    "weights": st.just("balanced") | st.lists(FLOATS, max_size=3),
    "names": st.lists(NASTY, max_size=3),
    "free": st.dictionaries(NASTY, VALUES, max_size=3),
    "file": NASTY.filter(bool),
    "source": NASTY,
    "inner": st.one_of(
        st.just("small"), FLOATS.map(lambda rate: {"use": "plain", "rate": rate, "text": "é"})
    ),
    "parts": st.dictionaries(NASTY.filter(bool), st.just("small"), max_size=2),
}


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional=SETTINGS), st.integers(0, 2**32))
def test_the_document_runs_again_as_it_stands(given: dict[str, Any], seed: int) -> None:
    """The document of any experiment reads back, in any folder, to the same experiment."""
    sets = [f"loss.{name}={_toml.value(value)}" for name, value in given.items()]
    experiment = loaded("", *sets, f"seed={seed}", "metrics.a.use=small")
    found = again(experiment)
    assert same(plain_first(tree(found)), plain_first(tree(experiment)))
    assert toml(found) == toml(experiment)
    with_origins = explained(experiment)
    assert tomli.loads(with_origins) == tomli.loads(toml(experiment)) or "nan" in with_origins
    found = again(experiment, origins=True)
    assert same(plain_first(tree(found)), plain_first(tree(experiment)))


@pytest.mark.parametrize("argument", ["callbacks.jsonl=false", "callbacks={ progress = false }"])
def test_a_dropped_callback_stays_dropped(argument: str) -> None:
    """An experiment that drops a default callback is written out so that it stays dropped."""
    experiment = loaded("", argument)
    assert tree(again(experiment))["callbacks"] == tree(experiment)["callbacks"]


def test_requirements_that_are_met() -> None:
    """`requires` names distributions; what is installed and new enough is no mistake."""
    text = f'requires = ["attrs", "composable-nlp>=0.0.1", "tomli=={version("tomli")}"]'
    experiment = loaded(text)
    assert experiment.requires == ["attrs", "composable-nlp>=0.0.1", f"tomli=={version('tomli')}"]
    assert tree(again(experiment)) == tree(experiment)


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ('"no-such-thing>=1"', "'no-such-thing' is not installed; pip install 'no-such-thing>=1'"),
        ('"attrs>=999"', f"'attrs>=999' is required and {version('attrs')} is installed"),
        ('"a b c"', "'a b c' is no requirement; write it as 'name>=1.2'"),
        ("3", "'requires': expected text, found 3"),
    ],
)
def test_a_requirement_that_isnt_met_is_told(requirement: str, message: str) -> None:
    """What is missing or too old is told at its own place, with what to do."""
    with pytest.raises(ExperimentError) as caught:
        loaded(f'requires = ["attrs", {requirement}]')
    (problem,) = caught.value.problems
    assert str(problem) == f"x.toml:4:22: {message}"


def test_a_pre_release_meets_a_requirement(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed counts by its number, be it a release or not."""
    info = here / "early_parts-2.0rc1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: early-parts\nVersion: 2.0rc1\n")
    monkeypatch.syspath_prepend(str(here))
    assert loaded('requires = ["early-parts>=1.5"]').requires == ["early-parts>=1.5"]
    with pytest.raises(ExperimentError, match=r"'early-parts>=2' is required and 2\.0rc1 is"):
        loaded('requires = ["early-parts>=2"]')


def test_requirements_must_be_a_list() -> None:
    """`requires` is a list, one item a distribution."""
    with pytest.raises(ExperimentError) as caught:
        loaded('requires = "attrs"')
    assert [problem.message for problem in caught.value.problems] == [
        "'requires': expected a list of text, found the text 'attrs'"
    ]


def test_mistakes_are_told_in_the_order_of_lines() -> None:
    """A file's mistakes come by line, and those of the command line last."""
    with pytest.raises(ExperimentError) as caught:
        loaded('requires = ["no-such-thing"]', "loss=from_no_such_thing")
    assert [problem.where for problem in caught.value.problems] == ["x.toml:4:13", "--set:1:6"]


def test_unknown_keys_list_what_there_is() -> None:
    """A key that is near none is told with all the keys there are."""
    with pytest.raises(ExperimentError) as caught:
        loaded("xyzzy = 1")
    assert str(caught.value).split("\n")[0] == (
        "x.toml:4:1: an experiment has no key 'xyzzy'; the keys are 'name', 'seed', 'requires',"
        " 'dataset', 'model', 'loss', 'optimizer', 'scheduler', 'sampler', 'precision',"
        " 'strategy', 'metrics', 'callbacks', 'trainer'"
    )


def test_extends_belongs_into_a_file() -> None:
    """`--set extends=…` extends nothing, and is told."""
    with pytest.raises(ExperimentError, match=r"--set:1:1: an experiment has no key 'extends'"):
        loaded("", "extends=y.toml")
