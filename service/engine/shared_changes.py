"""Changes to an index that several workers of a server share: a change that one acknowledged is seen by all.

Every worker counts the commits that it acknowledges (`service/shared/counters.py`). Before a request begins, its worker
compares the commits of the others with those that it has read: one comparison of integers, if nothing has changed. If
there are more, it first reads the journal. The index follower, which looks for changes five times a second, would be
too late for a client whose next request reaches another worker.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from indexes.index import Index
from indexes.journal.change import Change
from model.embeddings.free_text import FreeTextRelation
from model.records import Relation
from service.shared.counters import Counter, SharedCounters


class _Seen(NamedTuple):
    """Commits and generations of other workers, as counts that only grow."""

    commits: int
    generations: int

    def covers(self, other: "_Seen") -> bool:
        return self.commits >= other.commits and self.generations >= other.generations


class SharedChanges:
    """Writer and reader of the changes to one open index."""

    def __init__(self, index: Index, counters: SharedCounters) -> None:
        self._index = index
        self._counters = counters
        self._own = _Seen(0, 0)
        self._seen = _Seen(-1, -1)
        self._covered = b""  # counts of all workers that `_seen` is known to cover
        self._reading: asyncio.Task[None] | None = None

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes; see `Index.apply`. Later requests to any worker see them."""
        existed = self._index.apply(changes)
        if changes:
            self._count(Counter.COMMITS)
        return existed

    def add_relation(
        self, relation: Relation, free_text: FreeTextRelation, progress: Callable[[int, int], None]
    ) -> None:
        """Add a relation; see `Index.add_relation`. Later requests to any worker can name it."""
        # Counted before this worker shows the relation, so that a client that has seen it can name it to any worker.
        self._index.add_relation(relation, free_text, progress, partial(self._count, Counter.GENERATIONS))

    def remove_relation(self, relation_id: str) -> None:
        """Remove a relation; see `Index.remove_relation`. Later requests to any worker do not find it."""
        self._index.remove_relation(relation_id, partial(self._count, Counter.GENERATIONS))

    @property
    def behind(self) -> bool:
        """Whether another worker has acknowledged a change that the open index may lack."""
        counts = self._counters.changes()
        if counts == self._covered:  # the usual case, and a third of the time of the sums
            return False
        if not self._seen.covers(self._elsewhere()):
            return True
        self._covered = counts
        return False

    async def catch_up(self) -> None:
        """Read all changes that other workers had acknowledged when this was called. Use it from one event loop.

        The caller must hold the engine.

        Raises:
            ArtifactError: The journal or a newer generation is damaged.
            StorageError: The journal is unreachable.
        """
        needed = self._elsewhere()
        while not self._seen.covers(needed):
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(self._elsewhere()))
            await asyncio.shield(self._reading)

    async def _read(self, upto: _Seen) -> None:
        newer = upto.generations != self._seen.generations
        try:
            await asyncio.to_thread(self._index.refresh if newer else self._index.read_changes)
            self._seen = upto
        finally:
            self._reading = None

    def _count(self, counter: Counter) -> None:
        with self._counters.lock:
            self._counters.add(counter, 1)
            commits, generations = self._own
            if counter is Counter.COMMITS:
                self._own = _Seen(commits + 1, generations)
            else:
                self._own = _Seen(commits, generations + 1)

    def _elsewhere(self) -> _Seen:
        with self._counters.lock:
            commits = self._counters.total(Counter.COMMITS) - self._own.commits
            generations = self._counters.total(Counter.GENERATIONS) - self._own.generations
        return _Seen(commits, generations)
