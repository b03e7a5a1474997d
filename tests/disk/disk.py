"""Python interface of `interposer.c`, which traces and limits what a process writes to disk."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

SOURCE = Path(__file__).with_name("interposer.c")


def environment(folder: Path) -> dict[str, str]:
    """Compile the interposer in `folder`, and return the environment of a process in which `Watched` works.

    Raises:
        FileNotFoundError: no C compiler is available.
    """
    library = folder / "interposer.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def run_watched(function: str, folder: Path, *asked: object) -> None:
    """Call `package.module:function` with `folder` and `asked` as strings, in a process in which `Watched` works."""
    if which("cc") is None or sys.platform != "linux":
        pytest.skip("intercepting disk operations requires Linux and a C compiler")
    module, name = function.split(":")
    code = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, folder, *map(str, asked)],
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


class Watched:
    """Interposer of this process, which traces, limits or delays its operations on files below `root`."""

    def __init__(self, root: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._root = os.fsencode(root)

    @contextmanager
    def limited(self, writes: int | None) -> Iterator[None]:
        """Allow only `writes` operations that need disk space, each of any size; later ones fail with ENOSPC."""
        self._library.disk_begin(self._root, None)
        self._library.disk_room(ctypes.c_long(-1 if writes is None else writes))
        try:
            yield
        finally:
            self._library.disk_end()

    @contextmanager
    def traced(self, trace: Path) -> Iterator[None]:
        """Write every operation to the file `trace`; see `tests/disk/power.py`."""
        self._library.disk_begin(self._root, os.fsencode(trace))
        try:
            yield
        finally:
            self._library.disk_end()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Make every fsync wait for `seconds` without flushing anything."""
        self._library.disk_begin(self._root, None)
        self._library.disk_slow(ctypes.c_long(round(1e6 * seconds)))
        try:
            yield
        finally:
            self._library.disk_end()

    def taken(self) -> int:
        """Return the number of operations in the `with` block that needed disk space, including failed ones."""
        taken = self._library.disk_taken
        taken.restype = ctypes.c_long
        return int(taken())

    def mark(self, number: int) -> None:
        """Write `number` to the trace."""
        self._library.disk_mark(ctypes.c_long(number))
