"""A throw-away Milvus server for the tests: that of milvus-lite, in a process of its own, on 127.0.0.1."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Server:
    """milvus-lite's server over a folder; started and stopped at will."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def uri(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers: its port is open before."""
        before = self._ready()
        program = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
        options = [
            "--data-dir",
            str(self._folder / "milvus"),
            "--host",
            "127.0.0.1",
            "--port",
            f"{self.port}",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", program, "server", *options], stdout=log, stderr=log
            )
        while self._ready() == before:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.05)

    def _ready(self) -> int:
        """How often it has said that it listens."""
        log = self._folder / "log"
        return log.read_text().count("listening on") if log.exists() else 0

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(600)
            self._process = None


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server over a folder of its own, for as long as the block runs."""
    running = Server(folder)
    running.start()
    try:
        yield running
    finally:
        running.stop()
