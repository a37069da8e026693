"""`prepare triples SOURCE --out FOLDER`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from framework.errors import UserError
from plugins.commands._made_triples import SPLITS, documents, split, triples

RATIOS = (0.7, 0.15, 0.15)


@attrs.frozen
class Prepare:
    """Make a dataset's files of raw data: triples of a folder of documents, or of a corpus."""

    example = "example: python -m framework prepare triples notes/ --out data/notes"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add = parser.add_argument
        add("what", choices=["triples"], help="what to make: triples of query, positive, negative")
        add("source", type=Path, help="a folder of .txt and .md, or JSONL with _id, title, text")
        add("--out", type=Path, required=True, help="folder of train.jsonl, val.jsonl, test.jsonl")
        add("--seed", type=int, default=42, help="of what is drawn; the same seed, the same files")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Write the files, split by document 70/15/15, and say how many triples each has."""
        tools.show_log()
        if options.seed < 0:
            raise UserError(f"--seed is {options.seed}; it must be at least 0")
        files = {name: options.out / f"{name}.jsonl" for name in SPLITS}
        there = next((file for file in files.values() if file.exists()), None)
        if there:
            raise UserError(f"{there} is there already; remove it, or give another folder to --out")
        found = documents(options.source)
        parts = split(found, RATIOS, options.seed)
        made = {
            name: [*triples(part, np.random.default_rng([options.seed, 1 + at]))]
            for at, (name, part) in enumerate(parts.items())
        }
        empty = [name for name, rows in made.items() if not rows]
        if empty:
            raise UserError(
                f"{options.source}: {len(found)} documents leave no triple for {empty[0]};"
                " give more, with a title or two sentences each"
            )
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, rows in made.items():
                text = "".join(json.dumps(row) + "\n" for row in rows)
                files[name].write_text(text, encoding="utf-8")
                print(f"{files[name]}: {len(rows)} triples of {len(parts[name])} documents")
        except OSError as error:
            raise UserError(f"{options.out}: can't be written ({error.strerror})") from None
        return 0
