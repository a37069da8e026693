"""ReDSM5: sentences of posts, annotated as evidence for a DSM-5 criterion of depression or not.

Schema and sample: github.com/eliseobao/redsm5 (Bao, Pérez, Parapar, 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from framework.protocols import Info, Record, option
from plugins._tables import existing, rows
from plugins.datasets._records import SPLITS, Corpus, corpus, cut, given, located
from plugins.datasets._redsm5 import (
    SYMPTOMS,
    criterion,
    read_annotations,
    read_criteria,
    read_posts,
)
from plugins.datasets._splits import shares

LABELS = ("no_evidence", "evidence")
SPELT, MISSPELT = "MDD_Criteria.json", "MDD_Criteira.json"
"""The authors' criteria file goes by both names."""


def _named(_: object, field: attrs.Attribute[str], value: Path | str) -> None:
    if value == "":
        raise ValueError(f"'{field.name}' must name a file")


@attrs.frozen
class Redsm5:
    """Pairs of criterion and sentence, split by post; only pairs that were annotated."""

    root: Path = option(help="folder of the posts, the annotations and, by default, the criteria")
    criteria: Path | str = option(
        SPELT, help="criteria JSON; a plain name lies in root", validator=_named
    )
    ratios: list[float] = option(
        [0.7, 0.15, 0.15], help="shares of train, val and test", validator=shares(3)
    )
    splits: Path | str = option(
        "", help="manifest of post ids that pins the split; a plain name lies in root; empty: none"
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there."""
        self._files()

    def build(self, seed: int) -> Corpus:
        """Read and split; `UserError` names file, row and column of what is wrong."""
        posts, annotations, criteria, *manifest = self._files()
        texts = read_criteria(criteria)
        known = read_posts(posts)
        columns = read_annotations(annotations, known, criteria, texts)
        pairs = zip(columns.meta["symptom"], columns.labels, strict=True)
        fine = [2 * SYMPTOMS[symptom] + label for symptom, label in pairs]
        ratios = dict(zip(SPLITS, self.ratios, strict=True))
        groups = columns.groups
        if manifest:
            sides = given(manifest[0], groups, SPLITS, dict.fromkeys(known, ""))
        else:
            sides = cut(groups, [columns.labels, fine], ratios, seed, annotations)
        return corpus(
            columns,
            sides,
            [posts, annotations, criteria, *manifest],
            LABELS,
            meta={"symptom": [*SYMPTOMS]},
            criteria=texts,
        )

    def read(self, file: Path, info: Info) -> Iterator[Record]:
        """Stream the pairs of a file with `sentence_text` and `DSM5_symptom`; root isn't needed.

        Raises `UserError` with the row of a symptom that is unknown or has no criterion.
        """
        texts: Mapping[str, str] = info["criteria"]
        found = rows(
            file, ["sentence_text", "DSM5_symptom"], ["sentence_id"], texts=["sentence_text"]
        )
        return (
            {
                "id": f"{row.cells['sentence_id']}/{symptom}"
                if row.cells.get("sentence_id")
                else str(row.place.row),
                "text": criterion(row.place, symptom, texts, "the criteria of this run"),
                "text_pair": row.text("sentence_text"),
                "meta": {"symptom": symptom},
            }
            for row in found
            for symptom in [row.choice("DSM5_symptom", SYMPTOMS)]
        )

    def _files(self) -> list[Path]:
        posts, annotations = self._file("redsm5_posts"), self._file("redsm5_annotations")
        criteria = located(self.criteria, self.root, "criteria")
        misspelt = [criteria.with_name(MISSPELT)] if criteria.name == SPELT else []
        manifest = [existing(located(self.splits, self.root, "splits"))] if self.splits else []
        return [posts, annotations, existing(criteria, *misspelt), *manifest]

    def _file(self, stem: str) -> Path:
        # The second name is that of the sample which the authors published.
        names = (f"{stem}.csv", f"{stem}_sample_paraphrased.csv")
        return existing(*(self.root / name for name in names))
