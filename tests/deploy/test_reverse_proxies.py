"""The configurations of nginx and Caddy, checked by both programs, and in front of a server."""

import json
import re
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Client
from service.middleware.deadline import SLOW_ROUTE_DEADLINE_S
from service.settings import ServeConfig
from tests.indexes.changes import copied
from tests.indexes.fakes import FakeShop
from tests.service.servers import served_apart

from .programs import free_port, program
from .reverse_proxies import CADDY, NGINX, PROXIES, check_caddy, check_nginx

DEFAULTS = {name: field.default for name, field in ServeConfig.model_fields.items()}
BURST = 390
MIB = 2**20


@pytest.fixture(scope="module")
def server(shop: FakeShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a server with the options that the configurations state, and a rate limit; return its port."""
    if not any(_installed(name) for name in PROXIES):
        pytest.skip("neither nginx nor caddy is installed")
    config = ServeConfig(
        index=copied(shop, tmp_path_factory.mktemp("live")),
        root_path="/search",
        trusted_proxies=("127.0.0.1",),
        keep_alive_seconds=75,
        rate_limit=0.001,
        rate_burst=BURST,
    )
    with served_apart(config) as address:
        yield int(address.rpartition(":")[2])


def _installed(name: str) -> bool:
    try:
        return bool(program(name))
    except pytest.skip.Exception:
        return False


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, server: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Start a proxy in front of the server and return its port."""
    port = free_port()
    with PROXIES[request.param](tmp_path_factory.mktemp(request.param), port, server):
        yield port


def client(port: int, source: str) -> httpx.Client:
    """Return a client below the prefix that connects from the address `source`, each with a rate of its own."""
    transport = httpx.HTTPTransport(local_address=source)
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/search", transport=transport, timeout=600)


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    assert "test is successful" in check_nginx(tmp_path)


def test_caddy_accepts_its_configuration(tmp_path: Path) -> None:
    assert "Valid configuration" in check_caddy(tmp_path)


@pytest.mark.parametrize("path", [NGINX, CADDY], ids=lambda path: path.name)
def test_proxies_wait_longer_and_accept_more_than_the_server(path: Path) -> None:
    text = path.read_text("utf-8")
    assert sorted(
        {int(found) for found in re.findall(r"(?:timeout|import rcml \S+) (\d+)s", text)} - {60}
    ) == [15, 610]
    assert DEFAULTS["deadline"] < 15
    assert SLOW_ROUTE_DEADLINE_S < 610
    [size] = {
        int(found) for found in re.findall(r"(?:max_body_size|max_size) ([1-9]\d*)M?", text, re.IGNORECASE)
    }
    assert size * MIB > DEFAULTS["max_upload_bytes"]
    [kept] = {int(found) for found in re.findall(r"keepalive(?:_timeout)? (\d+)s", text)}
    [told] = {float(found) for found in re.findall(r"--keep-alive-seconds (\d+)", text)}
    assert kept < told


def test_addresses_begin_with_the_prefix_and_name_the_proxy(proxy: int) -> None:
    with client(proxy, "127.0.0.10") as shop:
        assert shop.get("/items/twin-1").json()["image_url"] == "/search/items/twin-1/image"
        assert shop.get("/items/twin-1/image").headers["content-type"] == "image/png"
        assert shop.get("/openapi.json").json()["servers"] == [{"url": "/search"}]
        moved = shop.post("/retrieve/", json={})
        assert moved.headers["location"] == f"http://127.0.0.1:{proxy}/search/retrieve"
        assert shop.get("/").headers["content-type"].startswith("text/html")
    with Client(f"http://127.0.0.1:{proxy}/search") as rcml:
        assert rcml.ready().items >= 12


def test_address_without_the_last_slash_leads_to_the_explorer(proxy: int) -> None:
    with client(proxy, "127.0.0.16") as shop:
        moved = shop.get(f"http://127.0.0.1:{proxy}/search?item=cot")  # a link to a view of the explorer
        assert moved.status_code in (301, 302, 307, 308)
        assert moved.headers["location"].removeprefix(f"http://127.0.0.1:{proxy}") == "/search/?item=cot"
        for page in ("/search/", "/search/docs"):
            shown = shop.get(f"http://127.0.0.1:{proxy}{page}")
            linked = re.findall(r'(?:src|href)="([^"#]+)"', shown.text)
            assert linked
            assert {shop.get(shown.url.join(link)).status_code for link in linked} == {200}, page


def test_client_that_waits_before_it_sends_its_body_is_answered(proxy: int) -> None:
    body = json.dumps({"item_id": "cot", "relation": "gardeners", "k": 1}).encode()
    head = (
        f"POST /search/retrieve HTTP/1.1\r\nHost: 127.0.0.1:{proxy}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", proxy), source_address=("127.0.0.17", 0)) as waiting:
        waiting.sendall(head.encode())
        assert waiting.recv(65_536).startswith(b"HTTP/1.1 100")  # only now is the body sent
        waiting.sendall(body)
        told = b""
        while got := waiting.recv(65_536):
            told += got
    # Caddy may say "continue" for itself and for the server (RFC 9110, 15.2: one or more interim responses).
    final = re.sub(rb"\A(HTTP/1\.1 100 .*?\r\n\r\n)+", b"", told, flags=re.DOTALL)
    assert final.startswith(b"HTTP/1.1 200")


def test_metrics_are_not_published(proxy: int, server: int) -> None:
    with client(proxy, "127.0.0.11") as shop:
        for path in ("/metrics", "/shops/toys/metrics"):
            answer = shop.get(path)
            told = answer.headers.get("content-type")
            assert (answer.status_code, told == "application/problem+json") == (404, False), path
    with client(server, "127.0.0.11") as inside:
        assert "rcml_items" in inside.get("/metrics").text


def test_clients_have_rates_of_their_own_and_cannot_claim_another_address(proxy: int) -> None:
    costly = {"questions": [{"item_id": "cot", "relation": "gardeners", "k": 100}] * 100}
    mine, other = f"127.0.1.{proxy % 250}", f"127.0.2.{proxy % 250}"
    with client(proxy, mine) as shop, client(proxy, other) as neighbour:
        assert shop.post("/retrieve/batch", json=costly).status_code == 200
        claims: list[dict[str, str]] = [
            {},
            {"X-Forwarded-For": "198.51.100.7"},
            {"Forwarded": "for=198.51.100.7"},
            {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=198.51.100.7"},
            {"X-Real-IP": "198.51.100.7"},
        ]
        for claim in claims:
            answer = shop.post("/retrieve/batch", json=costly, headers=claim)
            assert (answer.status_code, answer.json()["type"]) == (429, "urn:rcml:problem:rate-limit"), claim
        assert neighbour.post("/retrieve/batch", json=costly).status_code == 200


def png(size: int) -> bytes:
    """Return a PNG of noise with about `size` bytes."""
    side = int((size / 3) ** 0.5)
    out = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "png", compress_level=1)
    return out.getvalue()


def test_large_picture_passes_and_a_larger_one_is_rejected_with_its_reason(proxy: int) -> None:
    with client(proxy, "127.0.0.12") as shop:
        answer = shop.put(
            "/items/large",
            data={"item": '{"title": "Large"}'},
            files={"picture": ("large.png", png(9_000_000))},
        )
        assert answer.status_code in (200, 201), answer.text
    with client(proxy, "127.0.0.13") as shop:
        answer = shop.put(
            "/items/larger",
            data={"item": '{"title": "Larger"}'},
            files={"picture": ("larger.png", bytes(12 * MIB))},
        )
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert "12582912" in answer.json()["detail"]
    with client(proxy, "127.0.0.14") as shop:
        answer = shop.put(
            "/items/largest",
            data={"item": '{"title": "Largest"}'},
            files={"picture": ("l.png", bytes(14 * MIB))},
        )
        assert answer.status_code == 413  # by the proxy


def test_bulk_upload_to_a_shop_is_limited_by_the_server_alone(proxy: int) -> None:
    with client(proxy, "127.0.0.18") as shop:
        line = b'{"delete": "none"}\n'
        answer = shop.post("/shops/toys/items/bulk", content=line * (14 * MIB // len(line)))
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


def test_bulk_lines_are_answered_while_the_upload_goes_on(proxy: int) -> None:
    lines = [{"upsert": {"item_id": f"bulk-{number}", "title": f"Bulk {number}"}} for number in range(70)]
    first, rest = (
        b"".join(json.dumps(line).encode() + b"\n" for line in part) for part in (lines[:64], lines[64:])
    )
    head = (
        f"POST /search/items/bulk HTTP/1.1\r\nHost: 127.0.0.1:{proxy}\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", proxy), source_address=("127.0.0.15", 0)) as upload:
        upload.sendall(head.encode() + chunk(first))
        told = b""
        while b'"line":64' not in told:  # the rest is sent only after this answer
            got = upload.recv(65_536)
            assert got, told
            told += got
        assert told.startswith(b"HTTP/1.1 200")
        upload.sendall(chunk(rest) + chunk(b""))
        while got := upload.recv(65_536):
            told += got
    assert b'"line":70' in told


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)
