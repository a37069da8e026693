"""Queries, documents that answer them, and documents that don't: what a retriever learns from."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
from attrs.validators import ge

from framework.errors import UserError
from framework.protocols import Info, option
from plugins._bm25 import Bm25
from plugins._documents import components
from plugins._tables import existing, rows, shown
from plugins.datasets._judgements import Judged, pairs, worded
from plugins.datasets._pools import Made, Pool, Texts, Triplets
from plugins.datasets._records import SPLITS, Corpus, cut, located
from plugins.datasets._splits import shares

_log = logging.getLogger("framework")
_JUDGED = (".tsv", ".csv")


@attrs.frozen
class Triples:
    """Triples for training, and a corpus with queries and judgements to be evaluated on.

    A file of a split is either judgements (CSV or TSV with `query-id`, `corpus-id`, `score`, as of
    BEIR: Thakur et al., 2021) over `corpus` and `queries`, or triples (JSON or JSONL with the texts
    `query`, `positive` and maybe `negative`). Of each file the packed form (`.gz`) is taken where
    there is no other. A triple's text is the corpus's document of its id, or of the same text; one
    that has no id and is not there is known by a hash of the text. Splits without a file are cut
    from train's, so that no document that answers a query of one answers a query of another. A
    query that is worded as one of a later split is left out. Negatives are mined in the corpus, or,
    without one, among train's own documents.
    """

    root: Path | None = option(None, help="folder of the files with plain names")
    corpus: Path | str = option("", help="documents: _id, title, text; empty: those of triples")
    queries: Path | str = option("", help="queries: _id, text; empty: those of triples")
    train: Path | str = option(help="judgements or triples of train, and of splits cut from it")
    val: Path | str = option("", help="of the validation split; empty: cut from train")
    test: Path | str = option("", help="of the test split; empty: cut from train")
    ratios: list[float] = option(
        [0.7, 0.15, 0.15],
        help="shares of train, val and test, scaled to those cut; two numbers: no test is cut",
        validator=shares(2, 3),
    )
    negatives: Literal["bm25", "in_batch"] = option(
        "bm25", help="where none are given: mined by BM25, or those of the batch alone"
    )
    depth: int = option(50, help="places of BM25's ranking to mine in", validator=ge(1))
    mined: int = option(
        8, help="negatives mined for a query, one of which each epoch takes", validator=ge(1)
    )
    distractors: int = option(
        1000,
        help="documents beside the judged ones that val is ranked among; 0: the whole corpus",
        validator=ge(0),
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there, or is missing beside judgements."""
        files = self._files()
        lacking = [name for name in ("corpus", "queries") if name not in files]
        for split in SPLITS:
            if split in files and _is_judged(files[split]) and lacking:
                raise UserError(
                    f"{files[split]}: judgements are of a corpus and queries; name the files with"
                    f" the dataset's option '{lacking[0]}'"
                )

    def build(self, seed: int) -> Corpus:
        """Read and split; `UserError` names file, row and column of what is wrong."""
        self.check()
        files = self._files()
        judged = Judged()
        if "corpus" in files:
            judged.corpus(files["corpus"])
        if "queries" in files:
            judged.asked(files["queries"])
        for split in SPLITS:
            if split in files:
                read = judged.judgements if _is_judged(files[split]) else judged.triples
                read(files[split], split)
        groups = self._cut(judged, files, seed)
        _distinct(judged, files)
        texts = Texts(judged.queries.texts, judged.documents.texts)
        makers: dict[str, Triplets | Pool] = {}
        for split in [name for name in SPLITS if name in judged.relevant]:
            relevant = judged.relevant[split]
            if split == "train":
                wrong = self._negatives(judged, seed)
                makers[split] = Triplets(texts, pairs(relevant), relevant, wrong, groups)
            else:
                documents = self._pool(judged, split, seed)
                makers[split] = Pool(texts, split, documents, [*relevant], relevant, groups)
        records = {split: Made(maker) for split, maker in makers.items()}
        manifest = {
            split: [*dict.fromkeys(record["group"] for record in part)]
            for split, part in records.items()
        }
        return Corpus(_info(makers), tuple(files.values()), manifest, records)

    def read(self, file: Path, info: Info) -> Any:  # noqa: ARG002 - not needed here
        """Stream the texts of a file, with `text` and maybe `_id`, as queries or documents."""
        return (
            {"id": row.cells.get("_id") or str(row.place.row), "text": row.text("text")}
            for row in rows(file, ["text"], ["_id"], ["text"])
        )

    def _files(self) -> dict[str, Path]:
        found = {}
        for name in ("corpus", "queries", *SPLITS):
            if getattr(self, name):
                place = located(getattr(self, name), self.root, name)
                found[name] = existing(place, place.with_name(f"{place.name}.gz"))
        return found

    def _cut(self, judged: Judged, files: Mapping[str, Path], seed: int) -> dict[str, str]:
        """Cut what has no file of its own from train; the group of each query."""
        shares_of = dict(zip(SPLITS, self.ratios, strict=False))
        cuts = {s: share for s, share in shares_of.items() if s == "train" or s not in files}
        whole = judged.relevant["train"]
        groups = components(whole)
        if len(cuts) > 1:
            queries = [*whole]
            ratios = {split: share / sum(cuts.values()) for split, share in cuts.items()}
            of = [groups[query] for query in queries]
            sides = cut(of, [[0] * len(queries)], ratios, seed, files["train"])
            for split in cuts:
                chosen = [q for q, side in zip(queries, sides, strict=True) if side == split]
                judged.relevant[split] = {query: whole[query] for query in chosen}
        return groups

    def _negatives(self, judged: Judged, seed: int) -> dict[str, list[str]]:
        """Return the given negatives of train's queries, mined ones for those that have none.

        A document with the text of an answer is none, whatever its id.
        """
        answers, texts = judged.answers(), judged.documents.texts
        same = {query: {texts[name] for name in known} for query, known in answers.items()}
        found = {
            query: [n for n in judged.negatives.get(query, ()) if texts[n] not in same[query]]
            for query in answers
        }
        lacking = [query for query in judged.relevant["train"] if not found[query]]
        if self.negatives == "in_batch" or not lacking:
            return found
        # what other splits' triples tell of is not known when train's are mined
        own = judged.met("train") | judged.documents.filed
        names = [name for name in texts if name in own]
        index = Bm25([texts[name] for name in names])
        rng = np.random.default_rng([seed, 1])
        for query in lacking:
            best = index.top(judged.queries.texts[query], self.depth + len(answers[query]))
            wrong = [names[at] for at in best if texts[names[at]] not in same[query]][: self.depth]
            drawn = rng.permutation(len(wrong))[: self.mined]
            found[query] = [wrong[at] for at in sorted(drawn)]
        return found

    def _pool(self, judged: Judged, split: str, seed: int) -> list[str]:
        """Return the documents that a split's queries are ranked among, in the corpus's order."""
        own = judged.met(split)
        every = [*judged.documents.texts]
        if judged.documents.filed:
            every = [name for name in every if name in judged.documents.filed or name in own]
        if split == "test" or not self.distractors:
            return every
        others = [name for name in every if name not in own]
        drawn = np.random.default_rng([seed, 2]).permutation(len(others))[: self.distractors]
        kept = own.union(others[at] for at in drawn)
        return [name for name in every if name in kept]


def _distinct(judged: Judged, files: Mapping[str, Path]) -> None:
    """Keep a query in one split alone: by its id or `UserError`, by its words or left out."""
    for one, other in itertools.combinations([s for s in SPLITS if s in judged.relevant], 2):
        mine, theirs = judged.relevant[one], judged.relevant[other]
        if twice := [query for query in theirs if query in mine]:
            name, place = shown(twice[0]), one if one in files else "train"
            raise UserError(
                f"{files[other]}: {name} is also a query of {place}; remove it from one"
            )
        texts = judged.queries.texts
        known = {worded(texts[query]) for query in theirs}
        kept = {name: grades for name, grades in mine.items() if worded(texts[name]) not in known}
        if not kept:
            raise UserError(
                f"{files.get(other, files['train'])}: every query of {one} is one of {other} too;"
                " give other ones"
            )
        if left := len(mine) - len(kept):
            _log.warning("triples: %d of %d queries of %s left out, worded as some of %s",
                         left, len(mine), one, other)  # fmt: skip
            judged.relevant[one] = kept


def _is_judged(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(_JUDGED)


def _info(makers: Mapping[str, Triplets | Pool]) -> dict[str, Any]:
    pools = {split: pool for split, pool in makers.items() if isinstance(pool, Pool)}
    return {
        "counts": {split: len(maker) for split, maker in makers.items()},
        "queries": {split: len(pool.queries) for split, pool in pools.items()},
        "documents": {split: len(pool.documents) for split, pool in pools.items()},
    }
