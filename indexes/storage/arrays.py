"""NumPy array files without pickle: writing reports a full disk, and reading maps the file into memory."""

import os
from math import prod
from pathlib import Path
from threading import Lock

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from model.plain_file import decoding, open_plain

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


class ArrayWriter:
    """Writer of an array file whose rows arrive in parts; a context manager.

    The file is not memory-mapped, because writing to a mapped file kills the process if the disk is full. The length
    is written at the end, into the place that the header of NumPy reserves for a growing first axis.
    """

    def __init__(self, path: Path, width: int, dtype: str) -> None:
        """Create a file for an array `[rows, width]`."""
        self._width, self._dtype, self._rows = width, dtype, 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, part: ndarray) -> None:
        """Write the rows of `part`.

        Raises:
            OSError: the disk is full or failing; `errno` has the reason.
        """
        self._file.write(part.astype(self._dtype, copy=False).tobytes())
        self._rows += len(part)

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        shape = (self._rows, self._width)
        header = {"descr": self._dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def map_array(path: Path, dtype: DTypeLike, dimensions: int) -> ndarray:
    """Map an array file into memory. The result is not an `np.memmap`, which takes five times as long to index.

    Raises:
        ArtifactError: the file is not a plain file, its header has another type or number of dimensions or another
            order than C, or the size of the file does not match the header.
    """
    with decoding(path), open_plain(path, path.parent) as file, _READING:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the header")
        shape, fortran, found = np.lib.format.read_array_header_1_0(file)
        size, wanted = os.fstat(file.fileno()).st_size - file.tell(), np.dtype(dtype)
        if found != wanted or len(shape) != dimensions or (fortran and dimensions > 1):
            order = " in Fortran order" if fortran else ""
            raise ValueError(
                f"an array of {found} {list(shape)}{order}, not of {wanted} with {dimensions} axes"
            )
        if any(length < 0 for length in shape) or size != prod(shape) * wanted.itemsize:
            raise ValueError(f"{size} bytes of data, which is not an array of {wanted} {list(shape)}")
        if size == 0:
            return np.empty(shape, wanted)
        return np.memmap(file, wanted, "r", file.tell(), shape).view(ndarray)


def read_array(path: Path, dtype: DTypeLike, dimensions: int) -> ndarray:
    """Read an array file into memory; see `map_array`."""
    return np.array(map_array(path, dtype, dimensions))
