"""Table of token buckets in memory that all workers of a server share.

It is a hash table of fixed size: a caller belongs to one set of `WAYS` buckets. The kernel locks the set (`fcntl`), and
releases the lock of a worker that is killed. If all buckets of a set are taken, the one that will be full first is
given to the new caller. The hash has a secret key, so that nobody can choose addresses that share a set.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self
from weakref import finalize

WAYS = 8
SETS = 2_048
"""Sets of the table, which has room for 16,384 callers in 256 KiB."""

_SECRET_BYTES = 16
_SIZE = 8 * 2 * WAYS * SETS


@dataclass(slots=True)
class Bucket:
    """Bucket of one caller: the time at which it will be full again."""

    full_at: float


class BucketTable:
    """Buckets of all callers. One thread of each worker uses it, because the locks are those of processes."""

    def __init__(self, path: Path) -> None:
        """Open the table that `create` wrote."""
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        finalize(self, os.close, self._file)
        memory = memoryview(mmap.mmap(self._file, _SIZE + _SECRET_BYTES))
        half = _SIZE // 2
        self._callers = memory[:half].cast("Q")
        self._full_at = memory[half:_SIZE].cast("d")
        self._secret = bytes(memory[_SIZE:])

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create an empty table in a file."""
        path.write_bytes(bytes(_SIZE) + os.urandom(_SECRET_BYTES))
        return cls(path)

    @contextmanager
    def held(self, caller: str) -> Iterator[Bucket]:
        """Lock the bucket of a caller within the context, and write it at the end. That of a new caller is full."""
        hashed = int.from_bytes(blake2b(caller.encode(), digest_size=8, key=self._secret).digest()) | 1
        number = (hashed >> 1) % SETS
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            place = self._place(hashed, number * WAYS)
            known = self._callers[place] == hashed
            bucket = Bucket(self._full_at[place] if known else 0.0)
            yield bucket
            if not known:  # if this worker is killed here, the bucket of the caller before is full too early
                self._full_at[place] = 0.0
                self._callers[place] = hashed
            self._full_at[place] = bucket.full_at
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def _place(self, hashed: int, start: int) -> int:
        """Return the place of a caller in the set that begins at `start`, or the place that it may take."""
        callers = self._callers[start : start + WAYS].tolist()
        if hashed in callers:
            return start + callers.index(hashed)
        return min(range(start, start + WAYS), key=self._full_at.__getitem__)
