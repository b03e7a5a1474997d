"""Membership of a worker: it opens the versions that the parent names, and serves the one that is decided.

A version is served only once all workers have opened it. The parent asks them to open version 1 at startup, and a
further version for every reload. If all have opened it, the parent raises the number of the decided version in shared
memory; otherwise they drop it. Each worker compares this number before each request, so no request that arrives after
the decision is answered by an earlier version. A worker that starts later opens the decided version.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from threading import Thread
from time import perf_counter, sleep
from typing import Any

from model.errors import RcmlError
from service.engine.engine import Engine
from service.engine.item_json import version
from service.engine.network_process.messages import pack_error, unpack_error
from service.problems.errors import NotReadyError
from service.shared.channel import Frame
from service.shared.counters import Counter
from service.shared.worker import Worker
from service.telemetry.logs import logger
from service.telemetry.prometheus import Metrics

from .engine_holder import EngineHolder
from .engine_swap import ArtifactNames, ArtifactPaths, EngineLoader, Swap

REPORT_INTERVAL_S = 0.25
"""Seconds between two writes of this worker's figures to shared memory."""

ORPHAN_MARGIN_S = 5.0
"""Seconds beyond the time for a graceful stop after which a worker without a parent ends in any case."""


class Membership:
    """Membership of this worker in its server. Use it from one event loop, except for the thread that it starts."""

    def __init__(
        self,
        worker: Worker,
        holder: EngineHolder,
        loader: EngineLoader,
        open_first: Callable[[], Engine],
        perform: Callable[[Frame], Awaitable[Frame]],
        grace_s: float,
    ) -> None:
        """Create the membership of `worker`; `run` starts it.

        `open_first` opens the index that the server was started with. `perform` answers a request that another worker
        forwards.
        """
        self._worker = worker
        self._holder = holder
        self._loader = loader
        self._open_first = open_first
        self._perform = perform
        self._grace_s = grace_s
        self._epoch = 0
        self._candidates: dict[int, Engine] = {}
        self._dropped: set[int] = set()
        self._opening = asyncio.Lock()
        self._asked: dict[int, asyncio.Future[Frame]] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._joined = asyncio.Event()
        self._closing = False

    async def run(self, metrics: Metrics) -> None:
        """Take the parent's messages, and return when the first version is served, or `close` is called."""
        loop = asyncio.get_running_loop()
        self._start(self._report(metrics))
        Thread(target=self._read, args=(loop,), name="rcml parent", daemon=True).start()
        await self._joined.wait()

    @property
    def leads(self) -> bool:
        """Whether this worker answers the requests that only one may answer."""
        return self._worker.counters.leads

    def adopt(self) -> None:
        """Serve the decided version. Call this before each request: it compares two integers."""
        decided = self._worker.counters.epoch
        if decided == self._epoch or decided not in self._candidates:
            return
        self._epoch = decided
        self._holder.replace(self._candidates.pop(decided))
        for older in [epoch for epoch in self._candidates if epoch < decided]:
            self._candidates.pop(older).release()
        if not self._holder.stopping:
            self._worker.counters.set(Counter.SERVING, 1)
        self._joined.set()

    async def swap(self, named: ArtifactNames) -> Swap:
        """Replace the serving engine in all workers, or in none; see `EngineLoader.swap`.

        The swap continues even if its caller is cancelled.
        """
        begun = perf_counter()
        paths = self._loader.paths(named)
        before = version(self._holder.engine.index.snapshot)
        answer = await self.ask("reload", artifacts=paths.frame())
        if "error" in answer:
            raise unpack_error(answer["error"])
        self.adopt()
        after = version(self._holder.engine.index.snapshot)
        seconds = round(perf_counter() - begun, 3)
        logger.info(
            "Index version %s replaced %s in all workers. The swap took %g s.", after, before, seconds
        )
        return Swap(before, after, seconds)

    async def ask(self, kind: str, **content: Any) -> Frame:
        """Send a question to the parent and return its answer.

        Raises:
            NotReadyError: The parent has ended.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            if not self._worker.channel.send(kind, ask=number, **content):
                raise _alone()
            return await answer
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """Finish what is being opened, and release the versions that were not decided."""
        self._closing = True
        self._joined.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for candidate in self._candidates.values():
            candidate.release()
        self._candidates.clear()

    async def _report(self, metrics: Metrics) -> None:
        """Write the figures of this worker to shared memory, for the metrics that other workers show."""
        while not self._closing:
            self._worker.counters.set(Counter.IN_FLIGHT, metrics.in_flight)
            self._worker.counters.set(Counter.QUEUE, metrics.queue_length())
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass on the parent's messages. If the parent has ended, stop as after SIGTERM."""
        while (frame := self._worker.channel.receive()) is not None:
            try:
                loop.call_soon_threadsafe(self._take, frame)
            except RuntimeError:  # the loop is closed, because this worker is ending
                return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._give_up)
        shutil.rmtree(self._worker.folder, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(self._grace_s + ORPHAN_MARGIN_S)
        os._exit(1)

    def _give_up(self) -> None:
        """Fail the questions that the parent will no longer answer."""
        for future in self._asked.values():
            if not future.done():
                future.set_exception(_alone())

    def _take(self, frame: Frame) -> None:
        match frame["kind"]:
            case "open":
                self._start(self._open(frame["epoch"], frame["artifacts"]))
            case "decided":
                self.adopt()
            case "drop":
                self._dropped.add(frame["epoch"])
                if (candidate := self._candidates.pop(frame["epoch"], None)) is not None:
                    candidate.release()
            case "answer":
                future = self._asked.get(frame["ask"])
                if future is not None and not future.done():
                    future.set_result(frame["content"])
            case "perform":
                self._start(self._answer(frame["token"], frame["request"]))

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, epoch: int, artifacts: Frame | None) -> None:
        """Open a version, and tell the parent whether it is open."""
        async with self._opening:  # one after the other, because each takes memory
            try:
                if artifacts is None:
                    engine = await asyncio.to_thread(self._open_first)
                else:
                    engine = await self._loader.open_paths(ArtifactPaths.of(artifacts))
            except Exception as error:
                if not isinstance(error, RcmlError):
                    logger.error("The index could not be opened: %s", error, exc_info=True)
                self._worker.channel.send("failed", epoch=epoch, error=pack_error(error), message=str(error))
                return
        if epoch in self._dropped:
            engine.release()
            return
        self._candidates[epoch] = engine
        self._worker.channel.send("opened", epoch=epoch)
        self.adopt()

    async def _answer(self, token: int, request: Frame) -> None:
        try:
            response = await self._perform(request)
        except Exception as error:  # a bug must not leave the other worker waiting
            logger.error("A forwarded request failed: %s", error, exc_info=True)
            response = {"bug": repr(error)}
        self._worker.channel.send("performed", token=token, response=response)


def _alone() -> NotReadyError:
    return NotReadyError("The server is stopping. Send the request to another server.")
