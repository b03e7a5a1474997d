"""Pool of search threads with a bounded queue, for work that would block the event loop."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from service.problems.errors import OverloadedError

from .watchdog import JOB_TIMEOUT_S, Heartbeat

INTERVAL_EWMA_WEIGHT = 0.03
"""Weight of the latest interval in the moving average of the time between two finished jobs."""

MAX_INTERVAL_RATIO = 5
"""Cap on an interval that enters the moving average, as a multiple of the average. It limits the effect of stalls."""

MIN_QUEUE_PER_THREAD = 16
"""Jobs per thread that are always accepted, because a queue this short does not indicate overload."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """A function to call and the future on which its caller waits."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class ThreadPool:
    """Threads with a bounded queue, used from one event loop.

    `concurrent.futures` is not used, because its futures wake the event loop twice per job and take a lock five times.
    For a search that lasts 0.1 ms, this overhead would double the time.
    """

    def __init__(
        self,
        name: str,
        threads: int | None = None,
        max_wait_s: float = 0.2,
        job_timeout_s: float = JOB_TIMEOUT_S,
    ) -> None:
        """Start the threads.

        A new job is rejected if at least `MIN_QUEUE_PER_THREAD` jobs per thread are pending and its expected wait
        exceeds `max_wait_s`. A heartbeat reports its thread as stuck if a job takes longer than `job_timeout_s`.
        """
        count = threads or min(os.cpu_count() or 1, 8)
        self.heartbeats = [Heartbeat(f"{name} worker", job_timeout_s) for _ in range(count)]
        self._max_wait_s = max_wait_s
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._pending = 0
        self._closed = False
        self._interval = 0.0
        self._since: float | None = None
        self._threads = []
        for heartbeat in self.heartbeats:
            thread = Thread(target=self._run, args=(heartbeat,), name=f"rcml {name}", daemon=True)
            thread.start()
            heartbeat.watch(thread)
            self._threads.append(thread)

    def __len__(self) -> int:
        """Return the number of queued and running jobs."""
        return self._pending

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in one of the threads and return its result.

        A job whose caller is cancelled before the job starts is skipped.

        Raises:
            OverloadedError: The job would have to wait too long.
            RuntimeError: The pool is closed.
            Exception: Any error that `work` raises.
        """
        if self._closed:
            raise RuntimeError("The thread pool is closed and accepts no more jobs.")
        wait = self._interval * (self._pending - len(self._threads))
        if self._pending >= MIN_QUEUE_PER_THREAD * len(self._threads) and wait > self._max_wait_s:
            raise OverloadedError(wait)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending += 1
        self._queue.put(_Job(lambda: work(*args, **kwargs), loop, future))
        try:
            return await future
        finally:
            # The traceback of its error refers to this frame, which would keep the error and the arguments of `work`.
            del future

    def close(self) -> None:
        """Finish the accepted jobs, then stop the threads. Must be called from a thread outside the pool."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, heartbeat: Heartbeat) -> None:
        while (job := self._queue.get()) is not None:
            result, error = None, None
            if not job.future.cancelled():
                try:
                    with heartbeat.working():
                        result = job.work()
                except BaseException as raised:  # the caller receives the error, and the thread continues
                    error = raised
            job.loop.call_soon_threadsafe(self._done, job.future, result, error)

    def _done(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Pass the outcome to the caller. While all threads are busy, update the average time between finished jobs."""
        now = monotonic()
        if self._since is not None:
            interval = now - self._since
            if self._interval:  # the cap keeps one stall from inflating the average
                self._interval += INTERVAL_EWMA_WEIGHT * (
                    min(interval, MAX_INTERVAL_RATIO * self._interval) - self._interval
                )
            else:
                self._interval = interval
        self._pending -= 1
        self._since = now if self._pending >= len(self._threads) else None
        if future.done():  # the caller was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
