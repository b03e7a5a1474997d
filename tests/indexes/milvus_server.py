"""A temporary Milvus Lite server for tests, in a separate process on 127.0.0.1."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Server:
    """Milvus Lite server with its data in a folder; tests start and stop it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def uri(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it is ready; its port opens earlier than that."""
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
        """Return how often the server has logged that it is listening."""
        log = self._folder / "log"
        return log.read_text().count("listening on") if log.exists() else 0

    def stop(self) -> None:
        """Stop the server as Ctrl-C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(600)
            self._process = None


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Run a server with its data in `folder` while the block runs."""
    running = Server(folder)
    running.start()
    try:
        yield running
    finally:
        running.stop()
