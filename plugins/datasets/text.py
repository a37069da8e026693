"""Any table of labelled texts or pairs of texts: CSV, TSV, JSONL (also gzipped) or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from framework.protocols import Info, Record, option
from plugins import _cache
from plugins._tables import existing, rows
from plugins.datasets._arrow import LARGE, Layout
from plugins.datasets._labelled import Labelled, few, names, ordered
from plugins.datasets._plan import Plan
from plugins.datasets._records import SPLITS, Corpus, corpus, cut, given, located
from plugins.datasets._splits import shares


@attrs.frozen
class Text:
    """Labelled texts in named columns; splits without a file of their own are cut from train's.

    A file is looked for in `root` when its name is plain; begin it with `.`, `/` or `~` for
    any other place. Record ids are those of the `id` column, else `FILE:ROW` with the option
    that named the file: `train:2` is the first row of a CSV, also where it went to `val`.
    """

    root: Path | None = option(None, help="folder of the files with plain names")
    train: Path | str = option(help="file of the training split and of splits cut from it")
    val: Path | str = option("", help="file of the validation split; empty: cut from train")
    test: Path | str = option("", help="file of the test split; empty: cut from train")
    text: str = option("text", help="column of the text")
    text_pair: str = option("", help="column of the second text; empty: one text only")
    label: str = option("label", help="column of the label; numbers count as they are written")
    id: str = option("", help="column of unique ids; empty: file and row")
    group: str = option("", help="column of what must not be torn apart; empty: nothing")
    meta: list[str] = option(
        [], help="columns to carry along as metadata; a few short values: groups"
    )
    labels: list[str] = option(
        [], help="the labels in order; empty: those of train, sorted", validator=names
    )
    ratios: list[float] = option(
        [0.7, 0.15, 0.15],
        help="shares of train, val and test, scaled to those cut; two numbers: no test is cut",
        validator=shares(2, 3),
    )
    splits: Path | str = option("", help="manifest of ids (of groups) per split; pins the cut")
    free = ("cache",)
    cache: Path | bool = option(
        True,
        help="folder for what files of 64 MiB and more are converted to, so that they needn't be in"
        " memory; true: the user's cache folder; false: none",
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there."""
        self._files()

    def build(self, seed: int) -> Corpus:
        """Read and split; `UserError` names file, row and column of what is wrong."""
        files, manifest = self._files()
        shares_of = dict(zip(SPLITS, self.ratios, strict=False))
        cuts = {s: share for s, share in shares_of.items() if s == "train" or s not in files}
        ratios = {split: share / sum(cuts.values()) for split, share in cuts.items()}

        large = self._large(files, manifest, ratios, seed)
        if large is not None:
            return large
        found = Labelled(self._texts(), self.label, self.id, self.group, self.meta, self.labels)
        labels = found.read(files)
        columns, bound = found.columns, found.bound
        first = len(columns.ids) - len(bound)
        groups = columns.groups[:first]
        if manifest:
            fixed = dict(zip(columns.groups[first:], bound, strict=True))
            sides = given(manifest[0], groups, ratios, dict.fromkeys(groups, "") | fixed)
        else:
            sides = cut(groups, [columns.labels[:first]], ratios, seed, files["train"])
        meta = {key: ordered(values) for key, values in columns.meta.items() if few(values)}
        return corpus(columns, [*sides, *bound], [*files.values(), *manifest], labels, meta=meta)

    def _large(
        self,
        files: Mapping[str, Path],
        manifest: Sequence[Path],
        ratios: Mapping[str, float],
        seed: int,
    ) -> Corpus | None:
        """Convert big files and read from what came of it; None for others, or without a disk."""
        root = _cache.folder(self.cache, "tables")
        if root is None or sum(file.stat().st_size for file in files.values()) < LARGE:
            return None
        plan = Plan(
            files=files,
            layout=Layout(self._texts(), self.label, self.id, self.group, self.meta),
            labels=self.labels,
            ratios=ratios,
            manifest=manifest[0] if manifest else None,
            seed=seed,
        )
        try:
            return plan.build(root)
        except _cache.FAILURES as error:
            _cache.warn(root, _cache.reason(error), "the files are read into memory")
            return None

    def read(self, file: Path, info: Info) -> Iterator[Record]:  # noqa: ARG002 - not needed here
        """Stream the records of an unlabelled file; metadata where its columns are there.

        Raises `UserError` for a missing column at once, for a broken row when it comes to it.
        """
        optional = [name for name in (self.id, *self.meta) if name]
        return (
            {
                "id": row.cells[self.id] if self.id in row.cells else str(row.place.row),
                **{key: row.text(name) for key, name in self._texts().items()},
                "meta": {name: row.cells[name] for name in self.meta if name in row.cells},
            }
            for row in rows(file, [*self._texts().values()], optional, self._texts().values())
        )

    def _files(self) -> tuple[dict[str, Path], list[Path]]:
        files = {
            split: existing(located(file, self.root, split))
            for split, file in zip(SPLITS, (self.train, self.val, self.test), strict=True)
            if file or split == "train"
        }
        manifest = [existing(located(self.splits, self.root, "splits"))] if self.splits else []
        return files, manifest

    def _texts(self) -> dict[str, str]:
        both = {"text": self.text, "text_pair": self.text_pair}
        return {key: column for key, column in both.items() if column}
