"""Limits on the size of folders, files and functions, and rules for the names of files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rcml", "model", "indexes", "service", "benchmarks", "examples", "tests")

MAX_FILES_OF_FOLDER = 16
"""Maximum number of Python files in a folder, including `__init__.py`."""

MAX_LINES_OF_FILE = 420

MAX_LINES_OF_FUNCTION = 60

LONG_FILES = {"model/sample_shop/drawings.py", "model/sample_shop/canvas.py"}
"""Files exempt from the limit, because they only list drawings one after another."""


def modules(*packages: str) -> Iterator[Path]:
    """Yield the paths of the Python files of the given packages, relative to the root."""
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
    assert long.keys() >= LONG_FILES, "remove files from LONG_FILES that are within the limit"


def test_no_function_is_too_long() -> None:
    assert {name: count for name, count in functions() if count > MAX_LINES_OF_FUNCTION} == {}


def functions() -> Iterator[tuple[str, int]]:
    """Yield the file and name of each function, and its number of lines."""
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
"""File names that may occur in several packages because they have the same role in each."""

RESOURCES = ("service/routes", "service/schemas", "service/requests", "service/lifecycle", "service/engine")
"""Paths whose files are named after API resources: the route and the schema of a resource share a file name."""


def test_no_two_files_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in modules("rcml", "model", "indexes", "service"):
        if path.name not in ALLOWED_TWICE and str(path.parent) not in RESOURCES:
            places.setdefault(path.name, []).append(str(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("package", ["rcml", "model", "indexes", "service"])
def test_every_package_has_py_typed_marker(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
