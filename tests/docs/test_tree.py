"""The folders that README.md prints are those there are."""

import re
from pathlib import Path

from .documents import ROOT, blocks

PACKAGES = ("model", "indexes", "service")


def printed() -> dict[str, str]:
    """The paths of the tree, folders with a slash behind them, and what is said of each."""
    [tree] = [block for block in blocks(ROOT / "README.md") if block.text.startswith("model/")]
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in tree.text.splitlines():
        indent, name, said = re.match(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        if depth <= len(folders) and depth < 3:
            path = "".join(folders[:depth]) + name
            folders = [*folders[:depth], name] if name.endswith("/") else folders[:depth]
            found[path] = said
    return found


def folders() -> set[str]:
    """Every folder of the three packages that holds a file."""
    files = (
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if "__pycache__" not in path.parts
    )
    inner = {path.parent for path in files if path.is_file()} - {ROOT / package for package in PACKAGES}
    return {f"{folder.relative_to(ROOT)}/" for folder in inner if len(folder.relative_to(ROOT).parts) == 2}


def test_every_folder_is_in_it() -> None:
    assert sorted(folders() - set(printed())) == []


def test_what_is_in_it_is_there() -> None:
    assert [path for path in printed() if not (ROOT / path).exists()] == []


def test_something_is_said_of_each() -> None:
    assert [path for path, said in printed().items() if not said] == []


def test_the_packages_stand_in_the_order_in_which_the_data_flows() -> None:
    top = [Path(path).name for path in printed() if path.count("/") == 1 and path.endswith("/")]
    assert top[:3] == [*PACKAGES]
