"""Containers without a Docker engine: the command of an image with the isolation that docker-compose.yml asks for.

Own mounts, processes and network; a read-only root, with `/tmp` and `/dev/shm` in memory and one folder per volume; the
user of the image, without capabilities and unable to gain any; the command as process 1, so that the kernel ignores
signals without a handler, as it does in Docker. Limits of memory and the system calls that Docker forbids are left out.
"""

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of unshare(2)."""

START_S = 3600.0
"""Maximum time in seconds until the healthcheck succeeds, even on a slow machine: the sample shop is trained first."""

INTERVAL_S = 10.0
"""Seconds between two healthchecks, as in the images."""

STOP_S = 10.0
"""Seconds that `docker stop` leaves a container."""

URL = "http://127.0.0.1:8000"

MOUNTS = """
mount --bind . .
cd "$PWD"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name && mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
mkdir dev/shm && mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev,noexec tmpfs dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs tmp
mount -o remount,bind,ro .
exec chroot . "$@"
"""
"""Shell commands that start a program in the folder of a root; the sizes and flags of the tmpfs are Docker's."""


@dataclass
class Image:
    """Image: its root folder, and what the instructions of its Dockerfile have set."""

    root: Path
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def host_path(self, path: str) -> Path:
        """Return the path on this machine of a path in the image, which may be relative to its work folder."""
        return self.root / str(Path("/", self.folder, path)).lstrip("/")

    def as_user(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in the image with its user, environment and work folder."""
        user, group = self.user.split(":")
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        env = ["env", "-i", "-C", self.folder, *(f"{name}={value}" for name, value in self.env.items())]
        return ["setpriv", f"--reuid={user}", f"--regid={group}", *rights, *env, *command]


class Container:
    """Running container of an image, with `options` added to its command and its volumes below the folder `data`.

    It is stopped at the end of the `with` statement. From the first container on, this process has a network of its
    own too: the only addresses it reaches are those of the container.
    """

    def __init__(self, image: Image, data: Path, options: Sequence[str] = ()) -> None:
        self._image = image
        mounts = ""
        for volume in image.volumes:
            folder = data / volume.lstrip("/")
            if not folder.exists():  # Docker fills a new volume from the image
                folder.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", image.host_path(volume), folder], check=True)
            mounts += f"mount --bind -o nosuid,nodev '{folder}' .{volume}\n"
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "The network cannot be separated. Run this as root.")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        script = MOUNTS.replace("mount -o remount", f"{mounts}mount -o remount")
        command = image.as_user([*image.commands["ENTRYPOINT"], *image.commands["CMD"], *options])
        self._outer = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-e",
                "-c",
                script,
                "sh",
                *command,
            ],
            cwd=image.root,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._outer.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._outer.wait()

    @property
    def pid(self) -> int:
        """Return the number outside the container of its process 1.

        Raises:
            RuntimeError: the container ended.
        """
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        if not children:
            raise RuntimeError(f"The container ended with exit code {self._outer.wait()}.")
        return int(children[0])

    @property
    def root_is_read_only(self) -> bool:
        """Return whether the root file system of the container is mounted read-only."""
        mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return any(mount.split()[4] == "/" and "ro" in mount.split()[5].split(",") for mount in mounts)

    def run(self, command: Sequence[str]) -> int:
        """Run a command in the container as its user, like `docker exec`, and return its exit code."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd"]
        return subprocess.run([*inside, *self._image.as_user(command)], stderr=subprocess.DEVNULL).returncode

    def wait_until_healthy(self) -> None:
        """Wait until the healthcheck of the image succeeds.

        Raises:
            RuntimeError: the container ended.
            TimeoutError: the container is not healthy after `START_S` seconds.
        """
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            time.sleep(INTERVAL_S)
            if self.run(self._image.commands["HEALTHCHECK"]) == 0:
                return
        raise TimeoutError(f"The container is not healthy after {START_S:g} s.")

    def stop(self) -> int:
        """Send SIGTERM as `docker stop` does, and return the exit code.

        Raises:
            TimeoutExpired: it has not ended after `STOP_S` seconds, when Docker would kill it.
        """
        os.kill(self.pid, signal.SIGTERM)
        return self._outer.wait(STOP_S)


def check(container: Container) -> None:
    """Ask a container that serves an index for its health, a result and the explorer, try its rights, and stop it.

    Raises:
        AssertionError: an answer is not as expected.
    """
    container.wait_until_healthy()
    assert container.root_is_read_only, "the root file system can be written"
    assert ask("/readyz")
    item = json.loads(ask("/items?limit=1"))["items"][0]["item_id"]
    relation = json.loads(ask("/relations"))["relations"][0]["relation_id"]
    results = json.loads(ask("/retrieve", {"item_id": item, "relation": relation, "k": 3}))["results"]
    assert len(results) == 3, results
    assert b"<title>" in ask("/"), "the explorer has no title"
    writable = [
        path
        for path in ("/", "/opt/rcml", "/etc", "/tmp", "/data")
        if not container.run(["touch", f"{path}/x"])
    ]
    assert writable == ["/tmp", "/data"], writable
    status = container.run(
        ["sh", "-c", "grep -q '^CapBnd:\t0000000000000000' /proc/1/status && test $(id -u) -ne 0"]
    )
    assert status == 0, "the service has rights that it does not need"
    code = container.stop()
    assert code == 0, f"SIGTERM ended the service with exit code {code}"


def ask(path: str, body: dict[str, Any] | None = None) -> bytes:
    """Return the body of the response to a GET request, or to a POST request with a JSON body."""
    content = None if body is None else json.dumps(body).encode()
    with urlopen(Request(URL + path, content, {"Content-Type": "application/json"}), timeout=30) as response:
        return bytes(response.read())
