"""Temporary Milvus servers for tests, in a separate process on 127.0.0.1: Milvus Lite, and a whole Milvus."""

import json
import lzma
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest

STANDALONE_SKIP = "Milvus is not installed. Run `make test-milvus`, or `pip install --no-deps milvus==2.3.5`."


class MilvusServer(Protocol):
    """A server that tests start and stop."""

    uri: str

    def start(self) -> None:
        """Start the server and wait until it answers."""

    def stop(self) -> None:
        """Stop the server; searches fail until it is started again."""


def free_ports(count: int) -> list[int]:
    """Return distinct ports that nothing listens on, and that the kernel gives to no outgoing connection."""
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(range(20_000, 32_000), 1_000):
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no ports are free")


class Server:
    """Milvus Lite server with its data in a folder; tests start and stop it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)
        self.uri = f"http://127.0.0.1:{self.port}"

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


class Standalone:
    """Whole Milvus with its own etcd and storage, from the package `milvus`; it is stopped by SIGKILL, like a crash.

    The package's `milvus-server` is not used, because it starts the program as a child and looks for other ports after
    a restart.
    """

    def __init__(self, folder: Path) -> None:
        import milvus

        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        settings = milvus.MilvusServerConfig(data_dir=str(folder))
        names = [name for name in settings.configurable_items if name.endswith("_port")]
        self._health_port, peers, *ports = free_ports(2 + len(names))
        for name, port in zip(names, ports, strict=True):
            settings.set(name, port)
        settings.resolve()
        # The template of the package has no port for the peers of etcd, so that a second server could not start.
        peer = f"http://127.0.0.1:{peers}"
        etcd = {
            "name": "default",
            "data-dir": str(folder / "data" / "etcd.data"),
            "listen-client-urls": f"http://127.0.0.1:{settings.get('etcd_port')}",
            "advertise-client-urls": f"http://127.0.0.1:{settings.get('etcd_port')}",
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        (folder / "etcd.yaml").write_text(json.dumps(etcd))
        (folder / "bin").mkdir()
        for packed in (Path(milvus.__file__).parent / "data" / "bin").glob("*.lzma"):
            program = folder / "bin" / packed.stem
            with lzma.open(packed) as content, program.open("wb") as target:
                shutil.copyfileobj(content, target)
            program.chmod(0o755)
        self.uri = f"http://127.0.0.1:{settings.get('proxy_port')}"

    def start(self) -> None:
        """Start the server and wait until all its parts report that they are healthy."""
        programs = self._folder / "bin"
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": f"{self._health_port}",
            "ETCD_CONFIG_PATH": str(self._folder / "etcd.yaml"),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
            "LD_LIBRARY_PATH": str(programs),
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [programs / "milvus", "run", "standalone"],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        while not self._healthy():
            assert self._process.poll() is None, re.findall(
                "(?m)^panic.*", (self._folder / "log").read_text()
            )
            time.sleep(0.1)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/healthz") as answer:
                return b"OK" in answer.read()
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(600)
            self._process = None


@contextmanager
def standalone(folder: Path) -> Iterator[Standalone]:
    """Run Milvus with its data in `folder` while the block runs; skip the test if Milvus is not installed."""
    if find_spec("milvus") is None:
        pytest.skip(STANDALONE_SKIP)
    running = Standalone(folder)
    running.start()
    try:
        yield running
    finally:
        running.stop()
