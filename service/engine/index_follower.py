"""Keeps an open index up to the day: what other processes changed is taken over, and changes are folded in time."""

from collections.abc import Callable
from math import inf
from threading import Event, Thread

from indexes.index import Index
from model.errors import RcmlError
from service.telemetry.logs import logger

from .watchdog import PATIENCE, Heartbeat

EVERY = 0.2
"""Seconds between two looks at what others did."""


class IndexFollower:
    """Two threads beside an index, until it is closed: one follows, one compacts.

    Whatever fails is said once, and tried again: the index goes on answering with what it has.
    """

    def __init__(self, index: Index, compact_at: int, patience: float = PATIENCE) -> None:
        """Follow `index`, and fold its changes into a new generation from `compact_at` on; 0 is never.

        To follow takes `patience` seconds at most. To fold takes the longer the larger the index is, and
        nobody waits for it.
        """
        self._index = index
        self._compact_at = compact_at
        self._stopped = Event()
        work = {Heartbeat("follower", patience): index.refresh, Heartbeat("compactor", inf): self._compact}
        self.pulses = tuple(work)
        self._threads = []
        for pulse, step in work.items():
            thread = Thread(target=self._repeat, args=(pulse, step), name=f"rcml {pulse.name}", daemon=True)
            thread.start()
            pulse.watch(thread)
            self._threads.append(thread)

    def close(self) -> None:
        """Stop, once what is under way is done."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _compact(self) -> None:
        if self._compact_at and self._index.snapshot.overlay.changes >= self._compact_at:
            self._index.compact()

    def _repeat(self, pulse: Heartbeat, step: Callable[[], None]) -> None:
        told = ""
        while not self._stopped.wait(EVERY):
            try:
                with pulse.working():
                    step()
            except Exception as error:
                if told != str(error):
                    told = str(error)
                    # What is no refusal of ours is a bug or the machine's fault, and its place is worth knowing.
                    logger.warning("%s", told, exc_info=not isinstance(error, RcmlError))
            else:
                told = ""
