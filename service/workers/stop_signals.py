"""Stop signals of the parent process: they end its wait and are handled between two waits."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, Self

STOP = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """SIGINT and SIGTERM within a context; `fileno` becomes readable when one arrives."""

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._received: list[int] = []
        self.last: int | None = None
        self._woken = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers: dict[signal.Signals, Any] = {one: signal.signal(one, self._note) for one in STOP}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._handlers.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(self._woken)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Return the file descriptor to wait for."""
        return self._reader.fileno()

    def taken(self) -> bool:
        """Return whether a signal has arrived since the last call."""
        with suppress(BlockingIOError):
            self._reader.recv(4096)
        found, self._received = self._received, []
        return bool(found)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        self.last = number


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the processes that are started within the context, which inherit that. This one gets it later."""
    resource_tracker.ensure_running()  # otherwise it is started with the first process, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending(exit_code: int | None) -> str:
    """Describe how a process ended, such as "by SIGKILL" or "with exit code 3"."""
    if exit_code is not None and exit_code < 0:
        return f"by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"
