"""Follower that keeps an open index up to date: it applies changes made by other processes and compacts the index."""

from collections.abc import Callable
from functools import partial
from math import inf
from threading import Event, Thread

from indexes.index import Index
from model.errors import RcmlError
from service.telemetry.logs import logger

from .watchdog import JOB_TIMEOUT_S, Heartbeat

REFRESH_INTERVAL_S = 0.2
"""Seconds between two checks for changes by other processes."""


class IndexFollower:
    """Two background threads of an open index: one refreshes it, and one compacts it.

    A failed step is retried. If the same error repeats, it is logged once. Meanwhile, the index answers from its last
    state.
    """

    def __init__(
        self,
        index: Index,
        compact_at: int,
        refresh_timeout_s: float = JOB_TIMEOUT_S,
        may_compact: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start both threads. The index is compacted when it has `compact_at` changes; 0 disables compaction.

        Of several workers, only the one whose `may_compact` returns true compacts the index.

        The heartbeat reports the refresh thread as stuck after `refresh_timeout_s`. Compaction has no timeout, because
        its duration grows with the index and no request waits for it.
        """
        self._index = index
        self._compact_at = compact_at
        self._may_compact = may_compact
        self._served = index.snapshot.generation.manifest.digest
        self._stopped = Event()
        work = {
            Heartbeat("follower", refresh_timeout_s): partial(self._follow, index.refresh),
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
        """Stop both threads after their current steps."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _follow(self, refresh: Callable[[], None]) -> None:
        refresh()
        snapshot = self._index.snapshot
        if snapshot.generation.manifest.digest != self._served:
            self._served = snapshot.generation.manifest.digest
            logger.info(
                "Now serving %s of the index (%d items).", snapshot.generation.path.name, len(snapshot)
            )

    def _compact(self) -> None:
        full = self._compact_at and self._index.snapshot.overlay.changes >= self._compact_at
        if full and self._may_compact():
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
                    # Any error other than RcmlError is a bug or a machine failure, so its traceback is logged.
                    logger.warning("%s", logged, exc_info=not isinstance(error, RcmlError))
            else:
                logged = ""
