"""A temporary Postgres server for tests, in its own folder on a free port of 127.0.0.1."""

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
    """Return the path of a Postgres program: the newest Debian version, or else the one on the PATH.

    Debian leaves most Postgres programs off the PATH.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which(name)
    return found[-1] if found else Path(on_path) if on_path else None


class Server:
    """Postgres cluster in a folder; tests start and stop it."""

    def __init__(self, folder: Path, postgres: Path, owner: str | None) -> None:
        self._folder = folder
        self._postgres = postgres
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def url(self, name: str | None = None) -> str:
        """Return the address of a journal, in a new schema unless `name` gives one."""
        schema = name or f"test_{secrets.token_hex(6)}"
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{schema}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
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
        """Stop the server; SIGINT ends all sessions at once, and SIGQUIT acts like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(600)
            self._process = None


@contextmanager
def cluster() -> Iterator[Server]:
    """Create a cluster, run it, and remove it; skip the test if Postgres is not installed."""
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("Postgres is not installed. Run `apt-get install postgresql`.")
    owner = "postgres" if os.getuid() == 0 else None  # Postgres refuses to run as root
    # The cluster is not in pytest's temporary folder, because the `postgres` user has no access to that folder.
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
