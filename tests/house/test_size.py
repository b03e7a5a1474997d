"""Folders, files and functions stay small enough to be found and read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rcml", "model", "indexes", "service", "benchmarks", "tests")

MAX_FILES_OF_FOLDER = 16
"""Python files of one folder, `__init__.py` included."""

MAX_LINES_OF_FILE = 420

MAX_LINES_OF_FUNCTION = 60

LONG_FILES = {"model/sample_shop/drawings.py", "model/sample_shop/canvas.py"}
"""Drawings, a shape after the other: there is nothing to look up in them."""


def modules(*packages: str) -> Iterator[Path]:
    """Paths of the Python files of some packages, relative to the root."""
    for package in packages:
        yield from (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def test_no_folder_has_too_many_files() -> None:
    folders = {path.parent for path in modules(*PACKAGES)}
    counts = {str(folder): len([*(ROOT / folder).glob("*.py")]) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES_OF_FOLDER} == {}


def test_no_file_is_too_long() -> None:
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in modules(*PACKAGES[:-1])}
    long = {path: count for path, count in lines.items() if count > MAX_LINES_OF_FILE}
    assert {path: count for path, count in long.items() if path not in LONG_FILES} == {}
    assert long.keys() >= LONG_FILES, "what is no longer long needs no exception"


def test_no_function_is_too_long() -> None:
    assert {name: count for name, count in functions() if count > MAX_LINES_OF_FUNCTION} == {}


def functions() -> Iterator[tuple[str, int]]:
    """Each function's file and name, and its number of lines."""
    for path in modules(*PACKAGES[:-1]):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path}:{node.name}", node.end_lineno - node.lineno + 1


ALLOWED_TWICE = {
    "__init__.py": "every package",
    "config.py": "the options of a package's stages",
    "errors.py": "the errors of a package",
}
"""Files that may share a name because they mean the same in each package."""

RESOURCES = ("service/routes", "service/schemas", "service/requests", "service/lifecycle", "service/engine")
"""Folders whose files are named after what the API calls a thing: the route and the schema of one have one name."""


def test_no_two_files_of_one_name_mean_different_things() -> None:
    places: dict[str, list[str]] = {}
    for path in modules("rcml", "model", "indexes", "service"):
        if path.name not in ALLOWED_TWICE and str(path.parent) not in RESOURCES:
            places.setdefault(path.name, []).append(str(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("package", ["rcml", "model", "indexes", "service"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
