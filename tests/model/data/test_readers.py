"""Readers of raw files: three equivalent formats, and errors that name the file, the column and the value."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.readers import ITEM_COLUMNS, read_edges, read_interactions, read_items, read_relation_texts
from model.errors import InputError

ITEMS = pl.DataFrame(
    {
        "item_id": ["007", "b"],
        "title": ["Red mug", "Hat"],
        "description": ["A mug.", None],
        "categories": [["Kitchen", "Gifts"], ["Clothes"]],
        "image": ["mug.png", None],
    }
)


def write(path: Path, table: pl.DataFrame) -> Path:
    match path.suffix:
        case ".jsonl":
            table.write_ndjson(path)
        case ".parquet":
            table.write_parquet(path)
        case ".csv":
            table.write_csv(path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_all_formats_return_the_same_items(suffix: str, tmp_path: Path) -> None:
    table = ITEMS
    if suffix == "csv":
        table = ITEMS.with_columns(pl.col("categories").list.join("|"))
    assert read_items(write(tmp_path / f"items.{suffix}", table)).to_dicts() == [
        {
            "item_id": "007",
            "title": "Red mug",
            "description": "A mug.",
            "categories": ["Kitchen", "Gifts"],
            "image": "mug.png",
        },
        {"item_id": "b", "title": "Hat", "description": "", "categories": ["Clothes"], "image": ""},
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_all_formats_return_the_same_interactions(suffix: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": ["01", "2"], "item_id": ["007", "b"], "rating": [5, 3]})
    assert read_interactions(write(tmp_path / f"log.{suffix}", table)).rows() == [
        ("01", "007", 5.0, None),
        ("2", "b", 3.0, None),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_accepts_numbers_as_ids(suffix: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"item_a": [1, 2], "item_b": [2, 3], "relation": [9, 9]})
    edges = read_edges(write(tmp_path / f"edges.{suffix}", table))
    assert edges.rows() == [("1", "2", "9"), ("2", "3", "9")]


def test_description_and_image_may_be_absent(tmp_path: Path) -> None:
    path = text(tmp_path / "items.csv", "item_id,title,categories\na,Mug,Kitchen\n")
    assert read_items(path).row(0) == ("a", "Mug", "", ["Kitchen"], "")


def test_accepts_an_item_without_categories(tmp_path: Path) -> None:
    path = text(tmp_path / "items.csv", 'item_id,title,categories\na,Mug,\nb,Hat,""\nc,Tie,Clothes|\n')
    assert read_items(path)["categories"].to_list() == [[], [], ["Clothes"]]


def test_strips_whitespace_around_categories(tmp_path: Path) -> None:
    path = text(tmp_path / "items.csv", "item_id,title,categories\na,Mug,Kitchen | Gifts\n")
    assert read_items(path)["categories"].to_list() == [["Kitchen", "Gifts"]]


def test_accepts_numbers_as_categories(tmp_path: Path) -> None:
    path = text(tmp_path / "items.csv", "item_id,title,categories\na,Mug,12\nb,Hat,7\n")
    assert read_items(path)["categories"].to_list() == [["12"], ["7"]]


def test_ignores_interactions_without_a_user_or_an_item(tmp_path: Path) -> None:
    path = text(tmp_path / "log.csv", "user_id,item_id\nu,a\n,b\nv,\n")
    assert read_interactions(path).rows() == [("u", "a", None, None)]


def test_reads_relation_texts_as_a_mapping(tmp_path: Path) -> None:
    path = text(tmp_path / "texts.csv", "relation,description\nworn,Worn together.\nread,Read together.\n")
    assert read_relation_texts(path) == {"worn": "Worn together.", "read": "Read together."}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("items.csv", None, r"items\.csv does not exist\. Check the path\."),
        (
            "items.txt",
            "a",
            r"items\.txt has an unsupported format\. Convert it to \.jsonl, \.parquet or \.csv\.",
        ),
        ("items.csv", "", r"items\.csv cannot be read: empty CSV"),
        ("items.csv", "item_id,title,categories\n", r"items\.csv has no rows\."),
        ("items.jsonl", "", r"items\.jsonl cannot be read"),
        ("items.jsonl", "not json\n", r"items\.jsonl cannot be read"),
        ("items.jsonl", "[1, 2]\n", r"items\.jsonl cannot be read"),
        ("items.parquet", "not parquet", r"items\.parquet cannot be read"),
        (
            "items.csv",
            "item_id,name\na,Mug\n",
            r"items\.csv has no column 'title'\. .*columns: item_id, name\.",
        ),
        ("items.csv", "item_id,title,categories\na,M,K\na,N,K\n", r"item_id 'a' occurs more than once"),
        ("items.csv", "item_id,title,categories\na,M,K\n,N,K\n", r"items\.csv, row 2: item_id is empty"),
        ("items.csv", "item_id,title,categories\na,M,K,more\n", r"items\.csv cannot be read"),
    ],
)
def test_rejects_unusable_items_files(name: str, content: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        text(path, content)
    with pytest.raises(InputError, match=complaint):
        read_items(path)


def test_rejects_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("item_id,title,categories\na,Café,K\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"items\.csv cannot be read"):
        read_items(path)


@pytest.mark.parametrize(
    ("column", "value"), [("title", ["Mug"]), ("item_id", ["a"]), ("categories", {"a": 1}), ("image", [1])]
)
def test_rejects_an_item_column_of_the_wrong_type_by_name(column: str, value: Any, tmp_path: Path) -> None:
    row = {"item_id": "a", "title": "Mug", "categories": ["K"], "image": "a.png", column: value}
    path = tmp_path / "items.jsonl"
    pl.DataFrame([row]).write_ndjson(path)
    with pytest.raises(InputError, match=rf"items\.jsonl.*{column}"):
        read_items(path)


@pytest.mark.parametrize("column", ["rating", "timestamp"])
def test_rejects_a_rating_or_timestamp_that_is_not_a_number(column: str, tmp_path: Path) -> None:
    path = text(tmp_path / "log.csv", f"user_id,item_id,{column}\nu,a,good\n")
    with pytest.raises(InputError, match=rf"log\.csv: .*must be a number or empty.*'{column}'.*good"):
        read_interactions(path)


def test_rejects_an_edge_column_of_the_wrong_type_by_name(tmp_path: Path) -> None:
    path = tmp_path / "edges.jsonl"
    pl.DataFrame([{"item_a": ["a"], "item_b": "b", "relation": "r"}]).write_ndjson(path)
    with pytest.raises(InputError, match=r"edges\.jsonl.*item_a"):
        read_edges(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("worn,A.\nworn,B.\n", "relation 'worn' occurs more than once"),
        ("worn,A.\nread,A.\n", "description 'A.' occurs more than once"),
    ],
)
def test_rejects_repeated_relation_ids_and_descriptions(content: str, complaint: str, tmp_path: Path) -> None:
    path = text(tmp_path / "texts.csv", f"relation,description\n{content}")
    with pytest.raises(InputError, match=complaint):
        read_relation_texts(path)


def test_reads_every_other_plain_column_as_an_attribute(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    rows = [
        '{"item_id": "a", "title": "A", "categories": ["X"], "price": 9.5, "stock": 3, "new": true, "tags": ["t"]}',
        '{"item_id": "b", "title": "B", "categories": ["X"], "brand": "Ton"}',
    ]
    path.write_text("\n".join(rows))
    table = read_items(path).drop(ITEM_COLUMNS)
    assert table.to_dicts() == [
        {"price": 9.5, "stock": 3, "new": True, "brand": None},
        {"price": None, "stock": None, "new": None, "brand": "Ton"},
    ]
