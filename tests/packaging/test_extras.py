"""Tests that the extras `cpu` and `gpu` differ only in their FAISS package and that all imports are declared."""

import ast
import sys
from importlib.metadata import packages_distributions

from .test_client_alone import PROJECT, ROOT, name_of

EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

COME_WITH = {
    "grpc": "pymilvus",
    "httptools": "uvicorn[standard]",
    "pydantic_core": "pydantic",
    "starlette": "fastapi",
    "tokenizers": "transformers",
}
"""Imported modules that are not declared, because a declared package requires a matching release of them."""


def test_each_extra_requires_exactly_one_faiss_package() -> None:
    assert {name_of(one) for one in EXTRAS["cpu"]} == {"rcml", "faiss-cpu"}
    assert {name_of(one) for one in EXTRAS["gpu"]} == {"rcml", "faiss-gpu"}
    assert [one for one in EXTRAS["cpu"] + EXTRAS["gpu"] if one.startswith("rcml")] == ["rcml[runtime]"] * 2
    others = {name: found for name, found in EXTRAS.items() if name not in ("cpu", "gpu")}
    assert not [one for found in others.values() for one in found if "faiss" in one]


def test_every_import_is_declared() -> None:
    declared = {name_of(one) for found in [PROJECT["dependencies"], *EXTRAS.values()] for one in found}
    homes = packages_distributions()
    undeclared = {
        module
        for module in imported()
        if module not in sys.stdlib_module_names
        and not {*map(name_of, homes.get(module, [module]))} & declared
    }
    assert undeclared == set(COME_WITH)


def imported() -> set[str]:
    """Return the top-level modules that the packages import, except the packages themselves."""
    found: set[str] = set()
    for package in ("rcml", "model", "indexes", "service"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {one.name.split(".")[0] for one in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add((node.module or "").split(".")[0])
    return found - {"rcml", "model", "indexes", "service"}
