"""Load of the queue in front of a network: the figures from which the expected wait of a new job follows.

The longest time of a batch is published as well, for the metrics.

A network process publishes these figures in shared memory, so that every server process can refuse a job without asking
the network process first (`network_process/`). One process writes them, and the others read them without a lock.
Each figure is an aligned double, so a 64-bit processor reads it either before or after a change, never in between. A
reader may combine figures from before and after a change. Its estimate is then wrong by about one batch, for one job.
"""

from mmap import PAGESIZE
from typing import ClassVar


class _Figure:
    """Figure at a fixed place of the memory of a `QueueLoad`."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, load: "QueueLoad", owner: type["QueueLoad"]) -> float:
        return load.memory[self._place]

    def __set__(self, load: "QueueLoad", value: float) -> None:
        load.memory[self._place] = value


class QueueLoad:
    """Queue length, cost per job and current batch of a network, in memory that may be shared."""

    BYTES: ClassVar[int] = PAGESIZE
    """Size of the memory in bytes."""

    CONNECTIONS: ClassVar[int] = PAGESIZE // 8 - 8
    """Maximum number of connections whose jobs are counted (`received`)."""

    batch_size = _Figure(0)
    """Maximum number of jobs in a batch."""

    max_wait_s = _Figure(1)
    """Longest acceptable wait in seconds."""

    queued = _Figure(2)
    """Number of queued jobs, without those of the current batch."""

    cost = _Figure(3)
    """Moving average of the seconds that a job takes."""

    since = _Figure(4)
    """Time at which the current batch began, in seconds of the monotonic clock of the machine; 0 if idle."""

    running = _Figure(5)
    """Number of jobs in the current batch."""

    longest = _Figure(6)
    """Longest time in seconds that a batch has taken so far."""

    def __init__(self, memory: memoryview | None = None) -> None:
        """Use `memory`, which must have `BYTES` bytes, or memory of its own, with all figures 0."""
        self.memory = (memoryview(bytearray(self.BYTES)) if memory is None else memory).cast("d")

    @property
    def received(self) -> "memoryview[float]":
        """Number of jobs that the network process has received on each connection."""
        return self.memory[8:]

    def remainder(self, now: float) -> float:
        """Estimate the seconds until the current batch is done. `now` is the time of the monotonic clock."""
        since = self.since
        return max(self.cost * self.running - (now - since), 0.0) if since else 0.0

    def expected_wait(self, more: int, now: float) -> float:
        """Return the seconds that a job would wait behind the queued jobs and `more` others, if it would be rejected.

        Return 0 if the job would be accepted. A queue shorter than a batch accepts every job.
        """
        queued = self.queued + more
        wait = self.cost * queued + self.remainder(now)
        return wait if queued >= self.batch_size and wait > self.max_wait_s else 0.0
