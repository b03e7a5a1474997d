"""Long bodies: they are charged by their bytes, refused before they are read, and parsed without the event loop."""

import asyncio
import json
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.engine.engine import Engine
from service.requests import json_route
from service.requests.json_route import BYTES_PER_COST, THREADED_BODY_BYTES
from service.schemas.fields import Picture
from service.schemas.retrieve import RetrieveRequest
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.service.campaigns import Direct, application, directly
from tests.service.conftest import wait_until_ready

JSON, PARTS = b"application/json", b"multipart/form-data; boundary=cut"
LONG = str(2**20).encode()


def test_uploaded_picture_is_passed_on_as_it_came(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 1_000
    encoded, passed = [], []

    def recorded(picture: bytes) -> bytes:
        encoded.append(picture)
        return b64encode(picture)

    async def refused(query: object, picture: Picture) -> None:
        passed.append(picture.base64)
        raise ValueError

    monkeypatch.setattr(json_route, "b64encode", recorded)
    monkeypatch.setattr("service.requests.context.RequestContext.picture", refused)
    client.post("/retrieve", data={"question": "{}"}, files={"picture": content})
    assert (encoded, passed) == ([b"\0"], [content])


def test_empty_upload_is_refused(client: TestClient) -> None:
    answer = client.post("/retrieve", data={"question": "{}"}, files={"picture": b""})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The file in the part picture is empty. Send a JPEG, PNG or WebP file."


@pytest.mark.parametrize("characters", [100, THREADED_BODY_BYTES])
def test_only_a_long_body_is_parsed_in_a_thread(
    characters: int, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    read = json_route.read

    def recorded(model: type[RetrieveRequest], body: bytes) -> RetrieveRequest:
        threads.append(threading.get_ident())
        return read(model, body)

    monkeypatch.setattr(json_route, "read", recorded)
    client.post("/retrieve", json={"picture": {"base64": "A" * characters}})
    assert client.portal is not None
    loop = client.portal.call(threading.get_ident)
    assert [one != loop for one in threads] == [characters == THREADED_BODY_BYTES]


class Body:
    """Body of a request that counts how often it is read."""

    def __init__(self, content: bytes) -> None:
        self.content, self.read = content, 0

    async def receive(self) -> Message:
        self.read += 1
        if self.read > 1:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self.content, "more_body": False}


async def _status(direct: Direct, body: Body, *headers: tuple[bytes, bytes]) -> int:
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "query_string": b""},
        **{"method": "POST", "path": "/retrieve", "raw_path": b"/retrieve", "client": ("127.0.0.1", 1)},
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"authorization", b"Bearer key-of-the-campaigns-0123456789"),
            *headers,
        ],
        "state": dict(direct.state),
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await direct.app(scope, body.receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize(
    ("headers", "others", "status", "read"),
    [
        ([(b"content-type", JSON), (b"content-length", LONG)], 990, 429, 0),
        ([(b"content-type", JSON), (b"content-length", LONG)], 980, 200, 1),
        ([(b"content-type", JSON), (b"content-length", b"40")], 1_000, 200, 1),
        ([(b"content-type", JSON), (b"transfer-encoding", b"chunked")], 990, 429, 0),
        ([(b"content-type", PARTS), (b"transfer-encoding", b"chunked")], 900, 429, 0),
        ([(b"content-type", PARTS), (b"content-length", LONG)], 990, 429, 0),
    ],
)
def test_long_body_is_refused_unread_beside_others(
    shop: FakeShop,
    tmp_path: Path,
    headers: list[tuple[bytes, bytes]],
    others: int,
    status: int,
    read: int,
) -> None:
    body = Body(b'{"item_id": "twin-1", "k": 1}')

    async def run() -> int:
        async with directly(application(shop, tmp_path)) as direct:
            engine: Engine = direct.state["engine_holder"].engine
            with engine.work_bound.working(others):
                return await _status(direct, body, *headers)

    assert (asyncio.run(run()), body.read) == (status, read)


def test_large_batch_in_a_body_of_unknown_length_is_answered(shop: FakeShop) -> None:
    """The body counts as the longest that is allowed, which alone exceeds the bound."""
    config = ServeConfig(index=shop.index, max_body_bytes=1_001 * BYTES_PER_COST)
    questions = [{"item_id": "twin-1", "relation": "gardeners"}] * 11
    content = json.dumps({"questions": questions}).encode()
    with TestClient(create_app(config, lambda *_: FakeEncoder())) as client:
        wait_until_ready(client)
        answer = client.post(
            "/retrieve/batch", content=iter([content]), headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 200, answer.text
    assert [one["status"] for one in answer.json()["replies"]] == [200] * 11


def test_bound_is_free_again_after_long_bodies(shop: FakeShop, tmp_path: Path) -> None:
    async def run() -> tuple[list[int], int]:
        async with directly(application(shop, tmp_path)) as direct:
            engine: Engine = direct.state["engine_holder"].engine
            length = (b"content-length", LONG)
            statuses = [
                await _status(direct, Body(content), (b"content-type", JSON), length)
                for content in (b'{"item_id": "twin-1"}', b"{", b'{"item_id": "none"}')
            ]
            return statuses, engine.work_bound.cost

    assert asyncio.run(run()) == ([200, 400, 404], 0)


@pytest.mark.parametrize("uploads", [False, True])
def test_long_body_is_charged_by_its_bytes(uploads: bool, shop: FakeShop) -> None:
    config = ServeConfig(index=shop.index, rate_limit=1, rate_burst=5)
    size = 12 * BYTES_PER_COST
    sent: dict[str, Any] = {"json": {"item_id": "twin-1", "exclude": ["n" * 500] * (size // 500)}}
    if uploads:
        picture = (shop.prepared / "pictures" / "00000.png").read_bytes().ljust(size, b"\0")
        sent = {"data": {"question": json.dumps({"k": 1})}, "files": {"picture": picture}}
    with TestClient(create_app(config, lambda *_: FakeEncoder())) as client:
        wait_until_ready(client)
        first = client.post("/retrieve", **sent)
        refused = client.post("/retrieve", json={"item_id": "twin-1"})
    assert first.status_code == 200, first.text
    assert refused.status_code == 429
    assert 8 < int(refused.headers["Retry-After"]) <= 14
