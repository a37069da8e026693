"""Names from entry points of real distributions; classes only when they are asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from support import install

from framework.commands._records import source_hash
from framework.errors import UserError
from framework.registry import KINDS, Registry

Install = Callable[..., None]
OPTIONS = """
import attrs

@attrs.frozen
class Parts:
    def build(self, info):
        return self

class Plain:
    def build(self, info):
        return self

@attrs.frozen
class Useless:
    build = 3

def function():
    pass
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that installed distributions go to."""
    return tmp_path / "site"


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, site: Path) -> Install:
    """Install a distribution that offers losses: `offer("name version", {…}, module=source)`."""

    def make(name: str, losses: dict[str, str], **sources: str) -> None:
        install(monkeypatch, site, name, {"framework.loss": losses}, **sources)

    return make


def said(action: Callable[[], object]) -> str:
    """Return what a user's mistake is told as."""
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def test_kinds_are_one_table() -> None:
    """Every kind stands under its name, and no two share a key of the experiment."""
    assert all(kind.name == name for name, kind in KINDS.items())
    tables = [kind.table for kind in KINDS.values() if kind.table]
    assert len(set(tables)) == len(tables)


def test_every_entry_point_of_ours_can_be_used() -> None:
    """Each plugin that this distribution and the outside package declare is found and loads."""
    registry = Registry()
    declared = [
        (entry.group.removeprefix("framework."), entry, dist)
        for dist in ("composable-nlp", "acme-parts")
        for entry in distribution(dist).entry_points
        if entry.group.startswith("framework.")
    ]
    assert {kind for kind, _, _ in declared} == set(KINDS)
    for kind, entry, dist in declared:
        found = registry.find(kind, entry.name)
        assert (found.distribution, found.version) == (dist, version(dist))
        assert found.load() is entry.load()


def test_an_outside_package_is_found() -> None:
    """A package that is merely installed offers its parts under their names."""
    found = Registry().find("loss", "acme_poly")
    assert (found.distribution, found.version) == ("acme-parts", "0.3.1")
    assert found.load().__module__ == "acme_parts"
    assert Registry().find("loss", "acme-parts:acme_poly") == found


def test_offers_are_sorted(offer: Install) -> None:
    """What is listed stands in an order that doesn't depend on the disk."""
    offer("b-parts 1.0", {"zz": "nowhere:A", "aa": "nowhere:B"})
    offers = Registry().offers
    keys = [(found.kind, found.name, found.distribution) for found in offers]
    assert keys == sorted(keys)
    assert ("loss", "zz", "b-parts") in keys


def test_a_name_that_nobody_offers() -> None:
    """An unknown name is told with the nearest one, or with all there are."""
    registry = Registry()
    assert said(lambda: registry.find("loss", "focla")) == (
        "no loss is named 'focla'; did you mean 'focal'?"
    )
    names = ", ".join(f"'{found.name}'" for found in registry.of_kind("optimizer"))
    assert said(lambda: registry.find("optimizer", "xyzzy")) == (
        f"no optimizer is named 'xyzzy'; the choices are {names}"
    )


def test_a_name_that_another_distribution_offers() -> None:
    """`dist:name` finds nothing where that distribution doesn't offer the name."""
    message = said(lambda: Registry().find("loss", "acme-parts:focal"))
    assert message.startswith("no loss is named 'acme-parts:focal'")


def test_a_name_with_two_owners_is_an_error(offer: Install) -> None:
    """Two distributions that offer one name are both named, with how to pick one."""
    offer("first-parts 1.0", {"twice": "module_of_first:Parts"}, module_of_first=OPTIONS)
    offer("second-parts 2.1", {"twice": "module_of_second:Parts"}, module_of_second=OPTIONS)
    registry = Registry()
    assert said(lambda: registry.find("loss", "twice")) == (
        "loss 'twice' is offered by first-parts 1.0 and second-parts 2.1:"
        " write 'first-parts:twice' or 'second-parts:twice'"
    )
    for name in ("first", "second"):
        found = registry.find("loss", f"{name}-parts:twice")
        assert found.load().__module__ == f"module_of_{name}"


def test_a_built_in_cannot_be_shadowed(offer: Install) -> None:
    """An installed package that offers a built-in's name changes no run: the name is an error."""
    offer("bold-parts 0.1", {"focal": "module_of_bold:Parts"}, module_of_bold=OPTIONS)
    registry = Registry()
    ours = f"composable-nlp {version('composable-nlp')}"
    assert said(lambda: registry.find("loss", "focal")) == (
        f"loss 'focal' is offered by bold-parts 0.1 and {ours}:"
        " write 'bold-parts:focal' or 'composable-nlp:focal'"
    )
    assert registry.find("loss", "composable-nlp:focal").load().__module__ == "plugins.losses.focal"


def test_one_name_in_two_kinds_is_no_duplicate(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """A name belongs to a kind: `auto` may be a precision and a strategy."""
    groups = {"framework.loss": {"same": "x:Y"}, "framework.metric": {"same": "x:Y"}}
    install(monkeypatch, site, "two-kinds 1.0", groups)
    registry = Registry()
    assert registry.find("loss", "same").kind == "loss"
    assert registry.find("metric", "same").kind == "metric"


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("no_module_here:Parts", None, "ModuleNotFoundError: No module named 'no_module_here'"),
        ("broken:Missing", "", "AttributeError: module 'broken' has no attribute 'Missing'"),
        ("broken:Parts", "1 / 0", "ZeroDivisionError: division by zero"),
        ("broken:Parts", "raise ImportError('line one\\nline two')", "ImportError: line one"),
        ("broken:Parts", "def x(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
    ],
)
def test_a_plugin_that_fails_to_import(
    offer: Install, target: str, source: str | None, reason: str
) -> None:
    """A broken plugin is told in one line: distribution, version, object, exception."""
    offer("broken-parts 0.2", {"bad": target}, **({} if source is None else {"broken": source}))
    found = Registry().find("loss", "bad")
    assert said(found.load) == (
        f"loss 'bad' of broken-parts 0.2 can't be imported ({target}): {reason}"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Plain", "is no attrs class of options"),
        ("function", "is no attrs class of options"),
        ("Useless", "has no method 'build'"),
    ],
)
def test_an_object_that_is_no_plugin(offer: Install, name: str, reason: str) -> None:
    """What an entry point names must be an attrs class that can build."""
    offer("odd-parts 1.0", {"odd": f"odd_module:{name}"}, odd_module=OPTIONS)
    assert said(Registry().find("loss", "odd").load) == (
        f"loss 'odd' of odd-parts 1.0 {reason} (odd_module:{name})"
    )


def test_a_source_fetches_instead_of_building(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """The method that a plugin must have is its kind's."""
    groups = {"framework.source": {"odd": "odd_source:Parts"}}
    install(monkeypatch, site, "odd-source 1.0", groups, odd_source=OPTIONS)
    assert said(Registry().find("source", "odd").load) == (
        "source 'odd' of odd-source 1.0 has no method 'fetch' (odd_source:Parts)"
    )


def test_a_broken_plugin_harms_nobody_else(offer: Install) -> None:
    """Beside a plugin that can't be imported the others are listed, found and loaded."""
    offer("broken-parts 0.2", {"bad": "broken:Parts"}, broken="raise SystemError")
    registry = Registry()
    assert "bad" in [found.name for found in registry.of_kind("loss")]
    assert registry.find("loss", "acme_poly").load().__name__ == "Poly"


def test_listing_imports_no_plugin() -> None:
    """Scanning, listing and finding read metadata: no plugin's module, and not torch."""
    script = (
        "import sys\n"
        "from framework.registry import Registry\n"
        "registry = Registry()\n"
        "assert len(registry.offers) > 20\n"
        "registry.find('loss', 'focal'), registry.find('loss', 'acme_poly')\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots & {'plugins', 'acme_parts', 'torch', 'transformers', 'numpy'}))\n"
        "registry.find('loss', 'acme_poly').load()\n"
        "print('acme_parts' in sys.modules, 'plugins' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\nTrue False\n"


def test_the_hash_of_a_source_is_of_its_file(offer: Install, site: Path) -> None:
    """A plugin's source is recorded by the SHA-256 of the file that defines it."""
    offer("hashed-parts 1.0", {"hashed": "hashed_module:Parts"}, hashed_module=OPTIONS)
    expected = hashlib.sha256((site / "hashed_module.py").read_bytes()).hexdigest()
    assert source_hash(Registry().find("loss", "hashed").load()) == expected
