"""Channel between a worker and its parent: JSON objects over a pair of sockets, in both directions."""

import json
import socket
import struct
from contextlib import suppress
from multiprocessing.connection import Connection
from os import dup
from threading import Lock
from typing import Any

Frame = dict[str, Any]
"""A message. `kind` names it; `service/workers/supervisor.py` lists the kinds."""

SEND_TIMEOUT_S = 5
"""Seconds to wait for a receiver whose buffer is full. A worker reads in a thread of its own, so it is then stuck."""


class Channel:
    """One end of a channel. Any thread may send; one thread receives."""

    def __init__(self, connection: "Connection[bytes, bytes]") -> None:
        self.connection = connection
        self._sending = Lock()
        with self._socket() as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))

    def _socket(self) -> socket.socket:
        return socket.socket(fileno=dup(self.connection.fileno()))

    def send(self, kind: str, **content: Any) -> bool:
        """Send a message, and return whether the other end still takes messages.

        If a message is cut off, the other end receives no more: it would misread all later ones.
        """
        try:
            with self._sending:
                self.connection.send_bytes(json.dumps({"kind": kind, **content}).encode())
        except OSError:
            with suppress(OSError), self._socket() as same:
                same.shutdown(socket.SHUT_WR)
            return False
        return True

    def receive(self) -> Frame | None:
        """Wait for the next message. Return None if the other process has ended, or cut a message off."""
        try:
            frame: Frame = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return frame
