"""Rows of JSON, and of Python literals as old dumps have them. Nothing is executed."""

import ast
import json
import math
import re
import warnings
from typing import Any

import orjson

_LONG_NUMBER = re.compile(r"\d{20}")
"""Digits of an integer above 64 bits, which orjson would round."""


def read_json(text: str) -> Any:
    """Read one JSON value (RFC 8259); integers are exact.

    Raises:
        ValueError: `text` is no JSON.
        RecursionError: it is nested too deeply.
    """
    if not _LONG_NUMBER.search(text):
        try:
            return orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            pass
    # Python's reader takes NaN, integers above 64 bits and lone surrogates, which orjson refuses or rounds.
    return json.loads(text, parse_constant=lambda _: None)


def read_object(text: str) -> dict[str, Any]:
    """Read one JSON object (RFC 8259) or Python dict literal; NaN and Infinity become None.

    Raises:
        ValueError: `text` is neither, with the reason and the column.
    """
    value: Any
    try:
        value = read_json(text)
    except (ValueError, RecursionError) as error:
        value = _literal(text)
        if value is None:
            syntax = error if isinstance(error, json.JSONDecodeError) else None
            reason, column = (syntax.msg, syntax.colno) if syntax else (str(error), 1)
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
        return python_literal(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def python_literal(text: str) -> Any:
    r"""Return the value of a Python literal; an invalid escape sequence, as in `C:\d`, is no reason for a warning.

    Raises:
        ValueError, SyntaxError, MemoryError, RecursionError, TypeError: `text` is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def as_text(value: object) -> str | None:
    """Return a cell of JSON or Parquet as text, as a CSV would contain it; None for null, NaN and infinity."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def as_id(value: object) -> str | None:
    """Return an ID as text; `18.0` of a format with numbers is the number 18, however it is stored."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return as_text(value)
