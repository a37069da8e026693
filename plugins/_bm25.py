"""BM25: how well the words of documents answer those of a query."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+")


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without English stop words; nothing is stemmed."""
    stops = _stop_words()
    return [word for word in _WORD.findall(text.lower()) if word not in stops]


class Bm25:
    """An index of documents; scores are sums over the words of a query.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
    the inverse document frequency of Lucene, log(1 + (N - n + 1/2) / (n + 1/2)), and its defaults
    for k1 and b as Anserini has them.
    """

    def __init__(self, texts: Sequence[str], k1: float = 0.9, b: float = 0.4) -> None:
        """Count the words of all documents."""
        from scipy.sparse import csc_array

        self.vocabulary: dict[str, int] = {}
        rows, columns, counts = [], [], []
        lengths = np.zeros(len(texts))
        for row, text in enumerate(texts):
            found = Counter(words(text))
            lengths[row] = found.total()
            for word, count in found.items():
                rows.append(row)
                columns.append(self.vocabulary.setdefault(word, len(self.vocabulary)))
                counts.append(count)
        often = np.asarray(counts, np.float64)
        relative = lengths / max(lengths.mean(), 1e-9) if len(texts) else lengths
        norm = k1 * (1 - b + b * relative[rows])
        having = np.bincount(columns, minlength=len(self.vocabulary))
        rare = np.log1p((len(texts) - having + 0.5) / (having + 0.5))
        weights = rare[columns] * often * (k1 + 1) / (often + norm)
        shape = (len(texts), len(self.vocabulary))
        self.weights: Any = csc_array((weights, (rows, columns)), shape=shape)

    def scores(self, query: str) -> NDArray[np.float64]:
        """Return the score of every document; a word that stands twice counts twice."""
        known = [self.vocabulary[word] for word in words(query) if word in self.vocabulary]
        found: NDArray[np.float64] = np.zeros(self.weights.shape[0])
        if known:
            found += self.weights[:, known].sum(1)
        return found

    def top(self, query: str, count: int) -> list[int]:
        """Return the best documents by number, best first, ties by number; none that scores 0."""
        scores = self.scores(query)
        best = np.argsort(-scores, kind="stable")[:count]
        return [int(at) for at in best if scores[at] > 0]
