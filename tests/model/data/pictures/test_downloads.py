"""Downloads in bulk: limits for each host, connections that are kept, refusals, and resumption after a kill."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.rig.picture_server import picture_server, pictures
from model.data.pictures.downloads import DownloadLimits, download
from model.data.pictures.picture_cache import PictureCache
from tests.model.data.pictures.test_image_fetcher import ok

FAST = DownloadLimits(first_wait_s=0.01)
PICTURE = pictures()[0]
Answer = Callable[["Shop", str], Awaitable[bytes]]


class Shop:
    """Server on this machine that counts connections, requests and the most requests at once."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.running = 0
        self.most_at_once = 0
        self.asked: list[str] = []
        self.host = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                self.asked.append(path)
                self.running += 1
                self.most_at_once = max(self.most_at_once, self.running)
                writer.write(await self.answer(self, path))
                self.running -= 1
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def from_shop(
    answer: Answer, paths: list[str], folder: Path, limits: DownloadLimits = FAST
) -> tuple[Shop, set[str], list[str]]:
    """Download `paths` from a shop; return it, the stored addresses and the reasons of failures."""
    shop = Shop(answer)
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(shop.serve, "127.0.0.1", 0))
    shop.host = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        with PictureCache.open(folder, 32) as cache:
            failures = download([f"http://{shop.host}/{path}" for path in paths], cache, limits, [shop.host])
            stored = {address.rpartition("/")[2] for address in cache.files}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
    return shop, stored, [failure.reason for failure in failures]


async def picture(shop: Shop, path: str) -> bytes:
    await asyncio.sleep(0.005)
    return ok(PICTURE)


def test_connections_are_kept_and_limited_for_each_host(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(60)]
    shop, stored, failures = from_shop(picture, names, tmp_path, DownloadLimits(connections=8, per_host=3))
    assert (stored, failures) == (set(names), [])
    assert (shop.connections, shop.most_at_once) == (3, 3)


def test_connections_are_limited_in_all(tmp_path: Path) -> None:
    shop, _, _ = from_shop(picture, list("abcdefgh"), tmp_path, DownloadLimits(connections=2, per_host=8))
    assert shop.most_at_once == 2


def test_same_address_is_fetched_once(tmp_path: Path) -> None:
    shop, stored, _ = from_shop(picture, ["a", "a", "b", "a"], tmp_path)
    assert (sorted(shop.asked), stored) == (["/a", "/b"], {"a", "b"})


def test_host_that_refuses_everything_at_first_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    times: list[float] = []

    async def closed_for_a_second(shop: Shop, path: str) -> bytes:
        times.append(time.monotonic())
        if times[-1] - times[0] < 0.9:
            return b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
        return ok(PICTURE)

    names = [f"{number}" for number in range(40)]
    limits = DownloadLimits(connections=4, per_host=4, first_wait_s=0.01)
    _, stored, failures = from_shop(closed_for_a_second, names, tmp_path, limits)
    assert (stored, failures) == (set(names), [])
    early = [moment for moment in times if moment - times[0] < 0.9]
    assert len(early) <= 8  # those on the way when the host first refused, of 40


def test_date_in_retry_after_is_a_wait(tmp_path: Path) -> None:
    asked: list[float] = []

    async def refuse_once(shop: Shop, path: str) -> bytes:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return ok(PICTURE)
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return f"HTTP/1.1 503 Busy\r\nRetry-After: {until}\r\nContent-Length: 0\r\n\r\n".encode()

    _, stored, _ = from_shop(refuse_once, ["a"], tmp_path)
    assert stored == {"a"}
    assert asked[1] - asked[0] > 0.9  # dates have whole seconds


def test_idle_connection_that_the_server_closed_costs_no_try(tmp_path: Path) -> None:
    served = 0

    async def once(shop: Shop, path: str) -> bytes:
        nonlocal served
        if served == shop.connections:
            raise ConnectionResetError
        served += 1
        return ok(PICTURE)

    limits = DownloadLimits(connections=1, per_host=1, tries=1)
    _, stored, failures = from_shop(once, list("abcd"), tmp_path, limits)
    assert (stored, failures) == (set("abcd"), [])


def test_name_that_does_not_exist_fails_with_the_reason(tmp_path: Path) -> None:
    with PictureCache.open(tmp_path, 32) as cache:
        [failure] = download(["http://no-such-host.invalid/a.jpg"], cache, FAST)
    assert failure.host == "no-such-host.invalid"
    assert failure.reason == "its host name cannot be resolved"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/a.jpg", "http://[::1]/a.jpg", "http://169.254.169.254/a.jpg"]
)
def test_private_addresses_are_not_asked(address: str, tmp_path: Path) -> None:
    with PictureCache.open(tmp_path, 32) as cache:
        [failure] = download([address], cache, FAST, ["pictures.intranet"])
    assert (failure.reason, failure.tries) == ("its host has an address that is not public", 1)


KILLED = """
import sys
from pathlib import Path
from model.data.pictures.downloads import download
from model.data.pictures.picture_cache import PictureCache
host, folder = sys.argv[1:]
with PictureCache.open(Path(folder), 32) as cache:
    download([f"http://{host}/ok/{number}.jpg" for number in range(20_000)], cache, hosts=[host])
"""


def test_killed_run_keeps_what_it_has_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with picture_server() as host:
        run = subprocess.Popen([sys.executable, "-c", KILLED, host, str(tmp_path)])
        index = tmp_path / "addresses.jsonl"
        while not index.exists() or index.stat().st_size < 20_000:
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        written = index.read_bytes().count(b"\n")
        with PictureCache.open(tmp_path, 32) as cache:
            kept = list(cache.files)
            assert len(kept) == written > 50
            assert all(cache.read(address) for address in kept)
            missing = next(
                address
                for address in (f"http://{host}/ok/{number}.jpg" for number in range(20_000))
                if address not in cache.files
            )
            assert download([*kept, missing], cache, FAST, [host]) == []
        assert index.read_bytes().count(b"\n") == written + 1
