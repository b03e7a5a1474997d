"""Tests that docs/runbook.md explains every reason that a readiness check can give, and no other."""

import ast
import re
from collections.abc import Iterator

from .documents import ROOT

RUNBOOK = " ".join((ROOT / "docs" / "runbook.md").read_text("utf-8").split())

SOURCES = {
    "service/lifecycle/engine_holder.py": "NotReadyError",
    "service/routes/health.py": "NotReadyError",
    "service/shops.py": "NotReadyError",
    "service/problems/errors.py": "NetworkLostError",
    "service/engine/watchdog.py": "stuck_reason",
    "indexes/vectors/milvus/milvus_collections.py": "UnreachableError",
    "indexes/vectors/milvus/milvus_backend.py": "UnreachableError",
}
"""Files with the reasons, and the class or the function that gives them."""


def reasons(path: str, name: str) -> Iterator[list[str]]:
    """Yield the literal parts of each sentence that a class is raised with, or that a class or function contains."""
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        defined = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in (name, "overdue_reason")
        if called or defined:
            yield from sentences(node)


def sentences(node: ast.AST) -> Iterator[list[str]]:
    """Yield the literal parts of each string of more than three words in a part of a program, except docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts = [node.value]
    else:
        for child in ast.iter_child_nodes(node):
            yield from sentences(child)
        return
    if len("".join(parts).split()) > 3:
        yield parts


def first_sentence(parts: list[str]) -> list[str]:
    """Return the literal parts up to the first full stop that ends a sentence."""
    kept = []
    for part in parts:
        begun, stop, _ = part.partition(". ")
        kept.append(begun + stop.strip())
        if stop:
            break
    return [part.strip() for part in kept if part.strip()]


def explained(parts: list[str]) -> bool:
    """Return whether the runbook has a sentence with these literal parts, in this order."""
    return re.search(r"[^|]*?".join(map(re.escape, parts)), RUNBOOK) is not None


def test_every_reason_is_explained() -> None:
    found = [first_sentence(parts) for path, name in SOURCES.items() for parts in reasons(path, name)]
    assert len(found) >= len(SOURCES)
    assert [parts for parts in found if not explained(parts)] == []


def test_missing_reasons_are_noticed() -> None:
    assert explained(["The folder", "of the index has disappeared."])
    assert not explained(["The folder", "of the index is upside down."])
    assert first_sentence(["Milvus at ", " is away (", "). Start it, or check ", "."]) == [
        "Milvus at",
        "is away (",
        ").",
    ]
