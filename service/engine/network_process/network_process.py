"""Network process: started by the process that starts the servers, and started again if it ends.

    with NetworkProcess("info", "auto") as process:
        opened = process.opener(job_timeout_s)      # an `OpenEncoder`, also for other processes (it can be pickled)

The parent owns the listening socket, so that servers can connect while no network process runs; the next one accepts
their connections. Only the owner of the socket's folder can connect.
"""

import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from model.errors import InputError
from service.engine.engine import OpenEncoder
from service.settings import LogFormat, LogLevel
from service.telemetry.logs import logger

from .entry import Options
from .remote_network import RemoteNetwork

RESTART_DELAY_S, MAX_RESTART_DELAY_S = 0.1, 30.0
"""First and longest pause before a restart. Each restart within `STEADY_S` doubles the pause."""

STEADY_S = 60.0
"""Seconds after which a running process is taken to be healthy."""

STOP_S = 5.0
"""Seconds that the process may take to end before it is killed."""

OPEN_ENCODER = "service.engine.open_encoder:open_encoder"

BACKLOG = 512
"""Number of servers that can wait for a process to accept them."""


class NetworkProcess:
    """Process that runs the networks of all servers of this machine that know its address."""

    def __init__(
        self, log_level: LogLevel = "info", log_format: LogFormat = "auto", open_encoder: str = OPEN_ENCODER
    ) -> None:
        """Start the process, which loads encoders with the function `open_encoder`, as "module:name".

        Raises:
            InputError: The path of the folder for temporary files is too long for a socket.
        """
        self._folder = Path(mkdtemp(prefix="rcml-"))  # with access for its owner only
        self.address = self._folder / "network"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(self.address))
        except OSError as error:
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise InputError(
                f"The network process cannot listen at {self.address}: {error}. Set TMPDIR to a folder with a shorter "
                "path that this user may write to."
            ) from None
        self._listener.listen(BACKLOG)
        self._lifeline, self._held = os.pipe()
        self._options = Options(
            folder=str(self._folder),
            listener=self._listener.fileno(),
            lifeline=self._lifeline,
            parent=os.getpid(),
            open_encoder=open_encoder,
            log_level=log_level,
            log_format=log_format,
        )
        self._closing = Event()
        self._process: subprocess.Popen[bytes] | None = None
        # On Linux, the process is killed as soon as the thread that started it ends.
        self._thread = Thread(target=self._run, name="rcml network process", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """ID of the running process, or None if it is being restarted."""
        process = self._process
        return None if process is None else process.pid

    def opener(self, job_timeout_s: float) -> OpenEncoder:
        """Return a function that opens checkpoints in the process. A job that takes longer is reported as stuck."""
        return partial(RemoteNetwork, self.address, job_timeout_s=job_timeout_s)

    def close(self) -> None:
        """Stop the process. Servers must have closed their networks before."""
        self._closing.set()
        os.close(self._held)
        self._thread.join(STOP_S)
        while self._thread.is_alive():
            if self._process is not None:
                self._process.kill()
            self._thread.join(STOP_S)
        os.close(self._lifeline)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        """Start the process, and start it again whenever it ends, until `close`."""
        delay = RESTART_DELAY_S
        while not self._closing.is_set():
            began = monotonic()
            try:
                status = self._wait_for_process()
                reason = f"signal {-status}" if status < 0 else f"exit code {status}"
            except OSError as error:  # there is not enough memory for another process
                reason = str(error)
            if self._closing.is_set():
                return
            if monotonic() - began > STEADY_S:
                delay = RESTART_DELAY_S
            logger.error("The network process ended (%s). It is restarted in %g s.", reason, delay)
            self._closing.wait(delay)
            delay = min(2 * delay, MAX_RESTART_DELAY_S)

    def _wait_for_process(self) -> int:
        """Start the process, wait until it ends, and return its exit code."""
        self._process = subprocess.Popen(
            [sys.executable, *self._options.arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            pass_fds=(self._options.listener, self._options.lifeline),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches only the server, which then stops the network process
        )
        try:
            return self._process.wait()
        finally:
            self._process = None
