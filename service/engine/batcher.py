"""Batcher that groups the jobs of many requests into batches for the network, which runs one batch at a time.

No job waits for a batch to fill up: each batch contains the jobs that arrived while the previous batch was running.
The queue is bounded by the expected waiting time of a new job. An overloaded server therefore answers some requests
in time and rejects the rest immediately, instead of answering all of them too late.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from service.problems.errors import OverloadedError

from .queue_load import QueueLoad
from .watchdog import JOB_TIMEOUT_S, Heartbeat

Job = TypeVar("Job")
Result = TypeVar("Result")

JOB_TIME_EWMA_WEIGHT = 0.1
"""Weight of the latest batch in the moving average of the time per job."""


@dataclass
class _Waiting(Generic[Job, Result]):
    """A queued job and the future on which its caller waits."""

    job: Job
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Result]"
    since: float = field(default_factory=monotonic)

    def settle(self, result: Result | None, error: BaseException | None) -> None:
        """Pass the outcome to the caller. Must be called on its event loop."""
        if self.future.done():  # the caller was cancelled
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


class Batcher(Generic[Job, Result]):
    """One thread that calls `work` on batches of jobs, in order of arrival."""

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        name: str,
        batch_size: int = 16,
        max_wait_s: float = 0.1,
        job_timeout_s: float = JOB_TIMEOUT_S,
        load: QueueLoad | None = None,
        weigh: Callable[[Job], int] = lambda _: 1,
    ) -> None:
        """Start the thread, which publishes the load of the queue in `load`, if it is given.

        The jobs of a batch weigh at most `batch_size` together, except that a batch has at least one. A new job is
        rejected if at least `batch_size` jobs are queued and its expected wait exceeds `max_wait_s`.
        The heartbeat reports the thread as stuck if a batch takes longer than `job_timeout_s`.
        """
        self._work = work
        self.batch_size = batch_size
        self._weigh = weigh
        self._load = QueueLoad() if load is None else load
        self._load.batch_size, self._load.max_wait_s = batch_size, max_wait_s
        self._queue: deque[_Waiting[Job, Result]] = deque()
        self._changed = Condition()
        self._closed = False
        self.heartbeat = Heartbeat(name, job_timeout_s)
        self._thread = Thread(target=self._run, name=f"rcml {name}", daemon=True)
        self._thread.start()
        self.heartbeat.watch(self._thread)

    def __len__(self) -> int:
        """Return the number of queued jobs."""
        return len(self._queue)

    @property
    def longest_s(self) -> float:
        """Longest time in seconds that a batch has taken so far, in which all other jobs had to wait."""
        return self._load.longest

    def expected_wait(self, more: int = 0) -> float:
        """Return the seconds that a job would wait behind the queued jobs and `more` others, if it would be rejected.

        Return 0 if the job would be accepted.
        """
        return self._load.expected_wait(more, monotonic())

    async def submit(self, job: Job) -> Result:
        """Run a job as part of a batch and return its result.

        A job whose caller is cancelled before the batch starts is skipped.

        Raises:
            OverloadedError: The job would have to wait too long.
            RuntimeError: The batcher is closed.
            Exception: Any error that `work` raises for the job.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(job, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed and accepts no more jobs.")
            if wait := self.expected_wait():
                raise OverloadedError(wait)
            self._queue.append(waiting)
            self._load.queued = len(self._queue)
            self._changed.notify()
        try:
            result: Result = await waiting.future
            return result
        finally:
            # The traceback of its error refers to this frame, which would keep the error and the job.
            del waiting

    def close(self) -> None:
        """Finish the accepted jobs, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            begun = monotonic()
            self._load.running, self._load.since = len(batch), begun
            with self.heartbeat.working():
                outcomes = self._done(batch)
            self._load.since = 0.0
            took = monotonic() - begun
            self._load.longest = max(self._load.longest, took)
            cost, average = took / len(batch), self._load.cost
            self._load.cost = average + JOB_TIME_EWMA_WEIGHT * (cost - average) if average else cost
            # One call for each loop, because each call wakes the loop.
            for loop in {waiting.loop for waiting in batch}:
                mine = [pair for pair in zip(batch, outcomes, strict=True) if pair[0].loop is loop]
                loop.call_soon_threadsafe(_settle, mine)

    def _next(self) -> list[_Waiting[Job, Result]]:
        """Wait for the next batch. Return an empty list if the batcher is closed and the queue is empty."""
        with self._changed:
            while True:
                batch: list[_Waiting[Job, Result]] = []
                room = self.batch_size
                while self._queue and room > 0:
                    waiting = self._queue[0]
                    if not waiting.future.cancelled():
                        room -= self._weigh(waiting.job)
                        if room < 0 and batch:
                            break
                        batch.append(waiting)
                    self._queue.popleft()
                self._load.queued = len(self._queue)
                if batch or self._closed:
                    return batch
                self._changed.wait()

    def _done(
        self, batch: Sequence[_Waiting[Job, Result]]
    ) -> list[tuple[Result | None, BaseException | None]]:
        """Run a batch and return the result or the error of each job."""
        try:
            results = self._work([waiting.job for waiting in batch])
            assert len(results) == len(batch), "work must return one result per job"
            return [(result, None) for result in results]
        except Exception as error:  # a failing job must not end the thread
            if len(batch) == 1:
                del batch  # the traceback refers to this frame: a cycle, with the job
                return [(None, error)]
        # Each job is run separately, so that only the failing jobs report an error.
        return [outcome for waiting in batch for outcome in self._done([waiting])]


def _settle(
    outcomes: Sequence[tuple[_Waiting[Job, Result], tuple[Result | None, BaseException | None]]],
) -> None:
    for waiting, (result, error) in outcomes:
        waiting.settle(result, error)
