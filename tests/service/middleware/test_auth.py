"""Access control: API keys, rate limits, Host headers, and requests from pages of other sites.

Keys never appear in logs or responses.
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.middleware.api_keys import Keys
from service.middleware.auth import Auth, Guard
from service.middleware.rate_limit import RateLimit
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop
from tests.service.conftest import wait_until_ready

READ, ADMIN = "read-key-read-key", "admin-key-admin-key"
QUESTION = {"item_id": "red-mug", "relation": "gardeners"}


@contextmanager
def served(shop: FakeShop, **options: Any) -> Iterator[TestClient]:
    app = create_app(ServeConfig(index=shop.index, **options), lambda *_: FakeEncoder())
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="module")
def guarded(shop: FakeShop) -> Iterator[TestClient]:
    with served(shop, read_keys=(READ,), admin_keys=(ADMIN,)) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "headers",
    [
        bearer(READ),
        bearer(ADMIN),
        {"Authorization": f"bearer  {READ}"},
        {"X-API-Key": READ},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": READ},
    ],
)
def test_accepts_a_key_in_either_header(guarded: TestClient, headers: dict[str, str]) -> None:
    assert guarded.post("/retrieve", json=QUESTION, headers=headers).status_code == 200


def test_without_a_key_the_problem_explains_how_to_send_one(guarded: TestClient) -> None:
    response = guarded.post("/retrieve", json=QUESTION)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["type"], problem["instance"]) == ("urn:rcml:problem:no-key", "/retrieve")
    assert "`Authorization: Bearer KEY`" in problem["detail"]


@pytest.mark.parametrize(
    "secret", ["wrong-key-wrong-key", READ + "x", READ[:-1], READ.upper(), "", "\u00e9" * 16]
)
def test_rejects_an_unknown_key_without_quoting_it(guarded: TestClient, secret: str) -> None:
    response = guarded.get("/items", headers={b"X-API-Key": secret.encode()})
    assert (response.status_code, response.json()["type"]) == (401, "urn:rcml:problem:unknown-key")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert not secret or secret not in response.text + str(response.headers)


def test_rejects_a_change_with_a_read_key_and_names_the_key(guarded: TestClient) -> None:
    response = guarded.delete("/items/bib", headers=bearer(READ))
    assert (response.status_code, response.json()["type"]) == (403, "urn:rcml:problem:key-too-weak")
    assert response.json()["detail"].startswith(
        "DELETE /items/bib requires an admin key, but the key 'read-1' is read-only."
    )
    assert READ not in response.text


def test_does_not_read_the_body_of_a_request_without_a_key() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the body must not be read and the application must not be called")

    keys = Keys.open(ServeConfig(index="i", read_keys=(READ,)))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": []}
    with pytest.raises(StopIteration):
        Auth(never, Guard(keys))(scope, never, send).send(None)  # type: ignore[arg-type]
    assert sent[0]["status"] == 401


def test_only_requests_with_a_key_see_examples_from_the_catalogue(guarded: TestClient) -> None:
    assert "red-mug" not in guarded.get("/openapi.json").text
    assert "red-mug" not in guarded.get("/openapi.json", headers=bearer("wrong-key-wrong-key")).text
    assert "red-mug" in guarded.get("/openapi.json", headers=bearer(READ)).text


def test_operations_declare_their_role_and_their_rejections(guarded: TestClient) -> None:
    described = guarded.get("/openapi.json").json()
    assert set(described["components"]["securitySchemes"]) == {"bearer", "header"}
    asked = described["paths"]["/retrieve"]["post"]
    assert asked["security"] == [{"bearer": ["read"]}, {"header": ["read"]}]
    assert {"401", "403", "429"} <= asked["responses"].keys()
    alive = described["paths"]["/livez"]["get"]
    assert alive["security"] == []
    assert "401" not in alive["responses"]


def test_too_many_requests_with_one_key_do_not_affect_another_key(shop: FakeShop) -> None:
    with served(shop, read_keys=(READ,), admin_keys=(ADMIN,), rate_limit=0.01, rate_burst=2) as client:
        statuses = [client.get("/items", headers=bearer(READ)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = client.get("/items", headers=bearer(READ))
        assert refused.json()["type"] == "urn:rcml:problem:rate-limit"
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        assert client.get("/items", headers=bearer(ADMIN)).status_code == 200
        assert client.get("/livez", headers=bearer(READ)).status_code == 200


def test_without_keys_each_address_has_its_own_rate_limit() -> None:
    guard = Auth(_well, Guard(Keys({}), RateLimit(0.01, 1)))
    found = [
        TestClient(guard, client=(address, 1)).get("/items").status_code
        for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2")
    ]
    assert found == [200, 429, 200]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "[::1]:8000",
        "rcml",
        "rcml:80",
        "10.1.2.3",
        "shop.localhost",
        "API.shop.example",
    ],
)
def test_a_server_without_keys_accepts_hosts_safe_from_dns_rebinding(host: str) -> None:
    guard = Auth(_well, Guard(Keys({}), hosts=("127.0.0.1", "api.shop.example")))
    assert TestClient(guard).get("/items", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "[evil.example]", "1.2.3", "évil.é"]
)
def test_a_server_without_keys_rejects_hosts_open_to_dns_rebinding(host: str) -> None:
    guard = Auth(_well, Guard(Keys({}), hosts=("127.0.0.1",)))
    response = TestClient(guard).get("/livez", headers={b"Host": host.encode()})
    assert (response.status_code, response.json()["type"]) == (421, "urn:rcml:problem:misdirected")
    assert "--allowed-hosts" in response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://testserver"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://testserver:81"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_without_keys_a_page_of_another_site_changes_nothing(headers: dict[str, str], status: int) -> None:
    guard = Auth(_well, Guard(Keys({}), origins=("https://friend.example",)))
    assert TestClient(guard).post("/admin/reload", headers=headers).status_code == status
    assert TestClient(guard).get("/items", headers=headers).status_code == 200


async def _well(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


PROGRAM = """
import sys
from pathlib import Path
from service.serve import serve
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder
config = ServeConfig(index=Path(sys.argv[1]), port=0, log_level="debug")
print(repr(config))
serve(config, lambda engine, url: [f"ready {url}"], lambda *_: FakeEncoder())
"""


def test_neither_logs_nor_responses_show_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = write_shop(tmp_path)  # not the shared shop, because the test deletes one of its items
    monkeypatch.setenv("RCML_READ_KEYS", READ)
    monkeypatch.setenv("RCML_ADMIN_KEYS", ADMIN)
    wrong = "wrong-key-wrong-key"
    command = [sys.executable, "-c", PROGRAM, str(shop.index)]
    answers = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        shown = ""
        for line in process.stderr:
            shown += line
            if found := re.search(r"\bready (http://[\d.:]+)", line):
                break
        assert found is not None
        for secret in (READ, ADMIN, wrong):
            for method, path in [
                ("GET", "/items"),
                ("POST", "/retrieve"),
                ("DELETE", "/items/bib"),
                ("GET", "/metrics"),
            ]:
                response = httpx.request(method, f"{found[1]}{path}", headers=bearer(secret), timeout=600)
                answers += f"{response.status_code} {response.headers} {response.text}"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    shown += out + err
    assert "read_keys=(SecretStr('**********'),)" in shown
    assert "/items" in shown
    for secret in (READ, ADMIN, wrong):
        assert secret not in shown
        assert secret not in answers
