"""Shopify: variant rows joined to their product, and orders joined to products."""

from pathlib import Path

import pytest

from model.errors import InputError

from .source_reading import items_of, log_of, opened, put, skipped

HEADER = (
    "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Value,"
    "Variant SKU,Variant Price,Variant Barcode,Image Src,Image Position,Variant Image,Status\n"
)

PRODUCTS = HEADER + (
    'mug,Mug - Big,"<p>A ""big"" mug.\nFor tea.</p>",Potter,Home > Kitchen,Cups,"new, sale",true,Color,Red,S,M-R,'
    "$12.50,'0012345678905,https://c/2.jpg,2,https://c/red.jpg,active\n"
    "mug,,,,,,,,,Blue,S,M-B,13.00,,https://c/1.jpg,1,https://c/blue.jpg,\n"
    "mug,,,,,,,,,,,,,,https://c/3.jpg,3,,\n"
    'hat,Hat,,Hatter,,,"wool, winter",true,Title,Default Title,,,20.00,,,,,active\n'
    "sock,Sock,,,Uncategorized,Socks,,true,Title,Default Title,,S1,5.00,,,,,draft\n"
    "sock,,,,,,,,,Long,,S2,6.00,,,,,\n"
    ",Nobody,,,,,,,,,,,,,,,,\n"
)

ORDERS_HEADER = (
    "Name,Email,Financial Status,Paid at,Created at,Lineitem quantity,Lineitem name,Lineitem sku,"
    "Cancelled at,Notes\n"
)

ORDERS = ORDERS_HEADER + (
    "#1001,Ann@Example.com,paid,2023-01-05 10:20:30 -0500,2023-01-05 10:20:30 -0500,1,Mug - Big - Red / S,M-R,,\n"
    "#1001,,,,,2,Hat,,,\n"
    '#1002,,pending,,2023-01-06 00:00:00 +0000,1,Mug - Big - Blue / S,,,"two\nlines"\n'
    "#1003,bob@example.com,refunded,,2023-01-06 00:00:00 +0000,1,Hat,,,\n"
    "#1003,,,,,1,Mug - Big,,,\n"
    "#1004,bob@example.com,paid,,2023-01-07 00:00:00 +0000,1,Hat,,2023-01-08 00:00:00 +0000,\n"
    "#1005,bob@example.com,paid,,2023-01-07 00:00:00 +0000,1,Mug - Big - Green / XL,,,\n"
    "#1005,bob@example.com,,,,1,Gift wrap,GW,,\n"
    "#1006,bob@example.com,voided,,2023-01-07 00:00:00 +0000,1,Hat,,,\n"
    "#1007,bob@example.com,paid,,2023-01-07 00:00:00 +0000,,,,,\n"
)


def test_variants_and_pictures_are_joined_to_their_product(tmp_path: Path) -> None:
    put(tmp_path / "products_export_1.csv", PRODUCTS)
    put(tmp_path / "orders_export_1.csv", ORDERS)
    source = opened("shopify", tmp_path)
    assert items_of(source) == {
        "mug": {
            "item_id": "mug", "title": "Mug - Big", "description": 'A "big" mug.\nFor tea.',
            "categories": ["Home", "Kitchen", "Cups"],
            "images": ["https://c/1.jpg", "https://c/2.jpg", "https://c/3.jpg", "https://c/red.jpg",
                       "https://c/blue.jpg"],
            "vendor": "Potter", "type": "Cups", "price": 12.5, "sku": "M-R", "barcode": "0012345678905",
            "tags": "new, sale",
        },
        "hat": {
            "item_id": "hat", "title": "Hat", "description": "", "categories": ["wool", "winter"], "images": [],
            "vendor": "Hatter", "price": 20.0, "tags": "wool, winter",
        },
    }  # fmt: skip
    assert skipped(source) == {"the product's Status is draft": 2, "the row has no Handle": 1}
    assert source.ledgers[0].rows == 7


def test_orders_name_products_by_sku_or_by_name(tmp_path: Path) -> None:
    put(tmp_path / "products_export_1.csv", PRODUCTS)
    put(tmp_path / "orders_export_1.csv", ORDERS)
    source = opened("shopify", tmp_path)
    assert log_of(source) == [
        ("ann@example.com", "mug", None, 1672932030.0),
        ("ann@example.com", "hat", None, 1672932030.0),
        ("#1002", "mug", None, 1672963200.0),  # a guest
        ("bob@example.com", "mug", None, 1673049600.0),  # a variant that was deleted
        ("bob@example.com", "Gift wrap", None, 1673049600.0),  # no product: counted among the unknown items
    ]
    assert skipped(source) == {
        "the row has no Handle": 1,
        "the order was refunded": 2,
        "the order was cancelled": 1,
        "the order was not paid": 1,
        "the row has no line item": 1,
    }


def test_a_title_of_two_products_joins_neither(tmp_path: Path) -> None:
    put(tmp_path / "products.csv", "Handle,Title,Variant SKU\na,Mug,A1\nb,Mug,\n")
    put(tmp_path / "orders.csv", "Name,Email,Lineitem name,Lineitem sku\n#1,u@x,Mug,A1\n#2,u@x,Mug,\n")
    assert [item for _, item, _, _ in log_of(opened("shopify", tmp_path))] == ["a", "Mug"]


def test_the_new_names_of_columns_are_known(tmp_path: Path) -> None:
    put(
        tmp_path / "products_export.csv",
        "Title,URL handle,Description,Vendor,Type,SKU,Price,Product image URL,Image position,Status\n"
        "Mug,mug,Big,Potter,Cups,M1,3.00,https://c/1.jpg,1,Active\n",
    )
    put(tmp_path / "orders_export.csv", ORDERS_HEADER + "#1,a@x,paid,,2023-01-06 00:00:00 +0000,1,Mug,M1,,\n")
    source = opened("shopify", tmp_path)
    [item] = items_of(source).values()
    assert (item["item_id"], item["description"], item["images"], item["price"], item["sku"]) == (
        "mug", "Big", ["https://c/1.jpg"], 3.0, "M1",
    )  # fmt: skip
    assert log_of(source) == [("a@x", "mug", None, 1672963200.0)]


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = put(tmp_path / "customers.csv", "First Name,Last Name\nAnn,Lee\n")
    products = put(tmp_path / "products.csv", PRODUCTS)
    with pytest.raises(InputError, match="no columns 'Handle' and 'Title', so it is no export of products"):
        items_of(opened("shopify", items=other, interactions=other))
    with pytest.raises(InputError, match="no column 'Lineitem name', so it is no export of orders"):
        log_of(opened("shopify", items=products, interactions=other))
