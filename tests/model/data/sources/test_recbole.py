"""Atomic files of RecBole: typed headers, sequences and names that are guessed."""

from pathlib import Path

import pytest

from model.data.item_table import read_item_table
from model.data.sources.recbole import tokens
from model.errors import InputError

from .source_reading import items_of, log_of, opened, put


def test_items_and_interactions(tmp_path: Path) -> None:
    put(
        tmp_path / "ml/ml.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tscore:float\tcast:token_seq\n"
        '01\tToy "Big" Story\t1995\tAnimation Children\'s Comedy\t3.5\tA B\n02\tHeat\t\tDrama\t\t\n',
    )
    put(
        tmp_path / "ml/ml.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t01\t5\t978300760\n8\t02\t\t978302109.0\n",
    )
    source = opened("recbole", tmp_path)
    assert items_of(source) == {
        "01": {
            "item_id": "01", "title": 'Toy "Big" Story', "description": "",
            "categories": ["Animation", "Children's", "Comedy"], "images": [], "release_year": 1995, "score": 3.5,
        },
        "02": {"item_id": "02", "title": "Heat", "description": "", "categories": ["Drama"], "images": []},
    }  # fmt: skip
    assert log_of(source) == [("7", "01", 5.0, 978300760.0), ("8", "02", None, 978302109.0)]
    assert source.ledgers[0].notes == [
        "columns: item_id is item_id:token, title is movie_title:token_seq, categories is class:token_seq"
    ]


def test_stated_columns_come_before_the_usual_ones(tmp_path: Path) -> None:
    put(
        tmp_path / "x.item",
        "venue:token\tname:token_seq\tlabel:token_seq\tkind:token_seq\nv1\tBar\tOld Bar\tpub food\n",
    )
    put(tmp_path / "x.inter", "user_id:token\tvenue:token\nu\tv1\n")
    columns = {"item_id": "venue", "title": "label", "categories": "kind"}
    source = opened("recbole", tmp_path, columns=columns)
    [item] = items_of(source).values()
    assert (item["item_id"], item["title"], item["categories"]) == ("v1", "Old Bar", ["pub", "food"])
    assert log_of(source) == [("u", "v1", None, None)]


def test_header_states_that_a_column_is_of_numbers(tmp_path: Path) -> None:
    put(
        tmp_path / "x.item",
        "item_id:token\tname:token_seq\tprice:float\tcode:token\n1\tA\tFree\t07\n2\tB\tfree\t7\n",
    )
    put(tmp_path / "x.inter", "user_id:token\titem_id:token\nu\t1\n")
    source = opened("recbole", tmp_path)
    columns = read_item_table(source.items(), {}, source.untyped, source.types).columns
    assert [(name, column.type, column.unread) for name, column in columns.items()] == [
        ("price", "number", 2), ("code", "text", 0),
    ]  # fmt: skip


def test_unknown_columns_are_told(tmp_path: Path) -> None:
    put(tmp_path / "x.item", "venue:token\tname:token_seq\nv1\tBar\n")
    put(tmp_path / "x.inter", "user_id:token\tvenue:token\nu\tv1\n")
    with pytest.raises(
        InputError, match=r"no column that is known to be the item_id.*--columns item_id=venue.*venue, name"
    ):
        items_of(opened("recbole", tmp_path))
    with pytest.raises(InputError, match=r"no column 'label', which --columns maps to title"):
        items_of(opened("recbole", tmp_path, columns={"item_id": "venue", "title": "label"}))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Action Sci-Fi", ["Action", "Sci-Fi"]),
        ("Drama, Slice of Life", ["Drama", "Slice of Life"]),
        ("'Movies & TV', 'Box Sets'", ["Movies & TV", "Box Sets"]),
        ('"Movies & TV" "Box Sets"', ["Movies & TV", "Box Sets"]),
        ("['Home', 'Kitchen']", ["Home", "Kitchen"]),
        ("Children's Men's", ["Children's", "Men's"]),
        ("", []),
    ],
)
def test_sequences_are_lists(cell: str, expected: list[str]) -> None:
    assert tokens(cell) == expected
