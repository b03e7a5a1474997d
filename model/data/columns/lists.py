"""Lists in cells, as different programs write them.

JSON (`["a", "b"]`), Python and pandas (`['a', 'b']`, `('a', 'b')`), NumPy (`['a' 'b']`), PostgreSQL (`{a,"b c"}`), and
texts with a separator: `a|b` as rcml writes them, or a path `a > b`.
"""

import ast
import csv
import json
import re
from collections.abc import Iterable

PATH_SEPARATOR = " > "

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def read_list(cell: object, separator: str | None = None) -> list[str]:
    """Return the texts in `cell`, in their order, without empty and repeated ones.

    A list of lists is flattened. `separator` replaces the usual separators of a text.
    """
    return list(dict.fromkeys(text for text in _texts(cell, separator) if text))


def _texts(cell: object, separator: str | None) -> Iterable[str]:
    if cell is None or cell != cell:  # NaN
        return
    if isinstance(cell, list | tuple | set):
        for part in cell:
            yield from _texts(part, separator) if not isinstance(part, str) else (part.strip(),)
    elif isinstance(cell, dict):
        named = next((cell[key] for key in ("name", "title", "label", "value") if key in cell), None)
        yield from _texts(named, separator) if named is not None else map(str, cell)
    elif isinstance(cell, str):
        text = cell.strip()
        written = _written_list(text) if text[:1] in ("[", "(", "{") else None
        if written is not None:
            yield from _texts(written, separator)
        else:
            yield from (part.strip() for part in text.split(separator or _separator(text)))
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
            return [ast.literal_eval(found) for found in _QUOTED.findall(inner)]
        try:
            value = ast.literal_eval(re.sub(r"\bnan\b", "None", text))
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            if text[0] == "{":
                return list(next(csv.reader([inner], skipinitialspace=True)))
            return None
    if isinstance(value, dict):
        return None if not value else [value]
    return list(value) if isinstance(value, list | tuple | set) else None
