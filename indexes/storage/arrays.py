"""NumPy array files without pickle: writing reports a full disk, and reading maps the file into memory."""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock

import numpy as np
from numpy import ndarray

_READING = Lock()
"""Lock for reading file headers. NumPy reads a header with Python's parser, which in Python 3.11 occasionally fails
if two threads use it at once (CPython issue 106905): "AST constructor recursion depth mismatch"."""


class _Plain:
    """File wrapper that NumPy does not recognize as a file, so that NumPy calls its Python method `write`.

    When NumPy writes to a file directly and fails, it discards the reason that the operating system gave.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.write = self._file.write

    def __enter__(self) -> "_Plain":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def save_array(path: Path, array: ndarray) -> None:
    """Write an array.

    Raises:
        OSError: the disk is full or failing; `errno` has the reason.
    """
    with _Plain(path) as file:
        np.save(file, array, allow_pickle=False)


def save_parts(path: Path, shape: tuple[int, ...], dtype: str, parts: Iterable[ndarray]) -> None:
    """Write an array of `shape`, given as `parts` that are consecutive along its first axis.

    The file is not memory-mapped, because writing to a mapped file kills the process if the disk is full.

    Raises:
        OSError: the disk is full or failing; `errno` has the reason.
    """
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.astype(dtype, copy=False).tobytes())


def map_array(path: Path) -> ndarray:
    """Map an array file into memory. The result is not an `np.memmap`, which takes five times as long to index."""
    with _READING:
        array: ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(ndarray)
    return array


def read_array(path: Path) -> ndarray:
    """Read an array file into memory."""
    return np.array(map_array(path))
