"""Keeps an open index up to the day: what other processes changed is taken over, and changes are folded in time."""

from collections.abc import Callable
from threading import Event, Thread

from indexes.index import Index
from model.errors import RcmlError
from model.terminal import say

EVERY = 0.2
"""Seconds between two looks at what others did."""


class Follower:
    """Two threads beside an index, until it is closed: one follows, one compacts.

    Whatever fails is said once, and tried again: the index goes on answering with what it has.
    """

    def __init__(self, index: Index, compact_at: int) -> None:
        """Follow `index`, and fold its changes into a new generation from `compact_at` on; 0 is never."""
        self._index = index
        self._compact_at = compact_at
        self._stopped = Event()
        self._threads = [
            Thread(target=self._repeat, args=(work,), name=f"rcml {work.__name__}", daemon=True)
            for work in (index.refresh, self._compact)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop, once what is under way is done."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _compact(self) -> None:
        if self._compact_at and self._index.snapshot.overlay.changes >= self._compact_at:
            self._index.compact()

    def _repeat(self, work: Callable[[], None]) -> None:
        told = ""
        while not self._stopped.wait(EVERY):
            try:
                work()
            except RcmlError as error:
                if told != str(error):
                    say(told := str(error))
            else:
                told = ""
