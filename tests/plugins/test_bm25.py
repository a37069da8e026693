"""BM25 against its formula, term by term."""

from __future__ import annotations

import math

import pytest

from plugins._bm25 import Bm25, words

TEXTS = [
    "A kettle rusts; the kettle leaks.",
    "Linseed oil for lathes",
    "KETTLE oil, oil and more oil",
    "",
    "kettle_oil number 7",
]


def score(query: str, at: int, k1: float = 0.9, b: float = 0.4) -> float:
    """The sum over the query's words, by plain counting."""
    cut = [words(text) for text in TEXTS]
    mean = sum(map(len, cut)) / len(cut)
    total = 0.0
    for word in words(query):
        having = sum(word in text for text in cut)
        rare = math.log(1 + (len(cut) - having + 0.5) / (having + 0.5))
        count = cut[at].count(word)
        total += rare * count * (k1 + 1) / (count + k1 * (1 - b + b * len(cut[at]) / mean))
    return total


@pytest.mark.parametrize("query", ["kettle", "oil kettle oil", "the and of", "unknown rusts", ""])
def test_scores_are_the_formula(query: str) -> None:
    """Rare words count more, long documents less, repeated words of a query each time."""
    index = Bm25(TEXTS)
    expected = [score(query, at) for at in range(len(TEXTS))]
    assert index.scores(query).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_best_come_first_and_what_shares_no_word_never() -> None:
    """Ties are in the order of the documents; an index of nothing finds nothing."""
    found = Bm25(TEXTS).top("kettle oil", 9)
    assert found == sorted(found, key=lambda at: -score("kettle oil", at))
    assert 3 not in found
    assert Bm25(["hive", "lathe", "hive"]).top("hive", 5) == [0, 2]
    assert Bm25([]).top("hive", 5) == []


def test_words_are_lower_case_without_stop_words() -> None:
    """Letters and digits of any script; underscores and signs cut."""
    assert words("The Größe_of x-ray 3.5 ß") == ["größe", "x", "ray", "3", "5", "ß"]
