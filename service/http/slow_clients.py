"""Slow clients: what the sweep remembers of each connection, and when its client has taken too long.

`Server` looks at all connections four times a second, so nothing is timed for each request. Nothing here knows a
socket; `connection.py` says what has come and gone, and ends the connection as it is told.
"""

from enum import Enum, auto
from typing import Literal, NamedTuple

from .limits import Deadlines

Stage = Literal["idle", "head", "body", "closed"]
"""What is awaited of a client: nothing or a request's first byte, the rest of its head, the rest of its body, or that
it closes, since it has had its last answer."""


class TooSlow(Enum):
    """What a client took too long over."""

    HEAD = auto()
    """the header fields of a request"""
    BODY = auto()
    """the body of a request"""
    REQUEST = auto()
    """the first byte of a request"""
    CLOSE = auto()
    """closing the connection after the last answer"""


class Progress(NamedTuple):
    """How far a client has come."""

    stage: Stage
    requests: int
    """Requests whose heads have come."""
    body: int
    """Bytes of the newest request's body."""
    awaited: bool
    """Whether the client is waited for, and not the application."""
    draining: bool
    """Whether the server is about to stop."""


class ProgressWatch:
    """Progress of one client, from one look of the sweep to the next; times are in seconds of the server's clock."""

    __slots__ = ("_body_then", "_seen", "_unread_then", "since")

    def __init__(self, now: float) -> None:
        """Begin to watch a client that has just connected."""
        self.since = now
        """When the client began what is awaited of it, or last made enough progress."""
        self._seen: tuple[Stage, int] = ("idle", 0)
        self._body_then = 0
        self._unread_then: tuple[float, int] | None = None

    def restart(self, now: float) -> None:
        """Count from now what the client takes."""
        self.since = now

    def forget_reading(self) -> None:
        """Forget how much of its answer the client had still to read."""
        self._unread_then = None

    def reads_too_slowly(self, now: float, unread: int, deadlines: Deadlines) -> bool:
        """Look at a client that has `unread` bytes of an answer to read; nothing is added to them meanwhile.

        An answer is one or several writes; while the buffer is full the next one waits, and otherwise `forget_reading`
        is called before it.
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
        """Look at a client that has nothing to read; returns what it took too long over, if anything."""
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
    """Return the seconds that a client may take to begin a request."""
    if draining:
        return deadlines.last_call
    return deadlines.idle if requests else deadlines.head
