"""Budget of one fetched response: how many lines and pieces its server may send for a picture.

A server can make a small picture costly: in pieces of one byte, each with its own line, or after any number of interim
responses, header fields or trailers. The parser works through all that one read returns before anything else can run.
Therefore text is handed to the parser in small slices, other tasks run between them, and a response that has many lines
or pieces and little content is refused.
"""

import asyncio
import ssl
from collections.abc import Iterable

import httpcore

LINES_PER_SLICE = 32
"""Lines that the parser receives at once. Parsing them takes about a millisecond."""

TEXT_BYTES_PER_LINE = 64
"""Mean length of lines up to which bytes count as text. Compressed pixels have a line feed in 256 bytes."""

MAX_LINES = 512
"""Maximum number of lines without content: of interim responses, header fields and trailers."""

FREE_PIECES = 1_000
"""Number of pieces of content that may have any size."""

MIN_PIECE_BYTES = 512
"""Minimum mean size in bytes of further pieces."""

MAX_WIRE_RATIO = 2
"""Maximum number of bytes of a response, as a multiple of the maximum size of its content."""


class CostlyResponseError(Exception):
    """Response whose server sends much more than its content. The message states what, such as "it sends ..."."""


class FetchBudget:
    """What a server has sent in one response, and the limit on it.

    `plain` is whether only content follows. A chunked body has lines between its pieces, and trailers at its end.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_wire_bytes = MAX_WIRE_RATIO * max_bytes + 2**17
        self.begin()

    def begin(self) -> None:
        """Begin a new response on the same connection."""
        self.wire_bytes = self.lines = self.pieces = 0
        self.plain = False

    def read(self, part: bytes) -> None:
        """Count bytes of the response.

        Raises:
            CostlyResponseError: the response has too many bytes, or too many lines since its last piece of content.
        """
        self.wire_bytes += len(part)
        self.lines += 0 if self.plain else part.count(b"\n")
        if self.lines > MAX_LINES:
            raise CostlyResponseError(
                f"its server sent more than {MAX_LINES} lines without a part of the picture"
            )
        if self.wire_bytes > self.max_wire_bytes:
            raise CostlyResponseError(f"its server sent more than {self.max_wire_bytes:,} bytes")

    def receive(self, content_bytes: int) -> None:
        """Count a piece of content, after which the content has this many bytes.

        Raises:
            CostlyResponseError: the content arrives in too many pieces.
        """
        self.pieces += 1
        self.lines = 0
        if self.pieces > FREE_PIECES + content_bytes // MIN_PIECE_BYTES:
            raise CostlyResponseError(
                f"its server sent {content_bytes:,} bytes in {self.pieces:,} pieces, and after {FREE_PIECES:,} pieces "
                f"they must have {MIN_PIECE_BYTES} bytes on average"
            )


class BudgetedNetwork(httpcore.AsyncNetworkBackend):
    """Network backend whose connections count what they read in a budget."""

    def __init__(self, network: httpcore.AsyncNetworkBackend, budget: FetchBudget) -> None:
        self._network, self._budget = network, budget

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect, as the wrapped backend does."""
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return _BudgetedStream(stream, self._budget)


class _BudgetedStream(httpcore.AsyncNetworkStream):
    """Stream that returns text in slices, with other tasks in between."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, budget: FetchBudget) -> None:
        self._stream, self._budget = stream, budget
        self._rest = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._rest:
            await asyncio.sleep(0)
        part = self._rest or await self._stream.read(max_bytes, timeout)
        end = len(part) if self._budget.plain else _slice_end(part)
        part, self._rest = part[:end], part[end:]
        self._budget.read(part)
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BudgetedStream(stream, self._budget)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _slice_end(part: bytes) -> int:
    """Return the end of the first slice: all of `part`, or its first lines if it has many short ones."""
    lines = part.count(b"\n")
    if lines <= LINES_PER_SLICE or len(part) > lines * TEXT_BYTES_PER_LINE:
        return len(part)
    end = 0
    for _ in range(LINES_PER_SLICE):
        end = part.index(b"\n", end) + 1
    return end
