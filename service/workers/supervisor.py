"""Supervisor: the parent process of a server with several workers.

It starts the workers, replaces those that end or hang, passes stop signals on, and decides which version of the index
all of them serve. It accepts no connections itself. All its work is one loop that waits for messages, for the end of a
worker and for signals, so it needs no locks.

uvicorn's own supervisor looks at its workers twice a second, sends them pickled messages, restarts them without a
delay, and leaves them behind if it is killed. Here a worker notices the end of its parent, because its channel closes.

Messages to a worker: `open` (a version), `decided`, `drop` (a version), `answer` (to `reload` or `central`) and
`perform` (a request that another worker forwards). Messages from a worker: `opened`, `failed`, `started` (lines for
the user), `reload`, `central` and `performed`.
"""

import multiprocessing
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

from model.errors import RcmlError
from service.engine.network_process.messages import pack_error
from service.lifecycle.engine_swap import OPENING
from service.problems.errors import BusyError
from service.shared.channel import Channel, Frame
from service.shared.counters import NO_LEADER, Counter, SharedCounters
from service.shared.worker import COUNTERS_FILE, WorkerPlace
from service.telemetry.logs import logger

from .opening import Opening
from .stop_signals import StopSignals, ending, sigint_blocked

RunWorker = Callable[[WorkerPlace, socket.socket], None]
"""Function that a new process runs; it must be importable by name."""

LOOK_INTERVAL_S = 1.0
"""Seconds between two looks for workers that hang."""

SHORT_LIFE_S = 10.0
"""Life of a worker below which its successor waits before it starts."""

FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 10.0
"""Seconds before a successor starts: twice as long after every further short life."""

MAX_EARLY_ENDS = 3
"""Number of workers that may end before the first version is open. After that, the server stops."""

STOP_MARGIN_S = 5.0
"""Seconds that workers have to end in addition to the time for a graceful stop."""


@dataclass(eq=False)
class Child:
    """A running worker process."""

    number: int
    process: BaseProcess
    channel: Channel
    since: float = field(default_factory=monotonic)
    opened: set[int] = field(default_factory=set)
    closed: bool = False

    def tell(self, kind: str, **content: Any) -> None:
        """Send a message, or kill the worker if it does not take it.

        A message that was cut off would make the worker misread all later ones.
        """
        if not self.channel.send(kind, **content):
            self.process.kill()


@dataclass(frozen=True)
class _Forwarded:
    """A request that one worker forwarded to another."""

    asker: Child
    ask: int
    leader: Child

    def answer(self, response: Frame) -> None:
        self.asker.tell("answer", ask=self.ask, content=response)


class Supervisor:
    """Supervisor of `workers` processes that run `run_worker`."""

    def __init__(
        self,
        run_worker: RunWorker,
        workers: int,
        listener: socket.socket,
        folder: Path,
        show: Callable[[str], None],
        grace_s: float,
        patience_s: float,
    ) -> None:
        """Open what the workers share in `folder` (`service.shared.worker.create_shared`).

        The workers accept from `listener`. `show` writes lines for the user. After a stop signal, the workers have
        `grace_s` seconds. A worker whose event loop stands still for `patience_s` is killed.
        """
        self._run_worker = run_worker
        self._count = workers
        self._listener = listener
        self._folder = folder
        self._show: Callable[[str], None] | None = show
        self._grace_s = grace_s
        self._patience_s = patience_s
        self._started = datetime.now(UTC)
        self._counters = SharedCounters.open(folder / COUNTERS_FILE, 0, workers)
        self._counters.leader = NO_LEADER
        self._children: dict[int, Child] = {}
        self._due: dict[int, float] = dict.fromkeys(range(workers), 0.0)
        self._short_lives: dict[int, int] = {}
        self._early_ends = 0
        self._served: Frame | None = None  # artifacts of the decided version; None: those of the options
        self._opening: Opening | None = Opening(1, None)
        self._epochs = count(2)
        self._forwarded: dict[int, _Forwarded] = {}
        self._tokens = count()
        self._deadline: float | None = None
        self._failure: RcmlError | None = None

    def run(self) -> int | None:
        """Run until a stop signal has been received and all workers have ended, and return the signal.

        Raises:
            RcmlError: The first version could not be opened.
        """
        with StopSignals() as signals:
            try:
                while self._children or self._deadline is None:
                    self._start_due()
                    self._wait(signals)
                    if signals.taken():
                        self._stop(at_once=signals.last == signal.SIGINT)
                    self._end_stuck()
            finally:  # if this loop fails, nobody else would end the workers
                for child in self._children.values():
                    child.process.kill()
        if self._failure is not None:
            raise self._failure
        return signals.last

    # Workers.

    def _start_due(self) -> None:
        now = monotonic()
        for number in [number for number, due in self._due.items() if due <= now and self._deadline is None]:
            del self._due[number]
            try:
                self._start(number)
            except OSError as error:  # too few file descriptors or processes, or too little memory
                self._plan_start(number, 0.0, f"could not be started ({error})")

    def _start(self, number: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            place = WorkerPlace(number, self._count, self._folder, theirs, self._started)
            process = multiprocessing.get_context("spawn").Process(
                target=self._run_worker, args=(place, self._listener), name=f"rcml worker {number}"
            )
            with sigint_blocked():  # Ctrl-C reaches all processes, and the parent acts on it
                process.start()
        child = self._children[number] = Child(number, process, Channel(ours))
        if self._counters.epoch:
            child.tell("open", epoch=self._counters.epoch, artifacts=self._served)
        if self._opening is not None:
            child.tell("open", epoch=self._opening.epoch, artifacts=self._opening.artifacts)

    def _wait(self, signals: StopSignals) -> None:
        """Wait for the next event, and take the messages and the ends of workers."""
        connections = {
            child.channel.connection: child for child in self._children.values() if not child.closed
        }
        sentinels = {child.process.sentinel: child for child in self._children.values()}
        ready = wait([signals.fileno(), *connections, *sentinels], self._until_due())
        for connection in ready:
            if isinstance(connection, Connection):
                self._receive(connections[connection])
        for sentinel in ready:
            if isinstance(sentinel, int) and sentinel in sentinels:
                self._ended(sentinels[sentinel])

    def _until_due(self) -> float:
        due = [*self._due.values()] if self._deadline is None else [self._deadline]
        return max(0.0, min([LOOK_INTERVAL_S, *(one - monotonic() for one in due)]))

    def _receive(self, child: Child) -> None:
        frame = child.channel.receive()
        if frame is None:
            child.closed = True
            if self._deadline is None:  # it ends, or it has cut a message off and cannot be heard any more
                child.process.kill()
            return
        self._take(child, frame)

    def _ended(self, child: Child) -> None:
        while not child.closed and child.channel.connection.poll():
            self._receive(child)
        child.process.join()
        child.channel.connection.close()
        del self._children[child.number]
        self._counters.forget(child.number)
        if self._counters.leader == child.number:
            self._counters.leader = NO_LEADER
            self._choose_leader()
        for token, one in [*self._forwarded.items()]:
            if one.leader is child:
                self._forwarded.pop(token).answer({})
        if self._deadline is None:
            how = f"(process {child.process.pid}) ended {ending(child.process.exitcode)}"
            self._plan_start(child.number, monotonic() - child.since, how)
        self._decide()

    def _plan_start(self, number: int, lived_s: float, how: str) -> None:
        """Plan to start a worker again that has `lived_s` seconds; `how` tells how it ended."""
        lives = self._short_lives[number] = (
            self._short_lives.get(number, 0) + 1 if lived_s < SHORT_LIFE_S else 0
        )
        delay = min(FIRST_DELAY_S * 2 ** (lives - 1), LONGEST_DELAY_S) if lives else 0.0
        if not self._counters.epoch:
            self._early_ends += 1
            if self._early_ends >= MAX_EARLY_ENDS:
                self._fail(
                    f"{MAX_EARLY_ENDS} workers ended before the index was open. The last one, worker {number}, {how}."
                )
                return
        logger.error("Worker %d %s. Another one starts in %.1f s.", number, how, delay)
        self._due[number] = monotonic() + delay

    def _end_stuck(self) -> None:
        now = monotonic()
        if self._deadline is not None:
            for child in self._children.values() if now > self._deadline else ():
                child.process.kill()
            return
        for child in self._children.values():
            beat = self._counters.of(child.number, Counter.BEAT) / 1000
            if beat and now - beat > self._patience_s:
                logger.error("Worker %d stood still for %.0f s and is killed.", child.number, now - beat)
                child.process.kill()

    def _stop(self, at_once: bool = False) -> None:
        """Let all workers finish their requests and end. If they are already told to, they may be ended `at_once`."""
        if self._deadline is not None:
            if at_once:
                self._deadline = 0.0
            return
        self._deadline = monotonic() + self._grace_s + STOP_MARGIN_S
        # Close first: the last worker that closes its listener has accepted all connections that waited.
        self._listener.close()
        for child in self._children.values():
            child.process.terminate()

    def _fail(self, message: str) -> None:
        if self._failure is None:
            self._failure = RcmlError(message)
            self._stop()

    # Messages.

    def _take(self, child: Child, frame: Frame) -> None:
        match frame["kind"]:
            case "opened":
                child.opened.add(frame["epoch"])
                self._decide()
                self._choose_leader()
            case "failed":
                self._failed(child, frame)
            case "started":
                if self._show is not None:
                    for line in frame["lines"]:
                        self._show(line)
                    self._show = None
            case "reload":
                self._begin(child, frame)
            case "central":
                self._forward(child, frame)
            case "performed":
                if frame["token"] in self._forwarded:
                    self._forwarded.pop(frame["token"]).answer(frame["response"])

    # Versions.

    def _begin(self, child: Child, frame: Frame) -> None:
        if self._opening is not None:
            busy = {"error": pack_error(BusyError(OPENING))}
            child.tell("answer", ask=frame["ask"], content=busy)
            return

        def answer(**content: Any) -> None:
            child.tell("answer", ask=frame["ask"], content=content)

        epoch = next(self._epochs)
        self._opening = Opening(epoch, frame["artifacts"], answer)
        self._tell("open", epoch=epoch, artifacts=frame["artifacts"])

    def _failed(self, child: Child, frame: Frame) -> None:
        """Take the report that a worker could not open a version."""
        if not self._counters.epoch:
            self._fail(frame["message"])
        elif self._opening is not None and frame["epoch"] == self._opening.epoch:
            opening, self._opening = self._opening, None
            opening.answer(error=frame["error"])
            self._tell("drop", epoch=opening.epoch)
        elif frame["epoch"] in (0, self._counters.epoch):
            logger.error("Worker %d could not open the index: %s", child.number, frame["message"])
            child.process.terminate()

    def _decide(self) -> None:
        """Decide that a version is served, if all workers have opened it."""
        opening, children = self._opening, self._children.values()
        if opening is None or not children or (not self._counters.epoch and len(children) < self._count):
            return
        if all(opening.epoch in child.opened for child in children):
            self._opening = None
            self._served = opening.artifacts
            self._counters.epoch = opening.epoch
            self._tell("decided")
            opening.answer()

    def _tell(self, kind: str, **content: Any) -> None:
        for child in self._children.values():
            child.tell(kind, **content)

    # Central requests.

    def _choose_leader(self) -> None:
        """Let the first worker that serves lead, if none does. It leads until it ends."""
        if self._counters.leader == NO_LEADER and self._counters.epoch:
            able = [child.number for child in self._children.values() if self._counters.epoch in child.opened]
            self._counters.leader = min(able, default=NO_LEADER)

    def _forward(self, child: Child, frame: Frame) -> None:
        leader = self._children.get(self._counters.leader)
        if leader is None:
            child.tell("answer", ask=frame["ask"], content={})
            return
        token = next(self._tokens)
        self._forwarded[token] = _Forwarded(child, frame["ask"], leader)
        leader.tell("perform", token=token, request=frame["request"])
