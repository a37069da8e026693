"""The suites as pytest's items: one for each plugin that a distribution offers, and each check.

my-dist::loss my_loss::sums_and_counts_add_up
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from framework.errors import UserError, listing, nearest
from framework.registry import Offer, Registry
from framework.testing.place import place

if TYPE_CHECKING:
    from framework.testing.suite import Suite  # torch comes with it: not for a usage error

HOOK = "pytest_framework_case(kind, name)"


class Conformance:
    """Adds the items of the distributions that `--framework-plugin` names."""

    def __init__(self, config: pytest.Config, names: Sequence[str]) -> None:
        """Find what they offer; without files to test, leave pytest nothing else to collect."""
        self.offers = {found[0].distribution: found for found in map(_offers, names)}
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = []

    @pytest.hookimpl(tryfirst=True)  # before `-k` and `--deselect` choose among the items
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """Put the checks before the tests of files."""
        nodes = [
            Distribution.from_parent(session, name=name, nodeid=name, offers=offers)
            for name, offers in self.offers.items()
        ]
        items[:0] = [item for node in nodes for item in session.genitems(node)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say of a skipped check where its plugin is, not where this file skips."""
        report = yield
        if isinstance(item, Check) and report.skipped and isinstance(report.longrepr, tuple):
            report.longrepr = (str(item.file), item.line, report.longrepr[2])
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say of which plugins nothing was proved: a session of skipped checks passes."""
        states: dict[str, set[str]] = defaultdict(set)
        for state in ("passed", "failed", "error", "xfailed", "skipped"):
            for report in terminalreporter.stats.get(state, ()):
                states[report.nodeid.rpartition("::")[0]].add(state)
        for plugin, found in states.items():
            if found == {"skipped"} and plugin.partition("::")[0] in self.offers:
                terminalreporter.write_line(f"{plugin}: every check was skipped; -rs tells why")


def _offers(name: str) -> list[Offer]:
    """Return what a distribution offers, however its name is spelt (`My.Dist` is `my-dist`)."""
    offers = Registry().offers
    found = [offer for offer in offers if _plain(offer.distribution) == _plain(name)]
    if not found:
        known = sorted({offer.distribution for offer in offers})
        hint = nearest(name, known) or f"; plugins are offered by {listing(known)}"
        try:
            fault = f"'{name}' {version(name)} offers no plugin"
        except (PackageNotFoundError, ValueError):  # no name at all is a ValueError
            fault = f"no distribution '{name}' is installed"
        raise pytest.UsageError(f"--framework-plugin: {fault}{hint}")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Distribution(pytest.Collector):
    """A distribution; its children are its plugins."""

    def __init__(self, *, offers: Sequence[Offer], **node: Any) -> None:
        """Keep what it offers."""
        super().__init__(**node)
        self.offers = offers

    def collect(self) -> Iterator[Plugin]:
        """Give a node per plugin."""
        for offer in self.offers:
            yield Plugin.from_parent(self, name=f"{offer.kind} {offer.name}", offer=offer)


@attrs.frozen
class Case:
    """What the checks of a plugin run on; `lacking` says why they can't."""

    options: Any = None
    expected: Mapping[str, str] = attrs.field(factory=dict)
    given: Mapping[str, Any] = attrs.field(factory=dict)
    lacking: str = ""


class Plugin(pytest.Collector):
    """A plugin; its children are the checks of its kind."""

    def __init__(self, *, offer: Offer, **node: Any) -> None:
        """Keep the offer."""
        super().__init__(**node)
        self.offer = offer

    def collect(self) -> Iterator[Check]:
        """Import the plugin and give its checks, or, if that fails, one item that says so."""
        try:
            cls = self.offer.load()
        except UserError as error:
            found = functools.partial(_constant, "failed", str(error))
            yield Check.from_parent(self, name="can_be_imported", plugin=None, found=found)
            return
        suite, case = self._case(cls)
        for check in suite.checks:
            name = check.__name__
            if case.lacking:
                found = functools.partial(_constant, "skipped", case.lacking)
            else:
                expected = case.expected.get(name)
                one = functools.partial(suite.one, check, case.options, expected, case.given)
                found = functools.partial(_state, one)
            yield Check.from_parent(self, name=name, plugin=cls, found=found)

    def _case(self, cls: type[Any]) -> tuple[Suite, Case]:
        """Return the suite, and what the author's hook gives for it, or the defaults."""
        kind, name = self.offer.kind, self.offer.name
        module = importlib.import_module(f"framework.testing.{kind}")
        given = self.config.hook.pytest_framework_case(kind=kind, name=name)
        suite: Suite = module.SUITE
        takes = inspect.signature(getattr(module, f"check_{kind}")).parameters
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise self._refusal(f"{given!r}, which is neither a mapping nor None")
        for key in given:
            if key not in takes:
                hint = nearest(str(key), takes) or f"; it takes {listing(takes)}"
                raise self._refusal(f"'{key}', which check_{kind} doesn't take{hint}")
        rest = {k: v for k, v in given.items() if v is not None}
        expected = rest.pop("expected_failures", {})
        checks = [check.__name__ for check in suite.checks]
        for key in expected:
            if key not in checks:
                hint = nearest(str(key), checks) or f"; the checks are {listing(checks)}"
                raise self._refusal(f"a failure of '{key}', which is no check{hint}")
        if "options" in rest:
            return suite, Case(rest.pop("options"), expected, rest)
        return suite, attrs.evolve(_default(self.offer, cls), expected=expected, given=rest)

    def _refusal(self, words: str) -> pytest.Collector.CollectError:
        owner = f"{self.offer.kind} '{self.offer.name}'"
        return self.CollectError(f"{HOOK} returns for {owner} {words}")


def _default(offer: Offer, cls: type[Any]) -> Case:
    """Call the options without arguments; where they need some, say which and where to give them.

    A nested component counts as needed: its default is a name, which only an experiment resolves.
    """
    owner = f"{offer.kind} '{offer.name}'"
    needed = [
        field.name
        for field in attrs.fields(cls)
        if field.init and (field.default is attrs.NOTHING or field.metadata.get("kind"))
    ]
    advice = f"give its options by the hook {HOOK} in conftest.py"
    if needed:
        return Case(lacking=f"{owner} needs {listing(needed)}: {advice}")
    try:
        return Case(cls())
    except (ValueError, TypeError) as error:  # what an experiment reports as a mistake of its own
        words = " ".join(str(error).split())
        return Case(lacking=f"{owner} can't do with its defaults ({words}): {advice}")


def _constant(state: str, reason: str) -> tuple[str, str]:
    return state, reason


def _state(one: Callable[[], Any]) -> tuple[str, str]:
    outcome = one()
    return outcome.state, outcome.reason


class Check(pytest.Item):
    """One check of one plugin."""

    def __init__(
        self, *, plugin: type[Any] | None, found: Callable[[], tuple[str, str]], **node: Any
    ) -> None:
        """Keep what runs it, and the file and line of the plugin's class."""
        super().__init__(**node)
        self.found = found
        self.heading = f"{node['parent'].name}: {self.name}"
        file, self.line = place(plugin) if plugin else ("", 0)
        self.where = f"{file}:{self.line}" if self.line else file
        self.file = Path(file) if file else self.path

    def runtest(self) -> None:
        """Run it."""
        state, reason = self.found()
        if state == "skipped":
            pytest.skip(reason)
        if state == "expected":
            pytest.xfail(reason)
        # also what is expected, under --runxfail
        if state != "passed":
            raise CheckFailedError(reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Print the reason and the file of the class; how a check works is of no interest."""
        if not isinstance(excinfo.value, (CheckFailedError, pytest.xfail.Exception)):
            return super().repr_failure(excinfo, style)
        return f"{excinfo.value}\n{self.where}".rstrip()

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the class's place, and the heading of a failure."""
        return self.file, max(self.line - 1, 0), self.heading


class CheckFailedError(Exception):
    """A check failed; the message is its reason."""
