"""Raw tables: every dialect, compression and encoding gives the same rows, and no row is swallowed."""

import bz2
import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.data.files.csv_file import CsvDialect
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, read_rows, read_strings, table_files
from model.errors import InputError

ROWS = [
    {"item_id": "007", "title": "Café table, round", "price": "1,50"},
    {"item_id": "b", "title": 'Monitor 27" wide', "price": ""},
    {"item_id": "c", "title": "Two\nlines", "price": "3"},
]


def rows_of(path: Path, dialect: CsvDialect | None = None) -> tuple[list[dict[str, Any]], RowLedger]:
    ledger = RowLedger(path)
    return [row for _, row in read_rows(path, ledger, dialect)], ledger


def strings_of(path: Path, *names: str, dialect: CsvDialect | None = None) -> tuple[list[Any], RowLedger]:
    ledger = RowLedger(path)
    frames = list(read_strings(path, ledger, {name: [name] for name in names}, dialect))
    return [row for frame in frames for row in frame.rows()], ledger


def csv_text(separator: str = ",", **options: Any) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=separator, **options)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_dialect_gives_the_same_rows(
    separator: str, encoding: str, line_end: str, tmp_path: Path
) -> None:
    content = csv_text(separator, lineterminator=line_end).encode(encoding)
    rows, ledger = rows_of(put(tmp_path / "items.CSV", content))
    assert rows == ROWS
    assert (ledger.rows, ledger.set_aside) == (3, 0)


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("export/items.csv", content)
        archive.writestr("__MACOSX/export/._items.csv", b"\x00")
    return file.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, zstandard.compress, _zip])
@pytest.mark.parametrize("name", ["items.csv", "items.csv.gz", "items"])
def test_the_content_says_how_a_file_is_compressed(
    compress: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    path = put(tmp_path / name, compress(csv_text().encode()))
    assert rows_of(path)[0] == ROWS
    assert strings_of(path, "item_id", "price")[0] == [("007", "1,50"), ("b", None), ("c", "3")]


def test_an_incomplete_archive_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "items.csv.gz", gzip.compress(csv_text().encode())[:-12])
    with pytest.raises(InputError, match=r"items\.csv\.gz ends in the middle"):
        rows_of(path)


def test_a_zip_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(InputError, match=r"contains 2 files \(a\.csv, b\.csv\)"):
        rows_of(tmp_path / "all.zip")


@pytest.mark.parametrize(
    ("line", "title"),
    [
        (r'p1,"27\" monitor",Home', '27" monitor'),
        (r'p1,"monitor 27\"",Home', 'monitor 27"'),
        (r'p1,"\"Best\" mug",Home', '"Best" mug'),
        (r'p1,"27\", curved",Home', '27", curved'),
        ('p1,"27" monitor",Home', '27" monitor'),
        ('p1,27" monitor,Home', '27" monitor'),
        ('p1,"the ""best"" mug",Home', 'the "best" mug'),
        ('p1,"a\n\nb, c",Home', "a\n\nb, c"),
    ],
)
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_quotation_marks_swallow_no_row(line: str, title: str, copies: int, tmp_path: Path) -> None:
    plain = [f"q{i},Mug {i},Garden" for i in range(4)]
    lines = ["item_id,title,categories", *plain[:2], *[line] * copies, *plain[2:], ""]
    rows, ledger = rows_of(put(tmp_path / "items.csv", "\n".join(lines)))
    assert [row["title"] for row in rows] == ["Mug 0", "Mug 1", *[title] * copies, "Mug 2", "Mug 3"]
    assert {row["categories"] for row in rows} == {"Garden", "Home"}
    assert (ledger.rows, ledger.set_aside) == (4 + copies, 0)


@pytest.mark.parametrize(
    "line",
    ['p1,"open,Home', 'p1,"open', 'p1,Home,"open', 'p1,"a"b"c,Home,Garden,x'],
)
def test_a_line_that_fits_in_no_way_is_set_aside_alone(line: str, tmp_path: Path) -> None:
    lines = [
        "item_id,title,categories",
        "q0,Mug,Home",
        line,
        'q1,"Hat, red",Home',
        'q2,Tie,"Home"',
        "q3,Pan,Home",
    ]
    rows, ledger = rows_of(put(tmp_path / "items.csv", "\n".join(lines)))
    assert [row["item_id"] for row in rows] == ["q0", "q1", "q2", "q3"]
    assert (ledger.rows, ledger.set_aside) == (5, 1)
    assert "in line 3" in ledger.summary()


def test_marks_of_two_rows_do_not_join_them(tmp_path: Path) -> None:
    lines = ["item_id,title,categories", 'q0,Mug,"Home', "q1,Hat,Home", 'q2,Tie,Home"', "q3,Pan,Home"]
    rows, ledger = rows_of(put(tmp_path / "items.csv", "\n".join(lines)))
    assert [row["item_id"] for row in rows] == ["q1", "q2", "q3"]
    assert (ledger.rows, ledger.set_aside) == (4, 1)


def test_a_row_with_a_separator_too_many_is_set_aside_with_its_line(tmp_path: Path) -> None:
    path = put(tmp_path / "items.csv", "item_id,title\na,Mug\nb,Mug, red\nc,Hat,,\n\n,\n")
    rows, ledger = rows_of(path)
    assert rows == [
        {"item_id": "a", "title": "Mug"},
        {"item_id": "c", "title": "Hat"},
        {"item_id": "", "title": ""},
    ]
    assert "items.csv: 1 of 4 row was set aside, the first in line 3: the row has 3 cells" in ledger.summary()


def test_a_spreadsheet_may_name_its_separator(tmp_path: Path) -> None:
    assert rows_of(put(tmp_path / "i.csv", "sep=;\r\nitem_id;title\r\na;M,u,g\r\n"))[0] == [
        {"item_id": "a", "title": "M,u,g"}
    ]


def test_columns_without_a_name_or_with_the_same_one_get_a_number(tmp_path: Path) -> None:
    assert rows_of(put(tmp_path / "i.csv", ",item_id,tag,tag\n0,a,x,y\n"))[0] == [
        {"column_1": "0", "item_id": "a", "tag": "x", "tag_4": "y"}
    ]


def test_a_file_without_a_header_has_the_columns_of_its_dialect(tmp_path: Path) -> None:
    path = put(
        tmp_path / "movies.dat", "1::Toy Story (1995)::Comedy\n2::Misérables, Les::Drama\n".encode("latin-1")
    )
    dialect = CsvDialect("::", ("item_id", "title", "categories"), quotes=False)
    assert [tuple(row.values()) for row in rows_of(path, dialect)[0]] == [
        ("1", "Toy Story (1995)", "Comedy"),
        ("2", "Misérables, Les", "Drama"),
    ]
    assert strings_of(path, "title", "item_id", dialect=dialect)[0] == [
        ("Toy Story (1995)", "1"),
        ("Misérables, Les", "2"),
    ]


JSON_ROWS = [
    {"item_id": "a", "n": 1234567890123456789, "price": 1.5},
    {"item_id": 7, "tags": ["x"], "new": True},
]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps(row) for row in JSON_ROWS),
        "\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in JSON_ROWS) + "\r\n",
        json.dumps(JSON_ROWS),
        json.dumps(JSON_ROWS, indent=2),
        json.dumps({"count": 2, "products": JSON_ROWS}, indent=2),
        "\n".join(repr(row) for row in JSON_ROWS),
    ],
)
def test_all_layouts_of_json_give_the_same_rows(content: str, tmp_path: Path) -> None:
    path = put(tmp_path / "items.json", content)
    rows, ledger = rows_of(path)
    assert rows == JSON_ROWS
    assert (ledger.rows, ledger.set_aside) == (2, 0)
    assert strings_of(path, "item_id", "n", "price", "tags", "new")[0] == [
        ("a", "1234567890123456789", "1.5", None, None),
        ("7", None, None, '["x"]', "true"),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"asin": "a", "images": [{"large": "x"}]}, {"asin": "b", "images": []}],
        [{"book_id": "1", "shelves": [{"name": "x"}], "authors": [{"author_id": "1"}]}],
        [{"name": "A", "images": [{"large": "x"}]}, {"name": "B"}],
    ],
)
def test_arrays_of_objects_in_a_row_are_not_the_rows(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = put(tmp_path / "items.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(path)[0] == rows


def test_an_object_around_the_rows_may_be_one_line(tmp_path: Path) -> None:
    path = put(tmp_path / "items.json", json.dumps({"total": 2, "products": JSON_ROWS}) + "\n")
    assert rows_of(path)[0] == JSON_ROWS


def test_a_reason_without_a_line_is_told_without_it(tmp_path: Path) -> None:
    ledger = RowLedger(tmp_path / "log.csv", rows=9)
    ledger.skip("the order was refunded", 0, "#7", count=2)
    assert ledger.summary() == "log.csv: 2 of 9 rows were set aside, the first: the order was refunded (#7)"
    ledger.skip("the row has no user_id", 4)
    assert (
        ledger.summary() == "log.csv: 3 of 9 rows were set aside, the first in line 4: the row has no user_id"
    )


def test_a_damaged_line_of_json_is_set_aside_with_its_line(tmp_path: Path) -> None:
    lines = ['{"item_id": "a", "price": NaN}', '{"item_id": "b", "price": 1', "[1]", '{"item_id": "c"}']
    path = put(tmp_path / "items.jsonl", "\n".join(lines))
    rows, ledger = rows_of(path)
    assert rows == [{"item_id": "a", "price": None}, {"item_id": "c"}]
    assert {reason: found.examples[0][0] for reason, found in ledger.skipped.items()} == {
        "not valid JSON (character 28): Expecting ',' delimiter": 2,
        "a JSON object is needed, not an array": 3,
    }
    assert strings_of(path, "item_id", "price")[0] == [("a", None), ("c", None)]


def test_python_literals_are_read_and_never_executed(tmp_path: Path) -> None:
    lines = [
        "{'asin': 'B1', 'title': \"It's\", 'categories': [['A', 'B']], 'x': None}",
        "{'asin': print('no')}",
    ]
    rows, ledger = rows_of(put(tmp_path / "meta.json", "\n".join(lines)))
    assert rows == [{"asin": "B1", "title": "It's", "categories": [["A", "B"]], "x": None}]
    assert ledger.set_aside == 1


def test_bytes_of_another_encoding_are_read_and_noted(tmp_path: Path) -> None:
    path = put(tmp_path / "items.csv", b"item_id,title\na,caf\xe9\nb,na\xc3\xafve\nc,\x80 5\nd,\x81\n")
    rows, ledger = rows_of(path)
    assert [row["title"] for row in rows] == ["café", "naïve", "€ 5", "\ufffd"]
    assert ledger.notes == ["bytes that are not UTF-8 were read as Windows-1252 (Latin-1)"]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pl.DataFrame({"item_id": [7, 8], "tags": [["a"], []], "price": [1.5, None]})
    table.write_parquet(tmp_path / "part-0.parquet")
    assert rows_of(tmp_path / "part-0.parquet")[0] == [
        {"item_id": 7, "tags": ["a"], "price": 1.5},
        {"item_id": 8, "tags": [], "price": None},
    ]
    assert strings_of(tmp_path / "part-0.parquet", "item_id", "price")[0] == [("7", "1.5"), ("8", None)]


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.parquet is no readable Parquet file"):
        rows_of(put(tmp_path / "items.parquet", b"PAR1 and nothing else"))


def test_the_first_of_several_names_of_a_column_is_taken(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", "asin,parent_asin\na,\nb,p\n")
    frames = list(
        read_strings(path, RowLedger(path), {"item_id": ["parent_asin", "asin"], "rating": ["overall"]})
    )
    assert pl.concat(frames).rows() == [("a", None), ("p", None)]


def test_a_folder_or_a_pattern_names_its_files(tmp_path: Path) -> None:
    for name in ("part-1.CSV", "part-0.csv.gz", ".hidden.csv", "_SUCCESS", "notes.md"):
        put(tmp_path / name, "x")
    assert [file.name for file in table_files(tmp_path)] == ["part-0.csv.gz", "part-1.CSV"]
    assert [file.name for file in table_files(tmp_path / "part-*.csv*")] == ["part-0.csv.gz"]
    with pytest.raises(InputError, match="no file matches"):
        table_files(tmp_path / "*.jsonl")


def test_the_columns_of_a_file_are_listed(tmp_path: Path) -> None:
    assert column_names(put(tmp_path / "a.csv", "x;y\n1;2\n")) == ["x", "y"]
    assert column_names(put(tmp_path / "a.jsonl", '{"x": 1}\n{"y": 2}\n')) == ["x", "y"]


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_file_that_is_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no table that rcml reads"):
        rows_of(put(tmp_path / "picture", content))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\ufeff"), max_size=12).map(
    lambda text: re.sub(r"([\r\n])", r"\1 ", text)
)
"""Cells of any characters. A blank follows a line break, because lines that look like rows are taken for rows."""


@settings(max_examples=150, deadline=None)
@example(rows=[("a", "\n", ",")], separator=",", quoting=csv.QUOTE_MINIMAL)
@given(
    rows=st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,4}", fullmatch=True), CELLS, CELLS), min_size=1, max_size=12
    ),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_python_writes_is_read_as_it_was(
    rows: Sequence[tuple[str, str, str]],
    separator: str,
    quoting: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, quoting=quoting)
    writer.writerows([("id", "one", "two"), *rows])
    path = put(tmp_path_factory.mktemp("t") / "t.csv", file.getvalue())
    read, ledger = rows_of(path, CsvDialect(separator))
    assert [tuple(row.values()) for row in read] == rows
    assert (ledger.rows, ledger.set_aside) == (len(rows), 0)
    texts, _ = strings_of(path, "id", "one", "two", dialect=CsvDialect(separator))
    assert texts == [tuple(cell or None for cell in row) for row in rows]


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(st.text('ab,"\\ \n\t', max_size=20), max_size=15), separator=st.sampled_from(",\t"))
def test_every_row_is_kept_or_set_aside(
    lines: list[str], separator: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = "\n".join([separator.join(("id", "one", "two")), *lines])
    path = put(tmp_path_factory.mktemp("t") / "t.csv", content)
    read, ledger = rows_of(path)
    assert ledger.kept == len(read)
    blocks, again = strings_of(path, "id", "one", "two")
    assert (len(blocks), again.rows, again.set_aside) == (len(read), ledger.rows, ledger.set_aside)
    assert [tuple(cell or None for cell in row.values()) for row in read] == blocks
