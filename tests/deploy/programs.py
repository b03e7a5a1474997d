"""Programs that read the files of deploy/: each is found on the PATH, or the test that needs it is skipped."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

PACKAGES = {
    "caddy": "caddy",
    "kubectl": "kubernetes-client",
    "nginx": "nginx",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""Debian package of each program."""


def program(name: str) -> str:
    """Return the path of a program, or skip the test if the program is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {PACKAGES[name]})")
    return found


def run(name: str, *arguments: object, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed; fail the test with its output if it fails."""
    words = [program(name), *map(str, arguments)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def listening(
    words: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server within the `with` block, once it listens on `port` of 127.0.0.1."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
    try:
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
