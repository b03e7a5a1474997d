"""Test that no test uses a private name of the packages."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

OF_OTHERS = {"_actions", "_SubParsersAction", "_exit", "_get_backend", "_timeout"}
"""Private names of argparse, os and torch for which no public name exists."""


def reached(path: Path) -> set[str]:
    """Return the private names that a test file uses, except those accessed through `self` and `cls`."""
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


def test_tests_use_no_private_names() -> None:
    paths = (ROOT / "tests").rglob("*.py")
    assert {str(path.relative_to(ROOT)): names for path in paths if (names := reached(path))} == {}
