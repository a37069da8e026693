"""Reading tables: every cell as it stands, and every fault with its file, row and column."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.errors import UserError
from plugins._tables import KINDS, existing, rows, shown

HEAD = b"id,text,label\n"


def cells(file: Path, *columns: str) -> list[tuple[str, ...]]:
    """Read the columns of all rows."""
    return [tuple(row.cells[name] for name in columns) for row in rows(file, columns)]


def fault(file: Path, columns: tuple[str, ...] = ("id", "text", "label")) -> str:
    """Read everything; the error's message, which is one line and begins with the file."""
    with pytest.raises(UserError) as caught:
        list(rows(file, columns, texts=("text",)))
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


def test_nothing_is_changed_silently(tmp_path: Path) -> None:
    """Words like null and NA, leading zeros, blanks and line breaks in quotes stay as they are."""
    file = tmp_path / "a.csv"
    file.write_bytes(HEAD + b'007,null,NA\r\n1e3," two\nlines ","a ""b"", c"\r\n,nan,\r\n')
    assert cells(file, "id", "text", "label") == [
        ("007", "null", "NA"),
        ("1e3", " two\nlines ", 'a "b", c'),
        ("", "nan", ""),
    ]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"x"], ids=["open", "ended"])
def test_byte_order_mark_and_line_ends(
    tmp_path: Path, bom: bytes, newline: bytes, last: bytes
) -> None:
    """A byte order mark, either line end, and a missing last one make no difference."""
    file = tmp_path / "a.csv"
    content = (
        bom
        + newline.join([b"id,text", b"1,one", "2,zwölf".encode()])
        + newline
        + last.replace(b"x", newline)
    )
    file.write_bytes(content)
    assert cells(file, "id", "text") == [("1", "one"), ("2", "zwölf")]


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    """A blank line holds no record, and the rows after it keep the number a person sees."""
    file = tmp_path / "a.csv"
    file.write_bytes(HEAD + b"1,x,0\n\n2,x,1\n\n")
    assert [row.place.row for row in rows(file, ["id"])] == [2, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str) -> None:
    """CSV, TSV, JSONL, gzipped or not, and Parquet of the same table are the same cells."""
    expected = [("007", "null, and more", "1"), ("8", "tab\there", "0")]
    file = tmp_path / f"a{kind}"
    objects = [dict(zip(("id", "text", "label"), row, strict=True)) for row in expected]
    if kind == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(objects), file)
    else:
        open_file = gzip.open if kind.endswith(".gz") else open
        with open_file(file, "wt", newline="", encoding="utf-8") as stream:
            if ".jsonl" in kind:
                stream.writelines(json.dumps(item) + "\n" for item in objects)
            else:
                writer = csv.writer(stream, delimiter="," if ".csv" in kind else "\t")
                writer.writerows([("id", "text", "label"), *expected])
    assert cells(file, "id", "text", "label") == expected


def test_numbers_and_booleans_are_text_as_written(tmp_path: Path) -> None:
    """JSON's and Parquet's numbers and booleans become the text they are written as."""
    objects = [{"a": 1, "b": 0.5, "c": True}, {"a": -20, "b": 2.0, "c": False}]
    expected = [("1", "0.5", "true"), ("-20", "2.0", "false")]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, objects)))
    assert cells(file, "a", "b", "c") == expected
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    assert cells(tmp_path / "a.parquet", "a", "b", "c") == expected


@pytest.mark.parametrize(
    ("content", "row", "found"),
    [
        (HEAD + b"1,SECRET,0\n2,SECRET, and more,1\n", "row 3:", "found 4 fields, expected 3"),
        (HEAD + b"1,SECRET\n", "row 2:", "found 2 fields, expected 3"),
        (HEAD + b'1,"SECRET,0\n2,b,1\n', "row 2:", "broken row"),
        (HEAD + b'1,a,0\n2,"SEC"RET,1\n', "row 3:", "broken row"),
        (HEAD + b"1,a,0\n2,SECRET\0,1\n", "row 3:", "NUL"),
        (HEAD + b"1,SECRET \xe9t\xe9,0\n", "row 2:", "not UTF-8 at byte 30 of the file"),
        (b"\xef\xbb\xbf" + HEAD + b"\xff,SECRET,0\n", "row 2:", "byte 18"),
        (HEAD.decode().encode("utf-16"), "row 1:", "save the file again as UTF-8"),
        (HEAD + b'1,"x\ny\nz",0\n2,SECRET\n', "row 3 (line 5):", "found 2 fields"),
        (HEAD + b"1,a,0\n2,SEC\rRET,1\n", "row 3:", "broken row"),
        (b"id,text,status\n1,SECRET,0\n", "row 1:", "missing column 'label'; present: 'id', 'te"),
        (b"id,text,text,label\n", "row 1, column 'text':", "two columns have this name"),
        (HEAD, "no row of data", "expected at least one"),
        (b"", "the file is empty", "expected a header"),
        (b"\n\n", "row 1:", "found no header"),
    ],
)
def test_a_broken_csv_is_refused_with_its_row(
    tmp_path: Path, secret: str, content: bytes, row: str, found: str
) -> None:
    """The error names the file and the row as a person counts it, and never the text."""
    file = tmp_path / "a.csv"
    file.write_bytes(content.replace(b"SECRET", b"secret words"))
    message = fault(file)
    assert row in message
    assert found in message
    assert "secret" not in message
    assert secret not in message


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"id": 1, "text": "SECRET", "label": 0', "row 2: broken JSON at character"),
        (b'["SECRET"]', "row 2: expected a JSON object"),
        (b"null", "row 2: found null"),
        (b'{"id": 1, "text": "SECRET"}', "row 2: missing column 'label'; present: 'id', 'text'"),
        (b'{"id": 1, "text": 5, "label": 0}', "column 'text': found a value of type int"),
        (b'{"id": 1, "text": null, "label": 0}', "column 'text': found null, expected text"),
        (b'{"id": 1, "text": "a", "label": null}', "found null, expected text or a number"),
        (b'{"id": 1, "text": "a", "label": [0]}', "column 'label': found a value of type list"),
        (b'{"id": 1, "text": "a", "label": NaN}', "column 'label': found nan, expected"),
        (b'{"id": 1, "text": "SECRET", "label": 0, "id": 2}', "row 2: a key stands twice"),
        (b'{"id": 1, "text": "SECRET\\u0000", "label": 0}', "column 'text': found a NUL"),
        (b'{"id": 1, "text": "SECRET\\ud800", "label": 0}', "column 'text': found half of"),
        (b'{"id": 1, "text": "SECRET\xff", "label": 0}', "row 2: the text is not UTF-8 at byte"),
        (b"[" * 100_000, "row 2: "),
        (b"1" * 5_000, "row 2: "),
    ],
)
def test_a_broken_jsonl_is_refused_with_its_row(tmp_path: Path, line: bytes, found: str) -> None:
    """The error names the line, the column where there is one, and never the text."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id": 0, "text": "a", "label": 0}\n' + line + b"\n")
    message = fault(file)
    assert found in message
    assert "SECRET" not in message


def test_a_broken_gzip_is_refused(tmp_path: Path) -> None:
    """A file cut short and one that is no gzip at all are told apart from broken rows."""
    file = tmp_path / "a.csv.gz"
    whole = gzip.compress(HEAD + b"1,a,0\n" * 5_000)
    file.write_bytes(whole[:-20])
    assert "no whole gzip file" in fault(file)
    file.write_bytes(HEAD)
    assert "row 1: the file is no whole gzip file" in fault(file)


def test_a_broken_parquet_is_refused(tmp_path: Path) -> None:
    """Something else under a Parquet name, a missing column and a null name what is wrong."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 no PAR1")
    assert "no readable Parquet file" in fault(file)
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", None], "label": [0, 1]}), file)
    assert "row 2, column 'text': found null, expected text" in fault(file)
    assert "missing column 'other'; present: 'id', 'text'" in fault(file, ("other",))
    pq.write_table(pa.table({"id": [1], "text": [b"SECRET"], "label": [0]}), file)
    assert "row 1, column 'text': found a value of type bytes" in fault(file)
    latin = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")]
    )
    pq.write_table(pa.table({"id": [1], "text": latin, "label": [0]}), file)
    assert "row 1, column 'text': the text is not UTF-8" in fault(file)


def test_missing_files_name_what_was_looked_for(tmp_path: Path) -> None:
    """Every name that would have done is named; so are missing folders, and folders as files."""
    with pytest.raises(UserError, match=r"/a\.csv: no such file \(nor 'b\.csv', 'c\.csv'\); .+$"):
        existing(*(tmp_path / name for name in ("a.csv", "b.csv", "c.csv")))
    with pytest.raises(UserError, match=r"/no: no such folder; expected 'a\.csv' in it$"):
        existing(tmp_path / "no" / "a.csv")
    with pytest.raises(UserError, match="expected a file, found a folder"):
        existing(tmp_path)


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    """A name without a known ending is an error that lists the endings."""
    for name in ("a.txt", "a.gz", "a.parquet.gz", "csv"):
        (tmp_path / name).write_text("x")
        with pytest.raises(UserError, match=r"unknown kind of file; .* '\.csv', '\.tsv'"):
            rows(tmp_path / name, ["x"])


def test_faults_of_the_header_come_before_the_first_row(tmp_path: Path) -> None:
    """A missing file or column is found when the reading is set up, not when it is begun."""
    with pytest.raises(UserError, match="no such file"):
        rows(tmp_path / "a.csv", ["text"])
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="missing columns 'text', 'label'; present: 'a', 'b'"):
        rows(tmp_path / "a.csv", ["text", "label"])


def test_a_long_text_is_read_and_the_limit_left_alone(tmp_path: Path) -> None:
    """A text beyond csv's own limit is read, and the limit of the process is put back."""
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("text\n" + "x" * (before + 1) + "\n")
    assert len(cells(tmp_path / "a.csv", "text")[0][0]) == before + 1
    assert csv.field_size_limit() == before


def test_a_file_without_header_does_not_show_its_text(tmp_path: Path, secret: str) -> None:
    """Where a record stands in place of the header, its text isn't listed as a column."""
    (tmp_path / "a.csv").write_text(f"1,{secret},0\n2,b,1\n")
    message = fault(tmp_path / "a.csv")
    assert secret not in message
    assert "'1', a text of 63 characters, '0'" in message


@given(st.text(max_size=80))
def test_what_is_shown_is_one_short_line(value: str) -> None:
    """Whatever stands where a label should, what is shown of it is one line and short."""
    assert len(shown(value)) < 500
    assert not re.search(r"[\n\r]", shown(value))


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(table=st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=8))
@settings(deadline=None)
def test_what_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str]]
) -> None:
    """Any cells that Python's csv and json write come back as they were."""
    folder = tmp_path_factory.mktemp("any")
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("a", "b", "c"), *table])
    assert cells(folder / "a.csv", "a", "b", "c") == table
    objects = [dict(zip("abc", row, strict=True)) for row in table]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, objects)), encoding="utf-8")
    assert cells(folder / "a.jsonl", "a", "b", "c") == table
