"""Files of JSON: JSON Lines, one array of objects, or one object that contains such an array; and Python literals."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Any

import polars as pl

from model.errors import InputError

from .literals import as_id, json_kind, read_json, read_object
from .row_ledger import RowLedger
from .text_file import TextLines

_ID = re.compile(r"(?i)(?:.*_)?(?:id|asin|sku|title)")
"""Names of fields by which an object is known to be a row."""


def json_rows(lines: TextLines, ledger: RowLedger) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line (from 1) and the object of each row; a line that is no object is set aside with the reason.

    Rows of an array are numbered instead of lines.

    Raises:
        InputError: the file is one JSON value without an array of objects.
    """
    first = lines.block()
    if not _are_rows(first):
        yield from _array_rows(lines, first, ledger)
        return
    number = 0
    block = first
    while block:
        for line in block:
            number += 1
            yield from _row(line, number, ledger)
        block = lines.block()


def json_strings(lines: TextLines, ledger: RowLedger, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Yield the cells of `columns` as text, in blocks; a column that a row lacks is null."""
    schema = dict.fromkeys(columns, pl.String)
    number = 0
    block = lines.block()
    if not _are_rows(block):
        rows = [[_cell(row.get(name)) for name in columns] for _, row in _array_rows(lines, block, ledger)]
        yield pl.DataFrame(rows, schema, orient="row")
        return
    while block:
        filled = sum(not line.isspace() for line in block)
        try:
            frame = pl.read_ndjson(BytesIO("".join(block).encode()), schema=schema) if filled else None
        except (pl.exceptions.PolarsError, UnicodeEncodeError):
            frame = None
        if frame is not None and len(frame) == filled and not _has_replaced(frame):
            ledger.rows += filled
        else:
            found = (row for i, line in enumerate(block, number + 1) for _, row in _row(line, i, ledger))
            rows = [[_cell(row.get(name)) for name in columns] for row in found]
            frame = pl.DataFrame(rows, schema, orient="row")
        yield frame
        number += len(block)
        block = lines.block()


def _has_replaced(frame: pl.DataFrame) -> bool:
    """Tell whether polars may have replaced a lone surrogate, for which it puts a NUL character."""
    return bool(frame.select(pl.any_horizontal(pl.all().str.contains("\x00", literal=True).any())).item())


def _cell(value: object) -> str | None:
    """Return a value as text, as polars does in whole blocks; a lone surrogate becomes U+FFFD."""
    text = as_id(value)
    if text is None or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _are_rows(block: list[str]) -> bool:
    """Tell whether the first lines of a file are rows of JSON Lines, rather than a part of one longer value."""
    filled = (line.strip("\ufeff \t\r\n") for line in block)
    first, *others = (*islice((line for line in filled if line), 2),) or ("",)
    try:
        row = read_object(first)
    except ValueError:
        # A first line such as `{"item_id": 1,` is damaged; `{` alone and `{"products": [` open a longer value.
        return not first.endswith(("[", "{", ",")) and not first.startswith("[")
    # One object in one line is either a row with arrays of its own or stands around the rows, and then has no ID.
    return bool(others) or not _lists(row) or any(_ID.fullmatch(name) for name in row)


def _row(line: str, number: int, ledger: RowLedger) -> Iterator[tuple[int, dict[str, Any]]]:
    text = line.strip("\ufeff \t\r\n")
    if not text:
        return
    ledger.rows += 1
    try:
        row = read_object(text)
    except ValueError as error:
        ledger.skip(_without_place(str(error)), number, f"{error}: {text}")
        return
    yield number, row


def _without_place(reason: str) -> str:
    """Return the reason without the character's position, so that equal faults are counted together."""
    return reason.split(" at character", 1)[0]


def _array_rows(
    lines: TextLines, first: list[str], ledger: RowLedger
) -> Iterator[tuple[int, dict[str, Any]]]:
    parts = ["".join(first)]
    while block := lines.block():
        parts.append("".join(block))
    value = _decoded("".join(parts).lstrip("\ufeff"), ledger)
    if isinstance(value, dict):
        lists = _lists(value)
        if len(lists) > 1:
            raise InputError(
                f"{ledger.path} contains several arrays of objects ({', '.join(lists)}). Write the right one to a "
                "file of its own."
            )
        name, value = next(iter(lists.items())) if lists else ("", [value])
        if name:
            ledger.note(f"the rows are the array {name}")
    if not isinstance(value, list):
        raise InputError(
            f"{ledger.path} contains no array of objects. Write one object per line (JSON Lines)."
        )
    ledger.note("one JSON array; rows are numbered instead of lines")
    for number, row in enumerate(value, 1):
        ledger.rows += 1
        if isinstance(row, dict):
            yield number, row
        else:
            ledger.skip(f"a JSON object is needed, not {json_kind(row)}", number, str(row))


def _decoded(text: str, ledger: RowLedger) -> Any:
    try:
        return read_json(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}: {error.msg}"
    except ValueError as error:  # an integer of more than 4,300 digits
        place = str(error)
    except RecursionError:
        place = "it is nested too deeply"
    raise InputError(f"{ledger.path} is not valid JSON: {place}. Correct the file, or get it again.")


def _lists(value: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the values that are non-empty arrays of objects only, as in {"products": [{...}, ...]}."""
    return {
        name: found
        for name, found in value.items()
        if isinstance(found, list) and found and all(isinstance(row, dict) for row in found)
    }
