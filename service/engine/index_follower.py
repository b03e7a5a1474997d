"""A follower that keeps an open index up to date: it takes over the changes of other processes, and compacts."""

from collections.abc import Callable
from math import inf
from threading import Event, Thread

from indexes.index import Index
from model.errors import RcmlError
from service.telemetry.logs import logger

from .watchdog import JOB_TIMEOUT_S, Heartbeat

REFRESH_INTERVAL_S = 0.2
"""Seconds between two looks for changes of other processes."""


class IndexFollower:
    """Two threads that serve an index until it is closed: one refreshes it, one compacts it.

    A failure is logged once, and tried again: the index goes on answering with what it has.
    """

    def __init__(self, index: Index, compact_at: int, refresh_timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Follow `index`, and compact it when it has `compact_at` changes; 0 is never.

        A refresh takes at most `refresh_timeout_s`. A compaction takes the longer the larger the index is, and nobody
        waits for it.
        """
        self._index = index
        self._compact_at = compact_at
        self._stopped = Event()
        work = {
            Heartbeat("follower", refresh_timeout_s): index.refresh,
            Heartbeat("compactor", inf): self._compact,
        }
        self.heartbeats = tuple(work)
        self._threads = []
        for heartbeat, step in work.items():
            name = f"rcml {heartbeat.name}"
            thread = Thread(target=self._repeat, args=(heartbeat, step), name=name, daemon=True)
            thread.start()
            heartbeat.watch(thread)
            self._threads.append(thread)

    def close(self) -> None:
        """Stop after the current step."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _compact(self) -> None:
        if self._compact_at and self._index.snapshot.overlay.changes >= self._compact_at:
            self._index.compact()

    def _repeat(self, heartbeat: Heartbeat, step: Callable[[], None]) -> None:
        logged = ""
        while not self._stopped.wait(REFRESH_INTERVAL_S):
            try:
                with heartbeat.working():
                    step()
            except Exception as error:
                if logged != str(error):
                    logged = str(error)
                    # Any error but our own is a bug or the machine's fault, and its place is worth knowing.
                    logger.warning("%s", logged, exc_info=not isinstance(error, RcmlError))
            else:
                logged = ""
