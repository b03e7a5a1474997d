"""Tests of bulk uploads: every line gets a reply, an invalid line fails alone, and acknowledged lines are durable."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from indexes.index import Index
from model.errors import StorageError
from service.engine.engine import CONCURRENT_BULK_GROUPS, Engine
from service.http.route_rules import SCOPE_CHARGE
from service.problems.errors import OverloadedError, RateLimitError
from service.requests.bulk import LINES_PER_GROUP, RESULTS_PER_LINE, SLICE_BYTES, Bulk, Line, lines
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop, ids, write_shop
from tests.service.conftest import served

MOST = 4_096
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def own(tmp_path: Path) -> FakeShop:
    return write_shop(tmp_path)


@pytest.fixture
def changing(own: FakeShop) -> Iterator[TestClient]:
    config = ServeConfig(index=own.index, max_body_bytes=MOST, max_bulk_bytes=10**6)
    with served(config) as client:
        yield client


def upload(client: TestClient, *sent: object) -> list[Any]:
    """Upload lines and return their replies. A line is either bytes or an object to encode as JSON."""
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in sent)
    answer = client.post("/items/bulk", content=body, headers=NDJSON)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def upsert(item_id: str, title: str = "Red silk lamp", **more: object) -> dict[str, Any]:
    return {"upsert": {"item_id": item_id, "title": title, **more}}


def picture(colour: str) -> str:
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def total(client: TestClient) -> int:
    return int(client.get("/items?limit=1").json()["total"])


def test_invalid_lines_among_a_thousand_fail_alone(changing: TestClient) -> None:
    bad: dict[int, tuple[object, int]] = {
        3: (b"", 0),
        10: (b"no JSON", 400),
        64: (b'{"delete": "\xff"}', 400),
        65: (upsert("x" * 513), 422),
        128: (upsert("bad-picture", picture={"base64": "Zm9v"}), 422),
        129: (upsert("long", description="y" * MOST), 413),
        200: ({"delete": "unicorn", "upsert": None, "more": 1}, 422),
        500: ({}, 422),
        501: ({"delete": 7}, 422),
        777: (b"[1, 2]", 422),
        1000: (b'{"upsert": {"item_id": "cut"', 400),
    }
    sent = [
        bad[number][0] if number in bad else upsert(f"item-{number}", f"Lamp number {number}")
        for number in range(1, 1_001)
    ]
    replies = upload(changing, *sent)
    statuses = {reply["line"]: reply["status"] for reply in replies}
    assert list(statuses) == [number for number in range(1, 1_001) if number != 3]
    assert {line: status for line, status in statuses.items() if status != 201} == {
        line: status for line, (_, status) in bad.items() if status
    }
    assert total(changing) == len(ids()) + 1_000 - len(bad)
    for number in (1, 63, 66, 999):
        asked = {"text": f"Lamp number {number}", "relation": "gardeners", "k": 1}
        [best] = changing.post("/retrieve", json=asked).json()["results"]
        assert best["item"]["item_id"] == f"item-{number}"
    for reply in replies:
        assert ("problem" in reply) == (reply["status"] >= 400)
        if reply["status"] == 201:
            assert reply == {"line": reply["line"], "item_id": f"item-{reply['line']}", "status": 201}


def test_reply_to_a_rejected_line_names_the_field_and_the_remedy(changing: TestClient) -> None:
    [reply] = upload(changing, upsert("lamp", categories=[""]))
    assert reply["problem"]["errors"] == [
        {
            "pointer": "#/upsert/categories/0",
            "value": '""',
            "message": 'upsert.categories.0 must have 1 or more characters; "" was sent.',
            "remedy": "Send text of 1 to 512 characters.",
        }
    ]
    [reply] = upload(changing, upsert("lamp", picture={"base64": "Zm9v"}))
    assert reply["item_id"] == "lamp"
    assert reply["problem"]["type"] == "urn:rcml:problem:bad-picture"
    assert reply["problem"]["instance"] == "/items/bulk"


def test_applies_lines_in_order(changing: TestClient) -> None:
    sent = [upsert("lamp", "One"), upsert("lamp", "Two"), {"delete": "lamp"}, {"delete": "lamp"}]
    assert [one["status"] for one in upload(changing, *sent)] == [201, 200, 204, 204]
    assert changing.get("/items/lamp").status_code == 404
    assert [one["status"] for one in upload(changing, {"delete": "bib"}, upsert("bib"))] == [204, 201]
    assert changing.get("/items/bib").json()["title"] == "Red silk lamp"


def test_stores_pictures(changing: TestClient) -> None:
    upload(changing, upsert("lamp", picture={"base64": picture("navy")}))
    kept = Image.open(BytesIO(changing.get("/items/lamp/image").content))
    assert kept.getpixel((0, 0)) == (0, 0, 128)


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n  \n\n"])
def test_empty_body_gets_no_reply(changing: TestClient, body: bytes) -> None:
    answer = changing.post("/items/bulk", content=body, headers=NDJSON)
    assert (answer.status_code, answer.content) == (200, b"")


def test_rejects_a_line_that_is_too_long_and_accepts_the_next_line(changing: TestClient) -> None:
    fits = upsert("fits", description="d" * 3_000)
    fits["upsert"]["description"] += "d" * (MOST - len(json.dumps(fits)))
    longer = json.loads(json.dumps(fits))
    longer["upsert"].update(item_id="longer")
    replies = upload(changing, b"z" * 100_000, fits, longer, upsert("next"))
    assert [one["status"] for one in replies] == [413, 201, 413, 201]
    assert replies[0]["problem"]["detail"] == (
        "The line is longer than the limit of 4096 bytes. Send a shorter line."
    )


def test_rejects_a_body_not_declared_as_ndjson(changing: TestClient) -> None:
    answer = changing.post("/items/bulk", json=upsert("lamp"))
    assert answer.status_code == 415
    assert answer.json()["detail"] == (
        "The body must be NDJSON, one JSON object per line; application/json was sent. "
        "Send it with Content-Type: application/x-ndjson."
    )


def test_rejects_a_body_by_its_declared_length_before_reading_it(changing: TestClient) -> None:
    body = b"\n" * (10**6 + 1)
    answer = changing.post("/items/bulk", content=body, headers=NDJSON)
    assert answer.status_code == 413
    assert "limit of 1000000 bytes" in answer.json()["detail"]


def in_pieces(client: TestClient, *pieces: bytes) -> tuple[int, bytes, int]:
    """Send a body in pieces. Return the status and body of the response and the number of pieces that were read."""
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "query_string": b""},
        **{"method": "POST", "path": "/items/bulk", "raw_path": b"/items/bulk", "client": ("testclient", 1)},
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/x-ndjson")],
        "state": dict(client.app_state),
    }
    left = list(pieces)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return next((one["status"] for one in sent if "status" in one), 0), body, len(pieces) - len(left)


def test_a_chunked_body_over_the_limit_gets_replies_to_the_lines_read_so_far(changing: TestClient) -> None:
    early = b"".join(json.dumps(upsert(f"early-{n}")).encode() + b"\n" for n in range(LINES_PER_GROUP))
    filling = [(b" " * 999 + b"\n") * 100] * 20
    status, body, taken = in_pieces(changing, early, *filling, json.dumps(upsert("late")).encode())
    assert status == 200
    assert [json.loads(line)["status"] for line in body.splitlines()] == [201] * LINES_PER_GROUP
    assert taken == 11  # the eleventh piece exceeds the limit of 10^6 bytes
    assert changing.get("/items/late").status_code == 404


def test_discards_an_incomplete_group_when_the_connection_breaks(changing: TestClient) -> None:
    status, body, _ = in_pieces(changing, json.dumps(upsert("whole")).encode(), b'\n{"delete": "bib"}')
    assert (status, body) == (0, b"")
    assert changing.get("/items/bib").status_code == 200
    assert changing.get("/items/whole").status_code == 404  # its group was never complete


def test_stopping_server_rejects_uploads(own: FakeShop) -> None:
    with served(ServeConfig(index=own.index)) as client:
        client.app_state["engine_holder"].stop()
        answer = client.post("/items/bulk", content=b'{"delete": "bib"}', headers=NDJSON)
        assert (answer.status_code, answer.json()["title"]) == (503, "Not ready")
        assert client.get("/items/bib").status_code == 200


def test_new_engine_applies_the_remaining_lines_of_an_upload(
    own: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that replaces another during an upload applies all lines that are read afterwards."""
    apply, applied = Index.apply, []
    with served(ServeConfig(index=own.index)) as client:
        loading = client.app_state["engine_holder"]

        def swapping(index: Index, changes: Any) -> list[bool]:
            applied.append(index)
            existed = apply(index, changes)
            if len(applied) == 1:
                loading.replace(Engine.open(ServeConfig(index=own.index), lambda *_: FakeEncoder()))
            return existed

        monkeypatch.setattr(Index, "apply", swapping)
        replies = upload(client, *(upsert(f"item-{number}") for number in range(2 * LINES_PER_GROUP)))
        assert [one["status"] for one in replies] == [201] * 2 * LINES_PER_GROUP
        assert applied[0] is not applied[1]
        assert total(client) == len(ids()) + 2 * LINES_PER_GROUP


def test_upload_does_not_keep_a_replaced_engine_open(own: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, close, applied, closed = Index.apply, Index.close, [], Event()
    with served(ServeConfig(index=own.index)) as client:
        loading = client.app_state["engine_holder"]

        def swapping(index: Index, changes: Any) -> list[bool]:
            existed = apply(index, changes)
            applied.append(index)
            if len(applied) == 1:
                loading.replace(Engine.open(ServeConfig(index=own.index), lambda *_: FakeEncoder()))
            else:
                assert closed.wait(600), "the upload continues but still holds the replaced engine"
            return existed

        def noted(index: Index) -> None:
            close(index)
            closed.set()

        monkeypatch.setattr(Index, "apply", swapping)
        monkeypatch.setattr(Index, "close", noted)
        upload(client, *(upsert(f"item-{number}") for number in range(2 * LINES_PER_GROUP)))
        assert len(applied) == 2


class AtOnce:
    """Replacement for `Thread` whose `start` runs the target immediately, in the calling thread."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self.start = target


def test_creates_replies_before_a_replaced_engine_closes_its_files(
    own: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, applied = Index.apply, []
    with served(ServeConfig(index=own.index)) as client:
        holder = client.app_state["engine_holder"]

        def swapping(index: Index, changes: Any) -> list[bool]:
            existed = apply(index, changes)
            applied.append(index)
            holder.replace(Engine.open(ServeConfig(index=own.index), lambda *_: FakeEncoder()))
            return existed

        monkeypatch.setattr(Index, "apply", swapping)
        monkeypatch.setattr("service.engine.reference_counted.Thread", AtOnce)
        assert client.get("/items/new-item").status_code == 404  # opens the catalogue on the event loop
        replies = upload(client, upsert("bib"), upsert("new-item"))
        assert [one["status"] for one in replies] == [200, 201]
        assert len(applied) == 1


def test_does_not_acknowledge_a_group_that_cannot_be_stored(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, groups = Index.apply, []

    def failing(index: Index, changes: Any) -> list[bool]:
        groups.append(len(changes))
        if len(groups) == 2:
            raise StorageError("/secret/path: no space left on device.")
        return apply(index, changes)

    monkeypatch.setattr(Index, "apply", failing)
    sent = [upsert(f"item-{number}") for number in range(3 * LINES_PER_GROUP)]
    sent[LINES_PER_GROUP] = {"upsert": {}}
    replies = upload(changing, *sent)
    assert groups == [LINES_PER_GROUP, LINES_PER_GROUP - 1, LINES_PER_GROUP]
    assert [one["status"] for one in replies] == (
        [201] * LINES_PER_GROUP + [422] + [503] * (LINES_PER_GROUP - 1) + [201] * LINES_PER_GROUP
    )
    assert replies[LINES_PER_GROUP + 1]["item_id"] == f"item-{LINES_PER_GROUP + 1}"
    assert "secret" not in json.dumps(replies)
    assert total(changing) == len(ids()) + 2 * LINES_PER_GROUP
    assert changing.get(f"/items/item-{LINES_PER_GROUP + 1}").status_code == 404


def test_overloaded_server_delays_lines_instead_of_rejecting_them(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, refused = Engine.encode, 0

    async def busy(engine: Engine, *item: Any) -> Any:
        nonlocal refused
        if refused < 20:
            refused += 1
            raise OverloadedError(0.1)
        return await encode(engine, *item)

    monkeypatch.setattr(Engine, "encode", busy)
    replies = upload(changing, *(upsert(f"item-{number}") for number in range(30)))
    assert [one["status"] for one in replies] == [201] * 30
    assert refused == 20


async def _lines(chunks: list[bytes], longest: int) -> list[tuple[int, bytes | None]]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [(line.number, line.content) async for line in lines(body(), longest)]


@given(
    parts=st.lists(st.binary(max_size=6).map(lambda part: part.replace(b"\n", b"")), max_size=8),
    ended=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    longest=st.integers(1, 6),
)
def test_splits_lines_independently_of_chunk_boundaries(
    parts: list[bytes], ended: bool, cuts: list[int], longest: int
) -> None:
    body = b"\n".join(parts) + b"\n" * ended
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(places)]
    *whole, rest = body.split(b"\n")
    expected = [*whole, rest] if rest else whole
    assert asyncio.run(_lines(chunks, longest)) == [
        (number, line if len(line) <= longest else None)
        for number, line in enumerate(expected, start=1)
        if len(line) > longest or line.strip()
    ]


def test_other_requests_run_between_slices_of_empty_lines() -> None:
    async def run() -> tuple[list[tuple[int, bytes | None]], int]:
        looks, done = 0, asyncio.Event()

        async def look() -> None:
            nonlocal looks
            while not done.is_set():
                looks += 1
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        found = await _lines([b"\n" * 16 * SLICE_BYTES + b" \n" + BOM_UTF8 + b"\nx"], MOST)
        done.set()
        await looking
        return found, looks

    found, looks = asyncio.run(run())
    assert found == [(16 * SLICE_BYTES + 3, b"x")]
    assert looks >= 16


def test_refused_lines_take_turns_on_the_event_loop(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = changing.app_state["engine_holder"].engine
    taken: list[int] = []

    async def take(results: int) -> None:
        taken.append(results)

    monkeypatch.setattr(engine.turns, "take", take)
    assert [one["status"] for one in upload(changing, *([b"{}"] * 20))] == [422] * 20
    assert taken == [RESULTS_PER_LINE] * 20


def test_groups_of_all_uploads_take_turns(changing: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    async def applied(bulk: Bulk, group: list[Any], engine: Engine) -> list[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return []

    async def run() -> None:
        bulk = Bulk(Request({"type": "http"}), changing.app_state["engine_holder"], MOST)
        await asyncio.gather(*(bulk.replies([]) for _ in range(10)))

    monkeypatch.setattr(Bulk, "_applied", applied)
    assert changing.portal is not None
    changing.portal.call(run)
    assert most == CONCURRENT_BULK_GROUPS


@pytest.mark.parametrize(("lines", "cost"), [([b"{}"] * 7, 7), ([b" " * 300 + b"{}"] * 3, 3 + 906 // 300)])
def test_groups_are_charged_by_lines_and_bytes(
    lines: list[bytes], cost: int, changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.requests.bulk.BYTES_PER_COST", 300)
    charged: list[int] = []
    request = Request({"type": "http", "path": "/items/bulk", SCOPE_CHARGE: charged.append})

    async def nothing(*_: object) -> list[Any]:
        return []

    monkeypatch.setattr(Bulk, "_applied", nothing)
    bulk = Bulk(request, changing.app_state["engine_holder"], MOST)
    assert changing.portal is not None
    changing.portal.call(bulk.replies, [Line(number, line) for number, line in enumerate(lines)])
    assert charged == [1 + cost]


def test_upload_waits_while_its_caller_has_used_up_its_rate(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def charge(cost: int) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            error = RateLimitError(cost, 1, 1, 1)
            error.retry_after = 0
            raise error

    async def nothing(*_: object) -> list[Any]:
        return []

    monkeypatch.setattr(Bulk, "_applied", nothing)
    request = Request({"type": "http", "path": "/items/bulk", SCOPE_CHARGE: charge})
    bulk = Bulk(request, changing.app_state["engine_holder"], MOST)
    assert changing.portal is not None
    assert changing.portal.call(bulk.replies, [Line(1, b"{}")]) == []
    assert attempts == 3


_SERVER = """
import sys
from service.serve import serve
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder
serve(ServeConfig(index=sys.argv[1], port=0, log_level="critical"), open_encoder=lambda *_: FakeEncoder())
"""


def answers(url: str) -> bool:
    """Return whether the server is reachable and ready."""
    try:
        return httpx.get(f"{url}/readyz", timeout=600).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def process(own: FakeShop) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", _SERVER, str(own.index)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(word for line in server.stderr for word in line.split() if word.startswith("http://"))
        while not answers(url):
            assert server.poll() is None, "the server exited unexpectedly"
            time.sleep(0.01)
        yield server, url
        server.kill()


def test_loses_no_acknowledged_change_after_kill(
    process: tuple[subprocess.Popen[str], str], own: FakeShop
) -> None:
    server, url = process
    acknowledged: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        number = 0
        while True:
            yield json.dumps(upsert(f"item-{number}")).encode() + b"\n"
            number += 1
            await asyncio.sleep(0)

    async def send() -> None:
        async with httpx.AsyncClient(timeout=600) as client:
            request = client.build_request("POST", f"{url}/items/bulk", content=endless(), headers=NDJSON)
            answer = asyncio.create_task(client.send(request, stream=True))
            watching = Index.open(own.index)
            while "item-0" not in watching.snapshot:
                await asyncio.sleep(0.01)
                watching.refresh()
            watching.close()
            server.send_signal(signal.SIGKILL)
            await asyncio.wait([answer], timeout=600)

    for group in range(40):
        body = "\n".join(json.dumps(upsert(f"group-{group}-{n}")) for n in range(5))
        replies = httpx.post(f"{url}/items/bulk", content=body, headers=NDJSON, timeout=600).text.splitlines()
        acknowledged += [json.loads(line)["item_id"] for line in replies]
    asyncio.run(send())
    assert len(acknowledged) == 200
    index = Index.open(own.index)
    assert all(item_id in index.snapshot for item_id in acknowledged)
    streamed = sum(item.item_id.startswith("item-") for _, item in index.snapshot.page(0, 10**6))
    assert streamed % LINES_PER_GROUP == 0  # groups are atomic
    assert streamed > 0
    index.close()


def test_serves_a_client_that_reads_replies_only_at_the_end(
    process: tuple[subprocess.Popen[str], str],
) -> None:
    """Send the whole body before reading any reply, as most clients do.

    The server must continue to read the body, even if the unread replies exceed the socket buffers.
    """
    _, url = process
    body = (b"x" + b" " * 500 + b"\n") * 40_000
    head = f"POST /items/bulk HTTP/1.1\r\nHost: x\r\nContent-Type: {NDJSON['Content-Type']}\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(600)
        client.connect((httpx.URL(url).host, httpx.URL(url).port))
        client.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b'"status":400,"problem"') == 40_000


def test_only_bulk_uploads_may_exceed_the_body_limit(process: tuple[subprocess.Popen[str], str]) -> None:
    _, url = process
    body = (b" " * 999 + b"\n") * 2_000 + json.dumps(upsert("far-down")).encode()
    bulk = httpx.post(f"{url}/items/bulk", content=body, headers=NDJSON, timeout=600)
    assert json.loads(bulk.text) == {"line": 2_001, "item_id": "far-down", "status": 201}
    for path in ("/items/bulk/", "/retrieve", "/items/bulkier"):
        headers = {"Content-Type": "application/json"}
        other = httpx.post(f"{url}{path}", content=body, headers=headers, timeout=600)
        assert other.status_code == 413, path
    spelt = httpx.post(f"{url}/items/%62ulk", content=body, headers=NDJSON, timeout=600)
    assert json.loads(spelt.text)["status"] == 200
