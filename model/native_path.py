"""Paths for libraries written in C++ or Rust, which take only text that is valid UTF-8.

The name of a folder on Linux may be any bytes, such as a Latin-1 name from an old disk. Python keeps such names with
surrogates (PEP 383), which the libraries refuse.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_utf8(path: Path) -> bool:
    """Return whether the name of a path is valid UTF-8."""
    return str(path) == os.fsencode(path).decode(errors="replace")


@contextmanager
def native_path(path: Path, flags: int = os.O_RDONLY) -> Iterator[str]:
    """Yield a name of the file at `path` that is valid UTF-8, for as long as the block lasts.

    Any other name is replaced with that of an open file descriptor; `flags` are those of `os.open`.

    Raises:
        OSError: the file cannot be opened.
    """
    if is_utf8(path):
        yield str(path)
        return
    descriptor = os.open(path, flags, 0o666)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)
