"""The README's own blocks, executed."""

from __future__ import annotations

import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tomli
from support import ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- test: runs -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
PAGE = re.compile(r"<!-- test: plugin(?:, (\S+))? -->\n```\w+\n(.*?)```", re.DOTALL)


def test_the_first_screen_holds_the_two_set_up_commands() -> None:
    """Exactly two blocks install something, each a single line, within the first 30 lines."""
    found = [
        (README[: match.start()].count("\n"), match[3])
        for match in BLOCK.finditer(README)
        if "pip install" in match[3] and "constraints.txt" in match[3]
    ]
    assert len(found) == 2
    for line, text in found:
        assert line < 30
        assert text.count("\n") == 1
    assert "framework run experiments/focal_bert.toml" in found[0][1]
    assert "pytest" in found[1][1]


def test_constraints_pin_torch_first() -> None:
    """The first pin is torch 2.13.0, and every line is a pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=]+", pin) for pin in pins)


def test_every_toml_block_is_toml() -> None:
    """The README's TOML parses."""
    blocks = [match[3] for match in BLOCK.finditer(README) if match[2] == "toml"]
    assert blocks
    for block in blocks:
        tomli.loads(block)


def test_the_report_of_mistakes_is_a_real_one() -> None:
    """Each mistake that the README shows stands so in the report that a test pins."""
    shown = re.search(r"<!-- test: of (\S+) -->\n```text\n(.*?)```", README, re.DOTALL)
    assert shown
    report = (ROOT / shown[1]).read_text(encoding="utf-8")
    mistakes = re.split(r"^(?=\S)", shown[2], flags=re.MULTILINE)[1:]
    assert len(mistakes) == 4
    assert all(mistake in report for mistake in mistakes)


@pytest.mark.slow
def test_the_recipes_run(tmp_path: Path) -> None:
    """Every marked block runs as pasted, in order, in a folder with the shipped files."""
    for name in ("experiments", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = Path(sys.executable).parent
    env = environment() | {"PATH": f"{python}:/usr/bin:/bin"}
    # what the recipe of a registered model needs: the main job, in short
    first = "python -m framework run experiments/focal_bert.toml --set trainer.steps=2"
    blocks = [match[3] for match in BLOCK.finditer(README) if match[1]]
    assert len(blocks) >= 6
    for block in [first, *blocks]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    rows = (tmp_path / "new.predictions.csv").read_text().splitlines()
    assert rows[0] == "id,prediction,probability_no_evidence,probability_evidence"
    assert len(rows) == 2


@pytest.mark.slow
def test_the_page_on_plugins_runs(tmp_path: Path) -> None:
    """The page on plugins as pasted, in a new environment: from nothing to a passing check."""
    venv.create(tmp_path / "env", with_pip=True)
    inside = tmp_path / "env" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    here = [*site.getsitepackages(), str(ROOT)]
    (inside / "here.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    # what pip needs is installed beside: nothing is fetched
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"} | {
        "PATH": f"{tmp_path / 'env' / 'bin'}:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "false",
        "OMP_NUM_THREADS": "1",
    }

    def ran(text: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    folder = tmp_path
    blocks = PAGE.findall(README)
    assert [name for name, _ in blocks] == ["", "poly_loss.py", "", "says"]
    for name, text in blocks[:3]:
        if name:
            (folder / name).write_text(text, encoding="utf-8")
            continue
        done = ran(text, folder)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        folder = tmp_path / "poly-loss"
    assert (folder / "schema.json").is_file()
    assert len(list((folder / "runs" / "poly-loss").iterdir())) == 1
    source = folder / "poly_loss.py"
    source.write_text(source.read_text().replace("0.0).sum()", "0.0).mean()"))
    wrong = ran("python -m pytest", folder)
    assert wrong.returncode == 1
    for line in blocks[3][1].splitlines():
        assert line.strip() in wrong.stdout
    checked = ran("python -m pytest --framework-plugin poly-loss", folder)
    assert checked.returncode == 1
    assert "poly-loss::loss poly_loss::sums_and_counts_add_up" in checked.stdout
