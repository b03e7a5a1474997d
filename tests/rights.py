"""Rights of an ordinary user, also for tests that run as root, whom the modes of files do not stop."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION_3 = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; see capabilities(7)


@contextmanager
def ordinary_rights() -> Iterator[None]:
    """Let the modes of files and folders apply to the current thread, even if it runs as root."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("only Linux lets root give up the right to ignore modes")
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    kept = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, for 32 capabilities at a time
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, kept) == 0, os.strerror(ctypes.get_errno())
    fewer = (ctypes.c_uint32 * 6)(*kept)
    fewer[0] &= ~_OVERRIDES
    assert libc.capset(header, fewer) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, kept) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def closed(*folders: Path) -> Iterator[None]:
    """Forbid everybody to write to `folders` and what they hold, and give the block the rights of an ordinary user."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        with ordinary_rights():
            yield
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)
