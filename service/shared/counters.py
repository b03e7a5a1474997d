"""Counters in memory that all workers of a server share.

Each counter has one cell of 64 bits for every worker. A worker writes only its own cells and reads all of them, so no
lock is needed between processes, and a worker that is killed leaves no lock behind. An aligned write of 64 bits is
atomic on all processors that rcml runs on. A server of one process uses the same counters in private memory.
"""

import mmap
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from threading import Lock
from typing import Self

CELL_BYTES = 8


class Counter(IntEnum):
    """Counter with one cell for each worker."""

    CONNECTIONS = 0
    """Open connections."""
    COST = 1
    """Cost of the large requests in progress (`service/engine/work_bound.py`)."""
    IN_FLIGHT = 2
    """Requests in progress, written four times a second."""
    QUEUE = 3
    """Jobs that wait for the network, written four times a second."""
    BEAT = 4
    """Time in milliseconds at which the event loop last swept its connections."""
    SERVING = 5
    """1 if the worker has an open index and is not stopping, else 0."""
    COMMITS = 6
    """Acknowledged commits to the journal. A successor of the worker continues the count."""
    GENERATIONS = 7
    """Generations that later requests must see, because they add or remove a relation. Continued as `COMMITS`."""


_CONTINUED = (Counter.COMMITS, Counter.GENERATIONS)
"""Counters that a successor continues; their cells lie side by side."""

_EPOCH, _LEADER, _COMMON = 0, 1, 2
"""Places of the two cells that only the parent writes, and their number."""

NO_LEADER = -1


class SharedCounters:
    """Counters of a server, as its worker `number` of `count` sees them."""

    def __init__(self, cells: "memoryview[int]", number: int = 0, count: int = 1) -> None:
        self._cells = cells
        self.number = number
        self.count = count
        self.lock = Lock()
        """Lock of the threads of this process; whoever adds to a cell holds it."""

    @classmethod
    def alone(cls) -> Self:
        """Return the counters of a server with one process."""
        return cls(memoryview(bytearray(_size(1))).cast("q"))

    @classmethod
    def create(cls, path: Path, count: int) -> Self:
        """Create the file of the counters of `count` workers and return them as the parent sees them."""
        path.write_bytes(bytes(_size(count)))
        return cls.open(path, 0, count)

    @classmethod
    def open(cls, path: Path, number: int, count: int) -> Self:
        """Return the counters in a file, as worker `number` sees them."""
        with path.open("r+b") as file:
            return cls(memoryview(mmap.mmap(file.fileno(), _size(count))).cast("q"), number, count)

    def total(self, counter: Counter) -> int:
        """Return the sum over all workers."""
        start = _COMMON + counter * self.count
        return sum(self._cells[start : start + self.count])

    def own(self, counter: Counter) -> int:
        """Return the value of this worker."""
        return self.of(self.number, counter)

    def of(self, number: int, counter: Counter) -> int:
        """Return the value of a worker."""
        return self._cells[_COMMON + counter * self.count + number]

    def others(self, counter: Counter) -> int:
        """Return the sum over all workers but this one."""
        return self.total(counter) - self.own(counter)

    def changes(self) -> bytes:
        """Return the commits and generations of all workers. The bytes differ after each further one."""
        start = _COMMON + Counter.COMMITS * self.count
        return self._cells[start : start + len(_CONTINUED) * self.count].tobytes()

    def set(self, counter: Counter, value: int) -> None:
        """Set the value of this worker. A worker that has closed its counters, because it ends, changes nothing."""
        with suppress(ValueError):
            self._cells[_COMMON + counter * self.count + self.number] = value

    def add(self, counter: Counter, amount: int) -> None:
        """Add to the value of this worker; the caller holds `lock`, or adds from one thread only."""
        self.set(counter, self.own(counter) + amount)

    def forget(self, number: int) -> None:
        """Clear the cells of a worker that has ended, except the counts that its successor continues."""
        for counter in Counter:
            if counter not in _CONTINUED:
                self._cells[_COMMON + counter * self.count + number] = 0

    @property
    def epoch(self) -> int:
        """Number of the version that all workers serve; 0 until the first one is open in all of them."""
        return self._cells[_EPOCH]

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._cells[_EPOCH] = value

    @property
    def leader(self) -> int:
        """Number of the worker that does what only one may do, or `NO_LEADER`."""
        return self._cells[_LEADER]

    @leader.setter
    def leader(self, number: int) -> None:
        self._cells[_LEADER] = number

    @property
    def leads(self) -> bool:
        """Whether this worker is the one that does what only one may do."""
        return self.leader == self.number


def _size(count: int) -> int:
    return CELL_BYTES * (_COMMON + len(Counter) * count)
