"""Tests for `rcml serve` as a process: output, startup failures and shutdown."""

import asyncio
import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from indexes.index import Index
from service.cli import main
from service.client import Client
from service.engine.engine import Engine
from service.lifecycle.engine_holder import EngineHolder
from service.problems.errors import NotReadyError
from service.serve import server_of
from service.settings import ServeConfig
from tests.indexes.changes import copied, made
from tests.indexes.fakes import FakeShop

from .workers.worker_server import eventually

PROGRAM = """
import gc
import sys
from pathlib import Path
from service.serve import serve
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder

class Encoder(FakeEncoder):
    def encode_texts(self, texts):
        if "bug" in texts[0]:
            raise ZeroDivisionError("password=hush")
        return super().encode_texts(texts)

config = ServeConfig(index=Path(sys.argv[1]), port=0, **dict(option.split("=") for option in sys.argv[2:]))
def greeting(engine, url):
    return [f"greetings from {url}", f"{gc.get_freeze_count()} objects are frozen"]

serve(config, greeting, lambda *_: Encoder())
"""


def start(index: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(index), *(options or ["log_level=warning"])]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr is not None
    shown = ""
    for line in process.stderr:
        shown += line
        if re.search(pattern, line):
            return shown
    raise AssertionError(shown)


def test_prints_url_answers_requests_and_stops_on_sigint(shop: FakeShop) -> None:
    with start(shop.index) as process:
        shown = lines_until(process, "greetings from")
        found = re.search(
            r"Serving 12 items and 4 relations at (http://127.0.0.1:\d+) \(cpu, towers in fp32 by torch\)\.",
            shown,
        )
        assert found, shown
        assert f"Open {found[1]} in a browser" in shown
        with Client(found[1]) as client:
            assert client.item("a/b?c#d e").title == "Grey desk lamp"
        process.send_signal(signal.SIGINT)
        process.wait(600)


@pytest.mark.parametrize("shops", [False, True], ids=["one index", "shops"])
def test_metrics_of_one_process_count_the_process_and_its_connections(shop: FakeShop, shops: bool) -> None:
    index, path = (shop.index.parent, "/shops/index/metrics") if shops else (shop.index, "/metrics")
    with start(index, f"shops={shops}") as process:
        found = re.search(r"greetings from (http://127.0.0.1:\d+)", lines_until(process, "greetings from"))
        assert found
        with httpx.Client() as idle, httpx.Client() as client:
            idle.get(f"{found[1]}/livez")
            eventually(lambda: "\nrcml_connections 2.0" in client.get(f"{found[1]}{path}").text)
            assert "\nrcml_workers 1.0" in client.get(f"{found[1]}{path}").text
        process.terminate()


def test_every_line_of_the_log_is_json_even_if_the_newest_generation_is_damaged(
    shop: FakeShop, tmp_path: Path
) -> None:
    folder = copied(shop, tmp_path)
    index = Index.open(folder)
    index.apply([made("new-lamp", 3)])
    index.compact()
    index.close()
    (folder / "generation-000002" / "attributes.parquet").write_bytes(b"damaged")
    with start(folder) as process:
        shown = lines_until(process, "greetings from")
        process.terminate()
    messages = [json.loads(line)["message"] for line in shown.splitlines()]
    assert any("Using generation-000001 and the changes made since then." in text for text in messages)


def test_excludes_startup_objects_from_garbage_collection(shop: FakeShop) -> None:
    with start(shop.index) as process:
        shown = lines_until(process, "objects are frozen")
        process.terminate()
    found = re.search(r"(\d+) objects are frozen", shown)
    assert found, shown
    assert int(found[1]) > 100_000


QUESTION = b'{"item_id": "cot", "relation": "new-parents"}'
REQUEST = (
    b"POST /retrieve HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(QUESTION), QUESTION)
)


@dataclass
class Tally:
    """Outcome of the requests of many clients."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    stopped: float = math.inf
    """Time at which the signal was sent."""


async def keep_asking(port: int, tally: Tally, most: int) -> None:
    """Send requests without a pause, `most` per connection, until no more connections can be opened."""
    while True:
        connected = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        for _ in range(most):
            try:
                writer.write(REQUEST)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"content-length: (\d+)", head)
                assert length
                await reader.readexactly(int(length[1]))
                assert head.startswith(b"http/1.1 200 "), head
                tally.answered += 1
                if b"connection: close" in head:
                    break
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if connected < tally.stopped:  # a later connection may be reset when the listener closes
                    tally.failed.append(repr(error))
                break
        writer.transport.abort()
        await asyncio.sleep(0)


async def stop_under_load(process: subprocess.Popen[str], port: int) -> Tally:
    tally = Tally()
    # The thread pool always accepts 16 jobs per thread. With more clients, a slow machine might reject some of them.
    clients = [asyncio.create_task(keep_asking(port, tally, most)) for most in [10**9] * 12 + [3] * 4]
    while tally.answered <= 200 and not tally.failed:
        await asyncio.sleep(0.01)
    tally.stopped = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    return tally


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_answers_every_sent_request_after_sigterm_under_load(shop: FakeShop, times: int) -> None:
    for _ in range(times):
        with start(shop.index) as process:
            url = re.findall(r"http://[\d.:]+", lines_until(process, "greetings from"))[0]
            try:
                tally = asyncio.run(stop_under_load(process, int(url.rpartition(":")[2])))
                assert process.wait(600) == -signal.SIGTERM
            finally:
                process.kill()
        assert tally.failed == []


def test_rejects_ten_megabyte_body_with_413_over_real_connection(shop: FakeShop) -> None:
    with start(shop.index) as process:
        url = re.findall(r"http://[\d.:]+", lines_until(process, "greetings from"))[0]
        headers = {"content-type": "application/json"}
        response = httpx.post(f"{url}/retrieve", content=b"x" * 10_000_000, headers=headers, timeout=600)
        assert (response.status_code, response.json()["status"]) == (413, 413)
        process.terminate()
        process.wait(600)


def test_exits_with_reason_if_index_cannot_be_opened(shop: FakeShop) -> None:
    code = "import sys; from service.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--index", str(shop.checkpoint), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "is a checkpoint, but an index is required" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_reports_port_in_use_immediately(shop: FakeShop, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--index", str(shop.index), "--port", str(port)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use. "
        "Stop the program that uses it, or choose another address with --host and --port."
    ]


def test_json_log_has_one_traceback_with_request_id_of_response(shop: FakeShop) -> None:
    with start(shop.index, "log_level=info") as process:
        shown = lines_until(process, "greetings from")
        url = re.findall(r"http://[\d.:]+", shown)[0]
        body = {"text": "bug", "relation": "gardeners"}
        answer = httpx.post(f"{url}/retrieve", json=body, headers={"X-Request-Id": "r-500"}, timeout=600)
        assert (answer.status_code, answer.json()["request_id"]) == (500, "r-500")
        assert httpx.get(f"{url}/items/red-mug", timeout=600).status_code == 200
        process.terminate()
        assert process.stderr is not None
        lines = [json.loads(line) for line in (shown + process.stderr.read()).splitlines()]
    of_failure = [line for line in lines if line.get("request_id") == "r-500"]
    assert [line["logger"] for line in of_failure] == ["rcml.requests", "uvicorn.error"]
    assert [line["level"] for line in of_failure] == ["error", "error"]
    assert "ZeroDivisionError: password=[hidden]" in of_failure[1]["traceback"]
    assert sum("traceback" in line for line in lines) == 1
    assert [line["message"] for line in lines if line["logger"] == "rcml.requests"] == [
        "POST /retrieve 500",
        "GET /items/{item_id} 200",
    ]


def test_text_log_has_plain_lines(shop: FakeShop) -> None:
    with start(shop.index, "log_format=text") as process:
        url = re.findall(r"http://[\d.:]+", lines_until(process, "^greetings from"))[0]
        httpx.get(f"{url}/items/red-mug", headers={"X-Request-Id": "r-1"}, timeout=600)
        shown = lines_until(process, "GET")
        process.terminate()
    assert re.search(
        r"^[\d:]{8} info     GET /items/{item_id} 200  path=/items/red-mug  ms=[\d.]+  bytes=\d+  request_id=r-1$",
        shown,
        re.MULTILINE,
    ), shown


def test_is_not_ready_immediately_after_stop_signal(engine: Engine) -> None:
    holder = EngineHolder(lambda: engine)
    asyncio.run(holder.run())
    server = server_of(FastAPI(), ServeConfig(index=Path("none")), [holder])
    with holder.held_fit() as fit:
        assert fit is engine
    server.handle_exit(signal.SIGTERM, None)
    with pytest.raises(NotReadyError, match="The server is stopping"), holder.held_fit():
        pass
    assert server.should_exit
    assert holder.engine is engine


def test_rejects_trace_without_opentelemetry_and_names_install_command(
    shop: FakeShop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    assert main(["serve", "--index", str(shop.index), "--trace"]) == 1
    assert "Run: pip install 'rcml[otel]'" in capsys.readouterr().err
