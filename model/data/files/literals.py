"""Rows of JSON, and of Python literals as old dumps have them. Nothing is executed."""

import ast
import json
import math
from typing import Any

import orjson


def read_object(text: str) -> dict[str, Any]:
    """Read one JSON object (RFC 8259) or Python dict literal; NaN and Infinity become None.

    Raises:
        ValueError: `text` is neither, with the reason and the column.
    """
    value: Any
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as refused:
        # Python's reader takes NaN, integers above 64 bits and lone surrogates, which orjson refuses.
        try:
            value = json.loads(text, parse_constant=lambda _: None)
        except (json.JSONDecodeError, RecursionError) as error:
            value = _literal(text)
            if value is None:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(refused)
                column = error.colno if isinstance(error, json.JSONDecodeError) else 1
                raise ValueError(f"not valid JSON (character {column}): {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is needed, not {json_kind(value)}")
    return value


def json_kind(value: object) -> str:
    """Return what JSON calls a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    kinds = ((str, "a string"), (int | float, "a number"), (list | tuple, "an array"), (dict, "an object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)


def _literal(text: str) -> Any:
    """Return the value of a Python literal, or None if `text` is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def as_text(value: object) -> str | None:
    """Return a cell of JSON or Parquet as text, as a CSV would contain it; None for null, NaN and infinity."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
