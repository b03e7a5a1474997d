"""Items from raw rows: every row is kept or set aside with its line, and every change is counted."""

from pathlib import Path
from typing import Any

import pytest

from model.data.files.row_ledger import RowLedger
from model.data.item_table import ItemTable, read_item_table
from model.errors import InputError


def table(*rows: dict[str, Any], **options: Any) -> tuple[ItemTable, RowLedger]:
    ledger = RowLedger(Path("items.csv"), rows=len(rows))
    return read_item_table(((ledger, line, row) for line, row in enumerate(rows, 2)), **options), ledger


def test_reads_items_with_their_attributes() -> None:
    read, ledger = table(
        {
            "item_id": "007",
            "title": "Mug &amp; lid",
            "categories": "['Home', 'Gifts']",
            "price": "$3.50",
            "tags": ["x"],
        },
        {
            "item_id": 8,
            "title": "Hat",
            "description": ["<p>One.</p>", "Two."],
            "images": ["a.png", "b.png"],
            "brand": "A",
        },
        {"item_id": "9", "categories": ["Home"], "images": "c.png ", "price": ""},
    )
    assert read.frame.rows() == [
        ("007", "Mug & lid", "", ["Home", "Gifts"], [], 3.5, None),
        ("8", "Hat", "One.\nTwo.", [], ["a.png", "b.png"], None, "A"),
        ("9", "", "", ["Home"], ["c.png"], None, None),
    ]
    assert read.frame.columns[5:] == ["price", "brand"]
    assert read.left_out == {"tags": "lists and objects cannot be attributes"}
    assert dict(read.changes) == {
        "HTML entities decoded": 1,
        "HTML tags removed": 1,
        "items without a title": 1,
    }
    assert ledger.kept == 3


def test_rows_without_an_id_or_with_an_earlier_one_are_set_aside() -> None:
    read, ledger = table(
        {"item_id": "a", "title": "Mug"}, {"item_id": " ", "title": "Hat"}, {"item_id": "a", "title": "Tie"}
    )
    assert read.frame["title"].to_list() == ["Mug"]
    assert {reason: found.examples for reason, found in ledger.skipped.items()} == {
        "the item has no ID (item_id)": [(3, "Hat")],
        "the ID (item_id) is that of an earlier row": [(4, "a")],
    }


def test_a_table_without_items_is_an_error() -> None:
    with pytest.raises(InputError, match="No item is left"):
        table({"title": "Mug"})


def test_a_type_for_an_unknown_column_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--types names the column 'prise'.*attributes are: price\."):
        table({"item_id": "a", "price": "1"}, types={"prise": "number"})


def test_texts_that_the_api_could_not_hold_are_cut_and_counted() -> None:
    read, _ = table({"item_id": "a", "title": "Mug", "description": "x" * 20_001, "notes": "y" * 2_001})
    assert [len(read.frame[name][0]) for name in ("description", "notes")] == [20_000, 2_000]
    assert dict(read.changes) == {
        "descriptions cut to 20,000 characters": 1,
        "values of notes cut to 2,000 characters": 1,
    }


def test_a_line_break_in_the_name_of_a_category_is_a_blank() -> None:
    names = ["Home\nand  Garden", "Home and Garden"]
    found, _ = table({"item_id": "a", "title": "Mug", "categories": names})
    assert found.frame["categories"].to_list() == [["Home and Garden"]]
