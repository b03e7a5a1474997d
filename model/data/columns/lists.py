"""Lists in cells, as different programs write them.

JSON (`["a", "b"]`), Python and pandas (`['a', 'b']`, `('a', 'b')`), NumPy (`['a' 'b']`), PostgreSQL (`{a,"b c"}`), and
texts with a separator: `a|b` as rcml writes them, or a path `a > b`.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence

from model.data.files.literals import python_literal

from .numbers import NO_VALUE

_NAMES = ("name", "title", "label", "value", "text", "slug", "id")
"""Keys of an object under which its name is, the best first."""

_ADDRESSES = ("src", "url", "href", "large", "path")
"""Keys of an object under which a picture is, the best first."""

_NO_PICTURE = (*NO_VALUE, "no_selection")
"""Texts, in lower case, that stand for no picture; the last one is Magento's."""

PATH_SEPARATOR = " > "

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def read_list(cell: object, separators: Sequence[str] = ()) -> list[str]:
    """Return the texts in `cell`, in their order, without empty and repeated ones.

    A list of lists is flattened, and of an object the name is taken. A cell that only says that it has no value, such
    as `NULL`, is empty. `separators` replace the usual ones of a text: it is split at each of them.
    """
    return list(dict.fromkeys(text for text in _texts(cell, separators, _NAMES) if text))


def read_pictures(cell: object) -> list[str]:
    """Return the pictures in `cell`, best first: paths or addresses. A text that is no list stays whole."""
    if isinstance(cell, str) and not cell.strip().startswith(("[", "{", "(")):
        return [] if cell.strip().lower() in _NO_PICTURE else [cell.strip()]
    return list(dict.fromkeys(text for text in _texts(cell, (), (*_ADDRESSES, *_NAMES)) if text))


def _texts(cell: object, separators: Sequence[str], keys: Iterable[str]) -> Iterable[str]:
    if cell is None or cell != cell:  # NaN
        return
    if isinstance(cell, list | tuple | set):
        for part in cell:
            yield from _texts(part, separators, keys) if not isinstance(part, str) else (part.strip(),)
    elif isinstance(cell, dict):
        named = next((cell[key] for key in keys if cell.get(key) is not None), None)
        yield from _texts(named, separators, keys) if named is not None else map(str, cell)
    elif isinstance(cell, str):
        text = cell.strip()
        if text.lower() in NO_VALUE:
            return
        written = _written_list(text) if text[:1] in ("[", "(", "{") else None
        if written is not None:
            yield from _texts(written, separators, keys)
        else:
            between = "|".join(map(re.escape, separators or (_separator(text),)))
            yield from (part.strip() for part in re.split(between, text))
    else:
        yield str(cell)


def _separator(text: str) -> str:
    if "|" in text:
        return "|"
    return PATH_SEPARATOR.strip() if PATH_SEPARATOR in text else "|"


def _written_list(text: str) -> list[object] | None:
    """Read a list that is written as text; None if `text` only begins like one."""
    if (text[0], text[-1]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        inner = text[1:-1].strip()
        if not inner:
            return []
        between = _QUOTED.sub("", inner)
        if _QUOTED.search(inner) and not between.strip():  # NumPy separates its texts with blanks
            return [_unquoted(found) for found in _QUOTED.findall(inner)]
        try:
            value = python_literal(re.sub(r"\bnan\b", "None", text))
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            if text[0] == "{":
                return list(next(csv.reader([inner], skipinitialspace=True)))
            return None
    if isinstance(value, dict):
        return [value] if value else []
    return list(value) if isinstance(value, list | tuple | set) else None


def _unquoted(text: str) -> object:
    """Return a text in quotation marks without them; an unknown escape sequence stays as it is."""
    try:
        return python_literal(text)
    except (ValueError, SyntaxError):
        return text[1:-1]
