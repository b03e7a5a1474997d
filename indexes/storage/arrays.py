"""Arrays in files of NumPy's format, without pickle: written so that a full disk is noticed, mapped when read."""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock

import numpy as np
from numpy import ndarray

_READING = Lock()
"""NumPy has Python's parser read the head of a file, and that of 3.11 fails now and then in two threads at once
(CPython issue 106905): "AST constructor recursion depth mismatch"."""


class _Plain:
    """A file that NumPy takes for none, and so writes to through Python: by itself it forgets the operating
    system's reason when that fails."""

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
        OSError: the disk is full or failing, by its number.
    """
    with _Plain(path) as file:
        np.save(file, array, allow_pickle=False)


def save_parts(path: Path, shape: tuple[int, ...], dtype: str, parts: Iterable[ndarray]) -> None:
    """Write an array of `shape` that comes in `parts`, along its first axis.

    Not through a mapped file: a write to one ends the process where the disk is full.

    Raises:
        OSError: the disk is full or failing, by its number.
    """
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.astype(dtype, copy=False).tobytes())


def map_array(path: Path) -> ndarray:
    """Map an array in a file into memory, as a plain array, whose parts are taken in a fifth of the time."""
    with _READING:
        array: ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(ndarray)
    return array


def read_array(path: Path) -> ndarray:
    """Read an array in a file into memory."""
    return np.array(map_array(path))
