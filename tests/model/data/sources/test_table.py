"""Tables with rcml's column names or with others by a mapping."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.data.item_table import read_item_table
from model.data.sources.table import TableSource, table_source
from model.errors import InputError


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def rows_of(source: TableSource) -> list[dict[str, Any]]:
    return read_item_table(source.items(), untyped=source.untyped).frame.to_dicts()


def test_columns_with_other_names_are_mapped(tmp_path: Path) -> None:
    items = put(
        tmp_path / "products.csv",
        "sku,product_name,category_path,photos,description,price\n"
        'A1,Mug,Home > Kitchen,"a.png, b.png",Big,"$3"\nA2,Hat,Clothes,,,\n',
    )
    log = put(tmp_path / "orders.csv", "customer;product;when\nu1;A1;2020-01-02\nu2;A2;\n")
    mapping = {
        "item_id": "sku", "title": "product_name", "categories": "category_path: > ", "image": "photos:comma",
    }  # fmt: skip
    source = table_source([items], [], mapping)
    assert rows_of(source) == [
        {
            "item_id": "A1", "title": "Mug", "description": "Big", "categories": ["Home", "Kitchen"],
            "images": ["a.png", "b.png"], "price": 3,
        },
        {
            "item_id": "A2", "title": "Hat", "description": "", "categories": ["Clothes"], "images": [], "price": None,
        },
    ]  # fmt: skip
    source = table_source([items], [log], {"user_id": "customer", "item_id": "product", "timestamp": "when"})
    [(ledger, batch)] = source.interactions()
    assert batch.rows() == [("u1", "A1", None, "2020-01-02"), ("u2", "A2", None, None)]
    assert (ledger.rows, ledger.notes) == (2, ["separated by semicolon"])


@pytest.mark.parametrize(
    ("separators", "categories"),
    [
        ("comma:slash", ["Shop", "Home", "Lamps: floor", "Sale"]),
        (":", ["Shop/Home/Lamps", "floor,Shop/Sale"]),
        (" ,", ["Shop/Home/Lamps: floor", "Shop/Sale"]),
    ],
)
def test_categories_may_have_several_separators(
    separators: str, categories: list[str], tmp_path: Path
) -> None:
    items = put(tmp_path / "items.csv", 'item_id,title,path\nA1,Lamp,"Shop/Home/Lamps: floor,Shop/Sale"\n')
    [row] = rows_of(table_source([items], [], {"categories": f"path:{separators}"}))
    assert row["categories"] == categories


def test_the_item_id_may_have_another_name_in_items_only(tmp_path: Path) -> None:
    items = put(tmp_path / "items.csv", "sku,title\nA1,Mug\n")
    log = put(tmp_path / "log.csv", "user_id,item_id\nu,A1\n")
    source = table_source([items], [log], {"item_id": "sku"})
    assert [row["item_id"] for row in rows_of(source)] == ["A1"]
    assert [batch.row(0) for _, batch in source.interactions()] == [("u", "A1", None, None)]


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        (
            {"title": "nome"},
            r"items\.csv has no column 'nome'\. Name it, such as --columns title=name\. The file has: item_id, name",
        ),
        ({"title": "name", "categories": "cat: > "}, r"no column 'cat', which --columns maps to categories"),
        ({}, r"items\.csv has no column 'title'"),
    ],
)
def test_a_wrong_mapping_is_told(mapping: dict[str, str], complaint: str, tmp_path: Path) -> None:
    items = put(tmp_path / "items.csv", "item_id,name\na,Mug\n")
    with pytest.raises(InputError, match=complaint):
        rows_of(table_source([items], [], mapping))


def test_all_formats_give_the_same_items(tmp_path: Path) -> None:
    rows = [{"item_id": "007", "title": "Mug", "categories": ["A", "B"], "image": "m.png", "price": 1.5}]
    put(tmp_path / "a.jsonl", json.dumps(rows[0]))
    put(tmp_path / "b.json", json.dumps(rows))
    put(tmp_path / "c.csv", "item_id,title,categories,image,price\n007,Mug,A|B,m.png,1.5\n")
    put(tmp_path / "d.tsv", "item_id\ttitle\tcategories\timage\tprice\n007\tMug\t['A', 'B']\tm.png\t1.5\n")
    for name in ("a.jsonl", "b.json", "c.csv", "d.tsv"):
        assert rows_of(table_source([tmp_path / name], [], {})) == [
            {
                "item_id": "007", "title": "Mug", "description": "", "categories": ["A", "B"], "images": ["m.png"],
                "price": 1.5,
            }
        ], name  # fmt: skip


@pytest.mark.parametrize("content", ["", "\n\n", "item_id,title\n"])
def test_an_empty_file_is_told(content: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.csv (is empty|has no rows that can be read\. It is empty)"):
        rows_of(table_source([put(tmp_path / "items.csv", content)], [], {}))
