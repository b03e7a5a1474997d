"""A batcher: it joins the jobs of many requests into batches for the network, which runs one batch at a time.

No job waits for a batch to fill up: a batch is what came while the one before was computed. The queue is bounded by
the time that a job would wait in it, so that an overloaded server answers what it can and refuses the rest at once,
rather than everything too late.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from service.problems.errors import OverloadedError

from .watchdog import JOB_TIMEOUT_S, Heartbeat

Job = TypeVar("Job")
Result = TypeVar("Result")

JOB_TIME_EWMA_WEIGHT = 0.1
"""Weight of the latest batch in the moving average of the time that a job takes."""


@dataclass
class _Waiting(Generic[Job, Result]):
    """A job, and the future of its caller."""

    job: Job
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Result]"
    since: float = field(default_factory=monotonic)

    def settle(self, result: Result | None, error: BaseException | None) -> None:
        """Hand the outcome to the caller; may be called in any thread."""
        self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Result | None, error: BaseException | None) -> None:
        if self.future.done():  # cancelled meanwhile
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


class Batcher(Generic[Job, Result]):
    """One thread that does `work` on batches of jobs, in the order in which they came."""

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        name: str,
        batch_size: int = 16,
        max_wait_s: float = 0.1,
        job_timeout_s: float = JOB_TIMEOUT_S,
    ) -> None:
        """Start the thread.

        Beyond one batch of `batch_size` jobs, a job that is expected to wait longer than `max_wait_s` is refused. A
        batch that takes longer than `job_timeout_s` is a sign that something hangs.
        """
        self._work = work
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._queue: deque[_Waiting[Job, Result]] = deque()
        self._changed = Condition()
        self._closed = False
        self._cost = 0.0
        self._since: float | None = None
        self._size = 0
        self.heartbeat = Heartbeat(name, job_timeout_s)
        self._thread = Thread(target=self._run, name=f"rcml {name}", daemon=True)
        self._thread.start()
        self.heartbeat.watch(self._thread)

    def __len__(self) -> int:
        """Count the jobs that wait."""
        return len(self._queue)

    async def submit(self, job: Job) -> Result:
        """Have a job done in a batch, and return its result; skip it if the caller gives up before its turn.

        Raises:
            OverloadedError: it would have to wait too long.
            RuntimeError: it was closed.
            Exception: whatever the work raised on it.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(job, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise RuntimeError("no more work is taken after close")
            wait = self._cost * len(self._queue) + self._remainder()
            if len(self._queue) >= self._batch_size and wait > self._max_wait_s:
                raise OverloadedError(wait)
            self._queue.append(waiting)
            self._changed.notify()
        result: Result = await waiting.future
        return result

    def close(self) -> None:
        """Finish the jobs that were accepted, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _remainder(self) -> float:
        """Estimate the seconds until the current batch is done."""
        return 0.0 if self._since is None else max(self._cost * self._size - (monotonic() - self._since), 0.0)

    def _run(self) -> None:
        while batch := self._next():
            begun = monotonic()
            self._since, self._size = begun, len(batch)
            with self.heartbeat.working():
                outcomes = self._done(batch)
            self._since, self._size = None, 0
            cost = (monotonic() - begun) / len(batch)
            self._cost += JOB_TIME_EWMA_WEIGHT * (cost - self._cost) if self._cost else cost
            for waiting, (result, error) in zip(batch, outcomes, strict=True):
                waiting.settle(result, error)

    def _next(self) -> list[_Waiting[Job, Result]]:
        """Wait for the next batch; an empty one means that the batcher is closed and nothing is left."""
        with self._changed:
            while True:
                batch: list[_Waiting[Job, Result]] = []
                while self._queue and len(batch) < self._batch_size:
                    waiting = self._queue.popleft()
                    if not waiting.future.cancelled():
                        batch.append(waiting)
                if batch or self._closed:
                    return batch
                self._changed.wait()

    def _done(
        self, batch: Sequence[_Waiting[Job, Result]]
    ) -> list[tuple[Result | None, BaseException | None]]:
        """Do a batch, and return the result or the error of each job."""
        try:
            results = self._work([waiting.job for waiting in batch])
            assert len(results) == len(batch), "the work makes one result of each job"
        except Exception as error:  # a bad job fails its own caller; the thread lives on
            if len(batch) == 1:
                return [(None, error)]
            # Each is done alone, to find the one that fails.
            return [outcome for waiting in batch for outcome in self._done([waiting])]
        return [(result, None) for result in results]
