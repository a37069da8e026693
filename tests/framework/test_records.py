"""What a run says: on the terminal, and in its log from the first word on."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.commands._records import records
from framework.commands.terminal import show_log

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+) (.*)")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The project's logger at its finest, put back as it was afterwards."""
    logger = logging.getLogger("framework")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


def lines(file: Path) -> list[tuple[str, str]]:
    """Return level and message of every line of a log."""
    found = [LINE.fullmatch(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(match[1], match[2]) for match in found if match is not None]


def test_the_log_has_what_was_said_before_it(logger: logging.Logger, tmp_path: Path) -> None:
    """Messages from before there was a file stand in it first, then everything, in order."""
    file = tmp_path / "run.log"
    with records() as log:
        logger.warning("before %s", 1)
        logger.info("é 漢")
        assert not file.exists()
        log.buffer.attach(file)
        assert lines(file) == [("WARNING", "before 1"), ("INFO", "é 漢")]
        logger.debug("after")
    logger.info("too late")
    assert lines(file) == [("WARNING", "before 1"), ("INFO", "é 漢"), ("DEBUG", "after")]


def test_a_child_logger_is_heard(logger: logging.Logger, tmp_path: Path) -> None:
    """A plugin that logs under a name of its own below the project's is in the log."""
    with records() as log:
        logging.getLogger("framework.somebody").warning("hello")
        log.buffer.attach(tmp_path / "run.log")
    assert lines(tmp_path / "run.log") == [("WARNING", "hello")]


def test_nothing_stays_behind(logger: logging.Logger, tmp_path: Path) -> None:
    """After the run, or its failure, the handler is gone and the file closed."""
    before = logger.handlers[:]

    def fail() -> None:
        with records() as log:
            log.buffer.attach(tmp_path / "run.log")
            logger.error("last words")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert logger.handlers == before
    assert lines(tmp_path / "run.log") == [("ERROR", "last words")]


def test_a_run_that_never_had_a_folder_leaves_no_log(
    logger: logging.Logger, tmp_path: Path
) -> None:
    """Without a file nothing is written anywhere."""
    with records():
        logger.error("lost")
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_gets_what_a_person_needs(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages go to stderr as they are, those for debugging don't, and no other handler's."""
    show_log()
    logger.debug("details")
    logger.info("said %s", "so")
    logger.warning("careful")
    found = capsys.readouterr()
    assert found.err == "said so\ncareful\n"
    assert found.out == ""
    assert not logger.propagate


def test_the_terminal_is_the_stderr_of_the_moment(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A live line may put another stream in stderr's place, and gets what is said meanwhile."""
    show_log()
    with (tmp_path / "err").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        logger.info("moved")
        monkeypatch.undo()
    assert (tmp_path / "err").read_text() == "moved\n"


@pytest.mark.parametrize("word", ["import framework.commands.terminal", "import framework.run"])
def test_importing_adds_no_handler(word: str) -> None:
    """Importing does nothing to logging; only a command sends messages to the terminal."""
    script = f"import logging\n{word}\nprint(logging.getLogger('framework').handlers)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
