"""The pytest plugin: `pytest --framework-plugin DIST` runs the kit over what DIST offers.

pytest imports it in every session of everybody who has the package, wanted or not. So it imports
nothing but pytest; what the option needs is loaded when the option is given. And it is installed
as a module of its own, `composable_nlp_pytest`, for a project may have a package `framework`
that hides ours: pyproject.toml has it copied there, so install again after a change here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest


class Specs:
    """The hook that a plugin's author may implement, in the `conftest.py` beside the tests."""

    @pytest.hookspec(firstresult=True)
    def pytest_framework_case(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """Return what to check a plugin with: keyword arguments of its kind's `check_KIND`.

        `options` is an instance of its options (by default the class called without arguments),
        `expected_failures` gives reasons by check, the rest is the kind's own (`info`, `batch`, …).
        None leaves it all to the defaults.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    group = parser.getgroup("framework", "plugins of composable-nlp")
    group.addoption(
        "--framework-plugin",
        action="append",
        default=[],
        metavar="DIST",
        help="check every plugin that this installed distribution offers; may be repeated."
        " Without files to test, only these checks run; -k chooses among them, as in"
        " -k 'my_loss and not same_again' (their ids are no arguments)",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hook."""
    pluginmanager.add_hookspecs(Specs)


def pytest_configure(config: pytest.Config) -> None:
    """Take the distributions up, if there are any; an unknown one is a usage error."""
    names = config.getoption("framework_plugin")
    if names:
        try:
            conformance = importlib.import_module("framework.testing.conformance")
        except ModuleNotFoundError as error:
            if error.name not in ("framework", "framework.testing"):
                raise
            raise pytest.UsageError(
                "--framework-plugin: a package 'framework' that is nearer hides composable-nlp's;"
                " run it from another folder"
            ) from None
        config.pluginmanager.register(conformance.Conformance(config, names))
