"""Files that are empty, damaged, closed or there twice: no traceback, and no row is swallowed or counted twice."""

import json
import os
from pathlib import Path

import pytest

from model.data.files.table_reader import files_below, table_files
from model.errors import InputError

from .source_reading import items_of, log_of, opened, put, skipped

SHOPIFY_ORDERS = "Name,Email,Financial Status,Cancelled at,Created at,Lineitem name,Lineitem sku\n"


@pytest.mark.parametrize(
    ("source", "name", "header"),
    [
        ("shopify", "orders_export.csv", SHOPIFY_ORDERS),
        ("woocommerce", "orders.csv", "order_id,product_id,billing_email\n"),
        ("woocommerce", "orders.json", "[]"),
        ("recbole", "x.inter", "user_id:token\titem_id:token\n"),
        ("movielens", "ratings.csv", "userId,movieId,rating,timestamp\n"),
        ("hm", "transactions.csv", "t_dat,customer_id,article_id\n"),
    ],
)
def test_a_log_without_rows_is_refused(source: str, name: str, header: str, tmp_path: Path) -> None:
    log = put(tmp_path / name, header)
    items = put(tmp_path / "items.csv", "Handle,Title,ID,Name,movieId,title,genres\nm,Mug,1,Mug,1,Mug,x\n")
    with pytest.raises(InputError, match=rf"{name} has no rows that can be read"):
        log_of(opened(source, items=(items,), interactions=(log,)))


def test_line_items_that_are_none_are_set_aside(tmp_path: Path) -> None:
    put(tmp_path / "wc-product-export.csv", "ID,Type,SKU,Name,Published\n1,simple,S,Mug,1\n")
    order = {"id": 5, "status": "completed", "billing": {"email": "a@x"}}
    orders = [{**order, "line_items": ["x", None, {"product_id": 1}]}, {**order, "line_items": "x"}]
    put(tmp_path / "orders.json", json.dumps(orders))
    source = opened("woocommerce", tmp_path)
    assert [row[:2] for row in log_of(source)] == [("a@x", "1")]
    assert skipped(source) == {"the row has no product": 3}


def test_a_folder_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "part-0.csv", "item_id,title\na,Mug\n")
    (tmp_path / "more").mkdir()
    scan = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(
        InputError, match=r"more cannot be read \(Permission denied\)\. Give this user the right"
    ):
        table_files(tmp_path)


def test_copies_and_folders_of_programs_are_no_parts(tmp_path: Path) -> None:
    for name in ("a.csv", "a.csv.gz", "b.csv.gz", "_delta_log/0.json", ".hidden/c.csv", "year=2020/d.csv"):
        put(tmp_path / name, "item_id,title\n")
    put(tmp_path / "_SUCCESS", "")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["a.csv", "b.csv.gz", "year=2020/d.csv"]


def test_a_file_that_was_unpacked_beside_its_archive_is_read_once(tmp_path: Path) -> None:
    meta = json.dumps({"parent_asin": "A", "title": "Mug"}) + "\n"
    review = json.dumps({"user_id": "u", "parent_asin": "A", "rating": 5.0, "timestamp": 1}) + "\n"
    for suffix in ("", ".gz"):
        put(tmp_path / f"meta_Home.jsonl{suffix}", meta)
        put(tmp_path / f"Home.jsonl{suffix}", review)
    source = opened("amazon-2023", tmp_path)
    assert list(items_of(source)) == ["A"]
    assert len(log_of(source)) == 1


@pytest.mark.parametrize("order", [("label", "title"), ("title", "label")])
def test_a_stated_column_is_not_hidden_by_one_of_the_usual_name(
    order: tuple[str, str], tmp_path: Path
) -> None:
    header = "\t".join(["item_id:token", *(f"{name}:token_seq" for name in order)])
    put(tmp_path / "x.item", f"{header}\n1\t{order[0]} text\t{order[1]} text\n")
    put(tmp_path / "x.inter", "user_id:token\titem_id:token\nu\t1\n")
    items = items_of(opened("recbole", tmp_path, columns={"title": "label"}))
    assert items["1"]["title"] == "label text"


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ({"titel": "label"}, r"--columns maps 'titel', which is no column of rcml"),
        ({"rating": "stars"}, r"x\.inter has no column 'stars', which --columns maps to rating"),
        ({"user_id": "who"}, r"x\.inter has no column 'who', which --columns maps to user_id"),
    ],
)
def test_mistakes_in_the_mapping_of_recbole_are_refused(
    mapping: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    put(tmp_path / "x.item", "item_id:token\ttitle:token_seq\n1\tMug\n")
    put(tmp_path / "x.inter", "user_id:token\titem_id:token\tscore:float\nu\t1\t5\n")
    with pytest.raises(InputError, match=complaint):
        log_of(opened("recbole", tmp_path, columns=mapping))


@pytest.mark.parametrize(
    ("mapping", "header", "complaint"),
    [
        ({"rating": "stars"}, "user_id,item_id,rating", "no column 'stars', which --columns maps to rating"),
        ({"user_id": "who"}, "user_id,item_id,rating", "no column 'who', which --columns maps to user_id"),
        ({}, "user,item_id,rating", r"no column 'user_id'\. .* --columns user_id=user\."),
        (
            {"item_id": "sku"},
            "user_id,product,rating",
            r"no column 'sku' or 'item_id'\..* log\.item_id=product\.",
        ),
    ],
)
def test_a_log_without_a_column_is_refused(
    mapping: dict[str, str], header: str, complaint: str, tmp_path: Path
) -> None:
    log = put(tmp_path / "log.csv", f"{header}\nu,A,5\n")
    items = put(tmp_path / "items.csv", "item_id,title\nA,Mug\n")
    with pytest.raises(InputError, match=complaint):
        opened("table", items=(items,), interactions=(log,), columns=mapping).check_log()


def test_columns_of_the_log_that_are_not_read_are_noted(tmp_path: Path) -> None:
    log = put(tmp_path / "log.csv", "user_id,item_id,stars,date\nu,A,5,2020-01-01\n")
    items = put(tmp_path / "items.csv", "item_id,title\nA,Mug\n")
    source = opened("table", items=(items,), interactions=(log,))
    assert log_of(source) == [("u", "A", None, None)]
    assert source.ledgers[0].notes == ["columns that are not read: stars, date"]
