"""What every source refuses about its log before the items are worked on."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.data.sources.source import found_files
from model.errors import InputError

from .source_reading import items_of, log_of, opened, put

ITEMS = "item_id,title,categories,image\na,Apple,fruit,a.png\nb,Bean,fruit,b.png\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", "user_id,product\nu,a\n"),
        ("log.tsv", "product\tuser_id\na\tu\n"),
        ("log.jsonl", '{"user_id": "u", "product": "a"}\n'),
        ("log.parquet", ""),
    ],
)
def test_a_log_without_items_is_refused_before_the_pictures_are_read(
    name: str, content: str, tmp_path: Path
) -> None:
    log = put(tmp_path / name, content)
    if name.endswith(".parquet"):
        pl.DataFrame({"user_id": ["u"], "product": ["a"]}).write_parquet(log)
    config = PrepareConfig(
        items=put(tmp_path / "items.csv", ITEMS), interactions=log, out=tmp_path / "prepared"
    )
    # The pictures do not exist, and would be refused too.
    with pytest.raises(
        InputError, match=rf"{name} has no column 'item_id'.* --columns log\.item_id=product\. The file has: "
    ):
        prepare(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("source", "files", "missing"),
    [
        ("amazon-2023", {"meta_X.jsonl": '{"parent_asin": "1"}', "X.jsonl": '{"asin": "1"}'}, "'user_id'"),
        (
            "amazon-2018",
            {"meta_X.json": '{"asin": "1"}', "X_5.json": '{"reviewerID": "u", "title": "t"}'},
            "'asin'",
        ),
        (
            "hm",
            {"articles.csv": "article_id\n1\n", "transactions_train.csv": "t_dat,customer_id\n1,u\n"},
            "'article_id'",
        ),
        (
            "goodreads",
            {
                "goodreads_books.json": '{"book_id": "1"}',
                "goodreads_interactions.csv": "user_id,is_read\n1,1\n",
            },
            "'book_id'",
        ),
    ],
)
def test_each_source_names_the_column_that_its_log_lacks(
    source: str, files: dict[str, str], missing: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        put(tmp_path / name, content)
    with pytest.raises(InputError, match=f"has no column .*{missing}"):
        opened(source, tmp_path).check_log()


@pytest.mark.parametrize("name", ["", "part"])
def test_an_unreadable_folder_is_not_passed_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "part/articles.csv", "article_id\n1\n")
    put(tmp_path / "articles.csv", "article_id\n1\n")
    closed = str(tmp_path / name)

    def scandir(path: str) -> Any:
        if str(path).rstrip("/") == closed.rstrip("/"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)\. Give this user the right"):
        found_files(tmp_path, "articles*.csv")


def test_names_in_a_mapping_must_be_columns_of_rcml(tmp_path: Path) -> None:
    items = put(tmp_path / "items.csv", ITEMS)
    for source in ("table", "recbole"):
        with pytest.raises(
            InputError, match=r"maps 'titel', .* Its columns are item_id, title, .*image, user"
        ):
            opened(source, items=items, interactions=items, columns={"titel": "name"})


def test_a_mapping_for_the_log_alone_leaves_the_items_as_they_are(tmp_path: Path) -> None:
    items = put(tmp_path / "items.csv", "SKU,title\na,Apple\n")
    log = put(tmp_path / "log.csv", "user_id,Article,SKU\nu,a,wrong\n")
    source = opened(
        "table", items=items, interactions=log, columns={"item_id": "SKU", "log.item_id": "Article"}
    )
    source.check_log()
    assert list(items_of(source)) == ["a"]
    assert log_of(source) == [("u", "a", None, None)]
    source = opened(
        "table", items=items, interactions=log, columns={"item_id": "SKU", "log.item_id": "Artikel"}
    )
    with pytest.raises(InputError, match=r"log\.csv has no column 'Artikel'"):
        source.check_log()


@pytest.mark.parametrize("empty", ["items", "log"])
def test_an_empty_part_of_a_table_is_passed_over(empty: str, tmp_path: Path) -> None:
    put(tmp_path / "items/part-0.csv", ITEMS)
    put(tmp_path / "log/part-0.csv", "user_id,item_id\nu,a\n")
    put(tmp_path / empty / "part-1.csv", "")
    source = opened("table", items=tmp_path / "items", interactions=tmp_path / "log")
    source.check_log()
    assert (list(items_of(source)), log_of(source)) == (["a", "b"], [("u", "a", None, None)])
    [ledger] = [ledger for ledger in source.ledgers if ledger.path.name == "part-1.csv"]
    assert ledger.notes == ["it is empty"]


def test_a_download_that_is_still_packed_is_named(tmp_path: Path) -> None:
    (tmp_path / "ml-latest-small.zip").write_bytes(b"PK")
    with pytest.raises(
        InputError, match=r"contains no movies\.csv .* Unpack .*ml-latest-small\.zip, or name"
    ):
        opened("movielens", tmp_path)
