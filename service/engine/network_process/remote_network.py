"""Network that runs in the network process, as a server process sees it.

A `RemoteNetwork` is a connection on which one checkpoint is open. A thread reads the results. If the connection ends,
its jobs fail with a `NetworkLostError`, and the thread opens the checkpoint again as soon as a new network process
accepts connections. Meanwhile further jobs fail at once, and `/readyz` tells the reason.
"""

import asyncio
import mmap
import socket
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import NamedTuple, cast

from numpy import ndarray

from model.config import Device, TowerEngine, TowerPrecision
from model.errors import MismatchError
from service.engine.model_jobs import Job, Result
from service.engine.network_queue import NetworkQueue
from service.engine.queue_load import QueueLoad
from service.engine.watchdog import JOB_TIMEOUT_S, Heartbeat
from service.problems.errors import NetworkLostError, OverloadedError
from service.telemetry.logs import escaped, logger

from .frame_sender import FrameSender
from .frames import Frame, FrameError, encode, receive
from .messages import pack, unpack, unpack_error
from .suspects import Suspects

REOPEN_DELAY_S, MAX_REOPEN_DELAY_S = 0.1, 10.0
"""First and longest pause between two attempts to open a checkpoint again. Each failure doubles the pause."""

READ_BUFFER_BYTES = 2**20
"""Size of the buffer of a connection, so that the results of a batch are read at once."""


class _Waiting(NamedTuple):
    """A job that has been sent, and its caller."""

    job: Job
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Result]"


class _Connection(NamedTuple):
    """An open checkpoint: its socket, and the load that the network process publishes.

    `slot` is the place of the connection in `QueueLoad.received`.
    """

    socket: socket.socket
    source: BufferedReader
    sender: FrameSender
    load: QueueLoad
    slot: int


class _RemoteHeartbeat(Heartbeat):
    """Heartbeat of a network in another process."""

    def __init__(self, network: "RemoteNetwork", timeout_s: float) -> None:
        super().__init__("network", timeout_s)
        self._network = network

    @property
    def stuck_reason(self) -> str | None:
        """Sentences that state why the network is stuck or away, or None if it is healthy."""
        load = self._network.load
        if load is None:
            return str(NetworkLostError())
        return self.overdue_reason(since) if (since := load.since) else None


class RemoteNetwork(NetworkQueue):
    """Network of one checkpoint in the network process. Use `submit` from one event loop."""

    def __init__(
        self,
        address: Path,
        checkpoint: Path,
        device: Device,
        precision: TowerPrecision,
        engine: TowerEngine,
        job_timeout_s: float = JOB_TIMEOUT_S,
    ) -> None:
        """Open a checkpoint in the network process that listens at `address`. This takes seconds.

        Raises:
            RcmlError: The checkpoint cannot be opened; see `service.engine.open_encoder`.
            RuntimeError: The same, for any other reason.
            NetworkLostError: The network process ended meanwhile.
        """
        self._address = address
        self._request = Frame("open", 0, [str(checkpoint.absolute()), device, precision, engine])
        self._lock = Lock()
        self._pending: dict[int, _Waiting] = {}
        self._numbers = count(1)
        self._sent = 0
        self._digest: str | None = None
        self._suspects = Suspects()
        self._closed = Event()
        self._connection: _Connection | None = self._open()
        self.heartbeat = _RemoteHeartbeat(self, job_timeout_s)
        self._thread = Thread(target=self._run, name="rcml network", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return the number of jobs of this process that are queued or running."""
        return len(self._pending)

    @property
    def load(self) -> QueueLoad | None:
        """Load that the network process publishes, or None while it is away."""
        connection = self._connection
        return None if connection is None else connection.load

    @property
    def longest_s(self) -> float:
        """Longest time of a batch; see `NetworkQueue.longest_s`. It is 0 while the network process is away."""
        load = self.load
        return 0.0 if load is None else load.longest

    def expected_wait(self, more: int = 0) -> float:
        """Return the seconds that a job would wait behind the jobs of all processes and `more` others, if too long.

        Return 0 if the job would be accepted, or if the network process is away.
        """
        connection = self._connection
        if connection is None:
            return 0.0
        on_the_way = self._sent - int(connection.load.received[connection.slot])
        return connection.load.expected_wait(on_the_way + more, monotonic())

    async def submit(self, job: Job) -> Result:
        """Run a job in the network process and return its result; see `NetworkQueue.submit`.

        Raises:
            NetworkLostError: The network process ended, or is away.
            RuntimeError: The network is closed, or the job has ended the network process several times.
            OverloadedError, RcmlError: See `NetworkQueue.submit`.
        """
        if wait := self.expected_wait():
            raise OverloadedError(wait)
        self._suspects.check(job)
        arrays: list[ndarray] = []
        body = pack(job, arrays)
        number, loop = next(self._numbers), asyncio.get_running_loop()
        parts = encode(Frame("job", number, body, arrays))
        future: asyncio.Future[Result] = loop.create_future()
        with self._lock:
            connection = self._connection
            if self._closed.is_set():
                raise RuntimeError("The network is closed and accepts no more jobs.")
            if connection is None:
                raise NetworkLostError
            self._pending[number] = _Waiting(job, loop, future)
            self._sent += 1
        connection.sender.send(parts)
        try:
            result = await future
            self._suspects.clear(job)
            return result
        finally:
            if self._pending.pop(number, None) is not None:  # the caller was cancelled
                connection.sender.send(encode(Frame("cancel", number)))
            del future  # the traceback of its error refers to this frame: a cycle, with the job

    def close(self) -> None:
        """Wait for the results of the accepted jobs, then release the checkpoint. A stuck network is not waited for."""
        self._closed.set()
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.sender.send(encode(Frame("close", 0)))
            self._thread.join(self.heartbeat.timeout_s)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _open(self) -> _Connection:
        """Connect to the network process and open the checkpoint. While no process accepts, the connection waits."""
        self._socket = opening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        source = cast(BufferedReader, opening.makefile("rb", READ_BUFFER_BYTES))
        try:
            opening.connect(str(self._address))
            for part in encode(self._request):
                opening.sendall(part)
            reply = receive(source)
            if reply is None:
                raise NetworkLostError
            if reply.kind == "error":
                raise unpack_error(reply.body)
            match reply.body:
                case [
                    str(file),
                    int(slot),
                    str(digest),
                    int(batch_size),
                    str(device),
                    str(towers),
                    dict(versions),
                ]:
                    if self._digest not in (None, digest):
                        raise MismatchError(
                            f"The checkpoint {self._request.body[0]} was replaced by another one. Put it back, or "
                            "reload an index that was built from the new one."
                        )
                    with (self._address.parent / file).open("rb") as shared:
                        memory = mmap.mmap(shared.fileno(), QueueLoad.BYTES, access=mmap.ACCESS_READ)
                case _:
                    raise FrameError(f"The reply to `open` is not a description of a network: {reply.body}.")
        except BaseException as error:
            source.close()
            opening.close()
            if isinstance(error, OSError):
                raise NetworkLostError from error
            raise
        self.batch_size, self.device, self.towers, self._digest = batch_size, device, towers, digest
        self.versions: Mapping[str, str] = versions
        self._sent = 0
        return _Connection(opening, source, FrameSender(opening), QueueLoad(memoryview(memory)), slot)

    def _run(self) -> None:
        """Pass on results until the network is closed, and open the checkpoint again whenever the connection ends."""
        delay = REOPEN_DELAY_S
        while True:
            if (connection := self._connection) is not None:
                self._read(connection.source)
                self._lose(connection)
                delay = REOPEN_DELAY_S
            if self._closed.is_set():
                return
            try:
                opened = self._open()
            except Exception as error:  # the network may be available again later
                if self._closed.is_set():
                    return
                logger.warning("The checkpoint could not be opened again: %s", escaped(error))
                self._closed.wait(delay)
                delay = min(2 * delay, MAX_REOPEN_DELAY_S)
                continue
            with self._lock:
                self._connection = opened
            if self._closed.is_set():  # `close` did not see the connection
                opened.socket.shutdown(socket.SHUT_RDWR)
            logger.info("The network process has opened the checkpoint again.")

    def _read(self, source: BufferedReader) -> None:
        """Pass the results on to their callers until the connection ends."""
        try:
            while (frame := receive(source)) is not None:
                waiting = self._pending.pop(frame.job, None)
                if waiting is None:  # the caller was cancelled
                    continue
                try:
                    _settle(waiting, _outcome(frame))
                except FrameError as error:
                    _settle(waiting, error)
                    raise
        except OSError:
            pass
        except FrameError as error:
            logger.error("The connection to the network process is closed: %s", error)

    def _lose(self, connection: _Connection) -> None:
        """Fail the jobs of a connection that has ended, and close it."""
        with self._lock:
            self._connection = None
            lost, self._pending = self._pending, {}
        self._suspects.add(waiting.job for waiting in lost.values())
        for waiting in lost.values():
            _settle(waiting, NetworkLostError())
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.sender.close()
        connection.source.close()
        connection.socket.close()


def _outcome(frame: Frame) -> Result | Exception:
    """Return the result or the error in a frame."""
    if frame.kind == "error":
        return unpack_error(frame.body)
    result = unpack(frame.body, frame.arrays)
    if not isinstance(result, Result):
        raise FrameError(f"A frame of kind {frame.kind!r} has no result of a job.")
    return result


def _settle(waiting: _Waiting, outcome: Result | Exception) -> None:
    """Pass the outcome of a job to its caller, on the event loop of the caller."""

    def settle() -> None:
        if waiting.future.done():
            return
        if isinstance(outcome, Exception):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)

    with suppress(RuntimeError):  # the event loop is closed
        waiting.loop.call_soon_threadsafe(settle)
