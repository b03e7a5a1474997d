"""Reference-counted resource that many requests share. It closes when the last holder releases it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Self


class ReferenceCounted:
    """A thread-safe resource with a count of its holders. Its creator is the first holder.

    `Engine` is a subclass, because an engine can be replaced while it still serves requests.
    """

    def __init__(self) -> None:
        self._holding = Lock()
        self._holders = 1

    def hold(self) -> None:
        """Add a holder. The resource stays open until each holder has called `release`."""
        with self._holding:
            assert self._holders, "hold() after the last release()"
            self._holders += 1

    def release(self) -> None:
        """Remove a holder. The last release closes the resource in a new thread."""
        with self._holding:
            self._holders -= 1
            last = not self._holders
        if last:
            Thread(target=self._close, name="rcml closing").start()

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep the resource open within the context.

        The caller must already hold the resource, or must ensure that nothing releases it before the context starts.
        """
        self.hold()
        try:
            yield self
        finally:
            self.release()

    def close(self) -> None:
        """Close the resource immediately, even if it still has holders."""
        self._holders = 0
        self._close()

    def _close(self) -> None:
        """Finish the accepted work and close the files."""
        raise NotImplementedError
