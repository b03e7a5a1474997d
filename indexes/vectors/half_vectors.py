"""Half-precision vectors in a mapped file, of which a search reads a few hundred, scattered over the file.

If the file is larger than the memory, most of these reads go to disk. One after the other, 320 of them take 45 ms.
`read_ahead` asks the kernel for all of them in one call, so that the disk answers many at a time: 6 to 8 ms.
"""

import ctypes
import mmap
import os
from functools import cache
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float16, Float32, Int64
from numpy import ndarray

PROCESS_MADVISE = 440
"""Number of the system call `process_madvise` of Linux 5.10 and later, the same on all architectures."""

MAX_RANGES = 1_024
"""Maximum number of ranges in one call (IOV_MAX)."""


class HalfVectors:
    """Vectors of a FAISS index in half precision, which stay valid while the index exists."""

    def __init__(self, exact: Any) -> None:
        self._exact = exact  # owns the memory
        codes = faiss.rev_swig_ptr(exact.codes.data(), exact.codes.size())
        self.halves: Float16[ndarray, "items dim"] = codes.view(np.float16).reshape(-1, exact.d)

    def take(self, rows: Int64[ndarray, " rows"]) -> Float32[ndarray, "rows dim"]:
        """Convert the vectors at `rows` to single precision, exactly except for infinities.

        The bits are shifted into place, and the factor 2^112 corrects the exponent bias. NumPy and FAISS convert one
        number at a time, which takes four times as long.
        """
        bits = self.halves[rows].view(np.int16).astype(np.int32)
        bits <<= 13
        bits &= ~0x70000000
        found: ndarray = bits.view(np.float32)
        found *= np.float32(2.0**112)
        return found

    def read_ahead(self, rows: Int64[ndarray, " rows"]) -> int:
        """Ask the kernel to read the vectors at `rows` from disk, without waiting; return the bytes asked for.

        The result is 0 if the kernel cannot do so. The vectors are then read one after the other by `take`.
        """
        done = 0
        size = self.halves.itemsize * self.halves.shape[1]
        for start in range(0, len(rows), MAX_RANGES):
            first = self.halves.ctypes.data + size * rows[start : start + MAX_RANGES]
            page = first & -mmap.PAGESIZE
            ranges = np.stack([page, first + size - page], axis=1).astype(np.uint64)
            done += max(_advise(ranges), 0)
        return done


def _advise(ranges: ndarray) -> int:
    """Call `process_madvise(MADV_WILLNEED)` on (address, length) pairs of this process; return -1 if it fails."""
    own, syscall = kernel()
    if own < 0:
        return -1
    return int(
        syscall(
            PROCESS_MADVISE,
            own,
            ctypes.c_void_p(ranges.ctypes.data),
            ctypes.c_size_t(len(ranges)),
            mmap.MADV_WILLNEED,
            0,
        )
    )


@cache
def kernel() -> tuple[int, Any]:
    """Return a descriptor of this process, -1 if the system has none, and the function that makes system calls."""
    syscall = ctypes.CDLL(None).syscall
    syscall.restype = ctypes.c_long
    try:
        return os.pidfd_open(os.getpid()), syscall
    except (AttributeError, OSError):
        return -1, syscall


# A forked process must not advise its parent.
os.register_at_fork(after_in_child=kernel.cache_clear)
