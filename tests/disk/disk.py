"""The disk of a process, watched and limited: what `interposer.c` offers, from Python."""

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
    """That of a process in which `Watched` works; the library is made in `folder`.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    library = folder / "interposer.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def run_watched(function: str, folder: Path, *asked: object) -> None:
    """Call `package.module:function` with `folder` and `asked`, all as strings, where `Watched` works."""
    if which("cc") is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux, to stand between a process and its disk")
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
    """What this process does to the files below `root`."""

    def __init__(self, root: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._root = os.fsencode(root)

    @contextmanager
    def limited(self, writes: int | None) -> Iterator[None]:
        """Have room for so many writes only, each of any length."""
        self._library.disk_begin(self._root, None)
        self._library.disk_room(ctypes.c_long(-1 if writes is None else writes))
        try:
            yield
        finally:
            self._library.disk_end()

    @contextmanager
    def traced(self, trace: Path) -> Iterator[None]:
        """Write down every event; see `tests/disk/power.py`."""
        self._library.disk_begin(self._root, os.fsencode(trace))
        try:
            yield
        finally:
            self._library.disk_end()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Have every sync take so long, and do no more than that."""
        self._library.disk_begin(self._root, None)
        self._library.disk_slow(ctypes.c_long(round(1e6 * seconds)))
        try:
            yield
        finally:
            self._library.disk_end()

    def taken(self) -> int:
        """Writes since the beginning, refused ones included."""
        taken = self._library.disk_taken
        taken.restype = ctypes.c_long
        return int(taken())

    def mark(self, number: int) -> None:
        """Put a number into the trace."""
        self._library.disk_mark(ctypes.c_long(number))
