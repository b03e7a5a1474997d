"""Heartbeats that distinguish a busy worker from a stuck worker, so that readiness can fail while liveness succeeds.

A worker thread can wait forever for a device or a disk that does not respond, while the event loop still reports the
server as healthy. Therefore each worker has a `Heartbeat`, and `GET /readyz` checks all heartbeats of the engine.

    heartbeat = Heartbeat("encoder", timeout_s=30.0)

    def run() -> None:                  # in the worker's thread
        while batch := queue.get():
            with heartbeat.working():   # one job
                ...
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread
from time import monotonic

JOB_TIMEOUT_S = 30.0
"""Default timeout of one job, in seconds."""


class Heartbeat:
    """State of one worker thread: the start of its current job, and whether the thread is alive.

    Only the worker's own thread writes the start time. Any thread may read the state.
    """

    def __init__(self, name: str, timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Create the heartbeat of a worker. `name` is its name in messages, `timeout_s` is the timeout of one job."""
        self.name = name
        self.timeout_s = timeout_s
        self._thread: Thread | None = None
        self._since: float | None = None

    def watch(self, thread: Thread) -> None:
        """Watch a started thread. Its end is then reported even if it has not run a job."""
        self._thread = thread

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the context as one job. Must be used in the worker's own thread."""
        self._thread = current_thread()
        self._since = monotonic()
        try:
            yield
        finally:
            self._since = None

    @property
    def stuck_reason(self) -> str | None:
        """Sentences that state why the worker is stuck and what to do, or None if the worker is healthy."""
        since, thread = self._since, self._thread
        if thread is not None and not thread.is_alive():
            return f"The {self.name}'s thread has ended. Restart the server, and report the traceback in its log."
        return None if since is None else self.overdue_reason(since)

    def overdue_reason(self, since: float) -> str | None:
        """Return the sentences about a job that began at `since`, or None if its timeout has not passed."""
        if (busy := monotonic() - since) <= self.timeout_s:
            return None
        return (
            f"The {self.name} has been busy with one job for {busy:.0f} s, "
            f"which exceeds the timeout of {self.timeout_s:g} s. Restart the server if the worker stays stuck."
        )
