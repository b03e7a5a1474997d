"""Cells that name the pictures of an item: paths or addresses, one or several, however they are written."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ADDRESS = re.compile(r"(?i)^(?:https?:)?(?://|\\\\|\\/\\/)[^/\\\s]")

_OTHER_ADDRESS = re.compile(r"(?i)^(?!file:)(data(?=:)|[a-z][a-z0-9+.-]+(?=://))")
"""Address of another scheme, such as ftp, s3 or data. A single letter is a Windows drive."""

_BETWEEN = re.compile(
    r"(?i)\s*[|;,\n]\s*(?=(?:https?:)?//)|\s+(?=https?://)"
    r"|(?<=\.png)\s*[|;,\n]\s*|(?<=\.(?:jpg|gif|tif|bmp))\s*[|;,\n]\s*|(?<=\.(?:jpeg|webp|tiff|avif))\s*[|;,\n]\s*"
)
"""What separates several pictures in a cell: a sign after the suffix of a picture, or before an address.

Elsewhere, these signs may belong to a name, or to the path of an address.
"""

_BETWEEN_PATHS = re.compile(r"\s*[|;\n]\s*")


def is_address(picture: str) -> bool:
    """Tell whether `picture` is an http or https address rather than a path."""
    return bool(_ADDRESS.match(picture))


def other_scheme(picture: str) -> str | None:
    """Return the scheme of an address that is neither http, https nor file, such as "ftp"; None for anything else."""
    found = None if is_address(picture) else _OTHER_ADDRESS.match(picture)
    return found[1].lower() if found else None


def pictures_of(cells: Sequence[str], root: Path) -> list[str]:
    """Return the pictures of an item in their order, each an address or a path.

    A cell that is a file below `root` as it stands is one picture, whatever characters it contains.
    """
    found: list[str] = []
    for cell in cells:
        text = cell.strip().strip("\"'").strip()
        if not text:
            continue
        if other_scheme(text) or (not is_address(text) and os.path.isfile(local_path(text, root))):
            found.append(text)
            continue
        parts = _BETWEEN.split(text)
        if not any(map(is_address, parts)):
            parts = [path for part in parts for path in _BETWEEN_PATHS.split(part)]
        cleaned = (part.strip(" \t,;|\"'") for part in parts)
        found += [web_address(part) if is_address(part) else part for part in cleaned if part]
    return list(dict.fromkeys(found))


def web_address(picture: str) -> str:
    r"""Return an address as a browser reads it: `\` is `/`, and a missing scheme is https (WHATWG URL, section 4.4).

    `\/` (copied from JSON) is `/`, and `&amp;` (copied from HTML) is `&`.
    """
    address = picture.replace("\\/", "/").replace("\\", "/").replace("&amp;", "&")
    return f"https:{address}" if address.startswith("//") else address


def local_path(picture: str, root: Path) -> Path:
    r"""Return the path of a local picture.

    A picture may be written as a `file://` address, with backslashes or with percent-encoding, and with a slash in
    front that stands for `root`. The first of these readings that exists is returned, or else the path as written.
    """
    if picture.lower().startswith("file:"):
        return root / unquote(urlsplit(picture.replace("\\", "/")).path)
    slashed = picture.replace("\\", "/")
    written = (picture, slashed, unquote(picture), unquote(slashed))
    for reading in dict.fromkeys((*written, *(reading.lstrip("/") for reading in written))):
        if os.path.exists(root / reading):
            return root / reading
    return root / slashed


def host_of(address: str) -> str:
    """Return the host of an address, for messages."""
    try:
        return urlsplit(web_address(address)).netloc.rpartition("@")[2]
    except ValueError:  # an invalid IPv6 address
        return "an invalid host"
