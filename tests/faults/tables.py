"""Row 30: tables with a fault in one row, and cells that must stay as they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from plugins.datasets._redsm5 import SYMPTOMS
from plugins.datasets.text import Text
from tests.faults.experiments import attempt
from tests.faults.outcome import Outcome

LONG = "quinoxaline lampshades beneath seventeen herons do not mean well"
SHORT = "quinoxaline herons"
WORDS = ("quinoxaline", "lampshades", "herons")
COUNT = 24
Table = list[list[str]]
Rng = random.Random


@attrs.frozen
class Fault:
    """A fault of a file: what harms the bytes or the cells of one row, and whose file it is."""

    name: str
    harm: Callable[[Table, int, Rng], bytes | None]
    """Takes all rows and the index of one; changes them, or gives the file's bytes."""
    file: str = "train.csv"


def _bytes(table: Sequence[Sequence[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(table)
    return stream.getvalue().encode()


def _lines(table: Table, at: int, change: Callable[[bytes], bytes]) -> bytes:
    """Change the line of one row."""
    lines = [_bytes([row]) for row in table]
    lines[at] = change(lines[at])
    return b"".join(lines)


def _cell(column: str, value: str) -> Callable[[Table, int, Rng], None]:
    def harm(table: Table, at: int, _: Rng) -> None:
        table[at][table[0].index(column)] = value

    return harm


def _copied(column: str) -> Callable[[Table, int, Rng], None]:
    """Give a row the cell of a row before it."""

    def harm(table: Table, at: int, rng: Rng) -> None:
        index = table[0].index(column)
        table[at][index] = table[rng.randrange(1, at)][index]

    return harm


def _rotated(table: Table, at: int, rng: Rng) -> None:
    """Shift the cells of a row, as many as before."""
    by = rng.randrange(1, len(table[at]))
    table[at] = table[at][by:] + table[at][:by]


def _more(table: Table, at: int, rng: Rng) -> None:
    table[at].insert(rng.randrange(len(table[at])), LONG)


def _fewer(table: Table, at: int, rng: Rng) -> None:
    del table[at][rng.randrange(len(table[at]))]


def _nul(table: Table, at: int, _: Rng) -> bytes:
    return _lines(table, at, lambda line: line.replace(b"herons", b"her\0ons"))


def _latin(table: Table, at: int, _: Rng) -> bytes:
    return _lines(table, at, lambda line: line.replace(b"herons", b"h\xe9rons"))


def _unclosed(table: Table, at: int, _: Rng) -> bytes:
    return _lines(table, at, lambda line: b'"' + line)


def _quoted(table: Table, at: int, _: Rng) -> bytes:
    return _lines(table, at, lambda line: b'"quinoxaline" herons' + line)


SHAPES = (
    ("a field more", _more),
    ("a field less", _fewer),
    ("fields shifted", _rotated),
    ("NUL", _nul),
    ("latin-1", _latin),
    ("an unclosed quote", _unclosed),
    ("text behind a quote", _quoted),
)
TEXT = (
    *(Fault(name, harm) for name, harm in SHAPES),
    Fault("an id twice", _copied("id")),
    Fault("an empty text", _cell("text", "")),
    Fault("a blank text", _cell("text", " \t")),
    Fault("an unknown label", _cell("label", "2")),
    Fault("a label 01", _cell("label", "01")),
    Fault("a text for a label", _cell("label", LONG)),
    Fault("two words for a label", _cell("label", SHORT)),
    Fault("an empty group", _cell("who", "")),
    Fault("a group on two sides", _cell("who", "iw1"), "val.csv"),
    Fault("an id in two files", _cell("id", "i3"), "val.csv"),
)
ANNOTATIONS = "redsm5_annotations.csv"
POSTS = "redsm5_posts.csv"
REDSM5 = (
    *(Fault(name, harm, ANNOTATIONS) for name, harm in SHAPES),
    *(Fault(f"{name} in the posts", harm, POSTS) for name, harm in SHAPES[:2] + SHAPES[3:]),
    Fault("an unknown post", _cell("post_id", "p9999"), ANNOTATIONS),
    Fault("an unknown symptom", _cell("DSM5_symptom", "JOY"), ANNOTATIONS),
    Fault("two words for a symptom", _cell("DSM5_symptom", SHORT), ANNOTATIONS),
    Fault("a status of 2", _cell("status", "2"), ANNOTATIONS),
    Fault("a status of 1.0", _cell("status", "1.0"), ANNOTATIONS),
    Fault("an empty sentence", _cell("sentence_text", ""), ANNOTATIONS),
    Fault("a sentence twice", _copied("sentence_id"), ANNOTATIONS),
    Fault("a post twice", _copied("post_id"), POSTS),
)


def _texts(name: str, count: int = COUNT) -> Table:
    rows = [
        [f"{name[0]}{i}", f"{LONG} {i}", str(i % 2), f"{name[0]}w{i // 2}"] for i in range(count)
    ]
    return [["id", "text", "label", "who"], *rows]


def _posts() -> dict[str, Table]:
    """Posts of one sentence each, of one symptom."""
    posts = [[f"p{i}", f"{LONG} {i}"] for i in range(COUNT)]
    symptom = next(iter(SYMPTOMS))
    pairs = [[f"p{i}", f"s{i}", f"{LONG} {i}", symptom, str(i % 2)] for i in range(COUNT)]
    header = ["post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status"]
    return {POSTS: [["post_id", "text"], *posts], ANNOTATIONS: [header, *pairs]}


def check(folder: Path, rounds: int) -> Outcome:
    """Row 30: what is wrong is refused with its row and never its text; nothing else changes."""
    rng = random.Random(30)  # noqa: S311 - draws of a test
    failures, count = [], 0
    criteria = {"criteria": [{"id": f"A.{i}", "text": f"criterion {i}"} for i in range(1, 10)]}
    repeats = 1 + rounds // 10
    for number in range(repeats):
        tables = {"train.csv": _texts("i"), "val.csv": _texts("v", 8)}
        dataset = (
            "{use='text', train='./train.csv', val='./val.csv', id='id', group='who',"
            " labels=['0', '1'], ratios=[0.7, 0.3]}"
        )
        for fault in TEXT:
            here = folder / f"text-{number}-{fault.name.replace(' ', '-')}"
            failures += _refused(fault, here, tables, dataset, rng)
        dataset = "{use='redsm5', root='.', criteria='./criteria.json'}"
        for fault in REDSM5:
            here = folder / f"redsm5-{number}-{fault.name.replace(' ', '-')}"
            here.mkdir()
            (here / "criteria.json").write_text(json.dumps(criteria))
            failures += _refused(fault, here, _posts(), dataset, rng)
        count += len(TEXT) + len(REDSM5)
        failures += _kept(folder / f"kept-{number}", rng)
    failures += _two_sides(folder / "two-sides", dataset, criteria)
    said = (
        f"{count} faults of {len(TEXT) + len(REDSM5)} kinds: exit 2 with the row, no word of the"
        f" text; {repeats * COUNT} rows of null, 007 and the like: as they were, in 5 formats"
    )
    return Outcome.of(said, failures)


def _refused(
    fault: Fault, here: Path, tables: Mapping[str, Table], dataset: str, rng: Rng
) -> list[str]:
    """Return what is wrong with how a run on a harmed file is refused."""
    here.mkdir(exist_ok=True)
    at = rng.randrange(5, 9)
    for name, sound in tables.items():
        table = [list(row) for row in sound]
        raw = fault.harm(table, at, rng) if name == fault.file else None
        (here / name).write_bytes(raw or _bytes(table))
    ended = attempt(here, f"dataset={dataset}")
    said = ended.out + ended.err
    wrong = [f"ended with {ended.code}"] * (ended.code != 2)
    wrong += ["said without the row"] * (f"{fault.file}: row {at + 1}" not in said)
    wrong += ["told with a traceback"] * ("Traceback" in said)
    wrong += ["the text is in the message"] * any(word in said for word in WORDS)
    wrong += ["a run folder was written"] * (here / "runs").exists()
    return [f"{fault.name} in {fault.file}: {what}: {ended.last}" for what in wrong]


def _two_sides(here: Path, dataset: str, criteria: Any) -> list[str]:
    """Return what is wrong where a manifest puts a post on two sides."""
    here.mkdir()
    for name, table in _posts().items():
        (here / name).write_bytes(_bytes(table))
    (here / "criteria.json").write_text(json.dumps(criteria))
    names = [f"p{i}" for i in range(COUNT)]
    sides = {"train": names[:16], "val": names[15:20], "test": names[20:]}
    (here / "splits.json").write_text(json.dumps(sides))
    ended = attempt(here, f"dataset={dataset[:-1]}, splits='./splits.json'}}")
    fine = ended.code == 2 and "'p15'" in ended.err and "Traceback" not in ended.err
    return [] if fine else [f"a post on two sides ended with {ended.code}: {ended.last}"]


ODD = (
    "null", "NULL", "None", "NA", "N/A", "nan", "NaN", "-inf", "007", "7", "7.0", "1e5", "1_000",
    "TRUE", "true", "0x1F", "2024-01-02", " padded ", "a\tb", "a\nb", "a\r\nb", "a,b", 'a"b',
    "=1+1", "e\u0301", "\u00e9", "\u200bzero", "\ufeffmark", "\U0001f642", "\\n", "#x", "'", "-",
    "a\u2028b", "a\x0bb", "a\x1cb", "a\x85b",
)  # fmt: skip


def _kept(here: Path, rng: Rng) -> list[str]:
    """Return the cells that were changed on the way from a file to the records."""
    here.mkdir()
    cells = [rng.sample(ODD, 3) for _ in range(COUNT)]
    # ids differ, whatever else stands in them; labels are two that look alike
    rows = [
        {"id": f"{a}{i:03}", "text": b, "label": ("007", "7")[i % 2], "note": c}
        for i, (a, b, c) in enumerate(cells)
    ]
    wrong = []
    for suffix in ("csv", "tsv", "csv.gz", "jsonl", "parquet"):
        file = here / f"t.{suffix}"
        _write(file, rows)
        found = Text(
            train=file, id="id", meta=["note"], labels=["007", "7"], ratios=[0.5, 0.5]
        ).build(1)
        names = found.info["labels"]
        records = {r["id"]: r for split in found.keys() for r in found[split]}  # noqa: SIM118
        for row in rows:
            record = records.get(row["id"])
            now = record and {
                "id": record["id"],
                "text": record["text"],
                "label": names[record["label"]],
                "note": record["meta"]["note"],
            }
            if now != row:
                wrong.append(f"{suffix}: {row} became {now}")
    return wrong


def _write(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    if file.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist([*rows]), file)
        return
    stream = io.StringIO()
    if file.suffix == ".jsonl":
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        delimiter = "\t" if file.suffix == ".tsv" else ","
        out = csv.DictWriter(
            stream, [*rows[0]], delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n"
        )
        out.writeheader()
        out.writerows(rows)
    raw = stream.getvalue().encode()
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
