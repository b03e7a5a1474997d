"""Connection limits over real sockets: slow, idle, malformed and oversized requests among valid requests."""

import asyncio
import json
import random
import re
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from struct import pack
from typing import TypeVar

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.http.connection import Connection
from service.http.limits import BodyLimits, Deadlines, Limits
from service.http.server import Server

QUICK = Deadlines(
    head=0.5, idle=0.5, window=0.5, rate=1000, linger=0.2, last_call=0.2, grace=600, sweep=0.005
)
PATIENT = replace(QUICK, head=600, window=600, linger=600)
"""Long deadlines for clients that are not slow.

Only the idle time stays short: a client that has received all its responses is disconnected after 0.5 s.
"""

HANGS = 600.0
"""Seconds after which an operation counts as hanging, even on a slow machine."""

T = TypeVar("T")

LIMITS = Limits(BodyLimits(10_000, 30_000, 50_000), head=4_000, target=1_000, fields=20, pipeline=4)
ANSWER = bytes(32 * 2**20)
"""Response body that is too large for the socket buffers, so the server must wait until the client reads."""

HONEST = b"POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


GO_ON = threading.Event()
HELD: list[str] = []
"""Paths of the requests held since `GO_ON` was last cleared."""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    GO_ON.set()
    yield
    GO_ON.set()


def hold() -> None:
    """Hold requests from now on, until `GO_ON` is set."""
    HELD.clear()
    GO_ON.clear()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(HANGS):
        while not holds():
            await asyncio.sleep(0.001)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer according to the path.

    `/echo` returns the body and the number of header fields; `/answer` returns a large body. `/hold` waits until
    `GO_ON` is set, and `/block` blocks the event loop until then.
    """
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] in ("/hold", "/block"):
        HELD.append(scope["path"])
        while not GO_ON.is_set():
            if scope["path"] == "/block":
                GO_ON.wait(HANGS)
            await asyncio.sleep(0.002)
    if scope["path"] == "/answer":
        body = ANSWER
    headers = [(b"content-length", b"%d" % len(body)), (b"fields", b"%d" % len(scope["headers"]))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Clock:
    """Clock that advances only when a test advances it, so a slow machine does not matter."""

    now: float = 0.0
    looks: int = 0
    """Number of times the server has read the clock to sweep its connections."""

    def look(self) -> float:
        self.looks += 1
        return self.now


@dataclass(frozen=True)
class Running:
    """Server that runs in its own thread; it uses `clock` only if started by `ticking`."""

    server: uvicorn.Server
    port: int
    clock: Clock = field(default_factory=Clock)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def awaiting(self, stage: str, body: int = 0) -> int:
        """Return the number of connections in `stage` that have received at least `body` bytes of a body."""
        ours = [one for one in list(self.server.server_state.connections) if isinstance(one, Connection)]
        return sum(one.stage == stage and one.body_bytes >= body for one in ours)

    def _looked(self, times: int) -> bool:
        return self.clock.looks >= times

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock in small steps, with at least one sweep after each step."""
        for _ in range(round(seconds / STEP)):
            self.clock.now += STEP
            await until(partial(self._looked, self.clock.looks + 2))

    async def while_time_passes(self, asked: Awaitable[T]) -> T:
        """Advance the clock until an awaitable is done, and return its result."""
        task = asyncio.ensure_future(asked)
        async with asyncio.timeout(HANGS):
            while not task.done():
                self.clock.now += STEP
                await asyncio.sleep(0.01)
        return task.result()


STEP = 0.05


@contextmanager
def ticking(limits: Limits = LIMITS, deadlines: Deadlines = QUICK) -> Iterator[Running]:
    """Run a server whose clock advances only when the test advances it."""
    clock = Clock()
    server = Server(app, limits, deadlines, "critical", lambda: clock.now)
    server.clock = clock.look
    with running(server) as found:
        yield replace(found, clock=clock)


@contextmanager
def running(server: uvicorn.Server) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield Running(server, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def quick() -> Iterator[Running]:
    with running(Server(app, LIMITS, PATIENT, "critical")) as server:
        yield server


async def connect(port: int, kept: int = 4096) -> socket.socket:
    """Return a connected socket with a small receive buffer of about `kept` bytes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kept)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return everything received until the server closes or resets the connection."""
    heard = b""
    try:
        while some := await reader.read(2**16):
            heard += some
    except ConnectionError:
        pass
    return heard


async def hear(client: socket.socket) -> bytes:
    """Return everything received until the server closes the connection, then close the socket."""
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        return await rest(reader)
    finally:
        await hang_up(writer)


async def talk(port: int, *pieces: bytes, pause: float = 0.0, wait: float = HANGS) -> bytes:
    """Send the pieces with a pause between them, and return everything received until the server closes."""
    reader, writer = await asyncio.open_connection(sock=await connect(port))
    hearing = asyncio.create_task(rest(reader))
    try:
        async with asyncio.timeout(wait):
            for number, piece in enumerate(pieces):
                if hearing.done():
                    break
                if number and pause:
                    await asyncio.sleep(pause)
                writer.write(piece)
                try:
                    await writer.drain()
                except ConnectionError:
                    break
            return await hearing
    finally:
        hearing.cancel()
        await hang_up(writer)


async def ask(port: int) -> bytes:
    """Send one valid request and return the response."""
    return await talk(port, HONEST.replace(b"shop\r\n", b"shop\r\nConnection: close\r\n"))


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def problem(heard: bytes) -> dict[str, object]:
    """Return the problem document in the last response on the connection."""
    head, _, body = re.split(rb"HTTP/1\.1 (?=\d{3} )", heard)[-1].partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in fields
    assert b"connection: close" in fields
    assert b"content-length: %d" % len(body) in fields
    document: dict[str, object] = json.loads(body)
    assert document["status"] == int(head[:3])
    assert set(document) == {"type", "title", "status", "detail", "instance"}
    return document


ENDLESS = 10_000
SLOW: dict[str, tuple[list[bytes], list[int]]] = {
    "trickles its head": ([b"GET /echo HTTP/1.1\r\nHost: ", *[b"x"] * ENDLESS], [408]),
    "trickles its body": ([HONEST.replace(b"5", b"5000"), *[b"x"] * ENDLESS], [408]),
    "trickles its chunks": ([CHUNKED, *[b"1\r\nx\r\n"] * ENDLESS], [408]),
    "trickles a chunk's extension": ([CHUNKED + b"1;", *[b"x"] * ENDLESS], [408]),
    "sends nothing": ([], []),
    "sends nothing more": ([HONEST], [200]),
    "sends empty lines": ([b"\r\n"] * ENDLESS, []),
    "reads slowly": ([], [200]),
}
"""Behaviour of slow clients: the pieces that a client sends, with pauses between them, and the statuses it receives."""


async def be_slow(port: int, kind: str, pause: float, wait: float) -> list[int]:
    """Act as one slow client and return the statuses received until the server closes the connection.

    Raises:
        TimeoutError: The server did not close the connection within `wait` seconds.
    """
    if kind == "reads slowly":
        return statuses(await read_slowly(port, wait))
    pieces, _ = SLOW[kind]
    return statuses(await talk(port, *pieces, pause=pause, wait=wait))


async def read_slowly(port: int, wait: float, rate: int = 100, kept: int = 4096) -> bytes:
    """Read `rate` bytes per second until the server resets the connection, and return them."""
    loop = asyncio.get_running_loop()
    heard = b""
    with await connect(port, kept) as client:
        await loop.sock_sendall(client, b"GET /answer HTTP/1.1\r\nHost: shop\r\n\r\n")
        async with asyncio.timeout(wait):
            while client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                heard += await loop.sock_recv(client, rate // 10)
                await asyncio.sleep(0.1)
    return heard


async def besiege(
    port: int, kinds: Sequence[str], pause: float, wait: float
) -> tuple[list[list[int] | BaseException], list[list[int]]]:
    """Start 500 slow clients per second and send valid requests in the meantime.

    Returns the statuses, or the exception, of every slow client and the statuses of every valid request.
    """

    async def arrive(number: int) -> list[int]:
        await asyncio.sleep(number / 500)
        return await be_slow(port, kinds[number], pause, wait)

    siege = asyncio.gather(*map(arrive, range(len(kinds))), return_exceptions=True)
    honest = []
    while not siege.done():
        honest.append(statuses(await ask(port)))
        await asyncio.sleep(0.02)
    return await siege, honest


async def besiege_in_steps(
    server: Running, kind: str, count: int
) -> tuple[list[list[int]], list[list[int]], float]:
    """Run `count` slow clients and send valid requests while the clock advances.

    Returns the statuses of every slow client, the statuses of every valid request, and the time at which the last slow
    client was disconnected.
    """
    siege = [asyncio.create_task(be_slow(server.port, kind, 0.02, HANGS)) for _ in range(count)]
    await until(lambda: server.connections == count)
    if kind == "reads slowly":
        await until(lambda: server.awaiting("idle") == count)
    honest = []
    while not all(one.done() for one in siege):
        await server.pass_time(STEP)
        honest.append(statuses(await ask(server.port)))
        if server.clock.now > 4 * QUICK.window:
            await asyncio.wait(siege, timeout=HANGS)
    return [one.result() for one in siege], honest, server.clock.now


@pytest.mark.parametrize("kind", SLOW)
def test_disconnects_slow_clients_while_valid_requests_succeed(kind: str) -> None:
    with ticking() as server:
        slow, honest, ended = asyncio.run(besiege_in_steps(server, kind, 30))
    assert slow == [SLOW[kind][1]] * 30
    assert ended >= QUICK.window
    assert len(honest) >= QUICK.window / STEP - 1
    assert honest == [[200]] * len(honest)


@pytest.mark.soak
def test_disconnects_two_thousand_slow_clients_unlike_plain_uvicorn() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    trickling, idling = ["trickles its head", "trickles its body"], ["sends nothing", "reads slowly"]
    kinds = trickling * 500 + idling * 500
    with running(Server(app, log_level="critical")) as server:
        slow, honest = asyncio.run(besiege(server.port, kinds, 1.0, 10))
        assert slow == [SLOW[kind][1] for kind in kinds]
        assert len(honest) >= 50
        assert honest == [[200]] * len(honest)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    with running(uvicorn.Server(config)) as server:
        slow, _ = asyncio.run(besiege(server.port, kinds, 1.0, 12))
        assert all(isinstance(one, TimeoutError) for one in slow)


@pytest.mark.soak
def test_a_thousand_slow_clients_do_not_block_a_server_limited_to_a_hundred_connections() -> None:
    with running(Server(app, Limits(connections=100), log_level="critical")) as server:
        slow, honest = asyncio.run(besiege(server.port, ["trickles its head"] * 1000, 1.0, 10))
        assert not any(isinstance(one, BaseException) for one in slow)
        assert honest == [[200]] * len(honest)
    config = uvicorn.Config(app, log_level="critical", limit_concurrency=100, timeout_graceful_shutdown=1)
    with running(uvicorn.Server(config)) as server:
        _, honest = asyncio.run(besiege(server.port, ["trickles its head"] * 1000, 1.0, 3))
        assert [503] in honest


def test_a_slow_client_receives_the_reason() -> None:
    async def late(server: Running, sent: bytes, stage: str) -> bytes:
        heard = asyncio.create_task(talk(server.port, sent))
        await until(lambda: server.awaiting(stage) == 1)
        return await server.while_time_passes(heard)

    with ticking() as server:
        heard = asyncio.run(late(server, b"GET /echo?k=1 HTTP/1.1\r\nHost", "head"))
        assert (
            problem(heard)["detail"]
            == "The header fields took longer than 0.5 s to arrive. Send them faster."
        )
        heard = asyncio.run(late(server, HONEST[:-1], "body"))
        assert problem(heard)["detail"] == "The body arrived at less than 1000 bytes/s. Send it faster."
        assert problem(heard)["instance"] == "/echo"


def test_a_body_that_arrives_steadily_may_take_long() -> None:
    request = HONEST.replace(b"5\r\n", b"6000\r\nConnection: close\r\n").removesuffix(b"hello")

    async def steadily(server: Running) -> bytes:
        def awaits_more(sent: int) -> bool:
            return server.awaiting("body", sent) == 1

        reader, writer = await asyncio.open_connection(sock=await connect(server.port))
        writer.write(request)
        for number in range(1, 30):
            writer.write(b"x" * 200)
            await until(partial(awaits_more, 200 * number))
            await server.pass_time(STEP)
        writer.write(b"x" * 200)
        heard = await rest(reader)
        await hang_up(writer)
        return heard

    with ticking() as server:
        heard = asyncio.run(steadily(server))
        assert server.clock.now > 2 * QUICK.window
    assert statuses(heard) == [200]
    assert heard.endswith(b"x" * 6000)


def test_a_response_that_is_read_steadily_may_take_long() -> None:
    async def steadily(server: Running) -> int:
        loop = asyncio.get_running_loop()
        with await connect(server.port, 2**18) as client:
            await loop.sock_sendall(client, b"GET /answer HTTP/1.1\r\nHost: shop\r\n\r\n")
            heard = 0
            while server.clock.now < 3 * QUICK.window:
                for _ in range(4):
                    heard += len(await loop.sock_recv(client, 50_000))
                await server.pass_time(STEP)
            assert server.connections == 1  # still connected
            while heard < len(ANSWER):
                heard += len(await loop.sock_recv(client, 2**20))
            return heard

    with ticking(deadlines=replace(QUICK, rate=20_000)) as server:
        assert asyncio.run(steadily(server)) >= len(ANSWER)


async def answered(reader: asyncio.StreamReader) -> bytes:
    """Return the next response to a valid request."""
    return await reader.readuntil(b"hello")


def test_a_connection_in_use_may_outlast_every_deadline() -> None:
    async def follow(server: Running) -> bytes:
        reader, writer = await asyncio.open_connection(sock=await connect(server.port))
        heard = b""
        for _ in range(8):
            writer.write(HONEST)
            heard += await answered(reader)
            await server.pass_time(0.2)
        assert server.connections == 1
        await hang_up(writer)
        return heard

    with ticking() as server:
        assert statuses(asyncio.run(follow(server))) == [200] * 8
        assert server.clock.now > 3 * QUICK.idle


def test_the_idle_time_starts_after_the_response() -> None:
    held = b"GET /hold HTTP/1.1\r\nHost: shop\r\n\r\n"

    async def wait_and_ask(server: Running) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(sock=await connect(server.port))
        hold()
        writer.write(held * 4)
        await until(lambda: bool(HELD))
        await server.pass_time(2 * QUICK.idle)  # waiting for a response does not count as idle
        GO_ON.set()
        heard = b"".join([await reader.readuntil(b"\r\n\r\n") for _ in range(4)])
        await server.pass_time(QUICK.idle / 2)
        writer.write(HONEST)
        heard += await answered(reader)
        left = await server.while_time_passes(rest(reader))
        await hang_up(writer)
        return heard, left

    with ticking() as server:
        heard, left = asyncio.run(wait_and_ask(server))
    assert statuses(heard) == [200] * 5
    assert left == b""


def test_closes_the_oldest_connections_without_a_complete_request_if_too_many_are_open() -> None:
    async def crowd(port: int) -> list[bytes]:
        begun = [asyncio.create_task(talk(port, b"GET /echo HTTP/1.1\r\nHost: x")) for _ in range(50)]
        await until(lambda: sum(one.done() for one in begun) >= 30)
        # A sweep dates the progress that it finds. If it found theirs now, the next client would be the oldest.
        await until(lambda: server.awaiting("head") == 20)
        await server.pass_time(2 * STEP)
        assert server.connections <= 20
        answers = [await ask(port) for _ in range(50)]
        assert server.connections <= 20
        told = [await one for one in begun if one.done()]
        assert len(told) >= 30
        # The server sends no response if it closes the connection before it has read any bytes.
        assert all(statuses(one) in ([408], []) for one in told)
        for one in begun:
            one.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        return answers

    patient = replace(PATIENT, idle=600)
    with ticking(replace(LIMITS, connections=20), patient) as server:
        assert [statuses(one) for one in asyncio.run(crowd(server.port))] == [[200]] * 50


def test_never_closes_a_connection_that_waits_for_a_response() -> None:
    async def crowd(server: Running) -> tuple[list[bytes], bytes]:
        held = b"GET /hold HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
        hold()
        holding = [asyncio.create_task(talk(server.port, held)) for _ in range(4)]
        await until(lambda: len(HELD) == 4)
        other = await ask(server.port)
        assert not any(one.done() for one in holding)
        GO_ON.set()
        return await asyncio.gather(*holding), other

    with ticking(replace(LIMITS, connections=4)) as server:
        answers, other = asyncio.run(crowd(server))
        assert [statuses(one) for one in answers] == [[200]] * 4
        # The result depends on what the server had read when the limit was exceeded.
        assert statuses(other) in ([200], [408], [])


def test_an_earlier_request_of_a_client_that_left_ends_without_an_error() -> None:
    ended: list[Exception | None] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            ended.append(error)
            raise
        if scope["type"] == "http":
            ended.append(None)

    async def leave(server: Running) -> None:
        hold()
        client = await connect(server.port)
        await asyncio.get_running_loop().sock_sendall(client, b"GET /hold HTTP/1.1\r\nHost: shop\r\n\r\n" * 2)
        await until(lambda: len(HELD) == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        client.close()
        await until(lambda: server.connections == 0)
        GO_ON.set()
        await until(lambda: len(ended) == 1)

    with running(Server(watched, LIMITS, PATIENT, "critical")) as server:
        asyncio.run(leave(server))
    assert ended == [None]


PIPELINED = HONEST * 3


async def stop_while_blocked(running: Running, pipelined: bool) -> list[list[int]]:
    """Send requests while the server's event loop is blocked, then stop the server.

    The requests arrive on kept-alive connections, on new ones, and on one that has already received part of a request.

    Returns the statuses that each client received.
    """
    kept = [await connect(running.port) for _ in range(10)]
    loop = asyncio.get_running_loop()
    for client in kept:  # every connection has already received one response
        await loop.sock_sendall(client, HONEST)
        assert statuses(await loop.sock_recv(client, 2**16)) == [200]
    begun = await connect(running.port)
    await loop.sock_sendall(begun, HONEST.removesuffix(b"llo"))
    await until(lambda: running.awaiting("body") == 1)
    hold()
    blocked = asyncio.create_task(talk(running.port, HONEST.replace(b"echo", b"block")))
    await until(lambda: bool(HELD))
    for client in kept:
        await loop.sock_sendall(client, PIPELINED if pipelined else HONEST)
    new = [await connect(running.port) for _ in range(10)]
    for client in new:
        await loop.sock_sendall(client, HONEST)
    running.server.should_exit = True
    GO_ON.set()
    await loop.sock_sendall(begun, b"llo")
    heard = asyncio.gather(blocked, *map(hear, [begun, *new, *kept]))
    return [statuses(one) for one in await running.while_time_passes(heard)]


@pytest.mark.parametrize("pipelined", [False, True])
def test_answers_every_request_that_arrived_before_the_stop(pipelined: bool) -> None:
    with ticking() as server:
        heard = asyncio.run(stop_while_blocked(server, pipelined))
    assert heard == [[200]] * 12 + [[200] * (3 if pipelined else 1)] * 10


def test_only_the_last_response_has_connection_close() -> None:
    async def stop(running: Running) -> tuple[bytes, bytes]:
        idle = asyncio.create_task(talk(running.port, HONEST))
        reader, writer = await asyncio.open_connection(sock=await connect(running.port))
        active = b""
        for _ in range(3):
            writer.write(HONEST)
            active += await answered(reader)
        await until(lambda: running.server.server_state.total_requests == 4)
        running.server.should_exit = True
        while b"connection: close" not in active:
            writer.write(HONEST)
            active += await answered(reader)
        active += await rest(reader)
        await hang_up(writer)
        return await running.while_time_passes(idle), active

    with ticking(deadlines=replace(QUICK, idle=60)) as server:
        idle, active = asyncio.run(stop(server))
    assert statuses(idle) == [200]
    assert b"connection: close" not in idle
    assert len(statuses(active)) >= 4
    assert active.count(b"connection: close") == 1
    assert b"connection: close" in active.rpartition(b"HTTP/1.1 200")[2]


class SlowToOpen(Server):
    """Server that opens an accepted connection only once it shuts down."""

    stopping = False

    async def open(self, client: socket.socket) -> None:
        while not self.stopping:
            await asyncio.sleep(0.001)
        await super().open(client)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stopping = True
        await super().shutdown(sockets)


def test_connection_that_opens_during_the_stop_is_closed_after_a_response() -> None:
    async def ask(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: server.settings.accepted == 1)
        server.should_exit = True
        heard: list[bytes] = []
        while len(heard) < 20 and not (heard and b"connection: close" in heard[-1]):
            writer.write(HONEST)
            heard.append(await answered(reader))
        await hang_up(writer)
        return heard

    server = SlowToOpen(app, LIMITS, PATIENT, "critical")
    with running(server) as found:
        heard = asyncio.run(ask(found.port))
    assert all(statuses(one) == [200] for one in heard)
    assert b"connection: close" in heard[-1]


MALFORMED = {
    "two lengths": HONEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    "a list of lengths": HONEST.replace(b": 5", b": 5, 5"),
    "a negative length": HONEST.replace(b": 5", b": -5"),
    "a signed length": HONEST.replace(b": 5", b": +5"),
    "a length of many digits": HONEST.replace(b": 5", b": " + b"9" * 99),
    "a length and chunks": HONEST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks and a length": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    "another transfer encoding": CHUNKED.replace(b"chunked", b"gzip, chunked"),
    "chunked before another encoding": CHUNKED.replace(b"chunked", b"chunked, gzip"),
    "chunks in HTTP/1.0": CHUNKED.replace(b"/1.1", b"/1.0") + b"0\r\n\r\n",
    "a chunk size with a 0x prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk of 2**70 bytes": CHUNKED + b"400000000000000000\r\n",
    "a chunk that ends in a line feed": CHUNKED + b"5\nhello\n0\n\n",
    "bare line feeds": HONEST.replace(b"\r\n", b"\n"),
    "a line feed within a head": HONEST.replace(b"shop\r\n", b"shop\n"),
    "a carriage return within a field": HONEST.replace(b"shop", b"sh\rX: op"),
    "a folded field": HONEST.replace(b"shop", b"sh\r\n op"),
    "a blank before a colon": HONEST.replace(b"Host:", b"Host :"),
    "a zero byte": HONEST.replace(b"shop", b"sh\0op"),
    "no host": HONEST.replace(b"Host: shop\r\n", b""),
    "two hosts": HONEST.replace(b"Host: shop\r\n", b"Host: shop\r\nHost: shop\r\n"),
    "another version": HONEST.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "no version": b"GET /echo\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "an unknown method": HONEST.replace(b"POST", b"PSOT"),
    "a CONNECT request": b"CONNECT shop:80 HTTP/1.1\r\nHost: shop\r\n\r\n",
    "a CONNECT request for a path": b"CONNECT /echo HTTP/1.1\r\nHost: shop\r\n\r\n",
    "a target without a path": HONEST.replace(b"/echo", b"http://shop"),
    "a target that is not ASCII": HONEST.replace(b"/echo", "/écho".encode()),
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
def test_rejects_malformed_requests(quick: Running, request_: bytes) -> None:
    document = problem(asyncio.run(talk(quick.port, request_)))
    assert document["status"] == 400
    assert str(document["detail"]).startswith("The request violates HTTP/1.1 (RFC 9112): ")


TOO_LARGE = {
    "a long target": (414, HONEST.replace(b"echo", b"e" * 1_000)),
    "an endless target": (414, b"GET /" + b"e" * 2**20),
    "long fields": (431, HONEST.replace(b"shop", b"shop\r\nA: " + b"a" * 2_000 + b"\r\nB: " + b"b" * 2_000)),
    "many fields": (431, HONEST.replace(b"shop", b"shop" + b"\r\nA: a" * 20)),
    "an endless field": (431, b"GET / HTTP/1.1\r\nHost: " + b"h" * 2**20),
    "a long body": (413, HONEST.replace(b": 5", b": 200000000")),
    "a body of many chunks": (413, CHUNKED + (b"3e8\r\n" + b"x" * 1_000 + b"\r\n") * 11),
    "chunks with long extensions": (400, CHUNKED + (b"1;" + b"e" * 30_000 + b"\r\nx\r\n") * 20),
    "long trailers": (400, CHUNKED + b"0\r\nT: " + b"t" * 2**20),
}


@pytest.mark.parametrize(("status", "request_"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_rejects_requests_that_are_too_large(quick: Running, status: int, request_: bytes) -> None:
    heard = asyncio.run(talk(quick.port, request_))
    assert problem(heard)["status"] == status
    assert len(heard) < 1_000


def test_rejects_a_long_body_instead_of_sending_100_continue(quick: Running) -> None:
    expecting = HONEST.replace(b": 5", b": 10001\r\nExpect: 100-continue").removesuffix(b"hello")
    heard = asyncio.run(talk(quick.port, expecting))
    assert statuses(heard) == [413]
    assert (
        problem(heard)["detail"] == "The body is longer than the limit of 10000 bytes. Send a shorter body."
    )


def test_accepts_a_body_as_long_as_the_limit(quick: Running) -> None:
    body = b"x" * 10_000
    request = HONEST.replace(b": 5", b": 10000\r\nConnection: close").removesuffix(b"hello")
    assert statuses(asyncio.run(talk(quick.port, request + body))) == [200]


BULK = HONEST.replace(b"/echo", b"/items/bulk").removesuffix(b"hello")


@pytest.mark.parametrize(
    "target", [b"/items/bulk", b"/items/bulk?x=/", b"/items/%62ulk", b"http://shop/items/bulk"]
)
def test_a_bulk_upload_has_its_own_limit(quick: Running, target: bytes) -> None:
    for declared, length, status in ((True, 50_000, 200), (True, 50_001, 413), (False, 50_001, 413)):
        request = BULK.replace(b"/items/bulk", target)
        if declared:
            request = request.replace(b": 5", b": %d\r\nConnection: close" % length) + b"x" * length
        else:
            request = CHUNKED.replace(b"/echo", target) + b"%x\r\n" % length + b"x" * length
        heard = asyncio.run(talk(quick.port, request))
        assert statuses(heard) == [status]
        if status == 413:
            assert "limit of 50000 bytes" in str(problem(heard)["detail"])


@pytest.mark.parametrize(
    "target", [b"/items/bulk/", b"/items/bulks", b"/echo?/items/bulk", b"/items/bulk%2F"]
)
def test_no_other_target_has_the_limit_of_bulk_uploads(quick: Running, target: bytes) -> None:
    request = BULK.replace(b"/items/bulk", target).replace(b": 5", b": 10001")
    assert statuses(asyncio.run(talk(quick.port, request))) == [413]
    put = BULK.replace(b"POST", b"PUT").replace(b": 5", b": 10001")
    assert statuses(asyncio.run(talk(quick.port, put))) == [413]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    ("media_type", "longest"), [(b"multipart/form-data", 30_000), (b"image/png", 10_000)]
)
def test_limit_of_a_body_depends_on_its_media_type(
    quick: Running, declared: bool, media_type: bytes, longest: int
) -> None:
    def upload(length: int) -> bytes:
        fields = b"\r\nConnection: close\r\nContent-Type: " + media_type
        if declared:
            head = HONEST.removesuffix(b"hello").replace(b": 5", b": %d" % length + fields)
            return head + b"x" * length
        head = CHUNKED.replace(b": chunked", b": chunked" + fields)
        return head + b"%x\r\n" % length + b"x" * length + b"\r\n0\r\n\r\n"

    assert statuses(asyncio.run(talk(quick.port, upload(longest)))) == [200]
    heard = asyncio.run(talk(quick.port, upload(longest + 1)))
    assert statuses(heard) == [413]
    assert f"limit of {longest} bytes" in str(problem(heard)["detail"])


def test_stops_reading_a_bulk_upload_soon_after_the_response() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    async def pieces_until_closed(server: Running) -> int:
        def taken_or_closed(so_far: int) -> bool:
            return closed.done() or server.awaiting("body", so_far) == 1

        reader, writer = await asyncio.open_connection(sock=await connect(server.port))
        writer.write(BULK.replace(b": 5", b": 50000"))
        assert b"401" in await reader.readuntil(b"\r\n\r\n")
        closed = asyncio.create_task(reader.read())
        for sent in range(16):
            if closed.done():
                break
            writer.write(b"x" * 3_000)
            await until(partial(taken_or_closed, 3_000 * (sent + 1)))
        closed.cancel()
        await hang_up(writer)
        return sent

    with running(Server(refuse, LIMITS, PATIENT, "critical")) as server:
        assert asyncio.run(pieces_until_closed(server)) < 8


def test_answers_earlier_requests_before_rejecting_a_malformed_one(quick: Running) -> None:
    held = b"GET /hold HTTP/1.1\r\nHost: shop\r\n\r\n"

    async def ask_and_break(broken: bytes) -> bytes:
        hold()
        heard = asyncio.create_task(talk(quick.port, held + HONEST + broken))
        await until(lambda: bool(HELD))
        GO_ON.set()
        return await heard

    assert statuses(asyncio.run(ask_and_break(b"nonsense\r\n\r\n"))) == [200, 200, 400]
    assert statuses(asyncio.run(ask_and_break(CHUNKED + b"nonsense\r\n\r\n"))) == [200, 200, 400]


def test_limits_the_requests_that_wait_on_a_connection(quick: Running) -> None:
    heard = asyncio.run(talk(quick.port, HONEST * 100))
    assert statuses(heard) == [200] * 5 + [429]
    assert b"\r\nretry-after: 1\r\n" in heard


def test_ignores_an_offer_to_switch_protocols(quick: Running) -> None:
    offer = b"shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA"
    heard = asyncio.run(talk(quick.port, HONEST.replace(b"shop", offer) + HONEST))
    assert statuses(heard) == [200, 200]
    assert heard.count(b"\r\n\r\nhello") == 2
    heard = asyncio.run(
        talk(quick.port, HONEST.replace(b"shop", offer).removesuffix(b"llo"), b"llo", pause=0.1)
    )
    assert heard.endswith(b"\r\n\r\nhello")


def test_trailers_do_not_become_headers(quick: Running) -> None:
    heard = asyncio.run(talk(quick.port, CHUNKED + b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"))
    assert statuses(heard) == [200]
    assert b"\r\nfields: 2\r\n" in heard


@pytest.mark.parametrize(
    "count", [300, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_mutated_requests_are_answered_or_rejected_and_never_hang(count: int) -> None:
    async def campaign(port: int) -> list[bytes]:
        chance = random.Random(5)
        mutants = iter([mutant(chance) for _ in range(count)])
        heard: list[bytes] = []

        async def work() -> None:
            for one in mutants:
                heard.append(await talk(port, one))  # noqa: PERF401 (the workers share `mutants`)

        await asyncio.gather(*(work() for _ in range(50)))
        return heard

    at_once = replace(QUICK, head=0.3, idle=0.3, window=0.3)
    with running(Server(app, LIMITS, at_once, "critical")) as server:
        heard = asyncio.run(campaign(server.port))
        assert len(heard) == count
        seen = {status for one in heard for status in statuses(one)}
        assert max(seen) < 500
        assert {200, 400, 408} <= seen
        assert not any(b"Traceback" in one or b".py" in one or b"/work" in one for one in heard)
        assert statuses(asyncio.run(ask(server.port))) == [200]


SEEDS = [
    HONEST,
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    b"GET /echo?k=1 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nAccept: */*\r\n\r\n",
    HONEST.replace(b"shop", b"shop\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: websocket"),
]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-1", b"99999999999999999999", b"\xff", b"%00",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Host: b\r\n", b"HTTP/1.0",
    b"HEAD", b"CONNECT", b"OPTIONS * ", b"http://", b"0\r\n\r\n", b"A: " + b"a" * 5_000 + b"\r\n",
]  # fmt: skip


def mutant(chance: random.Random, seeds: Sequence[bytes] = SEEDS) -> bytes:
    """Return one of the seeds with one to four mutations: inserted pieces, random bytes, or repeated parts."""
    raw = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        until = min(len(raw), at + chance.randint(1, 12))
        match chance.randrange(4):
            case 0:
                raw[at:at] = chance.choice(PIECES)
            case 1:
                raw[at:until] = chance.choice(PIECES)
            case 2:
                raw[at:until] = chance.randbytes(until - at)
            case _:
                raw[at:at] = raw[at:until] * chance.randint(0, 3)
    return bytes(raw)
