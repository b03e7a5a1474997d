"""Detection of slow clients: what the sweep records about each connection, and when its client is too slow.

`Server` sweeps all connections four times a second, so requests need no timers. This module does not use sockets:
`connection.py` reports what was received and sent, and closes the connections of slow clients.
"""

from enum import Enum, auto
from typing import Literal, NamedTuple

from .limits import Deadlines

Stage = Literal["idle", "head", "body", "closed"]
"""Stage of a connection.

`idle`: no request is being received. `head` or `body`: the rest of a request head or body is still to come. `closed`:
the client has received its last response and has to close the connection.
"""


class TooSlow(Enum):
    """Step that a client took too long to complete."""

    HEAD = auto()
    """Sending the header fields of a request."""
    BODY = auto()
    """Sending the body of a request."""
    REQUEST = auto()
    """Sending the first byte of a request."""
    CLOSE = auto()
    """Closing the connection after the last response."""


class Progress(NamedTuple):
    """Progress of a client at the time of a sweep."""

    stage: Stage
    requests: int
    """Number of requests whose heads have arrived."""
    body: int
    """Bytes received of the newest request's body."""
    awaited: bool
    """Whether the server is waiting for the client rather than for the application."""
    draining: bool
    """Whether the server is about to stop."""


class ProgressWatch:
    """Progress of one client between two sweeps; times are in seconds of the server's clock."""

    __slots__ = ("_body_then", "_seen", "_unread_then", "since")

    def __init__(self, now: float) -> None:
        """Start watching a client that connected at `now`."""
        self.since = now
        """Time at which the client started its current step or last made enough progress."""
        self._seen: tuple[Stage, int] = ("idle", 0)
        self._body_then = 0
        self._unread_then: tuple[float, int] | None = None

    def restart(self, now: float) -> None:
        """Restart the time limit of the current step at `now`."""
        self.since = now

    def forget_reading(self) -> None:
        """Restart the measurement of how fast the client reads its response."""
        self._unread_then = None

    def reads_too_slowly(self, now: float, unread: int, deadlines: Deadlines) -> bool:
        """Return whether the client reads its response too slowly; `unread` is the number of bytes left to read.

        The rate is the decrease of `unread` between two calls. It is correct only if nothing is written in between.
        Writing is paused while the buffer is full, and `forget_reading` must be called when writing pauses or resumes.
        """
        self.since = now
        if self._unread_then is None:
            self._unread_then = (now, unread)
            return False
        then, unread_then = self._unread_then
        if now - then < deadlines.window:
            return False
        self._unread_then = (now, unread)
        return unread_then - unread < deadlines.rate * (now - then)

    def too_slow(self, now: float, progress: Progress, deadlines: Deadlines) -> TooSlow | None:
        """Return the step that has taken the client too long, or None.

        Call this only if the client has nothing left to read.
        """
        self._unread_then = None
        stage, requests, body, awaited, draining = progress
        if not awaited or self._seen != (stage, requests):
            self._seen = (stage, requests)
            self.since, self._body_then = now, body
            return None
        waited = now - self.since
        match stage:
            case "head" if waited >= deadlines.head:
                return TooSlow.HEAD
            case "body" if waited >= deadlines.window:
                slow = body - self._body_then < deadlines.rate * waited
                self.since, self._body_then = now, body
                return TooSlow.BODY if slow else None
            case "idle" if waited >= _idle_limit(requests, draining, deadlines):
                return TooSlow.REQUEST
            case "closed" if waited >= deadlines.linger:
                return TooSlow.CLOSE
            case _:
                return None


def _idle_limit(requests: int, draining: bool, deadlines: Deadlines) -> float:
    """Return the maximum time in seconds that a client may take to start a request."""
    if draining:
        return deadlines.last_call
    return deadlines.idle if requests else deadlines.head
