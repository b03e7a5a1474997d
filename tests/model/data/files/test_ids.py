"""IDs in formats with types: the same text from items and logs, from whole blocks and from single rows."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import read_rows, read_strings
from model.data.item_table import read_item_table


def ids_of_items(path: Path) -> list[str]:
    ledger = RowLedger(path)
    rows = ((ledger, line, {**row, "title": "Mug"}) for line, row in read_rows(path, ledger))
    return read_item_table(rows).frame["item_id"].to_list()


def ids_of_log(path: Path) -> list[str | None]:
    frames = read_strings(path, RowLedger(path), {"item_id": ["item_id"]})
    return [item_id for frame in frames for item_id in frame["item_id"]]


ODD_ROW = '{"user_id": NaN, "item_id": "last"}\n'
"""Row that only Python's reader takes, so that all rows of its block are read one by one."""


@pytest.mark.parametrize("odd", ["", ODD_ROW])
@pytest.mark.parametrize("layout", ["lines", "array"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (18, "18"),
        (18.0, "18"),
        (1e16, "10000000000000000"),
        (18.5, "18.5"),
        (12345678901234567890123, "12345678901234567890123"),
        (-18446744073709551617, "-18446744073709551617"),
        ("18.0", "18.0"),
        ("é\U0001f600", "é\U0001f600"),
    ],
)
def test_an_id_in_json_is_the_same_everywhere(
    value: Any, text: str, layout: str, odd: str, tmp_path: Path
) -> None:
    row = json.dumps({"user_id": "u", "item_id": value})
    path = tmp_path / "file.json"
    rows = [row, *odd.splitlines()]
    path.write_text("\n".join(rows) if layout == "lines" else f"[{','.join(rows)}]")
    assert ids_of_items(path)[0] == text
    assert ids_of_log(path)[0] == text


def test_large_integers_that_differ_stay_different(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(f'{{"item_id": {10**24 + i}}}\n' for i in range(3)))
    assert ids_of_items(path) == [str(10**24 + i) for i in range(3)]


def test_a_lone_surrogate_is_replaced_in_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"item_id": "a\\ud83d"}\n{"item_id": "b\\ud83d"}\n')
    assert ids_of_log(path) == ["a\ufffd", "b\ufffd"]


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([b"p1", b"p2"], pl.Binary, ["p1", "p2"]),
        ([18.0, 1e16], pl.Float64, ["18", "10000000000000000"]),
        ([18, 2**63 - 1], pl.Int64, ["18", str(2**63 - 1)]),
        (["p1", "p1"], pl.Categorical, ["p1", "p1"]),
    ],
)
def test_an_id_in_parquet_is_the_same_everywhere(
    values: list[Any], kind: Any, texts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "file.parquet"
    pl.DataFrame({"item_id": pl.Series(values, dtype=kind)}).write_parquet(path)
    assert ids_of_items(path) == list(dict.fromkeys(texts))
    assert ids_of_log(path) == texts


def test_nan_and_binary_data_in_parquet_are_no_values(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pl.DataFrame({"item_id": [1.0, float("nan")], "picture": [b"\xff\xd8", b"text"]}).write_parquet(path)
    assert ids_of_log(path) == ["1", None]
    assert [row["picture"] for _, row in read_rows(path, RowLedger(path))] == [None, "text"]
