"""The table of `report.json` in docs/artifacts.md: made from the models that write the file.

`make tables` rewrites it, and a test compares it. A row is a key; keys of a nested model follow those of its parent,
unless the model is a value that its docstring explains, such as an estimate with its interval.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from model.evaluation.figures import EvaluationReport

COMMITTED = Path(__file__).parents[2] / "docs" / "artifacts.md"

START, END = "`report.json`:\n\n", "\n\n`report.md` says"
"""What stands before and after the table."""

PLACEHOLDERS = {"networks": "NAME", "ratios": "BASELINE"}
"""What stands for the keys of a dictionary; SIMILARITY unless named here."""


def table() -> str:
    """The table in Markdown."""
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
    """The key as the table shows it, and the model that its value is or holds, if any."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        annotation = get_args(annotation)[1]
        name = f"{name}.{PLACEHOLDERS.get(name, 'SIMILARITY')}"
    elif origin is tuple:
        annotation = get_args(annotation)[0]
        name = f"{name}[]"
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return name, annotation if is_model else None


def with_table(document: str) -> str:
    """`document` with the table as it is to be."""
    before, _, rest = document.partition(START)
    assert rest, f"docs/artifacts.md has no {START.strip()}"
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    COMMITTED.write_text(with_table(COMMITTED.read_text("utf-8")), encoding="utf-8")
