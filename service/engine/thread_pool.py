"""The threads that search, beside the event loop, and how much may wait for them."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from service.errors import OverloadedError

from .watchdog import PATIENCE, Heartbeat

LATEST = 0.03
"""Share of the latest in the mean time between two jobs that are done."""

STALL = 5
"""More than so many times the mean is counted as so many."""

ALWAYS = 16
"""Jobs for each thread that are accepted however long they take: so many are no sign of overload."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to call, and who waits for what it returns."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class ThreadPool:
    """Threads with a bounded queue, used from one event loop.

    Not `concurrent.futures`, whose futures wake the loop twice for a job and take a lock five times: for a search
    of a tenth of a millisecond that is as much again.
    """

    def __init__(
        self,
        name: str,
        threads: int | None = None,
        patience: float = 0.2,
        worker_patience: float = PATIENCE,
    ) -> None:
        """Beyond `ALWAYS` jobs a thread, what is expected to wait for longer than `patience` s is refused.

        A job that takes longer than `worker_patience` s is a sign that something hangs.
        """
        count = threads or min(os.cpu_count() or 1, 8)
        self.pulses = [Heartbeat(f"{name} worker", worker_patience) for _ in range(count)]
        self._patience = patience
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._pending = 0
        self._closed = False
        self._interval = 0.0
        self._since: float | None = None
        self._threads = []
        for pulse in self.pulses:
            thread = Thread(target=self._run, args=(pulse,), name=f"rcml {name}", daemon=True)
            thread.start()
            pulse.watch(thread)
            self._threads.append(thread)

    def __len__(self) -> int:
        """Number of jobs that wait or are done."""
        return self._pending

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, called in one of the threads; not at all if the caller gives up before its turn.

        Raises:
            OverloadedError: it would have to wait too long.
            RuntimeError: it was closed.
            Exception: whatever it raised.
        """
        if self._closed:
            raise RuntimeError("no more work is taken after close")
        wait = self._interval * (self._pending - len(self._threads))
        if self._pending >= ALWAYS * len(self._threads) and wait > self._patience:
            raise OverloadedError(wait)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending += 1
        self._queue.put(_Job(lambda: work(*args, **kwargs), loop, future))
        return await future

    def close(self) -> None:
        """Finish what was accepted, then stop; called in any thread but those of its own."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, pulse: Heartbeat) -> None:
        while (job := self._queue.get()) is not None:
            result, error = None, None
            if not job.future.cancelled():
                try:
                    with pulse.working():
                        result = job.work()
                except BaseException as raised:  # whatever it is, it is its caller's, and the thread lives on
                    error = raised
            job.loop.call_soon_threadsafe(self._done, job.future, result, error)

    def _done(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """One more is done: of how fast they follow one another while all threads are busy, the mean is kept."""
        now = monotonic()
        if self._since is not None:
            interval = now - self._since
            if self._interval:  # a stall now and then is no sign that all have become slow
                self._interval += LATEST * (min(interval, STALL * self._interval) - self._interval)
            else:
                self._interval = interval
        self._pending -= 1
        self._since = now if self._pending >= len(self._threads) else None
        if future.done():  # it was given up meanwhile
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
