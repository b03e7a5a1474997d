"""A resource that many requests share, closed when the last of them lets it go."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Self


class ReferenceCounted:
    """A resource with a count of its holders; whoever makes it is the first. Safe to use from many threads.

    `Engine` is one: another may replace it while requests are still answered by it.
    """

    def __init__(self) -> None:
        self._holding = Lock()
        self._holders = 1

    def hold(self) -> None:
        """Keep the resource open until `release` is called as many times."""
        with self._holding:
            assert self._holders, "hold() after the last release()"
            self._holders += 1

    def release(self) -> None:
        """Let go of the resource; after the last release a thread of its own closes it."""
        with self._holding:
            self._holders -= 1
            last = not self._holders
        if last:
            Thread(target=self._close, name="rcml closing").start()

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep the resource open within; the caller holds it already, or nobody may replace it meanwhile."""
        self.hold()
        try:
            yield self
        finally:
            self.release()

    def close(self) -> None:
        """Close the resource now, whoever holds it."""
        self._holders = 0
        self._close()

    def _close(self) -> None:
        """Finish the work that was accepted, and close the files."""
        raise NotImplementedError
