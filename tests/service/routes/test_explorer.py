"""The page at `/` is whole, and asks nobody but this server."""

import re

from fastapi.testclient import TestClient


def test_the_root_is_the_explorer(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>rcml explorer</title>" in page.text


def test_everything_the_explorer_loads_is_served_from_here(client: TestClient) -> None:
    addresses = set(re.findall(r'(?:src|href)="([^"]+)"', client.get("/").text))
    assert "static/explorer/explorer.js" in addresses
    assert {address: client.get(f"/{address}").status_code for address in addresses} == dict.fromkeys(
        addresses, 200
    )


def test_the_explorer_names_no_other_host(client: TestClient) -> None:
    files = ("", "static/explorer/explorer.js", "static/explorer/explorer.css")
    assert not any(
        re.search(r"(https?:)?//[a-z]", client.get(f"/{file}").text.replace("  // ", "")) for file in files
    )
