"""Channel between a worker and its parent: JSON objects over a pair of sockets, in both directions."""

import json
import socket
import struct
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
        with socket.socket(fileno=dup(connection.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))

    def send(self, kind: str, **content: Any) -> bool:
        """Send a message, and return whether the other end still takes messages."""
        try:
            with self._sending:
                self.connection.send_bytes(json.dumps({"kind": kind, **content}).encode())
        except OSError:
            return False
        return True

    def receive(self) -> Frame | None:
        """Wait for the next message. Return None if the other process has ended."""
        try:
            frame: Frame = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return frame
