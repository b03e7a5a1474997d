"""Turns in which the server reads input that it discards: the rest of the bodies of requests that it has refused.

The client of a refused upload usually sends all of its body before it reads the reason. Its input has to be read, as
unread data would reset the connection. However, uvloop reads up to 8 MB of a connection at once, and from all ready
connections before anything else. With 40 uploads of 9.5 MB, other requests waited for up to 100 ms. Therefore each of
these connections is paused after a read, and only a few continue until the event loop has looked at the others.
"""

import asyncio
from collections import deque

from uvicorn.protocols.http.flow_control import FlowControl

READS_PER_TURN = 8
"""Connections that may be read in a turn of the event loop: 2 MB, which take about a millisecond."""


class DiscardTurns:
    """Queue of connections whose input is discarded, on one event loop, in order of their latest read."""

    def __init__(self, reads_per_turn: int = READS_PER_TURN) -> None:
        self.reads_per_turn = reads_per_turn
        self._paused: deque[tuple[asyncio.Transport, FlowControl]] = deque()

    def pause(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        """Read nothing more from a connection until its turn comes. Called after each read of discarded input."""
        if transport.is_closing():
            return
        transport.pause_reading()
        if not self._paused:
            asyncio.get_running_loop().call_soon(self._turn)
        self._paused.append((transport, flow))

    def _turn(self) -> None:
        for _ in range(min(self.reads_per_turn, len(self._paused))):
            transport, flow = self._paused.popleft()
            if not transport.is_closing() and not flow.read_paused:
                transport.resume_reading()
        if self._paused:
            asyncio.get_running_loop().call_soon(self._turn)
