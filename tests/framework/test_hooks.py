"""The hooks: written once, observed as written, checked when they are registered."""

from __future__ import annotations

import inspect
import json
import logging
import re
from logging.handlers import BufferingHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import install
from tiny_parts import (
    Recorder,
    one_thread,  # noqa: F401 - a fixture for every test here
    trainer,
)

from framework import hooks
from framework.errors import RunError, UserError
from framework.hooks import NAMES, Hooks, Specs, hookimpl, ordered
from tests.faults import processes

STATE: Any = SimpleNamespace(name="state")
STEP: Any = {"state": STATE, "window": [], "loss": {}, "norm": None}
RECORDER = """
import attrs
from framework.hooks import NAMES, hookimpl

@attrs.frozen
class Options:
    def build(self):
        return type("Live", (), {name: hook(name) for name in NAMES})()

def hook(name):
    def note(self, state):
        with open("events.txt", "a") as stream:
            stream.write(f"{name}\\n")
    note.__name__ = name
    return hookimpl(note)
"""
EXPERIMENT = """
dataset = { use = "acme_words", count = 24 }
loss = "acme_poly"
metrics = ["accuracy"]
callbacks.recorder = {}
trainer = { epochs = 2, batch_size = 24, log_every = 1, threads = 1 }

[model]
use = "hf_classifier"
max_length = 16
config = { hidden_size = 8, num_hidden_layers = 1, num_attention_heads = 1, intermediate_size = 8 }
"""


def marks() -> list[tuple[int, str]]:
    """Return the hook marks of the module's docstring, with the depth of each."""
    found = re.findall(r"^(    +)(\w+)$", str(hooks.__doc__), re.MULTILINE)
    return [(len(indent) // 4, name) for indent, name in found]


def told(live: object, label: str = "mine") -> str:
    """Return what registering a callback is refused with."""
    with pytest.raises(UserError) as caught:
        Hooks({label: live})
    return str(caught.value)


def test_the_docstring_marks_every_hook() -> None:
    """Docstring and specifications name the same hooks, in the order of the loop; at most ten."""
    assert tuple(dict.fromkeys(name for _, name in marks())) == NAMES
    assert len(NAMES) <= 10
    specified = [name for name, item in vars(Specs).items() if hasattr(item, "framework_spec")]
    assert tuple(specified) == NAMES
    assert all(inspect.getdoc(getattr(Specs, name)) for name in NAMES)


def test_a_real_run_follows_the_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of two epochs of one step calls the hooks in the docstring's order, and ends well."""
    groups = {"framework.callback": {"recorder": "recorder_module:Options"}}
    install(monkeypatch, tmp_path / "site", "recorder 1.0", groups, recorder_module=RECORDER)
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    done = processes.ran("run", "x.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    events = (tmp_path / "events.txt").read_text().split()
    names = [name for _, name in marks()]
    first, last = names.index("epoch_start"), names.index("epoch_end") + 1
    (saved,) = (i for i, name in enumerate(names) if name == "save_end")
    assert saved == names.index("run_end") - 1
    # the first epoch's checkpoint is told before the second's is begun: after its evaluation
    epoch = names[first:last]
    second = [*epoch[:-1], "save_end", epoch[-1]]
    assert events == names[:first] + epoch + second + names[last:]


def test_the_marks_are_indented_as_they_are_called(tmp_path: Path) -> None:
    """What stands deeper in the docstring is called between the start and the end around it."""
    recorder = Recorder()
    run = trainer(tmp_path, {"recorder": recorder}, log_every=1)
    run.fit()
    names = recorder.names()
    depth = {name: level for level, name in reversed(marks())}
    assert (depth["run_start"], depth["epoch_start"], depth["step_start"]) == (1, 2, 3)
    assert names.count("epoch_start") == names.count("epoch_end") == 2
    assert names.count("step_start") == names.count("step_end") == 6
    inside = 0
    assert depth["save_end"] == depth["epoch_start"]
    for name in names:
        inside -= name == "epoch_end"
        assert not name.startswith("step") or inside == 1
        inside += name == "epoch_start"


def test_every_argument_is_given_by_name() -> None:
    """A hook is called with what it takes, in whatever order it takes it."""
    seen = []

    class Live:
        """Takes its arguments in another order than the specification."""

        @hookimpl
        def evaluate_end(self, metrics: Any, split: str) -> None:
            """Note."""
            seen.append((split, metrics))

        @hookimpl
        def step_end(self) -> None:
            """Note."""
            seen.append("step_end")

        @hookimpl
        def log(self, point: Any, state: Any) -> None:
            """Note."""
            seen.append((state.name, point))

    call = Hooks({"live": Live()}).call
    call.evaluate_end(state=STATE, split="val", metrics={"f1": 1.0})
    call.step_end(**STEP)
    call.log(state=STATE, point={"step": 1})
    call.run_end(state=STATE)
    assert seen == [("val", {"f1": 1.0}), "step_end", ("state", {"step": 1})]


class Misspelt:
    """A hook that there isn't."""

    @hookimpl
    def step_ends(self) -> None:
        """Nothing."""


class Invented:
    """A hook that is near none."""

    @hookimpl
    def xyzzy(self) -> None:
        """Nothing."""


class WrongArgument:
    """An argument that the hook isn't called with."""

    @hookimpl
    def step_end(self, windows: Any) -> None:
        """Nothing."""


class FarArgument:
    """An argument that is near none."""

    @hookimpl
    def evaluate_end(self, state: Any, xyzzy: Any) -> None:
        """Nothing."""


class Variadic:
    """Any argument at all."""

    @hookimpl
    def step_end(self, **given: Any) -> None:
        """Nothing."""


class Unmarked:
    """A method that is named as a hook and not marked as one."""

    def step_end(self) -> None:
        """Nothing."""


class Unhooked:
    """A callback without any hook."""


class Defaulted:
    """A hook with a default, which the caller would never fill."""

    @hookimpl
    def step_end(self, state: Any, window: Any = None) -> None:
        """Nothing."""


class KeywordOnly:
    """A hook that can't be called by position."""

    @hookimpl
    def step_end(self, *, state: Any) -> None:
        """Nothing."""


class Eager:
    """A hook that would jump the order of the file."""

    @hookimpl(tryfirst=True)
    def step_end(self) -> None:
        """Nothing."""


class Waiting:
    """A hook that nobody would await."""

    @hookimpl
    async def step_end(self) -> None:
        """Nothing."""


class Static:
    """A hook that is not marked, and no method of the object."""

    @staticmethod
    def step_end() -> None:
        """Nothing."""


NOT_PLAIN = ": 'step_end' must be plain: no default, no setting of @hookimpl, not async"


@pytest.mark.parametrize(
    ("live", "message"),
    [
        (Misspelt(), ": there is no hook 'step_ends'; did you mean 'step_end'?"),
        (
            Invented(),
            ": there is no hook 'xyzzy'; the hooks are " + ", ".join(f"'{n}'" for n in NAMES),
        ),
        (WrongArgument(), ": 'step_end' has no argument 'windows'; did you mean 'window'?"),
        (
            FarArgument(),
            (
                ": 'evaluate_end' has no argument 'xyzzy';"
                " it is called with 'state', 'split', 'metrics'"
            ),
        ),
        (
            Variadic(),
            (
                ": 'step_end' has no argument 'given';"
                " it is called with 'state', 'window', 'loss', 'norm'"
            ),
        ),
        (Unmarked(), ": 'step_end' is never called; mark it with @hookimpl"),
        (Static(), ": 'step_end' is never called; mark it with @hookimpl"),
        (Defaulted(), NOT_PLAIN),
        (KeywordOnly(), NOT_PLAIN),
        (Eager(), NOT_PLAIN),
        (Waiting(), NOT_PLAIN),
        (Unhooked(), " implements no hook; mark its methods with @hookimpl"),
    ],
)
def test_a_callback_is_checked_when_it_is_registered(live: object, message: str) -> None:
    """A misspelt hook or argument is told before anything runs, under label and class."""
    where = f"callback 'mine' ({__name__}.{type(live).__qualname__} in {__file__})"
    assert told(live) == where + message


def made(label: str, **wishes: Any) -> Any:
    """Return a callback that notes its label in a list."""

    class Live:
        """Notes its label."""

        calls: list[str] = wishes.pop("calls", [])
        before = tuple(wishes.get("before", ()))
        after = tuple(wishes.get("after", ()))

        @hookimpl
        def step_end(self) -> None:
            """Note."""
            self.calls.append(label)

    return Live()


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"a": {}, "b": {}, "c": {}}, "abc"),
        ({"c": {}, "a": {}, "b": {}}, "cab"),
        ({"a": {"after": "c"}, "b": {}, "c": {}}, "bca"),
        ({"a": {}, "b": {}, "c": {"before": "a"}}, "bca"),
        ({"a": {"after": "b"}, "b": {"after": "c"}, "c": {}}, "cba"),
        ({"a": {"after": "bc"}, "b": {}, "c": {"before": "b"}}, "cba"),
    ],
)
def test_callbacks_are_called_in_order(wishes: Any, expected: str) -> None:
    """The order is the file's, moved only where `before` and `after` say so."""
    calls: list[str] = []
    live = {label: made(label, calls=calls, **wish) for label, wish in wishes.items()}
    Hooks(live).call.step_end(**STEP)
    assert "".join(calls) == expected


@given(st.data())
def test_any_wishes_that_can_be_met_are_met(data: Any) -> None:
    """Whatever `before` and `after` ask without a cycle holds in the order."""
    ranks = data.draw(st.permutations("abcdef"))
    live = {}
    for label in data.draw(st.permutations("abcdef")):
        at = ranks.index(label)
        earlier = data.draw(st.sets(st.sampled_from(ranks[:at]))) if at else set()
        later = data.draw(st.sets(st.sampled_from(ranks[at + 1 :]))) if at < 5 else set()
        live[label] = SimpleNamespace(after=earlier, before=later)
    order = list(ordered(live))
    assert sorted(order) == sorted(live)
    for label, wish in live.items():
        assert all(order.index(other) < order.index(label) for other in wish.after)
        assert all(order.index(other) > order.index(label) for other in wish.before)


@pytest.mark.parametrize(
    ("wishes", "left"),
    [
        ({"a": {"after": "b"}, "b": {"after": "a"}}, "'a', 'b'"),
        ({"a": {"before": "b"}, "b": {"before": "a"}, "c": {}}, "'a', 'b'"),
        ({"c": {}, "a": {"after": "a"}}, "'a'"),
        ({"a": {"after": "b"}, "b": {"after": "c"}, "c": {"before": "b", "after": "a"}}, None),
    ],
)
def test_a_cycle_of_wishes_is_told(wishes: Any, left: str | None) -> None:
    """Callbacks that wait for each other are an error that names them."""
    live = {label: made(label, **wish) for label, wish in wishes.items()}
    with pytest.raises(UserError) as caught:
        Hooks(live)
    left = left or "'a', 'b', 'c'"
    assert str(caught.value) == f"callbacks wait for each other by 'before' and 'after': {left}"


class Broken:
    """Fails in every step."""

    sink = False
    error: Exception = ZeroDivisionError("no\nreason")

    @hookimpl
    def step_end(self) -> None:
        """Fail."""
        raise self.error


class BrokenSink(Broken):
    """Fails in every step, and may."""

    sink = True


def test_a_failure_ends_the_run_under_its_owners_name() -> None:
    """An exception in a callback becomes an error that names label, class, hook, type and place.

    Its own words stay out: they may quote a record.
    """
    call = Hooks({"first": made("x"), "mine": Broken()}).call
    with pytest.raises(RunError) as caught:
        call.step_end(**STEP)
    assert re.fullmatch(
        rf"callback 'mine' \({__name__}\.Broken\) failed in step_end:"
        r" ZeroDivisionError at test_hooks\.py:\d+",
        str(caught.value),
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("error", [RunError("disk full"), UserError("not so")])
def test_an_error_that_is_worded_passes_as_it_is(error: Exception) -> None:
    """What a callback words for a person is not worded again."""
    live = Broken()
    live.error = error
    with pytest.raises(type(error)) as caught:
        Hooks({"mine": live}).call.step_end(**STEP)
    assert caught.value is error


def test_a_sinks_failure_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that fails is told once, by name, and everything else is called as before."""
    calls: list[str] = []
    heard = BufferingHandler(capacity=10)
    monkeypatch.setattr(logging.getLogger("framework"), "handlers", [heard])
    live = {"a": made("a", calls=calls), "sink": BrokenSink(), "b": made("b", calls=calls)}
    registered = Hooks(live)
    for _ in range(3):
        registered.call.step_end(**STEP)
    assert calls == ["a", "b"] * 3
    (said,) = [record.getMessage() for record in heard.buffer]
    assert said.startswith(
        f"callback 'sink' ({__name__}.BrokenSink) failed; the run goes on without it:"
        " ZeroDivisionError at test_hooks.py:"
    )
    assert registered.broken == {"sink"}


@pytest.mark.parametrize("error", [RunError("disk full"), UserError("not so")])
def test_no_failure_of_a_sink_ends_a_run(error: Exception) -> None:
    """A sink's error is told once, whatever its class."""
    live = BrokenSink()
    live.error = error
    registered = Hooks({"mine": live})
    registered.call.step_end(**STEP)
    assert registered.broken == {"mine"}


def test_an_interrupt_is_no_failure_of_a_sink() -> None:
    """Ctrl-C inside a sink reaches the run."""
    live = BrokenSink()
    live.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Hooks({"mine": live}).call.step_end(**STEP)


def test_a_run_without_callbacks_calls_nothing() -> None:
    """Every hook can be called with nobody there."""
    call = Hooks({}).call
    for name in NAMES:
        arguments = list(inspect.signature(getattr(Specs, name)).parameters)[1:]
        assert getattr(call, name)(**dict.fromkeys(arguments)) is None


def test_who_is_silent_keeps_its_place() -> None:
    """A rank that leaves a callback to another orders the others as if it called all of them."""
    seen: list[str] = []

    class Named:
        def __init__(self, name: str, *before: str) -> None:
            self.name, self.before = name, before

        @hookimpl
        def run_start(self) -> None:
            seen.append(self.name)

    live = {"a": Named("a"), "b": Named("b"), "c": Named("c", "a")}
    Hooks(live, {"a"}).call.run_start(state=None)
    assert seen == ["b", "c"]
    seen.clear()
    Hooks(live).call.run_start(state=None)
    assert sorted(seen) == ["a", "b", "c"]
    assert seen.index("c") < seen.index("a")
