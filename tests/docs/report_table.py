"""Generator of the table of `report.json` in docs/artifacts.md, from the models that write the report.

`make tables` rewrites the table, and a test compares it with the models. Each key has one row, and the keys of a
nested model follow the key of their parent. A nested model whose fields have no descriptions, such as an estimate with
its interval, has one row for all its keys.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from model.evaluation.figures import Catalogue, EvaluationReport, Negatives, Role
from model.similarity import Similarity

COMMITTED = Path(__file__).parents[2] / "docs" / "artifacts.md"

START, END = "`report.json`:\n\n", "\n\n`report.md` says"
"""Text directly before and after the table."""

PLACEHOLDERS: dict[Any, str] = {
    Similarity: "SIMILARITY",
    Role: "NAME",
    Negatives: "NEGATIVES",
    Catalogue: "QUERIES",
    int: "RELATIONS",
    str: "SYSTEM",
}
"""Placeholders for the keys of dictionary fields, by the type of the keys."""


def table() -> str:
    """Return the table in Markdown."""
    rows = [f"| `{key}` | {content} |" for key, content in _rows(EvaluationReport, "")]
    return "\n".join(["| key | content |", "|---|---|", *rows])


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key, inner = _unwrapped(name, field.annotation)
        if inner is None:
            yield prefix + key, field.description or ""
        elif any(part.description for part in inner.model_fields.values()):
            if field.description:
                yield prefix + name, field.description
            yield from _rows(inner, f"{prefix}{key}.")
        else:
            parts = ", ".join(f"`{part}`" for part in inner.model_fields)
            yield prefix + key, f"{parts}: {field.description}"


def _unwrapped(name: str, annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """Return the key as shown in the table, and the model of its value or of the elements of its value, if any."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        [annotation] = [choice for choice in get_args(annotation) if choice is not type(None)]
        return _unwrapped(name, annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys, annotation = get_args(annotation)
        return _unwrapped(f"{name}.{PLACEHOLDERS[keys]}", annotation)
    if origin is tuple:
        return _unwrapped(f"{name}[]", get_args(annotation)[0])
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return name, annotation if is_model else None


def with_table(document: str) -> str:
    """Return `document` with the table replaced by the current one."""
    before, _, rest = document.partition(START)
    assert rest, f"docs/artifacts.md has no {START.strip()}"
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    COMMITTED.write_text(with_table(COMMITTED.read_text("utf-8")), encoding="utf-8")
