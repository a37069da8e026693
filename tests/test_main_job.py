"""The main job, in short: what it leaves in its folder and in the tracking store."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tomli
from mlflow import MlflowClient
from support import ROOT, Command, only_run, table

LARGE = 10_000_000
EXPERIMENT = ROOT / "experiments" / "focal_bert.toml"


@pytest.fixture(scope="module")
def workplace(fresh: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the main job ran for a few steps, tracked and registered."""
    folder = tmp_path_factory.mktemp("main-job")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "--allow-empty", "-m", "x")):
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    short = ("trainer.steps=6", "trainer.eval_every=3", "trainer.log_every=1")
    sets = [word for text in short for word in ("--set", text)]
    done = fresh("run", EXPERIMENT, *sets, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "undefined" not in done.stdout
    return folder


@pytest.fixture(scope="module")
def result(workplace: Path) -> dict[str, Any]:
    """Its result.json."""
    text = (only_run(workplace, "focal-bert") / "result.json").read_text(encoding="utf-8")
    return json.loads(text)


@pytest.fixture(scope="module")
def client(workplace: Path) -> MlflowClient:
    """A client of its tracking store."""
    return MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def test_the_folder_holds_what_the_design_lists(workplace: Path, result: dict[str, Any]) -> None:
    """Experiment, environment, points, log, result, checkpoints and predictions are there."""
    folder = only_run(workplace, "focal-bert")
    for name in (
        "experiment.toml",
        "environment.json",
        "metrics.jsonl",
        "run.log",
        "result.json",
        "splits.json",
        "checkpoints/best/model/model.safetensors",
        "checkpoints/last/state.pt",
        "predictions/test.csv",
    ):
        assert (folder / name).is_file(), name
    assert result["status"] == "completed"
    assert result["steps"] == 6
    assert result["best"]["metric"] == "val/f1_macro"
    rows = table(folder / "predictions" / "test.csv")
    assert len(rows) == sum(
        result["metrics"]["test"][f"by_symptom/{name}/count"] for name in _symptoms(folder)
    )


def _symptoms(folder: Path) -> list[str]:
    info = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["info"]
    return info["meta"]["symptom"]


def test_the_best_is_the_best_of_the_points(workplace: Path, result: dict[str, Any]) -> None:
    """The best step is the one whose validation metric was highest, and val is what it gave."""
    folder = only_run(workplace, "focal-bert")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = {p["step"]: p for p in map(json.loads, lines) if "val/f1_macro" in p}
    assert set(values) == {3, 6}
    best = max(values, key=lambda step: (values[step]["val/f1_macro"], -step))
    assert result["best"]["step"] == best
    assert result["best"]["value"] == values[best]["val/f1_macro"]
    for name, value in result["metrics"]["val"].items():
        assert values[best][f"val/{name}"] == value


def test_no_text_of_a_record_left_its_file(workplace: Path) -> None:
    """No sentence of the corpus is in any file of the run or of the tracking store."""
    rows = table(ROOT / "data" / "redsm5" / "redsm5_annotations.csv")
    sentences = [row["sentence_text"].encode() for row in rows]
    files = [file for file in workplace.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        # the weights are large: a hundredth of the sentences is looked for in those
        wanted = sentences if len(content) < LARGE else sentences[::100]
        assert not [text for text in wanted if text in content], file


def test_the_store_holds_every_option(workplace: Path, client: MlflowClient) -> None:
    """Every option of the resolved experiment is a parameter of the tracked run."""
    run = _tracked(client)
    tree = tomli.loads((only_run(workplace, "focal-bert") / "experiment.toml").read_text())
    assert run.data.params.items() >= _flat(tree).items()
    assert run.info.status == "FINISHED"


def _tracked(client: MlflowClient) -> Any:
    experiment = client.get_experiment_by_name("focal-bert")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_the_store_holds_every_point(workplace: Path, client: MlflowClient) -> None:
    """Every value of metrics.jsonl is in the store, at its step, once."""
    run = _tracked(client)
    folder = only_run(workplace, "focal-bert")
    wanted: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        for name, value in point.items():
            if name not in ("step", "time"):
                shown = math.nan if value is None else value
                wanted.setdefault(name, []).append((point["step"], shown))
    assert len(wanted) > 20
    for name, values in wanted.items():
        stored = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        assert sorted(map(str, stored)) == sorted(map(str, values)), name


def test_the_store_holds_where_it_came_from(workplace: Path, client: MlflowClient) -> None:
    """Class weights, experiment, packages and the git commit are in the store."""
    run = _tracked(client)
    folder = only_run(workplace, "focal-bert")
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    counts = environment["info"]["class_counts"]
    inverse = [1 / count for count in counts]
    expected = [value * len(counts) / sum(inverse) for value in inverse]
    assert environment["loss"]["alpha"] == pytest.approx(expected, rel=1e-12)
    assert run.data.params["loss.derived.alpha"] == str(environment["loss"]["alpha"])
    for name in ("experiment.toml", "environment.json"):
        local = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path=name, tracking_uri=client.tracking_uri
        )
        assert Path(local).read_bytes() == (folder / name).read_bytes()
    assert environment["packages"]["torch"].startswith("2.")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=workplace, capture_output=True, text=True, check=True
    )
    assert environment["git"]["commit"] == head.stdout.strip()
    assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_the_registered_model_holds_no_pickle(client: MlflowClient, tmp_path: Path) -> None:
    """The champion is safetensors, JSON, TOML and a script: nothing that unpickles."""
    version = client.get_model_version_by_alias("focal-bert", "champion")
    folder = mlflow.artifacts.download_artifacts(
        client.get_model_version_download_uri("focal-bert", version.version),
        dst_path=str(tmp_path),
        tracking_uri=client.tracking_uri,
    )
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    assert any(file.name == "model.safetensors" for file in files)
    assert not [file for file in files if file.suffix in (".pkl", ".pickle", ".pt", ".bin", ".pth")]


@pytest.mark.parametrize("address", ["run", "models:/focal-bert@champion"])
def test_evaluate_reproduces_the_result_exactly(
    address: str, workplace: Path, result: dict[str, Any], command: Command
) -> None:
    """The run folder and the registered model give result.json's values, per symptom too."""
    shown = str(only_run(workplace, "focal-bert")) if address == "run" else address
    for split in ("test", "val"):
        done = command("evaluate", shown, "--split", split, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == result["metrics"][split]


def test_predict_gives_the_test_predictions_again(
    workplace: Path, command: Command, tmp_path: Path
) -> None:
    """Predicting the test split's own sentences from a CSV gives its predictions file's rows."""
    folder = only_run(workplace, "focal-bert")
    tested = {row["id"]: row for row in table(folder / "predictions" / "test.csv")}
    rows = [
        {key: row[key] for key in ("sentence_id", "sentence_text", "DSM5_symptom")}
        for row in table(ROOT / "data" / "redsm5" / "redsm5_annotations.csv")
        if f"{row['sentence_id']}/{row['DSM5_symptom']}" in tested
    ]
    file = tmp_path / "new.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = command("predict", str(folder), file, cwd=workplace)
    assert done.returncode == 0, done.stderr
    found = {row["id"]: row for row in table(tmp_path / "new.predictions.csv")}
    assert set(found) == set(tested)
    for key, row in found.items():
        assert row["prediction"] == tested[key]["prediction"]
        assert row["probability_evidence"] == tested[key]["probability_evidence"]


def test_an_unreachable_server_changes_nothing_but_one_line(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    """With tracking refused the run ends as without it, says so once, and keeps its points."""
    words = ("--set", "callbacks.mlflow.uri=http://127.0.0.1:9")
    done = command("run", tiny, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path, "tiny")
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= 3
    said = [line for line in done.stderr.splitlines() if "127.0.0.1" in line]
    assert len(said) == 1
