"""Ready-made edges and relation texts."""

import json
from pathlib import Path

import polars as pl
import pytest

from model.data.ready_edges import read_edges, read_relation_texts
from model.errors import InputError
from model.records import INTRA_RELATION


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_accepts_numbers_as_ids(suffix: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"item_a": [1, 2], "item_b": [2, 3], "relation": [9, 9]})
    path = tmp_path / f"edges.{suffix}"
    match suffix:
        case "jsonl":
            table.write_ndjson(path)
        case "parquet":
            table.write_parquet(path)
        case _:
            table.write_csv(path)
    assert read_edges(path).rows() == [("1", "2", "9"), ("2", "3", "9")]


def test_reads_relation_texts_as_a_mapping(tmp_path: Path) -> None:
    path = put(tmp_path / "texts.csv", "relation,description\nworn,Worn together.\nread,Read together.\n")
    assert read_relation_texts(path) == {"worn": "Worn together.", "read": "Read together."}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("relation,description\nworn,A.\nworn,B.\n", "relation 'worn' occurs more than once"),
        ("relation,description\nworn,A.\nread,A.\n", r"description 'A\.' occurs more than once"),
        ("relation,description\nworn,\n", r"texts\.csv, row 1: a cell of relation, description is empty"),
        ("relation,description\nworn,A, B\n", r"texts\.csv: 1 of 1 row was set aside, the first in line 2"),
        ("relation,text\nworn,A\n", r"no column 'description'\. .*columns: relation, text"),
        ("relation,description\n", "has no rows"),
    ],
)
def test_unusable_texts_are_refused(content: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        read_relation_texts(put(tmp_path / "texts.csv", content))


RELATIONS_JSON = [
    {"relation_id": INTRA_RELATION.relation_id, "description": INTRA_RELATION.description, "intra": True},
    {"relation_id": "worn", "description": "Worn together.", "intra": False, "domain": "Clothing"},
]


def test_reads_the_texts_of_relations_json_without_the_relation_of_an_item_with_itself(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relations.json"
    path.write_text(json.dumps(RELATIONS_JSON, indent=2))
    assert read_relation_texts(path) == {"worn": "Worn together."}


def test_rejects_another_text_for_the_relation_of_an_item_with_itself(tmp_path: Path) -> None:
    path = tmp_path / "relations.json"
    path.write_text(json.dumps([{**RELATIONS_JSON[0], "description": "Twins."}, RELATIONS_JSON[1]]))
    with pytest.raises(InputError, match=r"relations\.json: the relation ID 'same-item' is reserved"):
        read_relation_texts(path)


def test_rejects_a_text_that_was_deleted_and_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "relations.json"
    path.write_text(json.dumps([*RELATIONS_JSON, {"relation_id": "read", "description": None}]))
    with pytest.raises(InputError, match=r"relations\.json, row 3: a cell of .*description is empty"):
        read_relation_texts(path)
