"""Headers of proxies count only if a trusted proxy sent them, and only as far as trusted proxies wrote them."""

import asyncio

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.http.server import Server
from service.middleware.proxy import Proxy, TrustedProxies, address, forwarded
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.service.conftest import wait_until_ready

TRUSTED = ("10.0.0.0/8", "2001:db8::/32")
PROXY = ("10.0.0.1", 4000)


def read(
    *fields: tuple[str, str], peer: tuple[str, int] | None = PROXY, trusted: tuple[str, ...] = TRUSTED
) -> Scope:
    """Return the scope that the application sees."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    headers = [
        (b"host", b"inner"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in fields),
    ]
    scope = {"type": "http", "client": peer, "scheme": "http", "headers": headers}
    asyncio.run(Proxy(app, TrustedProxies(trusted))(scope, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ([("X-Forwarded-For", "198.51.100.7")], "198.51.100.7"),
        ([("X-Forwarded-For", "1.1.1.1, 198.51.100.7, 10.0.0.9")], "198.51.100.7"),
        ([("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.7")], "198.51.100.7"),
        ([("X-Forwarded-For", "1.1.1.1, garbage, 10.0.0.9")], "10.0.0.9"),
        ([("X-Forwarded-For", "1.1.1.1, unknown")], "10.0.0.1"),
        ([("X-Forwarded-For", "")], "10.0.0.1"),
        ([("X-Forwarded-For", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        ([("X-Forwarded-For", "[2400::7]:443")], "2400::7"),
        ([("X-Forwarded-For", "2400::7, 2001:db8::1")], "2400::7"),
        ([("X-Forwarded-For", "198.51.100.7:1234, ::ffff:10.0.0.9")], "198.51.100.7"),
        ([("Forwarded", 'for="[2400::7]:443";proto=https')], "2400::7"),
        ([("Forwarded", "for=1.1.1.1, For=198.51.100.7;by=_x")], "198.51.100.7"),
        ([("Forwarded", 'for="1.1.1.1, for=198.51.100.7')], "198.51.100.7"),
        ([("Forwarded", "for=_hidden")], "10.0.0.1"),
        ([("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "198.51.100.7")], "10.0.0.1"),
        ([("Forwarded", "for=198.51.100.7"), ("X-Forwarded-For", "198.51.100.7")], "198.51.100.7"),
    ],
)
def test_client_is_the_last_address_that_is_not_a_trusted_proxy(
    fields: list[tuple[str, str]], client: str
) -> None:
    assert read(*fields)["client"][0] == client


def test_scheme_and_host_come_from_a_trusted_proxy() -> None:
    scope = read(("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example:8443"))
    assert (scope["scheme"], dict(scope["headers"])[b"host"]) == ("https", b"shop.example:8443")
    scope = read(("Forwarded", 'for=198.51.100.7;proto=HTTPS;host="shop.example"'))
    assert (scope["scheme"], dict(scope["headers"])[b"host"]) == ("https", b"shop.example")


@pytest.mark.parametrize("value", ["javascript", "a b", "evil/path", "x" * 300 + " "])
def test_garbage_in_scheme_and_host_is_ignored(value: str) -> None:
    scope = read(("X-Forwarded-Proto", value), ("X-Forwarded-Host", f"{value} "))
    assert scope["scheme"] == "http"
    assert b" " not in dict(scope["headers"])[b"host"]


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [(("127.0.0.1", 1), TRUSTED), (PROXY, ()), (None, TRUSTED), (("11.0.0.1", 1), TRUSTED)],
)
def test_nobody_else_is_believed(peer: tuple[str, int] | None, trusted: tuple[str, ...]) -> None:
    fields = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=1.1.1.1;host=evil"),
    ]
    scope = read(*fields, peer=peer, trusted=trusted)
    assert (scope["client"], scope["scheme"], dict(scope["headers"])[b"host"]) == (peer, "http", b"inner")


def test_uvicorn_believes_no_proxy() -> None:
    assert Server(read).config.proxy_headers is False


def test_addresses_and_pairs() -> None:
    assert address("[2400::7]x") is None
    assert address("1.1.1.1:99999") is None
    assert address("1.1.1.1:80") == ("1.1.1.1", 80)
    assert forwarded(r'for=a;x="q\"uoted, y";proto=https, for=b') == [
        {"for": "a", "x": 'q"uoted, y', "proto": "https"},
        {"for": "b"},
    ]


@pytest.mark.parametrize(("trusted", "statuses"), [((), [200, 429]), (("192.0.2.0/24",), [200, 200])])
def test_made_up_addresses_do_not_evade_the_rate_limit(
    shop: FakeShop, trusted: tuple[str, ...], statuses: list[int]
) -> None:
    config = ServeConfig(index=shop.index, rate_limit=0.01, rate_burst=1, trusted_proxies=trusted)
    app = create_app(config, lambda *_: FakeEncoder())
    with TestClient(app, client=("192.0.2.1", 5), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        asked = [client.get("/items", headers={"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(2)]
    assert [answer.status_code for answer in asked] == statuses


@pytest.mark.parametrize("given", ["proxy.example", "10.0.0.1/8", "10.0.0.0/40", "*"])
def test_anything_but_addresses_and_networks_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="is not an IP address or a network"):
        ServeConfig.model_validate({"index": "index", "trusted_proxies": given})
