"""What the MLflow callback and the `models` source share: where the store is, and quiet calls."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import socket
import sqlite3
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import filelock

from framework import __version__

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
# a password may hold '@', and, of somebody who forgot to encode it, '/'
_CREDENTIALS = re.compile(r"//(?:[^/\s:]*:\S*|[^/\s]*)@")
_SECRETS = re.compile(
    r"([?&;][^=&;?\s]*(?:token|key|secret|passw|pwd|auth|cred|sig)[^=&;?\s]*=)[^&;\s\"']+",
    re.IGNORECASE,
)
MIGRATION = 120.0
"""Seconds to wait for another process that creates the tables (one takes 2 to 10)."""
_BUSY = 2.0
"""Seconds to wait for a sqlite file that somebody has locked."""
_LINE = 200
_KEY = 250
"""Characters of a name that MLflow takes."""
_VALUE = 6000
"""Characters of a parameter that it keeps."""

MODEL_CODE = '''"""A finished model of composable-nlp, as MLflow serves it. Code, not a pickle."""

from pathlib import Path

import pandas
from framework.commands.trained import Predictor, finished
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Finished(PythonModel):
    """Columns `text`, and where there are any `text_pair` and `id`; a row for each."""

    def load_context(self, context: PythonModelContext) -> None:
        self.predictor = Predictor(finished(context.artifacts["model"], Path()))

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict | None = None
    ) -> pandas.DataFrame:
        given = model_input.to_dict("records")
        kept = [{k: str(v) for k, v in row.items() if pandas.notna(v)} for row in given]
        records = [{"id": str(at), "text": "", **row} for at, row in enumerate(kept)]
        rows = pandas.DataFrame(list(self.predictor.rows(records)))
        rows = rows.dropna(axis="columns", how="all")
        return rows if "id" in model_input else rows.drop(columns="id", errors="ignore")


set_model(Finished())
'''


def store(uri: str = "", before: str = "") -> str:
    """Return the store's absolute URI: what is given, else the environment's, else sqlite here.

    With `before`, a store that was used before, that one is meant where nothing is given, or
    where it is the relative path given: the current folder may be another by now.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "") or before or f"{_SQLITE}mlflow.db"
    path = uri.removeprefix(_SQLITE)
    if path in (uri, "", ":memory:"):
        return uri
    if database(before) and before.endswith(f"/{path}"):
        return before
    return f"{_SQLITE}{Path.cwd() / path}"


def database(uri: str) -> Path | None:
    """Return the sqlite file of a URI that `store` returned; None for other stores."""
    path, _, _ = uri.removeprefix(_SQLITE).partition("?")
    return Path(path) if uri.startswith(f"{_SQLITE}/") else None


def unreached(uri: str, seconds: float) -> str:
    """Return why nothing answers where a store is said to be; nothing where something does.

    No request is sent to a server, and no file is made.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        file = database(uri)
        folder = next((f for f in file.parents if f.is_dir()), None) if file else None
        return "" if folder is None or os.access(folder, os.W_OK) else f"{folder}: can't be written"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Keep other processes of ours out of a sqlite file: its first connection makes its tables."""
    file = database(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{file}.lock", timeout=MIGRATION):
        yield


def connect(uri: str) -> MlflowClient:
    """Return a client of a store and its registry, without touching MLflow's global settings."""
    from mlflow import MlflowClient

    file = database(uri)
    if file is not None:
        # MLflow would try for minutes to open what is no database, or locked
        try:
            with closing(sqlite3.connect(file, timeout=_BUSY)) as probe:
                probe.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            raise OSError(f"{file}: {error}") from None
    return MlflowClient(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Bound how long a request of the client waits, and keep what it would print to itself.

    By default the client tries for minutes. What the user has set in the environment stands.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # else files of the current folder are copied into the model
        "MLFLOW_UV_AUTO_DETECT": "false",
    }
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    os.environ.update(ours)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in ours:
            os.environ.pop(name, None)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do something in a thread of its own and wait no longer: resolving a name has no time-out."""
    done: Future[None] = Future()

    def target() -> None:
        try:
            work()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=target, daemon=True, name="mlflow").start()
    try:
        done.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None


def masked(text: str) -> str:
    """Return a text without what URIs in it carry of names, passwords and tokens."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("//", text))


def public(text: object) -> str:
    """Return the first line of a text, short and masked."""
    line = masked((str(text).splitlines() or [type(text).__name__])[0])
    # requests tells the cause last
    return line if len(line) <= _LINE else f"{line[: _LINE // 3]} … {line[-_LINE // 2 :]}"


def name(words: str) -> str:
    """Return a name as MLflow allows it; what it refuses becomes a hexadecimal code.

    `f1[a]` is `f1_5b_a_5d_`: two names must not fall together, their points would mix.
    """
    kept = re.sub(r"[^/\w.\- :]", lambda match: f"_{ord(match[0]):x}_", words)
    if posixpath.normpath(kept) != kept or kept == "." or kept.startswith(("/", "..")):
        kept = re.sub(r"[/.]", lambda match: f"_{ord(match[0]):x}_", kept) or "_"
    return kept if len(kept) <= _KEY else f"{kept[: _KEY - 9]}_{zlib.crc32(kept.encode()):08x}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a tree of options as dotted names and texts; lists and empty tables are JSON."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            # a store's URI may be among them
            found[name(f"{prefix}{key}")] = masked(text)[:_VALUE]
    return found


def save_pyfunc(folder: Path, scratch: Path, run: Path, run_id: str, model_id: str) -> None:
    """Write `model` under `scratch`: MLflow's description and code beside the model's files."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, Schema

    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    packages = environment.get("packages", {})
    needed = {"composable-nlp": __version__}
    needed |= {part["distribution"]: part["version"] for part in environment.get("plugins", [])}
    needed |= {
        k: packages[k] for k in ("mlflow", "torch", "transformers", "safetensors") if k in packages
    }
    columns = [ColSpec("string", "text")]
    columns += [ColSpec("string", key, required=False) for key in ("text_pair", "id")]
    code = scratch / "model_code.py"
    code.write_text(MODEL_CODE, encoding="utf-8")
    save_model(
        str(scratch / "model"),
        python_model=str(code),
        artifacts={"model": os.fspath(folder.resolve())},
        signature=ModelSignature(inputs=Schema(columns)),
        # given, so that MLflow doesn't load the model to find out; no index has `+cpu` builds
        pip_requirements=[f"{key}=={value.partition('+')[0]}" for key, value in needed.items()],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
    )
