"""A throw-away Postgres server for the tests: in a folder of its own, on a free port of 127.0.0.1."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "rcml"


def _binary(name: str) -> Path | None:
    """Newest of Debian's, or what is on the path; Debian puts most of them into no path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which(name)
    return found[-1] if found else Path(on_path) if on_path else None


class Server:
    """A cluster in a folder; started and stopped at will."""

    def __init__(self, folder: Path, postgres: Path, owner: str | None) -> None:
        self._folder = folder
        self._postgres = postgres
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def url(self, name: str | None = None) -> str:
        """The address of a journal of its own."""
        schema = name or f"test_{secrets.token_hex(6)}"
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{schema}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings = [f"-c{name}={value}" for name, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._postgres, "-D", self._folder / "data", *settings],
                user=self._owner,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        ready = [str(self._postgres.with_name("pg_isready")), "-q", "-h127.0.0.1", f"-p{self.port}"]
        while subprocess.run(ready).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop; SIGINT ends all sessions at once, SIGQUIT as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(600)
            self._process = None


@contextmanager
def cluster() -> Iterator[Server]:
    """Make a cluster, run it, remove it; skips where there is no server to run."""
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("there is no Postgres server here: apt-get install postgresql")
    owner = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    # Not below pytest's folder, which is closed to all but its owner.
    with tempfile.TemporaryDirectory(prefix="rcml-postgres-") as name:
        folder = Path(name)
        if owner is not None:
            shutil.chown(folder, owner)
        made = subprocess.run(
            [
                initdb,
                "--auth=trust",
                f"--username={USER}",
                "--no-locale",
                "-EUTF8",
                "--no-sync",
                folder / "data",
            ],
            user=owner,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr
        server = Server(folder, postgres, owner)
        server.start()
        try:
            yield server
        finally:
            server.stop()
