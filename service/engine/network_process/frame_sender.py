"""Sender of frames that never blocks its callers, who run on an event loop."""

import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Condition, Thread

SEND_BUFFER_BYTES = 2**20
"""Size of the kernel's buffer that is asked for, so that a picture normally fits into it."""


class FrameSender:
    """Sender on a blocking socket. What the kernel does not take at once is sent by a thread."""

    def __init__(self, target: socket.socket) -> None:
        """Start the thread."""
        target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._target = target
        self._left: deque[memoryview] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="rcml sending", daemon=True)
        self._thread.start()

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send the parts of a frame, now or soon. Whoever reads from the socket notices if the connection is broken."""
        views = deque(memoryview(part) for part in parts)
        with self._changed:
            if not self._left:
                self._send_now(views)
            if views:
                self._left += views
                self._changed.notify()

    def close(self) -> None:
        """Send the frames that are left, and stop the thread. If the socket is shut down, they are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _send_now(self, views: deque[memoryview]) -> None:
        """Send as much as the kernel takes, and remove it from `views`."""
        try:
            sent = self._target.sendmsg(views, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            views.clear()
            return
        while views and len(views[0]) <= sent:
            sent -= len(views.popleft())
        if sent:
            views[0] = views[0][sent:]

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._left and not self._closed:
                    self._changed.wait()
                if not self._left:
                    return
                first = self._left[
                    0
                ]  # it stays in the queue until it is sent, so that nobody sends before it
            with suppress(OSError):
                self._target.sendall(first)
            with self._changed:
                self._left.popleft()
