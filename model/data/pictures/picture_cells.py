"""Cells that name the pictures of an item: paths or addresses, one or several, however they are written."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ADDRESS = re.compile(r"(?i)^(?:https?:)?//[^/\s]")

_BETWEEN = re.compile(r"\s*[|;\n]\s*|,\s+|,(?=https?://|//)|\s+(?=https?://)")
"""What separates several pictures in a cell. A comma alone may belong to a name."""


def is_address(picture: str) -> bool:
    """Tell whether `picture` is an http or https address rather than a path."""
    return bool(_ADDRESS.match(picture))


def pictures_of(cells: Sequence[str], root: Path) -> list[str]:
    """Return the pictures of an item in their order, each an address or a path.

    A cell that is a file below `root` as it stands is one picture, whatever characters it contains.
    """
    found: list[str] = []
    for cell in cells:
        text = cell.strip().strip("\"'")
        if not text:
            continue
        if not is_address(text) and local_path(text, root).is_file():
            found.append(text)
            continue
        found += [part for part in (part.strip(" ,\"'") for part in _BETWEEN.split(text)) if part]
    return list(dict.fromkeys(found))


def local_path(picture: str, root: Path) -> Path:
    r"""Return the path of a local picture, which may be written as `file://` address or with backslashes."""
    if picture.lower().startswith("file:"):
        picture = unquote(urlsplit(picture).path)
    path = root / picture
    if "\\" in picture and not _exists(path):
        path = root / picture.replace("\\", "/")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def host_of(address: str) -> str:
    """Return the host of an address, for messages."""
    return urlsplit(address if "://" in address else f"https:{address}").netloc.rpartition("@")[2]
