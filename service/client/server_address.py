"""Whom a client asks, and as whom; a key is shown nowhere, not even where it cannot be used."""

import re

import httpx

from model import __version__

_KEY = re.compile(r"[!-~]+")


def address(base_url: str) -> httpx.URL:
    """Read the address of a server, such as http://127.0.0.1:8000, with the path below which it answers, if any.

    Raises:
        ValueError: it is none.
    """
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(
            f"{base_url!r} is no address of a server. Give one such as http://127.0.0.1:8000 or https://shop.example/rcml."
        )
    return url


def headers(key: str | None) -> dict[str, str]:
    """Make the headers that every request says its sender by.

    Raises:
        ValueError: no header can hold the key.
    """
    said = {"User-Agent": f"rcml-client/{__version__}", "Accept": "application/json"}
    if key is not None:
        # HTTP libraries show what they refuse, so it must not come to that.
        if not _KEY.fullmatch(key):
            raise ValueError(
                "The key is empty, or has spaces, line ends or other characters than printable ASCII. Give it exactly "
                "as `rcml key` showed it."
            )
        said["Authorization"] = f"Bearer {key}"
    return said
