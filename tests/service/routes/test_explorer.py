"""Explorer page at `/`: it is complete and uses no other server."""

import re

from fastapi.testclient import TestClient


def test_root_serves_the_explorer(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>rcml explorer</title>" in page.text


def test_every_file_of_the_explorer_is_served(client: TestClient) -> None:
    addresses = set(re.findall(r'(?:src|href)="([^"]+)"', client.get("/").text))
    assert "static/explorer/explorer.js" in addresses
    assert {address: client.get(f"/{address}").status_code for address in addresses} == dict.fromkeys(
        addresses, 200
    )


def test_explorer_refers_to_no_other_host(client: TestClient) -> None:
    files = ("", "static/explorer/explorer.js", "static/explorer/explorer.css")
    assert not any(
        re.search(r"(https?:)?//[a-z]", client.get(f"/{file}").text.replace("  // ", "")) for file in files
    )
