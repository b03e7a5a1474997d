"""Heartbeats that tell a busy worker from one that hangs, so that readiness can fail while liveness holds.

A worker thread may wait for a device or a disk that never answers, while the event loop goes on to say that all is
well. So each worker has a `Heartbeat`, and `GET /readyz` asks every heartbeat of the engine.

    heartbeat = Heartbeat("encoder", timeout_s=30.0)

    def run() -> None:                  # in the worker's thread
        while batch := queue.get():
            with heartbeat.working():   # one piece of work
                ...
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread
from time import monotonic

JOB_TIMEOUT_S = 30.0
"""Seconds that one piece of work may take, unless configured otherwise."""


class Heartbeat:
    """State of one worker as seen from outside: since when it has been busy, and whether its thread lives.

    Written by that worker's thread alone, and read by any.
    """

    def __init__(self, name: str, timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Watch a worker called `name` in messages, whose pieces of work take at most `timeout_s` seconds."""
        self.name = name
        self.timeout_s = timeout_s
        self._thread: Thread | None = None
        self._since: float | None = None

    def watch(self, thread: Thread) -> None:
        """Watch for the end of `thread`, which was started, even before its first piece of work."""
        self._thread = thread

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark one piece of work, in the worker's own thread."""
        self._thread = current_thread()
        self._since = monotonic()
        try:
            yield
        finally:
            self._since = None

    @property
    def stuck_reason(self) -> str | None:
        """Sentence that says why the worker is stuck; None while all is well."""
        since, thread = self._since, self._thread
        if thread is not None and not thread.is_alive():
            return f"The {self.name}'s thread has ended."
        if since is not None and (busy := monotonic() - since) > self.timeout_s:
            return (
                f"The {self.name} has been busy with one piece of work for {busy:.0f} s, "
                f"and {self.timeout_s:g} s is the most that one should take."
            )
        return None
