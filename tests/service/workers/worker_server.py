"""A server with several workers in processes of its own, and what the tests see of it from outside."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Self

import httpx

from tests.indexes.fakes import FakeEncoder

PATIENCE_S = 600
"""Seconds within which everything happens, even on a slow machine."""


def open_fake(checkpoint: Path, *how: object) -> FakeEncoder:
    """Open the fake encoder."""
    return FakeEncoder()


def open_accented_fake(checkpoint: Path, *how: object) -> FakeEncoder:
    """Open the fake encoder of a checkpoint of `tests/service/shops.py`.

    Worker 1 fails while the file `fails-in-worker-1` lies beside the checkpoint. All wait while `wait` lies there.
    """
    from tests.service.shops import open_accented

    failing = (checkpoint.parent / "fails-in-worker-1").exists()
    if failing and multiprocessing.current_process().name == "rcml worker 1":
        raise MemoryError("12 GB")
    while (checkpoint.parent / "wait").exists():
        time.sleep(0.01)
    return open_accented(checkpoint)


def open_in_network_process(checkpoint: Path, *how: object) -> FakeEncoder:
    """Open the accented fake; kill the network process instead while `kills-the-network` lies beside the checkpoint."""
    if (checkpoint.parent / "kills-the-network").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return open_accented_fake(checkpoint)


def main() -> int:
    """Run the server: the arguments are the index and options such as `workers=2`; return the exit code.

    With `open=network`, the fake encoder runs in a network process.
    """
    from model.errors import RcmlError
    from service.engine.network_process.network_process import NetworkProcess
    from service.serve import serve
    from service.settings import ServeConfig

    options: dict[str, Any] = dict(option.split("=", 1) for option in sys.argv[2:])
    opened = options.pop("open", "")
    encoder: Any = open_accented_fake if opened else open_fake
    try:
        # Idle connections stay open, however slow the machine is.
        config = ServeConfig(
            index=Path(sys.argv[1]), port=0, log_format="json", keep_alive_seconds=600, **options
        )
        with ExitStack() as stack:
            if opened == "network":
                function = f"tests.service.workers.worker_server:{open_in_network_process.__name__}"
                process = stack.enter_context(NetworkProcess("info", "json", function))
                encoder = process.opener(config.worker_patience)
            serve(config, open_encoder=encoder)
    except RcmlError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@dataclass
class WorkerServer:
    """A running server: its parent process and its lines of JSON."""

    process: "subprocess.Popen[str]"
    lines: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    counts: int = 0

    @classmethod
    def start(cls, index: Path, *options: str) -> Self:
        """Start a server and wait until its address is known."""
        command = [sys.executable, "-m", "tests.service.workers.worker_server", str(index), *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        server = cls(process)
        Thread(target=server.read, daemon=True).start()
        eventually(lambda: server.url or process.poll() is not None)
        return server

    def read(self) -> None:
        """Read the log until the server ends."""
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                try:
                    found = json.loads(line)
                except ValueError:
                    found = {"message": line.rstrip()}
                if listening := re.match(r"Listening on (\S+) ", found["message"]):
                    self.url = listening[1]
                self.lines.append(found)

    def messages(self) -> list[str]:
        """Return the messages that the server has logged."""
        return [line["message"] for line in self.lines]

    def pids(self) -> set[int]:
        """Return the processes of the workers."""
        return self._children("spawn_main")

    def _children(self, command_part: str) -> set[int]:
        found = set()
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_text()
                if int(stat[1]) == self.process.pid and command_part in command and stat[0] != "Z":
                    found.add(int(folder.name))
        return found

    def network_pids(self) -> set[int]:
        """Return the network process."""
        return self._children("network_process.entry")

    def wait_until_ready(self) -> None:
        """Wait until requests are answered."""

        def ready() -> bool:
            assert self.process.poll() is None, self.messages()
            with suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/readyz", timeout=PATIENCE_S).status_code == 200
            return False

        eventually(ready)

    def workers_of(self, request_ids: Sequence[str]) -> dict[str, int]:
        """Return which worker answered each of the requests, once all are in the log."""

        def found() -> dict[str, int]:
            return {
                line["request_id"]: line["worker"]
                for line in list(self.lines)
                if line.get("request_id") in wanted and line.get("logger") == "rcml.requests"
            }

        wanted = set(request_ids)
        eventually(lambda: found().keys() == wanted)
        return found()

    def stop(self) -> int:
        """Stop the server as an orchestrator does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(index: Path, *options: str) -> Iterator[WorkerServer]:
    """Run a server with the given options; at the end, no process of it is left."""
    server = WorkerServer.start(index, *options)
    try:
        server.wait_until_ready()
        yield server
        server.stop()
    finally:
        pids = server.pids()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in pids))


def clients(server: WorkerServer, count: int = 2) -> "dict[int, httpx.Client]":
    """Return an open connection to each of `count` workers."""
    found: dict[int, httpx.Client] = {}

    def another() -> bool:
        client = httpx.Client(base_url=server.url, timeout=PATIENCE_S)
        server.counts += 1
        request_id = f"which-{server.counts}"
        client.get("/docs", headers={"X-Request-Id": request_id}).raise_for_status()
        [worker] = server.workers_of([request_id]).values()
        if worker in found:
            client.close()
        else:
            found[worker] = client
        return len(found) == count

    eventually(another)
    return found


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        os.kill(pid, 0)
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Any) -> None:
    """Wait until a condition holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE_S
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
