"""What the kernel knows of a connection: how long received data has waited, and how much waits.

A deadline has to include the time that data waits: a busy event loop reads a request long after it arrived. Linux
reports for a TCP socket how long ago the last data arrived (`tcpi_last_data_recv`, include/uapi/linux/tcp.h), to a
few milliseconds. Time in the accept queue is included, because a socket in the queue already receives data.
"""

import asyncio
import socket
import sys
from array import array
from collections.abc import Callable
from fcntl import ioctl
from math import inf
from struct import Struct
from time import monotonic

_LAST_DATA_RECEIVED = Struct("52xI")
"""Position of the milliseconds since the last data arrived in `struct tcp_info`."""

MOMENT_S = 0.02
"""Age in seconds of data that counts as new. The default deadline is 500 times as long."""


def kernel_age(transport: asyncio.Transport) -> float:
    """Return the seconds since the latest data of a connection arrived; 0 if the system cannot tell."""
    if sys.platform != "linux":
        return 0.0
    try:
        client = transport.get_extra_info("socket")
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
    except (AttributeError, OSError):  # no TCP connection, or one that is closed
        return 0.0
    [milliseconds] = _LAST_DATA_RECEIVED.unpack(info) if len(info) == _LAST_DATA_RECEIVED.size else (0,)
    return float(milliseconds) / 1000


class Looks:
    """Looks of an event loop at its sockets: whether data that it finds may have waited.

    To ask the kernel for the age of a request takes as long as to parse its head. The data that a look finds has
    arrived since the look before, unless the connection was new or paused. So if the look before was moments ago, no
    other data can be old.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._latest = -inf
        self._late = True
        self._looking = False

    def may_be_late(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether data that the loop has just read may have waited for longer than `MOMENT_S`."""
        if not self._looking:
            now = self._clock()
            self._late, self._latest = now - self._latest > MOMENT_S, now
            self._looking = True
            loop.call_soon(self._end)  # called before the next look
        return self._late

    def _end(self) -> None:
        self._looking = False


def bytes_in_kernel(transport: asyncio.Transport, queue: int) -> int:
    """Return the number of bytes of a connection in a kernel queue.

    FIONREAD: bytes that were received but not read. TIOCOUTQ: bytes that were sent but not acknowledged.
    """
    count = array("i", [0])
    ioctl(transport.get_extra_info("socket").fileno(), queue, count)
    return count[0]
