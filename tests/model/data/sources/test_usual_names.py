"""Column that an error suggests: the one that is meant most likely, written as a shell takes it."""

from pathlib import Path

import pytest

from model.data.sources.table import table_source
from model.data.sources.usual_names import columns_option
from model.errors import InputError

ORDERS = ("Order #", "Purchase Date", "Customer Email", "Item SKU", "Item Name")
"""Columns of the orders of a shop."""


@pytest.mark.parametrize(
    ("name", "stated", "option"),
    [
        ("user_id", None, "'user_id=Customer Email'"),
        ("log.item_id", None, "'log.item_id=Item SKU'"),
        ("log.item_id", "Item Sku", "'log.item_id=Item SKU'"),
        ("timestamp", None, "'timestamp=Purchase Date'"),
        ("rating", "valuation", "rating=NAME"),
    ],
)
def test_the_likeliest_column_is_suggested(name: str, stated: str | None, option: str) -> None:
    assert columns_option(name, ORDERS, stated) == f"--columns {option}"


def test_the_only_column_that_is_no_other_is_suggested() -> None:
    assert columns_option("title", ["sku", "Bezeichnung"]) == "--columns title=Bezeichnung"


def test_a_log_without_the_column_of_the_items_is_told_to_name_its_own(tmp_path: Path) -> None:
    items, orders = tmp_path / "items.csv", tmp_path / "orders.csv"
    items.write_text("sku;name\na;Mug\n")
    orders.write_text(";".join(ORDERS) + "\n1;2024-01-01;a@b.c;a;Mug\n")
    source = table_source([items], [orders], {"item_id": "sku", "user_id": "Customer Email"})
    with pytest.raises(
        InputError, match=r"'sku' or 'item_id'.* --columns 'log\.item_id=Item SKU'\. The file has"
    ):
        source.check_log()


def test_a_misspelt_column_is_answered_with_the_one_that_is_meant(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("sku;Product Title;type\na;Mug;simple\n")
    source = table_source([items], [], {"item_id": "sku", "title": "product_titel"})
    with pytest.raises(
        InputError, match=r"'product_titel'\. Name it, such as --columns 'title=Product Title'\."
    ):
        list(source.items())
