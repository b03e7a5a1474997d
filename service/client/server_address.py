"""Base URL and headers of a client. No error message shows the API key, even if the key cannot be sent."""

import re

import httpx

from model import __version__

_KEY = re.compile(r"[!-~]+")


def address(base_url: str) -> httpx.URL:
    """Parse the base URL of a server, such as http://127.0.0.1:8000. It may include a path prefix.

    Raises:
        ValueError: `base_url` is not an http or https URL with a host.
    """
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(
            f"{base_url!r} is not the address of a server. Use an address such as http://127.0.0.1:8000 or "
            "https://shop.example/rcml."
        )
    return url


def headers(key: str | None) -> dict[str, str]:
    """Return the headers that every request has in common.

    Raises:
        ValueError: the key cannot be sent in a header.
    """
    said = {"User-Agent": f"rcml-client/{__version__}", "Accept": "application/json"}
    if key is not None:
        # Check the key here, because an HTTP library's own error would show it.
        if not _KEY.fullmatch(key):
            raise ValueError(
                "The API key is empty, or contains spaces, line breaks or characters outside printable ASCII. Pass it "
                "exactly as `rcml key` printed it."
            )
        said["Authorization"] = f"Bearer {key}"
    return said
