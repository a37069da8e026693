"""`search RUN QUESTION…`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework.errors import UserError
from plugins import _index
from plugins._documents import named
from plugins._gaussian import Gaussians, distances, similarity

TOP, _SHOWN = 10, 200


@attrs.frozen
class Search:
    """Find the documents that answer a question best, by a trained retriever."""

    example = (
        "example: python -m framework search runs/gaussian-retriever/20261121T101500Z-1a2b3c"
        " 'Does aspirin help?' --top 3"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add = parser.add_argument
        add("run", help="a run folder, or, with --index, a model's address")
        add("question", nargs="+", help="what to look for, each in quotes")
        add("--top", type=int, default=TOP, help=f"documents to show ({TOP})")
        add("--corpus", type=Path, help="your file of documents or triples, to show texts of")
        add("--index", type=Path, help=f"another index than RUN/{_index.NAME}")
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the experiment")
        add("--json", action="store_true", help="print objects with question and documents")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Search and print: place, id, distance, and the text if a corpus is given."""
        tools.show_log()
        if options.top < 1:
            raise UserError(f"--top is {options.top}; it must be at least 1")
        if any(not question.strip() for question in options.question):
            raise UserError("a question is empty; write what to look for")
        index = _index.read(options.index or Path(options.run) / _index.NAME)
        with tools.trained(options.run, options.set) as trained:
            ranked = found(trained, index, options.question, options.top)
        wanted = {name for row in ranked for name, _ in row}
        texts = _texts(options.corpus, wanted) if options.corpus else {}
        rows = [
            {
                "question": question,
                "documents": [
                    {"id": name, "distance": distance}
                    | ({"text": texts.get(name)} if options.corpus else {})
                    for name, distance in row
                ],
            }
            for question, row in zip(options.question, ranked, strict=True)
        ]
        if options.json:
            print(json.dumps(rows, indent=1))
            return 0
        for row in rows:
            _show(row, heading=len(rows) > 1)
        return 0


def found(
    trained: Any, index: _index.Index, questions: Sequence[str], top: int
) -> list[list[tuple[str, float]]]:
    """Return for each question the nearest documents with their distances, nearest first.

    Raises `UserError` for a model that makes no Gaussians, or that the index is not of.
    """
    import torch

    if _index.fingerprint(trained.model) != index.weights:
        raise UserError(
            "the index was made by other weights, or with another pooling, max_length or"
            " similarity, than these; give the run that wrote it"
        )
    processor = trained.model.processor
    records = [{"id": str(at), "text": text} for at, text in enumerate(questions)]
    features = processor.encode(records)
    with torch.inference_mode():
        outputs, _ = trained.forward(
            processor.collate([features[at] for at in range(len(records))])
        )
        queries = Gaussians(*(outputs[key][:, 0].cpu() for key in Gaussians._fields))
        apart_QN = distances(similarity(outputs), queries, index.documents)
        values_QN, places_QN = apart_QN.sort(stable=True)
    pairs = zip(places_QN[:, :top].tolist(), values_QN[:, :top].tolist(), strict=True)
    return [
        [(index.names[at], value) for at, value in zip(places, values, strict=True)]
        for places, values in pairs
    ]


def _show(row: Mapping[str, Any], *, heading: bool) -> None:
    if heading:
        print(row["question"])
    for place, item in enumerate(row["documents"], 1):
        text = " ".join((item.get("text") or "").split())
        cut = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        print(f"{place:>3}  {item['id']}  {item['distance']:.4f}  {cut}".rstrip())


def _texts(file: Path, wanted: Collection[str]) -> dict[str, str]:
    """Read some documents of a corpus, or of triples; `UserError` for a file that is neither."""
    return {name: text for name, text in named(file) if name in wanted}
