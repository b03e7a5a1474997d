"""Tests use what everybody may use: no private name of the product."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

OF_OTHERS = {"_actions", "_SubParsersAction", "_exit", "_get_backend", "_timeout"}
"""Private names of argparse, os and torch that have no public one."""


def reached(path: Path) -> set[str]:
    """Private names that a test file reaches into, its own objects aside."""
    tree = ast.parse(path.read_text())
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for name in node.names
    }
    return {
        name for name in found | imported if name.startswith("_") and not name.startswith("__")
    } - OF_OTHERS


def test_tests_reach_into_no_private_name() -> None:
    paths = (ROOT / "tests").rglob("*.py")
    assert {str(path.relative_to(ROOT)): names for path in paths if (names := reached(path))} == {}
