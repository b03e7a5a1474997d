"""WooCommerce: variations joined to their product, and the layouts of exported orders."""

import json
from pathlib import Path

import pytest

from model.errors import InputError

from .source_reading import items_of, log_of, opened, put, skipped

PRODUCTS = (
    "ID,Type,SKU,Name,Published,Short description,Description,Stock,Sale price,Regular price,Categories,Tags,Images,"
    "Parent,Attribute 1 name,Attribute 1 value(s)\n"
    '12,variable,H-1,Hoodie,1,Warm,"Very\\nwarm",,,,"Clothing > Hoodies, Wool\\, felt",warm,'
    '"https://w/h1.jpg, https://w/h2.jpg",,Color,"Blue, Red"\n'
    '13,variation,H-1-B,"Hoodie - Blue",1,,,4,40,45,,,https://w/blue.jpg,id:12,Color,Blue\n'
    '14,"variation, virtual",H-1-R,"Hoodie - Red",1,,,,,46,,,,H-1,Color,Red\n'
    '15,"simple, downloadable",A-1,Album,1,,,,,15,Music,,,,,\n'
    "16,simple,D-1,Draft,-1,,,,,15,Music,,,,,\n"
    "17,variation,X-1,Lost,1,,,,,15,,,,id:99,,\n"
)


def test_variations_are_joined_to_their_product(tmp_path: Path) -> None:
    put(tmp_path / "wc-product-export-1-1-2024.csv", PRODUCTS)
    put(tmp_path / "orders.csv", "order_id,billing_email,sku\n1,a@x,A-1\n")
    source = opened("woocommerce", tmp_path)
    assert items_of(source) == {
        "12": {
            "item_id": "12", "title": "Hoodie", "description": "Warm\nVery\nwarm",
            "categories": ["Clothing", "Hoodies", "Wool, felt"],
            "images": ["https://w/h1.jpg", "https://w/h2.jpg", "https://w/blue.jpg"], "price": 40.0,
            "regular_price": 45.0, "sku": "H-1", "stock": 4.0, "tags": "warm", "color": "Blue, Red",
        },
        "15": {
            "item_id": "15", "title": "Album", "description": "", "categories": ["Music"], "images": [],
            "price": 15.0, "regular_price": 15.0, "sku": "A-1",
        },
    }  # fmt: skip
    assert skipped(source) == {
        "the product is not published (Published)": 1,
        "the product of the variation (Parent) is not in the file": 1,
    }


ONE_ROW_PER_ITEM = (
    "order_id,order_number,date,status,customer_id,billing_email,item_id,item_product_id,item_name,item_sku\n"
    "900,900,2024-01-02 03:04:05,completed,5,Ann@x.com,1,12,Hoodie - Blue,H-1-B\n"
    "900,900,,,,,2,15,Album,A-1\n"
    "901,901,2024-01-02 03:04:05,refunded,5,ann@x.com,3,15,Album,A-1\n"
    "902,902,2024-01-02 03:04:05,processing,0,,4,,,H-1-R\n"
)

LABELS = (
    "Order Number,Order Status,Order Date,Email (Billing),Item Name,SKU,Quantity\n"
    "900,Completed,2024-01-02 03:04,ann@x.com,Hoodie - Blue,,1\n"
    "900,Completed,2024-01-02 03:04,ann@x.com,Album,,1\n"
    "901,Failed,2024-01-02 03:04,ann@x.com,Album,A-1,1\n"
    "902,Processing,2024-01-02 03:04,,Hoodie - Red,H-1-R,1\n"
)

ANALYTICS = (
    "Date,Order #,Status,Customer,Customer type,Product(s),Items sold,N. Revenue (formatted)\n"
    '2024-01-02 03:04:05,900,completed,Ann Lee,new,"2\u00d7 Hoodie - Blue, 1\u00d7 Album",3,$100\n'
    "2024-01-02 03:04:05,901,cancelled,Ann Lee,new,1\u00d7 Album,1,$15\n"
    "2024-01-02 03:04:05,902,processing,,new,1\u00d7 Hoodie,1,$15\n"
)

PACKED = (
    "order_id,order_number,order_date,status,customer_id,customer_email,line_item_1,line_item_2\n"
    "900,900,2024-01-02 03:04:05,completed,5,ann@x.com,name:Hoodie - Blue|product_id:13|sku:H-1-B|quantity:1,"
    "name:Album|product_id:|sku:A-1|quantity:1\n"
    "901,901,2024-01-02 03:04:05,wc-cancelled,5,ann@x.com,name:Album|product_id:15|sku:A-1|quantity:1,\n"
    "902,902,2024-01-02 03:04:05,processing,0,,name:Hoodie|product_id:12|sku:|quantity:1,\n"
)


@pytest.mark.parametrize(
    ("orders", "ann", "time"),
    [
        (ONE_ROW_PER_ITEM, "ann@x.com", 1704164645.0),
        (LABELS, "ann@x.com", 1704164640.0),
        (ANALYTICS, "Ann Lee", 1704164645.0),
        (PACKED, "ann@x.com", 1704164645.0),
    ],
)
def test_layouts_of_orders(orders: str, ann: str, time: float, tmp_path: Path) -> None:
    put(tmp_path / "wc-product-export.csv", PRODUCTS)
    put(tmp_path / "orders.csv", orders)
    source = opened("woocommerce", tmp_path)
    assert log_of(source) == [(ann, "12", None, time), (ann, "15", None, time), ("902", "12", None, time)]
    assert source.ledgers[-1].set_aside == 1


def test_orders_of_the_rest_api(tmp_path: Path) -> None:
    def order(number: str, status: str, email: str, *items: dict[str, object]) -> dict[str, object]:
        return {
            "id": int(number), "number": number, "status": status, "customer_id": 0, "billing": {"email": email},
            "date_created": "2024-01-02T05:04:05", "date_created_gmt": "2024-01-02T03:04:05", "line_items": items,
        }  # fmt: skip

    hoodie = {"id": 1, "name": "Hoodie - Blue", "product_id": 12, "variation_id": 13, "sku": "H-1-B"}
    album = {"id": 2, "name": "Album", "product_id": 0, "variation_id": 0, "sku": "A-1"}
    orders = [
        order("900", "completed", "ann@x.com", hoodie, album),
        order("901", "refunded", "ann@x.com", album),
        order("902", "processing", "", hoodie),
        order("903", "completed", "ann@x.com"),
    ]
    put(tmp_path / "products.csv", PRODUCTS)
    put(tmp_path / "orders.json", json.dumps(orders))
    source = opened("woocommerce", tmp_path)
    time = 1704164645.0
    assert log_of(source) == [
        ("ann@x.com", "12", None, time), ("ann@x.com", "15", None, time), ("902", "12", None, time),
    ]  # fmt: skip


def test_products_in_another_language_and_orders_without_products_are_refused(tmp_path: Path) -> None:
    german = put(tmp_path / "german.csv", "ID,Typ,Artikelnummer,Titel\n1,simple,A,Tasse\n")
    products = put(tmp_path / "products.csv", PRODUCTS)
    customers = put(tmp_path / "customers.csv", "Customer,Email\nAnn,a@x\n")
    with pytest.raises(
        InputError, match=r"no columns 'Name' and 'ID'\. Export .* with English .*Artikelnummer"
    ):
        items_of(opened("woocommerce", items=german, interactions=customers))
    with pytest.raises(
        InputError, match=r"no column with the products of the orders.*one row for each line item"
    ):
        log_of(opened("woocommerce", items=products, interactions=customers))


def test_rows_of_orders_are_counted_as_line_items(tmp_path: Path) -> None:
    put(tmp_path / "wc-product-export.csv", PRODUCTS)
    put(
        tmp_path / "orders.csv",
        "order_id,status,billing_email,line_item_1,line_item_2\n"
        "1,completed,a@x,name:Album|product_id:15|quantity:1,name:Hoodie|product_id:12|quantity:1\n"
        "2,cancelled,b@x,name:Album|product_id:15|quantity:1,name:Hoodie|product_id:12|quantity:1\n"
        "3,on-hold,c@x,name:Album|product_id:15|quantity:1,\n",
    )
    source = opened("woocommerce", tmp_path)
    assert (len(items_of(source)), len(log_of(source))) == (2, 3)
    ledger = source.ledgers[-1]
    assert (ledger.rows, ledger.kept) == (5, 3)
    assert skipped(source)["the order was cancelled"] == 2
    assert "3 orders with 5 line items, which are counted as the rows" in ledger.notes
    assert source.skipped_items == {"16"}


def test_statuses_in_another_language_are_told(tmp_path: Path) -> None:
    put(tmp_path / "wc-product-export.csv", PRODUCTS)
    put(
        tmp_path / "orders.csv",
        "order_id,status,billing_email,sku\n1,Abgeschlossen,a@x,A-1\n2,Storniert,b@x,A-1\n3,Storniert,c@x,A-1\n"
        "4,completed,d@x,A-1\n5,,e@x,A-1\n",
    )
    source = opened("woocommerce", tmp_path)
    items_of(source)
    assert len(log_of(source)) == 5
    assert source.advice == [
        "orders.csv: 3 rows count as purchases although their status is not known: Storniert (2), Abgeschlossen (1). "
        "If they are none, export the orders in English, or without them."
    ]
