"""High-water mark: the last acknowledged change of a journal, in a file of its own next to the journal.

    index/changes.mark

A database that lost its end looks whole: nothing in it says how far it went. The mark says so. If a journal is
missing, shorter than the mark, or has another change in its place, acknowledged changes are lost; see `Journal`.

The file has two slots of one disk sector. A new mark overwrites the older slot, so a torn write leaves the other. A
mark reaches the operating system after its commit and before the acknowledgement, so it is never ahead of the journal,
and a killed process loses none. It reaches the disk `SYNC_INTERVAL_S` later. If the power fails earlier, the file has
an older mark, which is still true; the changes themselves were synced by their commit.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Timer

from model.durable_files import may_write, set_aside, sync_path
from model.errors import ArtifactError, LostChangesError, StorageError

MARK_FILE = "changes.mark"
"""Name of the file in an index folder that contains the high-water mark."""

SLOT_BYTES = 512
"""Size of a slot: a sector, which disks write completely or not at all."""

SYNC_INTERVAL_S = 0.05
"""Seconds after which a mark is synced. One sync covers all marks of the interval, so commits do not wait for it."""

_SPECIAL = {errno.ELOOP, errno.ENXIO}
"""Error codes of opening a link or a socket."""


@dataclass(frozen=True)
class Mark:
    """Last acknowledged change of the index `lineage`: its sequence number, digest (hexadecimal) and time (UTC).

    `number` counts the marks written to a file. `digest` is empty if the change is not in the journal any more.
    """

    lineage: str
    sequence: int
    digest: str = ""
    time: str = ""
    number: int = 0

    @property
    def acknowledged(self) -> tuple[int, str]:
        """Sequence number and time."""
        return self.sequence, self.time


class HighWaterMark:
    """File with the high-water mark of the journal of one index; safe to use from many threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MARK_FILE
        self._descriptor: int | None = None
        self._content, self._newest = b"", Mark("", 0)
        self._lock = Lock()
        self._timer: Timer | None = None

    def read(self) -> Mark | None:
        """Return the newest mark; None if the file is missing.

        Raises:
            ArtifactError: the file is damaged: no slot has a valid mark.
            StorageError: this user may not read the file, or it cannot be read now.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                found = _newest(os.pread(descriptor, 2 * SLOT_BYTES, 0)) if regular else None
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _SPECIAL:
                raise ArtifactError(f"{self.path} is damaged ({error.strerror}).") from None
            raise StorageError(
                f"{self.path} cannot be read ({error.strerror}). Give this user the right to read and write it, or "
                "repair the disk."
            ) from None
        if found is None:
            raise ArtifactError(f"{self.path} is damaged (it contains no valid mark).")
        return found

    def create(self) -> None:
        """Create the file durably unless it is there and valid. It then marks no change.

        A valid file that another user created, and that this user may not write, is replaced by a copy.
        """
        mark = Mark("", 0)
        with suppress(ArtifactError):
            if (found := self.read()) is not None:
                if may_write(self.path):
                    return
                mark = replace(found, number=0)
        aside = self.path.with_name(f".{MARK_FILE}.{secrets.token_hex(8)}")
        try:
            with aside.open("xb") as file:
                file.write(_slot(mark) + bytes(SLOT_BYTES))
                file.flush()
                os.fsync(file.fileno())
            if self.path.is_dir() and not self.path.is_symlink():
                set_aside(self.path)
            aside.replace(self.path)
        finally:
            aside.unlink(missing_ok=True)
        sync_path(self.path.parent)

    def replace(self, lineage: str, sequence: int, digest: bytes) -> None:
        """Mark the change `sequence` durably, whatever the file contains, in both slots. Create a missing file.

        Raises:
            OSError: the file could not be written.
        """
        self.create()
        for _ in range(2):
            self._write(lineage, sequence, digest, reset=True)
            self.close()

    def advance(self, lineage: str, sequence: int, digest: bytes) -> None:
        """Mark the change `sequence`, unless a later change of the same index is marked. Create a missing file.

        A folder that this user may not write keeps its mark: its changes are on a server.

        Raises:
            OSError: the file could not be written.
        """
        self._write(lineage, sequence, digest)

    def _write(self, lineage: str, sequence: int, digest: bytes, reset: bool = False) -> None:
        with self._lock:
            if self._descriptor is None:
                if not may_write(self.path.parent):
                    return
                self.create()
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            with _alone(self._descriptor):
                content = os.pread(self._descriptor, 2 * SLOT_BYTES, 0)
                # Decoding takes a tenth of a commit, so it is done only if another process has written.
                newest = self._newest if content == self._content else _newest(content) or Mark("", 0)
                if newest.lineage == lineage and newest.sequence >= sequence and not reset:
                    return
                time = datetime.now(UTC).isoformat(timespec="seconds")
                mark = Mark(lineage, sequence, digest.hex(), time, newest.number + 1)
                slot, place = _slot(mark), mark.number % 2 * SLOT_BYTES
                os.pwrite(self._descriptor, slot, place)
                self._content = content[:place] + slot + content[place + SLOT_BYTES :]
                self._newest = mark
            if self._timer is None:
                self._timer = Timer(SYNC_INTERVAL_S, self.sync)
                self._timer.daemon = True
                self._timer.start()

    def sync(self) -> None:
        """Sync the newest mark. If that fails, the mark on disk is older; the next sync reports a failing disk."""
        with self._lock:
            self._timer = None
            if self._descriptor is None:
                return
            descriptor = os.dup(self._descriptor)
        # Without the lock, so that commits do not wait for this sync.
        with suppress(OSError):
            os.fdatasync(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Sync the newest mark and close the file."""
        with self._lock:
            timer, self._timer = self._timer, None
            descriptor, self._descriptor = self._descriptor, None
        if timer is not None:
            timer.cancel()
        if descriptor is not None:
            with suppress(OSError):
                os.fdatasync(descriptor)
            os.close(descriptor)


def lost_changes(
    journal: str, last: int | None, reason: str, acknowledged: int | None = None, time: str = ""
) -> LostChangesError:
    """Return the error for a journal that lacks changes.

    The changes after `last` and up to `acknowledged` are missing; None: unknown. `time` is the time of the last
    acknowledged change.
    """
    missing = "It is unknown which changes are missing"
    if last is not None and acknowledged is not None:
        missing = "No change is known to be missing"
        if acknowledged > last:
            numbers = f"{last + 1} to {acknowledged}"
            missing = f"Missing: {acknowledged - last:,} acknowledged changes, numbers {numbers}"
    known = f" (the last change was acknowledged at {time})" if time else ""
    return LostChangesError(
        f"{journal} lacks acknowledged changes, or may lack some: {reason.rstrip('.')}. {missing}{known}. "
        "Put the files back, restore a backup with `rcml index restore`, or run `rcml index accept-loss` to continue "
        "without the missing changes."
    )


@contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _slot(mark: Mark) -> bytes:
    content = json.dumps(vars(mark)).encode()
    checked = b"%08x %s" % (zlib.crc32(content), content)
    assert len(checked) < SLOT_BYTES, "a mark fits into a slot"
    return checked.ljust(SLOT_BYTES - 1) + b"\n"


def _newest(content: bytes) -> Mark | None:
    """Return the valid mark with the highest number in the content of a file, or None."""
    found = [_mark(content[place : place + SLOT_BYTES]) for place in (0, SLOT_BYTES)]
    return max((mark for mark in found if mark is not None), key=lambda mark: mark.number, default=None)


def _mark(slot: bytes) -> Mark | None:
    check, _, content = slot.rstrip().partition(b" ")
    if check != b"%08x" % zlib.crc32(content):
        return None
    try:
        return replace(Mark("", 0), **json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
