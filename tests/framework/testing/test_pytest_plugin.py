"""`pytest --framework-plugin DIST`, in real pytest processes over distributions made here."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, environment

from tests.faults import processes

LOSSES = '''\
"""Losses of somebody else's."""

import attrs
import torch

from framework.protocols import option


@attrs.frozen
class Sum:
    """Cross-entropy, summed as it should be."""

    scale: float = option(1.0, help="factor")

    def build(self, info):
        return Live(self.scale, "sum")


@attrs.frozen
class Mean:
    """Cross-entropy, wrongly averaged."""

    def build(self, info):
        return Live(1.0, "mean")


@attrs.frozen
class Needy:
    """Cross-entropy with an option that has no default."""

    temperature: float = option(help="divides the logits")

    def build(self, info):
        return Live(1 / self.temperature, "sum")


@attrs.frozen
class Picky:
    """A loss whose defaults are refused."""

    margin: float = option(0.0, help="above 0", validator=attrs.validators.gt(0.0))

    def build(self, info):
        return Live(1.0, "sum")


@attrs.frozen
class Live:
    scale: float
    reduction: str
    coupled: bool = False

    def counts(self, batch):
        return {"ce": int((batch["labels"] != -100).sum())}

    def __call__(self, outputs, batch):
        logits = outputs["logits"]
        logits = self.scale * logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = torch.nn.functional.cross_entropy
        return {"ce": loss(logits, batch["labels"], reduction=self.reduction)}
'''

OFFERS = """\
[framework.loss]
zoo_mean = zoo_losses:Mean
zoo_needy = zoo_losses:Needy
zoo_picky = zoo_losses:Picky
zoo_sum = zoo_losses:Sum

[framework.metric]
zoo_lost = zoo_lost:Lost
"""

HOOK = '''\
from zoo_losses import Needy


def pytest_framework_case(kind, name):
    """Give the needy its option, and say what the mean is known for."""
    if name == "zoo_needy":
        return {"options": Needy(temperature=2.0)}
    if name == "zoo_mean":
        return {"expected_failures": {"sums_and_counts_add_up": "it averages, by design"}}
    return None
'''


@pytest.fixture(scope="module", autouse=True)
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site packages that hold the distribution `zoo-losses` 1.0, and one that offers nothing."""
    site = tmp_path_factory.mktemp("zoo")
    (site / "zoo_losses.py").write_text(LOSSES, encoding="utf-8")
    (site / "zoo_lost.py").write_text("import a_package_that_is_nowhere\n", encoding="utf-8")
    for name, offers in (("zoo-losses", OFFERS), ("zoo-empty", "")):
        about = site / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        (about / "METADATA").write_text(head, encoding="utf-8")
        (about / "entry_points.txt").write_text(offers, encoding="utf-8")
    return site


def ran(
    zoo: Path,
    folder: Path,
    *words: str,
    rc: int,
    site: Path | None = None,
    fresh: bool = False,
    **files: str,
) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder that holds the files, with the zoo installed; its exit code is rc.

    `site` holds further distributions that are installed. It is a process of its own, with
    `fresh` one that has imported nothing.
    """
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    sites = [str(each) for each in (zoo, site) if each]
    words = ("-p", "no:cacheprovider", *words)

    def session() -> int:
        sys.path[:0] = sites
        # those of the session that this was forked from
        for name in [name for name in sys.modules if name.startswith(("conftest", "test_"))]:
            del sys.modules[name]
        return pytest.main([*words])

    if fresh:
        before = environment()
        path = os.pathsep.join(filter(None, [*sites, before.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=folder,
            env=before | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    else:
        done = processes.anew(session, cwd=folder, env={"COLUMNS": "200"})
    assert done.returncode == rc, done.stdout + done.stderr
    return done


def line(cls: str) -> int:
    """Return the line of a loss's decorator, which is where Python says that a class begins."""
    return LOSSES.splitlines().index(f"class {cls}:")


def states(text: str) -> dict[str, str]:
    """Return the state of each item that a verbose session lists, by its id."""
    return dict(re.findall(r"^(.+::\w+) (PASSED|FAILED|SKIPPED|XFAIL) ", text, re.MULTILINE))


def test_every_plugin_and_check_is_an_item(zoo: Path, tmp_path: Path) -> None:
    """Broken plugins fail in a line without traceback, others still pass, options are asked for."""
    done = ran(
        zoo,
        tmp_path,
        *("--framework-plugin", "zoo-losses", "-v", "-rs"),
        rc=1,
        fresh=True,
        test_own="def test_own(): raise SystemError('not asked for')\n",
    )
    found = states(done.stdout)
    checks = [
        check.__name__ for check in importlib.import_module("framework.testing.loss").SUITE.checks
    ]
    names = ("zoo_mean", "zoo_needy", "zoo_picky", "zoo_sum")
    ids = {f"zoo-losses::loss {name}::{check}" for name in names for check in checks}
    assert set(found) == ids | {"zoo-losses::metric zoo_lost::can_be_imported"}
    assert {state for node, state in found.items() if "zoo_sum" in node} == {"PASSED"}

    assert found["zoo-losses::loss zoo_mean::sums_and_counts_add_up"] == "FAILED"
    assert found["zoo-losses::loss zoo_mean::has_the_protocol"] == "PASSED"
    head = "loss zoo_mean: sums_and_counts_add_up"
    _, _, section = done.stdout.partition(f" {head} ")
    reason, file = section.splitlines()[1:3]
    assert "return the sum, not the mean" in reason
    assert file == f"{zoo / 'zoo_losses.py'}:{line('Mean')}"
    assert "Traceback" not in done.stdout
    assert "SystemError" not in done.stdout

    assert found["zoo-losses::metric zoo_lost::can_be_imported"] == "FAILED"
    assert (
        "metric 'zoo_lost' of zoo-losses 1.0 can't be imported (zoo_lost:Lost):"
        " ModuleNotFoundError: No module named 'a_package_that_is_nowhere'\n" in done.stdout
    )

    assert {state for node, state in found.items() if "zoo_needy" in node} == {"SKIPPED"}
    assert f"zoo_losses.py:{line('Needy')}: loss 'zoo_needy' needs 'temperature': " in done.stdout
    assert "by the hook pytest_framework_case(kind, name) in conftest.py\n" in done.stdout
    assert {state for node, state in found.items() if "zoo_picky" in node} == {"SKIPPED"}
    assert "loss 'zoo_picky' can't do with its defaults ('margin' must be > 0.0" in done.stdout


def test_the_hook_gives_options_and_expected_failures(zoo: Path, tmp_path: Path) -> None:
    """With options from conftest.py the needy is checked; a declared failure is an xfail."""
    words = ("--framework-plugin", "zoo-losses", "-v", "-rx", "-k", "zoo_needy or add_up")
    done = ran(zoo, tmp_path, *words, rc=0, conftest=HOOK)
    found = states(done.stdout)
    assert {state for node, state in found.items() if "zoo_needy" in node} == {"PASSED"}
    expected = "zoo-losses::loss zoo_mean::sums_and_counts_add_up"
    assert found[expected] == "XFAIL"
    assert f"XFAIL {expected} - it averages, by design ('ce' of 7 items is " in done.stdout
    assert "deselected" in done.stdout


def test_a_failure_that_does_not_come_is_told(zoo: Path, tmp_path: Path) -> None:
    """A check that passes, though declared to fail, fails: the declaration must stay true."""
    hook = "def pytest_framework_case(kind, name):\n"
    hook += "    return {'expected_failures': {'same_again': 'chance'}}\n"
    words = ("--framework-plugin", "zoo-losses", "-k", "zoo_sum and same_again")
    done = ran(zoo, tmp_path, *words, rc=1, conftest=hook)
    assert "it passes, though declared to fail (chance); remove the declaration\n" in done.stdout


def test_a_wrong_case_is_told(zoo: Path, tmp_path: Path) -> None:
    """What the hook may not return is one line that names the hook and the nearest spelling."""
    hook = (
        "def pytest_framework_case(kind, name):\n"
        "    if name == 'zoo_sum': return {'option': 1}\n"
        "    if name == 'zoo_mean': return {'expected_failures': {'same_agian': 'typo'}}\n"
        "    if name == 'zoo_needy': return 3\n"
    )
    done = ran(zoo, tmp_path, "--framework-plugin", "zoo-losses", rc=2, conftest=hook)
    head = "pytest_framework_case(kind, name) returns for loss"
    for words in (
        "'zoo_sum' 'option', which check_loss doesn't take; did you mean 'options'?",
        "'zoo_mean' a failure of 'same_agian', which is no check; did you mean 'same_again'?",
        "'zoo_needy' 3, which is neither a mapping nor None",
    ):
        assert f"\n{head} {words}\n" in done.stdout
    assert "Traceback" not in done.stdout


def test_files_run_beside(zoo: Path, tmp_path: Path) -> None:
    """Files that are given run too, after the checks; a distribution may be spelt freely."""
    done = ran(
        zoo,
        tmp_path,
        *("--framework-plugin", "Zoo_Losses", "--framework-plugin", "acme-parts"),
        *("test_own.py", "-v", "-k", "own or parts_have_counts and (zoo_sum or acme_poly)"),
        rc=0,
        test_own="def test_own(): pass\n",
        test_other="def test_other_own(): raise SystemError\n",
    )
    assert list(states(done.stdout).items()) == [
        ("zoo-losses::loss zoo_sum::parts_have_counts", "PASSED"),
        ("acme-parts::loss acme_poly::parts_have_counts", "PASSED"),
        ("test_own.py::test_own", "PASSED"),
    ]


def test_unknown_distributions_are_usage_errors(zoo: Path, tmp_path: Path) -> None:
    """A name that nobody has, or whose owner offers nothing, ends with 4 and says what there is."""
    mistaken = ran(zoo, tmp_path, "--framework-plugin", "zoo-loses", rc=4)
    assert mistaken.stderr == (
        "ERROR: --framework-plugin: no distribution 'zoo-loses' is installed;"
        " did you mean 'zoo-losses'?\n\n"
    )
    empty = ran(zoo, tmp_path, "--framework-plugin", "zoo-empty", rc=4)
    assert empty.stderr == (
        "ERROR: --framework-plugin: 'zoo-empty' 1.0 offers no plugin;"
        " plugins are offered by 'acme-parts', 'composable-nlp', 'zoo-losses'\n\n"
    )


def test_other_sessions_are_left_alone(zoo: Path, tmp_path: Path) -> None:
    """Without the option nothing but the plugin's own module is imported, and all tests run."""
    looking = (
        "import sys\n"
        "def test_nothing_came_along():\n"
        "    tops = ('torch', 'numpy', 'attrs', 'attr', 'plugins', 'framework')\n"
        "    assert [name for name in sys.modules if name.split('.')[0] in tops] == []\n"
        "    assert 'composable_nlp_pytest' in sys.modules\n"
    )
    words = ("-p", "no:hypothesispytest", "-v")
    done = ran(zoo, tmp_path, *words, rc=0, fresh=True, test_looking=looking)
    assert list(states(done.stdout).values()) == ["PASSED"]


def test_a_project_with_a_package_of_our_name_keeps_its_tests(zoo: Path, tmp_path: Path) -> None:
    """Where `framework` is another's, its tests run; only the option can't, and says why."""
    (tmp_path / "framework").mkdir()
    (tmp_path / "framework" / "__init__.py").write_text("OWN = True\n", encoding="utf-8")
    own = "import framework\ndef test_own(): assert framework.OWN\n"
    done = ran(zoo, tmp_path, "-v", rc=0, fresh=True, test_own=own)
    assert states(done.stdout) == {"test_own.py::test_own": "PASSED"}
    refused = ran(zoo, tmp_path, "--framework-plugin", "zoo-losses", rc=4, fresh=True)
    assert refused.stderr == (
        "ERROR: --framework-plugin: a package 'framework' that is nearer hides composable-nlp's;"
        " run it from another folder\n\n"
    )


def test_what_is_installed_is_this_file() -> None:
    """What pytest loads is a copy, made by the installer: after a change, install again."""
    spec = importlib.util.find_spec("composable_nlp_pytest")
    assert spec is not None
    assert spec.origin is not None
    source = ROOT / "framework" / "testing" / "pytest_plugin.py"
    assert Path(spec.origin).read_bytes() == source.read_bytes()


def test_plugins_without_a_readable_source_are_checked(zoo: Path, tmp_path: Path) -> None:
    """A compiled class is checked, or skipped, like any other; its module's file is named."""
    site = tmp_path / "site"
    about = site / "zoo_bare-1.0.dist-info"
    about.mkdir(parents=True)
    head = "Metadata-Version: 2.1\nName: zoo-bare\nVersion: 1.0\n"
    (about / "METADATA").write_text(head, encoding="utf-8")
    offers = "[framework.loss]\nzoo_bare = zoo_bare:Mean\nzoo_wanting = zoo_bare:Needy\n"
    (about / "entry_points.txt").write_text(offers, encoding="utf-8")
    compiled = site / "zoo_bare.pyc"
    py_compile.compile(str(zoo / "zoo_losses.py"), cfile=str(compiled))
    words = ("--framework-plugin", "zoo-bare", "-k", "has_the_protocol or sums_and_counts", "-rs")
    done = ran(zoo, tmp_path, *words, rc=1, site=site)
    assert f"return the sum, not the mean, or say coupled = True\n{compiled}\n" in done.stdout
    assert "] site/zoo_bare.pyc:0: loss 'zoo_wanting' needs 'temperature': " in done.stdout
    assert "Traceback" not in done.stdout


def test_a_plugin_of_which_nothing_was_checked_is_told(zoo: Path, tmp_path: Path) -> None:
    """A session that skips every check of a plugin passes, and says so in its summary."""
    words = ("--framework-plugin", "zoo-losses", "-k", "zoo_needy or zoo_sum")
    done = ran(zoo, tmp_path, *words, rc=0)
    told = [line for line in done.stdout.splitlines() if "every check" in line]
    assert told == ["zoo-losses::loss zoo_needy: every check was skipped; -rs tells why"]
