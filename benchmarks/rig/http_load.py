"""HTTP/1.1 load over loopback: one process sends prepared requests and times the responses.

A closed loop keeps a fixed number of connections busy, which measures the capacity of the server. An open loop sends
requests at a fixed rate and does not wait for earlier responses, as independent users do. It shows what happens under
overload.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import numpy as np
import uvloop

HOST = "127.0.0.1"


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
    """Processor time of the client process per second of the series."""
    server_cores: float = 0.0
    """The same of the server process, if the caller has measured it."""

    def add(self, status: int, seconds: float, retry_after: bool = False) -> None:
        """Record one request."""
        self.took.setdefault(status, []).append(seconds)
        self.retry_after += retry_after

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


class _Client(asyncio.Protocol):
    """Connection that sends one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answered: asyncio.Future[tuple[int, bool]] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, port: int) -> "_Client":
        _, client = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_result((0, False))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        _, _, length = lowered.partition(b"content-length: ")
        if len(body) >= int(length.split(b"\r\n", 1)[0]):
            self._buffer = b""
            if b"\r\nconnection: close" in lowered and self._transport is not None:
                self._transport.close()
                self._transport = None
            if self._answered is not None and not self._answered.done():
                self._answered.set_result((int(head[9:12]), b"\r\nretry-after:" in lowered))

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, message: bytes) -> tuple[int, bool]:
        """Send a request; return the status and whether the response has a Retry-After header."""
        self._answered = asyncio.get_running_loop().create_future()
        if self._transport is None:
            return 0, False
        self._transport.write(message)
        return await self._answered

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def closed_loop(port: int, messages: Sequence[bytes], connections: int, seconds: float) -> Outcome:
    """Keep `connections` connections busy for `seconds` seconds."""
    begun = time.process_time()
    outcome = uvloop.run(_closed_loop(port, messages, connections, seconds))
    outcome.client_cores = (time.process_time() - begun) / seconds
    return outcome


async def _closed_loop(port: int, messages: Sequence[bytes], connections: int, seconds: float) -> Outcome:
    outcome = Outcome(seconds)
    source = cycle(messages)
    clients = [await _Client.connect(port) for _ in range(connections)]
    until = time.perf_counter() + seconds

    async def keep_busy(client: _Client) -> None:
        while (begun := time.perf_counter()) < until:
            if not client.open:
                client = await _Client.connect(port)
            status, again = await client.ask(next(source))
            outcome.add(status, time.perf_counter() - begun, again)
        client.close()

    await asyncio.gather(*map(keep_busy, clients))
    return outcome


def open_loop(
    port: int, messages: Sequence[bytes], rate: float, seconds: float, most: int = 2_000, opened: int = 0
) -> Outcome:
    """Send `rate` requests per second for `seconds` seconds, each on a free connection or a new one.

    `opened` connections are opened beforehand, and the one that was free for longest is used, as by independent users.
    At most `most` requests are in flight. Requests beyond this maximum are not sent and count as status 0. Response
    times are measured from the moment at which a request is sent. `Outcome.late` records how late it was sent.
    """
    begun = time.process_time()
    outcome = uvloop.run(_open_loop(port, messages, rate, seconds, most, opened))
    outcome.client_cores = (time.process_time() - begun) / seconds
    return outcome


async def _open_loop(
    port: int, messages: Sequence[bytes], rate: float, seconds: float, most: int, opened: int
) -> Outcome:
    outcome = Outcome(seconds)
    free = deque([await _Client.connect(port) for _ in range(opened)])
    tasks: set[asyncio.Task[None]] = set()

    async def ask(message: bytes, due: float) -> None:
        try:
            client = free.popleft() if free else await _Client.connect(port)
            if not client.open:  # the server has closed it meanwhile
                client = await _Client.connect(port)
            sent = time.perf_counter()
            outcome.late.append(sent - due)
            status, again = await client.ask(message)
        except OSError:
            sent, status, again = due, 0, False
        else:
            if client.open:
                free.append(client)
        outcome.add(status, time.perf_counter() - sent, again)

    begun = time.perf_counter()
    for message, due in zip(cycle(messages), _due(begun, rate, seconds), strict=False):
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if len(tasks) >= most:
            outcome.add(0, 0.0)  # not sent, because it would have to wait for a connection
            continue
        task = asyncio.create_task(ask(message, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.wait(tasks, timeout=10) if tasks else None
    for client in free:
        client.close()
    return outcome


def _due(begun: float, rate: float, seconds: float) -> Iterator[float]:
    for number in range(int(rate * seconds)):
        yield begun + number / rate
