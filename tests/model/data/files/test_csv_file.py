"""Delimited text that other programs damaged: rows are neither joined nor taken from headers."""

from pathlib import Path
from typing import Any

import pytest

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import read_rows, read_strings
from model.errors import InputError


def rows_of(path: Path, text: str) -> tuple[list[dict[str, Any]], RowLedger]:
    path.write_text(text, encoding="utf-8")
    ledger = RowLedger(path)
    return [row for _, row in read_rows(path, ledger)], ledger


LAMPS = [f"Lamp number {i},p{i},Garden" for i in range(4)]


@pytest.mark.parametrize("opened", ['"Red lamp,p9,Home', '"size 27\\"",p9,Home'])
@pytest.mark.parametrize("ragged", [[], ["Lamp, old,p8,Garden"]])
def test_marks_of_two_rows_do_not_join_them_if_the_title_comes_first(
    opened: str, ragged: list[str], tmp_path: Path
) -> None:
    lines = ["title,item_id,categories", opened, *LAMPS, *ragged, 'Monitor 24",p10,Home']
    rows, ledger = rows_of(tmp_path / "items.csv", "\n".join(lines))
    assert {f"p{i}" for i in range(4)} | {"p10"} <= {row["item_id"] for row in rows}
    assert ledger.rows == len(lines) - 1
    assert ledger.kept == len(rows)


@pytest.mark.parametrize(
    "text",
    [
        "Soft, warm\nand light, too",
        "Soft\nwarm, light, red\nand more",
        "a\n\nb, c, d\n\ne",
    ],
)
def test_a_paragraph_with_commas_is_one_cell(text: str, tmp_path: Path) -> None:
    content = f'item_id,title,price\np1,"{text}",5\np2,Mug,6\n'
    rows, ledger = rows_of(tmp_path / "items.csv", content)
    assert [row["title"] for row in rows] == [text, "Mug"]
    assert (ledger.rows, ledger.set_aside) == (2, 0)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_of_an_appended_file_is_no_row(quote: str, mark: str, tmp_path: Path) -> None:
    part = "user_id,item_id\nu1,p1\n".replace(",", f"{quote},{quote}").replace("\n", f"{quote}\n{quote}")
    part = quote + part.removesuffix(quote)
    path = tmp_path / "log.csv"
    rows, ledger = rows_of(path, part + mark + part)
    assert rows == [{"user_id": "u1", "item_id": "p1"}] * 2
    assert (ledger.rows, ledger.set_aside) == (3, 1)
    assert "in line 3: the row repeats the names of the columns" in ledger.summary()
    ledger = RowLedger(path)
    (frame,) = read_strings(path, ledger, {"user_id": ["user_id"], "item_id": ["item_id"]})
    assert frame.rows() == [("u1", "p1")] * 2
    assert (ledger.rows, ledger.set_aside) == (3, 1)


def test_the_mark_of_an_appended_file_without_header_is_no_part_of_an_id(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path / "items.csv", "item_id,title\np1,Mug\n\ufeffp2,Hat\n")
    assert [row["item_id"] for row in rows] == ["p1", "p2"]


def test_a_binary_file_is_refused_without_showing_its_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.csv is no text\. Convert it to \.csv") as refused:
        rows_of(tmp_path / "items.csv", "PAR1\x15\x04\x15,\x00\x02\nx\n")
    assert "\x15" not in str(refused.value)
