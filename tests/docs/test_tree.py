"""Tests that the folder tree in README.md matches the repository."""

import re
from pathlib import Path

from .documents import ROOT, blocks

PACKAGES = ("model", "indexes", "service")


def lines() -> list[tuple[str, str]]:
    """Return the paths in the tree, folders with a trailing slash, each with its description."""
    [tree] = [block for block in blocks(ROOT / "README.md") if block.text.startswith("model/")]
    found: list[tuple[str, str]] = []
    folders: list[str] = []
    for line in tree.text.splitlines():
        indent, name, said = re.match(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        if depth <= len(folders) and depth < 3:
            path = "".join(folders[:depth]) + name
            folders = [*folders[:depth], name] if name.endswith("/") else folders[:depth]
            found.append((path, said))
    return found


def printed() -> dict[str, str]:
    """Return the description of each path in the tree."""
    return dict(lines())


def folders() -> set[str]:
    """Return every folder that contains a file and is directly inside one of the three packages."""
    files = (
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if "__pycache__" not in path.parts
    )
    inner = {path.parent for path in files if path.is_file()} - {ROOT / package for package in PACKAGES}
    return {f"{folder.relative_to(ROOT)}/" for folder in inner if len(folder.relative_to(ROOT).parts) == 2}


def test_tree_lists_every_folder() -> None:
    assert sorted(folders() - set(printed())) == []


def test_tree_lists_every_path_once() -> None:
    assert len(lines()) == len(printed())


def test_every_path_in_tree_exists() -> None:
    assert [path for path in printed() if not (ROOT / path).exists()] == []


def test_every_path_in_tree_has_description() -> None:
    assert [path for path, said in printed().items() if not said] == []


def test_tree_lists_packages_in_data_flow_order() -> None:
    top = [Path(path).name for path in printed() if path.count("/") == 1 and path.endswith("/")]
    assert top[:3] == [*PACKAGES]
