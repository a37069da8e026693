"""`new-plugin`: what it writes installs, passes and trains as it stands; what it refuses."""

from __future__ import annotations

import json
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tomli
from support import ROOT, environment, only_run

from framework.__main__ import main
from framework.registry import KINDS
from tests.faults.processes import script

RUNS = """
import sys
from framework.__main__ import main
many = int(sys.argv[1])
sys.path[:0] = sys.argv[2 : 2 + many]
for file in sys.argv[2 + many :]:
    main(["run", file])
"""


def ran(
    *words: str | Path, cwd: Path, rc: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a real process, which ends with rc."""
    kept = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package of each kind, named `my-KIND`."""
    folder = tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind in KINDS:
            assert main(["new-plugin", f"my-{kind}", "--kind", kind]) == 0
    return folder


@pytest.mark.slow
def test_every_kind_passes_its_own_test(packages: Path) -> None:
    """The test beside each new plugin passes, none is skipped, and nothing warns.

    A check of the kit that doesn't apply to a plugin is skipped within its test.
    """
    names = [f"my-{kind}" for kind in KINDS]
    words = ("-W", "error", "-p", "no:cacheprovider", "--rootdir", ".", "-v")
    done = ran(sys.executable, "-m", "pytest", *words, *names, cwd=packages)
    assert re.findall(r"^(my-\w+)/.* PASSED ", done.stdout, re.MULTILINE) == names
    assert f" {len(names)} passed in " in done.stdout


@pytest.mark.slow
def test_every_kind_runs_its_own_experiment(packages: Path, tmp_path: Path) -> None:
    """The experiment beside each new plugin trains for two steps, with the plugin in it."""
    for kind in KINDS:
        project = tomli.loads((packages / f"my-{kind}" / "pyproject.toml").read_text())["project"]
        about = tmp_path / "site" / f"my_{kind}-{project['version']}.dist-info"
        about.mkdir(parents=True)
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (about / "METADATA").write_text(head, encoding="utf-8")
        ((group, offers),) = project["entry-points"].items()
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in offers.items())]
        (about / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    folders = [packages / f"my-{kind}" for kind in KINDS]
    files = [folder / f"{folder.name.replace('-', '_')}.toml" for folder in folders]
    places = [tmp_path / "site", *folders]
    ended = script(RUNS, str(len(places)), *places, *files, cwd=tmp_path).wait()
    assert ended.code == 0, ended.err
    for kind in KINDS:
        run = only_run(tmp_path, f"my-{kind}")
        result = json.loads((run / "result.json").read_text())
        assert (result["status"], result["steps"]) == ("completed", 2)
        plugins = json.loads((run / "environment.json").read_text())["plugins"]
        ours = [p["kind"] for p in plugins if p["distribution"] == f"my-{kind}"]
        # a source takes no part in a training
        assert ours == ([kind] if KINDS[kind].table else [])


@pytest.mark.slow
def test_a_new_loss_from_package_to_uninstall(tmp_path: Path) -> None:
    """Built, installed, listed, trained with, checked, uninstalled: each by the user's command."""
    ran(
        sys.executable, "-m", "framework", "new-plugin", "mild-loss", "--kind", "loss", cwd=tmp_path
    )
    package = tmp_path / "mild-loss"
    env = tmp_path / "env"
    venv.create(env, with_pip=True)
    inside = env / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    here = "\n".join([*site.getsitepackages(), str(ROOT)])
    (inside / "here.pth").write_text(here + "\n", encoding="utf-8")
    python, elsewhere = env / "bin" / "python", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = (python, "-m", "pip", "--disable-pip-version-check")

    built = ("wheel", "--no-deps", "--no-build-isolation", "--no-index")
    ran(*pip, *built, "--wheel-dir", tmp_path / "wheels", package, cwd=elsewhere)
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name == "mild_loss-0.1.0-py3-none-any.whl"
    ran(*pip, "install", "--no-deps", "--no-index", wheel, cwd=elsewhere)

    listed = ran(python, "-m", "framework", "plugins", "loss", cwd=elsewhere)
    (line,) = (line for line in listed.stdout.splitlines() if "mild" in line)
    assert "mild_loss" in line
    assert "mild-loss 0.1.0" in line
    assert "Generalised cross-entropy" in line
    shown = ran(python, "-m", "framework", "plugins", "loss", "mild_loss", cwd=elsewhere)
    assert "q: float = 0.7" in shown.stdout

    ran(python, "-m", "framework", "run", "mild_loss.toml", cwd=package)
    result = json.loads((only_run(package, "mild-loss") / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 2)

    words = ("-p", "no:cacheprovider", "--framework-plugin", "mild-loss", "-v")
    checked = ran(python, "-m", "pytest", *words, cwd=elsewhere)
    assert "mild-loss::loss mild_loss::sums_and_counts_add_up PASSED" in checked.stdout
    assert "failed" not in checked.stdout

    ran(*pip, "uninstall", "-y", "mild-loss", cwd=elsewhere)
    gone = ran(
        python, "-m", "framework", "validate", package / "mild_loss.toml", cwd=elsewhere, rc=2
    )
    assert re.search(r"mild_loss\.toml:5:8: no loss is named 'mild_loss'", gone.stderr)


def test_it_says_what_was_written_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end names every file, and the commands of the package's own README."""
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "Snail_Rate-2", "--kind", "scheduler"]) == 0
    folder = tmp_path / "Snail_Rate-2"
    names = {path.name for path in folder.iterdir()}
    source = "snail_rate_2.py"
    others = {"pyproject.toml", "README.md", "rows.csv", "snail_rate_2.toml"}
    assert names == {source, f"test_{source}", *others}
    first, *rest = capsys.readouterr().out.splitlines()
    assert set(first.removeprefix("written: ").split(", ")) == {f"Snail_Rate-2/{n}" for n in names}
    commands = [line.strip() for line in rest]
    assert commands[:2] == ["next:", "cd Snail_Rate-2"]
    assert commands[2:] == [
        "python -m pip install -e '.[test]'",
        "python -m pytest",
        "python -m framework plugins scheduler snail_rate_2",
        "python -m framework run snail_rate_2.toml",
        "python -m framework schema schema.json",
    ]
    assert "\n".join(commands[2:]) in (folder / "README.md").read_text()
    assert "class SnailRate2:" in (folder / source).read_text()
    assert "Template" not in "".join(path.read_text() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("2nd", "loss", "can't name a package"),
        ("a--b", "loss", "can't name a package"),
        ("a_", "loss", "can't name a package"),
        ("a b", "loss", "can't name a package"),
        ("../up", "loss", "can't name a package"),
        ("café", "loss", "can't name a package"),
        ("a\n", "loss", "can't name a package"),
        ("", "loss", "can't name a package"),
        ("class", "loss", "it is a word of Python"),
        ("none", "loss", "it is a word of Python"),
        ("tensor", "loss", "the template uses it"),
        ("pyproject", "loss", "pip or pytest would take its file for their own"),
        ("Conftest", "metric", "pip or pytest would take its file for their own"),
        ("setup", "source", "pip or pytest would take its file for their own"),
        ("test-loss", "loss", "pytest would take it for a test"),
        ("Testament", "loss", "pytest would take it for a test"),
        ("there", "loss", "there: it is there already"),
        ("json", "loss", "a module 'json' can be imported already"),
        ("Scikit_Learn", "loss", "is installed already"),
        ("focal", "loss", "loss 'focal' is offered by composable-nlp"),
        ("acme-poly", "loss", "loss 'acme_poly' is offered by acme-parts 0.3.1"),
        ("fine", "los", "there is no kind 'los'; did you mean 'loss'?"),
        ("a" * 300, "loss", "can't create the folder"),
        ("a" * 250, "loss", "can't write into it"),
    ],
)
def test_refusals(
    name: str,
    kind: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A name that can't be or is taken, and a folder that can't be made, are told in one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert main(["new-plugin", name, "--kind", kind]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
