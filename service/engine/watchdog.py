"""Tells a worker that is at work from one that hangs, so that readiness can fail where liveness does not.

A thread beside the event loop may wait for a device or a disk that never answers; the loop would go on to say that
all is well. So each worker has a `Heartbeat`, and `GET /readyz` asks every pulse of the engine.

    pulse = Pulse("encoder", patience=30.0)

    def run() -> None:              # in the worker's thread
        while batch := queue.get():
            with pulse.working():   # one piece of work
                ...
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread
from time import monotonic

PATIENCE = 30.0
"""Seconds that one piece of work may take, unless said otherwise."""


class Heartbeat:
    """What is known of one worker from outside: since when it has been busy, and whether its thread lives.

    Written by that worker's thread alone, and read by any.
    """

    def __init__(self, name: str, patience: float = PATIENCE) -> None:
        """A worker called `name` in sentences, whose pieces of work take `patience` seconds at most."""
        self.name = name
        self.patience = patience
        self._thread: Thread | None = None
        self._since: float | None = None

    def watch(self, thread: Thread) -> None:
        """From now on the end of `thread`, which was started, counts, even before its first piece of work."""
        self._thread = thread

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around one piece of work, in the worker's own thread."""
        self._thread = current_thread()
        self._since = monotonic()
        try:
            yield
        finally:
            self._since = None

    @property
    def wedged(self) -> str | None:
        """Why nothing more can be expected of the worker, in a sentence; None while all is well."""
        since, thread = self._since, self._thread
        if thread is not None and not thread.is_alive():
            return f"The {self.name}'s thread has ended."
        if since is not None and (busy := monotonic() - since) > self.patience:
            return (
                f"The {self.name} has been busy with one piece of work for {busy:.0f} s, "
                f"and {self.patience:g} s is the most that one should take."
            )
        return None
