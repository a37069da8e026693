"""The dataset of a retriever: triples, judgements, pools, and how they are split."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framework.errors import UserError
from plugins.datasets.triples import Triples

Options = Callable[..., Triples]
TOPICS = 12
ROWS = [
    {"query": f"ask{at} to tell topic{at // 2}", "positive": f"tell topic{at // 2} of it"}
    for at in range(2 * TOPICS)
]
"""Every two queries are answered by one document."""


def lines(file: Path, rows: Any) -> None:
    """Write JSONL."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def judgements(file: Path, rows: Any) -> None:
    """Write judgements."""
    text = "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in rows)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Make options over a small corpus: query q<n> is answered by d<n>, and every third by two."""
    corpus = [{"_id": f"d{at}", "title": f"Word{at}", "text": "of all"} for at in range(30)]
    lines(tmp_path / "corpus.jsonl", corpus)
    lines(tmp_path / "queries.jsonl", [{"_id": f"q{at}", "text": f"word{at}?"} for at in range(30)])
    pairs = [(f"q{at}", f"d{at}", 1) for at in range(20)]
    pairs += [(f"q{at}", f"d{at + 1}", 2) for at in range(0, 20, 3)]
    judgements(tmp_path / "train.tsv", pairs)
    judgements(tmp_path / "test.tsv", [*((f"q{at}", f"d{at}", 1) for at in range(20, 25))])
    lines(tmp_path / "triples.jsonl", ROWS)

    def make(**given: Any) -> Triples:
        plain = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "train": "train.tsv"}
        return Triples(**{"root": tmp_path, **plain, "test": "test.tsv", **given})

    return make


def triples(**given: Any) -> dict[str, Any]:
    """Options for triples without a corpus."""
    return {"corpus": "", "queries": "", "train": "triples.jsonl", "test": "", **given}


def pool(splits: Any, split: str) -> tuple[set[str], dict[str, dict[str, int]]]:
    """The documents of a split, and its queries with their answers."""
    documents = {r["document"] for r in splits[split] if "document" in r}
    return documents, {r["query"]: r["relevant"] for r in splits[split] if "query" in r}


def test_no_document_answers_on_two_sides(options: Options) -> None:
    """What answers a query of val answers none of train, also where two queries share it.

    It fails where queries are dealt out one by one.
    """
    for given in ({}, triples()):
        splits = options(**given).build(3)
        answers = {d for r in splits["train"] for d in r["relevant"]}
        _, asked = pool(splits, "val")
        assert asked
        assert not answers & {d for grades in asked.values() for d in grades}


def test_the_test_ranks_the_whole_corpus(options: Options) -> None:
    """Val is ranked among its own documents and as many others; all of them are texts of theirs."""
    splits = options(distractors=5).build(0)
    documents, asked = pool(splits, "test")
    assert documents == {f"d{at}" for at in range(30)}
    assert asked == {f"q{at}": {f"d{at}": 1} for at in range(20, 25)}
    documents, asked = pool(splits, "val")
    own = {d for grades in asked.values() for d in grades}
    assert own < documents
    assert len(documents) == len(own) + 5
    assert len(pool(options(distractors=0).build(0), "val")[0]) == 30
    assert splits.info["documents"] == {"val": len(documents), "test": 30}
    texts = {r["document"]: r["text"] for r in splits["test"] if "document" in r}
    assert texts["d7"] == "Word7 of all"


def test_mined_negatives_answer_nothing(options: Options) -> None:
    """BM25's best are taken but for those that answer the query; the seed draws among them.

    It fails where the best of BM25's ranking are negatives whoever they are.
    """
    drawn = []
    for seed in (1, 1, 2):
        train = options(mined=2, depth=5, ratios=[0.5, 0.5]).build(seed)["train"]
        for record in train:
            assert not {*record["wrong"]} & {*record["relevant"]}
            assert record["document"] in record["relevant"]
        drawn.append({r["id"]: r["wrong"] for r in train})
    assert drawn[0] == drawn[1] != drawn[2]


def test_given_negatives_come_first(options: Options, tmp_path: Path) -> None:
    """A triple's own negative is used; the others' are mined, or are those of the batch alone."""
    rows = [{**ROWS[0], "negative": "a topic0 of another kind"}, *ROWS[1:]]
    # an answer that is also given as none is an answer
    rows.append({**ROWS[0], "positive": "more of topic0", "negative": ROWS[0]["positive"]})
    lines(tmp_path / "some.jsonl", rows)
    for way, mined in (("bm25", True), ("in_batch", False)):
        settings = triples(train="some.jsonl", negatives=way, ratios=[0.9, 0.1])
        train = options(**settings).build(0)["train"]
        found = {record["text"]: record["negatives"] for record in train}
        assert found.pop(rows[0]["query"]) == [rows[0]["negative"]]
        assert all(bool(wrong) == mined for wrong in found.values())


def test_triples_are_json_or_jsonl_packed_or_not(options: Options, tmp_path: Path) -> None:
    """One JSON list, nulls, and packed files under their plain name give the same records."""
    plain = options(**triples()).build(0)
    bare = [{**row, "negative": None, "query_id": None} for row in ROWS]
    (tmp_path / "list.json").write_text(json.dumps(bare), encoding="utf-8-sig")
    lines(tmp_path / "null.jsonl", bare)
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "whole.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    for name in ("list.json", "null.jsonl", "packed.jsonl", "whole.json"):
        assert [*options(**triples(train=name)).build(0)["train"]] == [*plain["train"]]
    # equal texts are one document
    assert len(pool(options(**triples(distractors=0)).build(0), "val")[0]) == TOPICS


def test_queries_without_an_answer_stay(options: Options, tmp_path: Path) -> None:
    """A judgement of 0 or less is no answer: the query is asked all the same."""
    judgements(tmp_path / "test.tsv", [("q20", "d20", 0), ("q21", "d21", 1), ("q22", "d2", -1)])
    assert pool(options().build(0), "test")[1] == {"q20": {}, "q21": {"d21": 1}, "q22": {}}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("test.tsv", "query-id\tcorpus-id\nq99\td1\n", "row 2, column 'query-id': 'q99' is not in"),
        ("test.tsv", "query-id\tcorpus-id\nq20\td99\n", "row 2, column 'corpus-id': 'd99' is not"),
        ("test.tsv", "query-id\tcorpus-id\tscore\nq20\td2\tx\n", "found 'x', expected a whole"),
        ("test.tsv", "query-id\tcorpus-id\nq1\td1\n", "'q1' is also a query of train"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n' * 2, "row 2, column '_id': 'd1' stands"),
        ("corpus.jsonl", '{"_id": "d1", "text": ""}\n', "'d1' has no text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    options: Options, tmp_path: Path, name: str, text: str, words: str
) -> None:
    """File, row and column, and what to do."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        options().build(0)
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)


def test_a_text_is_one_document_in_whatever_file(options: Options, tmp_path: Path) -> None:
    """Documents without ids are known by their texts; two texts of one id are told."""
    rows = [{"query": "another", "positive": ROWS[0]["positive"], "negative": "nothing of it"}]
    lines(tmp_path / "more.jsonl", rows)
    splits = options(**triples(test="more.jsonl", distractors=0)).build(0)
    documents, asked = pool(splits, "test")
    assert len(documents) == TOPICS + 1
    (grades,) = asked.values()
    texts = {r["document"]: r["text"] for r in splits["test"] if "document" in r}
    assert [texts[name] for name in grades] == [ROWS[0]["positive"]]

    lines(tmp_path / "more.jsonl", [{**rows[0], "positive_id": "x", "negative_id": "x"}])
    with pytest.raises(UserError, match="row 1, column 'negative_id': 'x' is the id of another"):
        options(**triples(test="more.jsonl")).build(0)
    lines(tmp_path / "more.jsonl", [{**rows[0], "positive": ""}])
    with pytest.raises(UserError, match="row 1, column 'positive': the cell is empty"):
        options(**triples(test="more.jsonl")).build(0)


def test_triples_are_evaluated_on_a_corpus(options: Options, tmp_path: Path) -> None:
    """Their texts are the corpus's: by id, by text or by text without title; none stands twice.

    It fails where an id with another text is refused, or a text without an id is a new document.
    """
    corpus: list[dict[str, Any]] = [
        {"_id": f"d{at}", "title": f"Word{at}", "text": f"tells of {at}"} for at in range(20)
    ]
    # two more have the text of the first
    corpus += [{**corpus[0], "_id": "d20"}]
    corpus += [{"_id": "d21", "title": None, "text": "Word0 tells of 0"}]
    lines(tmp_path / "corpus.jsonl", corpus)
    asked = [{"query": f"word{at} of what?", "positive": f"tells of {at}"} for at in range(10)]
    asked[1] |= {"positive_id": "d1", "positive": "another text"}
    asked[2] |= {"positive": "Word2 tells of 2"}
    asked.append({"query": "word30 of what?", "positive": "the corpus lacks this"})
    lines(tmp_path / "train.jsonl", asked)
    lines(tmp_path / "queries.jsonl", [{"_id": "q11", "text": "word11?"}])
    judgements(tmp_path / "test.tsv", [("q11", "d11", 1)])
    splits = options(train="train.jsonl", ratios=[0.9, 0.1]).build(0)
    assert pool(splits, "test")[0] == {f"d{at}" for at in range(22)}
    train = {record["text"]: record for record in splits["train"]}
    for at in range(10):
        record = train.get(f"word{at} of what?", {"document": f"d{at}", "negatives": []})
        assert record["document"] == f"d{at}"
        assert f"Word{at} tells of {at}" not in record["negatives"]


def test_without_a_corpus_negatives_are_of_train(options: Options, tmp_path: Path) -> None:
    """What val and test tell of is no negative of train: it may be a right answer there.

    It fails where BM25 ranks all documents that there are.
    """
    files = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    for number, (split, name) in enumerate(files.items()):
        lines(tmp_path / name, [
            {"query": f"is topic {at} of {split}?", "positive": f"a topic by {split}, number {at}"}
            | {"positive_id": f"d{8 * number + at}"}
            for at in range(8)
        ])  # fmt: skip
    splits = options(**triples(**files)).build(0)
    wrong = {name for record in splits["train"] for name in record["wrong"]}
    assert wrong
    assert wrong <= {f"d{at}" for at in range(8)}


def test_a_query_is_of_one_split(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Equal ids are refused in any two splits; what is worded alike is left out of the earlier."""
    texts = [f"word{at}?" if at != 20 else "Word1!" for at in range(30)]
    rows = [{"_id": f"q{at}", "text": text} for at, text in enumerate(texts)]
    lines(tmp_path / "queries.jsonl", rows)
    splits = options(ratios=[0.5, 0.5]).build(0)
    kept = {r["query"] for r in splits["train"]} | pool(splits, "val")[1].keys()
    assert kept == {f"q{at}" for at in range(20) if at != 1}
    assert "left out, worded as some of test" in caplog.text
    judgements(tmp_path / "val.tsv", [("q20", "d20", 1)])
    with pytest.raises(UserError, match=r"test.tsv: 'q20' is also a query of val"):
        options(val="val.tsv").build(0)


def test_a_text_without_an_id_has_a_lasting_one(options: Options, tmp_path: Path) -> None:
    """It is made of the text alone: the same in any file, and no id of another document."""
    given = {**ROWS[0], "positive_id": "document-2"}
    lines(tmp_path / "more.jsonl", [given, *ROWS[2:]])
    ids = []
    for name in ("triples.jsonl", "more.jsonl"):
        splits = options(**triples(train=name)).build(0)
        ids.append({r["text"]: r["document"] for r in splits["test"] if "document" in r})
    assert ids[1].pop(ROWS[0]["positive"]) == "document-2"
    assert ids[1].items() <= ids[0].items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "broken JSON at character 2"),
        ("{}", "expected a list of objects"),
        ('[{"query": "a", "positive": 3}]', "row 1, column 'positive': found a value of type int"),
        ('[["a"]]', "row 1: expected a JSON object"),
        ('[{"query": "a", "query": "b"}]', "row 1: a key stands twice"),
        ('[{"query": "a", "positive": "\\ud800"}]', "column 'positive': found half of a surrogate"),
        ("[" * 100_000, "row 1: maximum recursion depth"),
    ],
)
def test_a_list_that_is_none(options: Options, tmp_path: Path, text: str, words: str) -> None:
    """JSON of another form is told, by the number of the object."""
    (tmp_path / "list.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        options(**triples(train="list.json")).build(0)


def test_judgements_need_texts(options: Options, tmp_path: Path) -> None:
    """Without a corpus, or with a file that isn't there, it is told at once."""
    with pytest.raises(UserError, match="name the files with the dataset's option 'corpus'"):
        options(corpus="").check()
    with pytest.raises(UserError, match=r"none.jsonl: no such file \(nor 'none.jsonl.gz'\)"):
        options(corpus="none.jsonl").check()


def test_any_texts_can_be_embedded(options: Options, tmp_path: Path) -> None:
    """For prediction a file of texts is read as they stand, by their ids where they have some."""
    lines(tmp_path / "new.jsonl", [{"_id": "x", "text": "one"}, {"_id": "y", "text": "two"}])
    found = [*options().read(tmp_path / "new.jsonl", {})]
    assert found == [{"id": "x", "text": "one"}, {"id": "y", "text": "two"}]
