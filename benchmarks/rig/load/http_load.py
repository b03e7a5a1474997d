"""HTTP/1.1 load over loopback: one process sends prepared requests and times the responses.

A closed loop keeps a fixed number of connections busy, which measures the capacity of the server. An open loop sends
requests at a fixed rate and does not wait for earlier responses, as independent users do. It shows what happens under
overload. `load_processes.py` shares a loop among several processes, for servers that answer more than one can ask.

Responses are handled in the callback of the connection, without a task or a future for each request: the client takes
the processor time that it uses from the server if both share their cores.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self, cast

import numpy as np
import uvloop

HOST = "127.0.0.1"

PATIENCE_S = 10.0
"""Seconds after the last request of an open loop within which a response counts."""


def request(path: str, body: bytes) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


@dataclass
class Outcome:
    """Outcome of a series of requests; `took` lists the seconds until each response, by status.

    Status 0 stands for a lost connection or a request that was not sent.
    """

    seconds: float
    took: dict[int, list[float]] = field(default_factory=dict)
    retry_after: int = 0
    """Number of responses with a Retry-After header."""
    late: list[float] = field(default_factory=list)
    """Seconds by which the client itself was late in sending each request of an open loop."""
    client_cores: float = 0.0
    """Processor time of the client processes per second of the series."""
    server_cores: float = 0.0
    """The same of the server process, if the caller has measured it."""

    def add(self, status: int, seconds: float, retry_after: bool = False) -> None:
        """Record one request."""
        self.took.setdefault(status, []).append(seconds)
        self.retry_after += retry_after

    @classmethod
    def merged(cls, parts: Iterable[Self]) -> Self:
        """Return the outcome of several processes that sent parts of one load at the same time."""
        whole = cls(0.0)
        for part in parts:
            whole.seconds = max(whole.seconds, part.seconds)
            for status, took in part.took.items():
                whole.took.setdefault(status, []).extend(took)
            whole.retry_after += part.retry_after
            whole.late += part.late
            whole.client_cores += part.client_cores
        return whole

    @property
    def statuses(self) -> Counter[int]:
        """Number of requests by status."""
        return Counter({status: len(took) for status, took in self.took.items()})

    @property
    def rate(self) -> float:
        """Number of responses with status 200 per second."""
        return len(self.took.get(200, ())) / self.seconds

    def quantile(self, share: float, *statuses: int) -> float:
        """Return the quantile `share` (0 to 1) of the response times in seconds.

        Only responses with the given `statuses` count (default: 200). If there are none, the result is NaN.
        """
        took = [one for status in statuses or (200,) for one in self.took.get(status, ())]
        return float(np.quantile(took, share)) if took else float("nan")


Answered = Callable[["_Client", int, bool], None]
"""Function that takes a connection, the status of a response, and whether the response has a Retry-After header."""


class _Client(asyncio.Protocol):
    """Connection that sends one request at a time."""

    def __init__(self, answered: Answered) -> None:
        self._buffer = b""
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._waits = False
        self.sent = 0.0
        """Time at which the latest request was sent."""

    @classmethod
    async def connect(cls, port: int, answered: Answered) -> Self:
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(answered), HOST, port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._answer(0, False)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        _, _, length = lowered.partition(b"content-length: ")
        if len(body) >= int(length.split(b"\r\n", 1)[0]):
            self._buffer = b""
            if b"\r\nconnection: close" in lowered:
                self.close()
            self._answer(int(head[9:12]), b"\r\nretry-after:" in lowered)

    def _answer(self, status: int, again: bool) -> None:
        if self._waits:
            self._waits = False
            self._answered(self, status, again)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, message: bytes) -> None:
        """Send a request on an open connection; `answered` is called with the response, or with status 0."""
        assert self._transport is not None
        self._waits = True
        self.sent = time.perf_counter()
        self._transport.write(message)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


async def _at_once() -> None:
    """Begin as soon as all connections are open."""


def closed_loop(
    port: int,
    messages: Sequence[bytes],
    connections: int,
    seconds: float,
    begin: Callable[[], Awaitable[None]] = _at_once,
) -> Outcome:
    """Keep `connections` connections busy for `seconds` seconds, once they are open and `begin` has returned."""
    begun = time.process_time()
    outcome = uvloop.run(_ClosedLoop(port, messages, seconds).run(connections, begin))
    outcome.client_cores = (time.process_time() - begun) / seconds
    return outcome


class _ClosedLoop:
    """Closed loop in progress: each connection asks again as soon as it has its response."""

    def __init__(self, port: int, messages: Sequence[bytes], seconds: float) -> None:
        self._outcome = Outcome(seconds)
        self._port = port
        self._source = cycle(messages)
        self._until = 0.0
        self._busy = 0
        self._ended = asyncio.Event()

    async def run(self, connections: int, begin: Callable[[], Awaitable[None]]) -> Outcome:
        clients = [await _Client.connect(self._port, self._answered) for _ in range(connections)]
        await begin()
        self._until = time.perf_counter() + self._outcome.seconds
        self._busy = len(clients)
        async with asyncio.TaskGroup() as self._tasks:
            for client in clients:
                self._ask(client)
            await self._ended.wait()
        return self._outcome

    def _ask(self, client: _Client) -> None:
        if client.open:
            client.ask(next(self._source))
        else:
            self._tasks.create_task(self._replace())

    async def _replace(self) -> None:
        self._ask(await _Client.connect(self._port, self._answered))

    def _answered(self, client: _Client, status: int, again: bool) -> None:
        now = time.perf_counter()
        self._outcome.add(status, now - client.sent, again)
        if now < self._until:
            self._ask(client)
            return
        client.close()
        self._busy -= 1
        if not self._busy:
            self._ended.set()


def open_loop(
    port: int,
    messages: Sequence[bytes],
    rate: float,
    seconds: float,
    most: int = 2_000,
    opened: int = 0,
    begin: Callable[[], Awaitable[None]] = _at_once,
    phase: float = 0.0,
) -> Outcome:
    """Send `rate` requests per second for `seconds` seconds, each on a free connection or a new one.

    `opened` connections are opened beforehand, and the one that was free for longest is used, as by independent users.
    The requests begin once `begin` has returned and `phase` of the time between two of them has passed. At most `most`
    requests are in flight. Requests beyond this maximum are not sent and count as status 0, as do requests without a
    response 10 s after the last one was sent. Response times are measured from the moment at which a request is sent.
    `Outcome.late` records how late it was sent.
    """
    begun = time.process_time()
    outcome = uvloop.run(_OpenLoop(port, messages, rate, seconds, most).run(opened, begin, phase))
    outcome.client_cores = (time.process_time() - begun) / seconds
    return outcome


class _OpenLoop:
    """Open loop in progress: requests are sent when they are due."""

    def __init__(self, port: int, messages: Sequence[bytes], rate: float, seconds: float, most: int) -> None:
        self._outcome = Outcome(seconds)
        self._port = port
        self._messages = messages
        self._rate = rate
        self._most = most
        self._free: deque[_Client] = deque()
        self._asking = 0
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, opened: int, begin: Callable[[], Awaitable[None]], phase: float) -> Outcome:
        self._free.extend([await _Client.connect(self._port, self._answered) for _ in range(opened)])
        await begin()
        begun = time.perf_counter() + phase / self._rate
        for number, message in zip(range(int(self._rate * self._outcome.seconds)), cycle(self._messages)):
            due = begun + number / self._rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if self._asking < self._most:
                self._send(message, due)
            else:
                self._outcome.add(0, 0.0)  # not sent, because it would have to wait for a connection
        until = time.perf_counter() + PATIENCE_S
        while self._asking and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        for _ in range(self._asking):
            self._outcome.add(0, PATIENCE_S)
        for client in self._free:
            client.close()
        return self._outcome

    def _send(self, message: bytes, due: float) -> None:
        self._asking += 1
        client = self._free.popleft() if self._free else None
        if client is not None and client.open:  # otherwise the server has closed it meanwhile
            self._ask(client, message, due)
            return
        task = asyncio.create_task(self._connect(message, due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, message: bytes, due: float) -> None:
        try:
            client = await _Client.connect(self._port, self._answered)
        except OSError:
            self._asking -= 1
            self._outcome.add(0, time.perf_counter() - due)
        else:
            self._ask(client, message, due)

    def _ask(self, client: _Client, message: bytes, due: float) -> None:
        client.ask(message)
        self._outcome.late.append(client.sent - due)

    def _answered(self, client: _Client, status: int, again: bool) -> None:
        self._asking -= 1
        self._outcome.add(status, time.perf_counter() - client.sent, again)
        if client.open:
            self._free.append(client)
