"""Files and folders that are written durably: shared as the umask says, fsynced, with errors that tell what to do.

A disk can be full, failing or read-only, a quota used up, or a folder closed to this user. Code that writes runs inside
`storing`, which converts the errors of all four kinds, whichever library reports them.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE

from .errors import ArtifactError, ReadOnlyError, StorageError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Error codes of a full or failing disk, or of a quota that is used up."""

_RIGHTS_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Error codes of a folder that this user may not write, or of a read-only disk."""

_PATH_ERRORS = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
"""Error codes of a path at which no folder can be created."""

_NATIVE_ERROR = re.compile(r"\bos error (\d+)|\bOs \{ code: (\d+)")
"""Code of the operating system in the message of an exception of polars or safetensors, which have no `errno`."""


@contextmanager
def storing(target: Path) -> Iterator[None]:
    """Convert the errors of a block that writes `target`.

    Raises:
        ReadOnlyError: this user may not write to `target`, or its disk is read-only.
        StorageError: the disk is full or failing, or `target` cannot be a folder.
    """
    try:
        yield
    except shutil.Error as error:  # from copytree: a list of (source, destination, reason)
        raise not_stored(target, error.args[0][0][2]) from None
    except OSError as error:
        raise _storage_error(target, error.errno, error.filename) or error from None
    except Exception as error:
        found = _NATIVE_ERROR.search(str(error))
        if found is None:
            raise
        raise _storage_error(target, int(found[1] or found[2])) or error from None


def _storage_error(target: Path, code: int | None, name: str | bytes | None = None) -> StorageError | None:
    """Return the error for a `target` that was not written; None if `code` or the file `name` has another cause."""
    if code is None:
        return None
    reason = os.strerror(code)
    if code in _DISK_ERRORS:
        return not_stored(target, reason)
    if name is not None and not _belongs(Path(os.fsdecode(name)), target):
        return None
    if code in _RIGHTS_ERRORS:
        return ReadOnlyError(target, reason)
    if code in _PATH_ERRORS:
        return StorageError(f"{target} cannot be created ({reason}: {name!r}). Choose another folder.")
    return None


def _belongs(path: Path, target: Path) -> bool:
    """Return whether `path` lies in `target` or in a hidden folder next to it, or is a folder above `target`."""
    path, target = path.absolute(), target.absolute()
    if path in target.parents:
        return True
    ours = (one.name for one in (path, *path.parents) if one.parent == target.parent)
    return any(name == target.name or name.startswith(f".{target.name}.") for name in ours)


def not_stored(target: Path, reason: object) -> StorageError:
    """Return the error for a `target` that could not be written."""
    return StorageError(
        f"{target} could not be written ({reason}). Its previous contents are unchanged. Free disk space, raise the "
        "quota or repair the disk."
    )


def may_write(path: Path) -> bool:
    """Return whether this user may write to an existing file or folder; False on a read-only disk."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def share(path: Path) -> None:
    """Give a new file or folder the permissions of its folder, which the umask has set.

    Some libraries, such as safetensors, make files that only their owner may read. An artifact is often written by one
    user and served by another. A file with several hard links belongs to another artifact too and is left as it is.
    """
    found = path.stat()
    wanted = path.parent.stat().st_mode & (0o777 if path.is_dir() else 0o666)
    if found.st_mode & 0o777 != wanted and (path.is_dir() or found.st_nlink == 1):
        path.chmod(S_IMODE(found.st_mode) & ~0o777 | wanted)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, and fsync their directory entries."""
    path = path.absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_path(folder.parent)


def sync_path(path: Path) -> None:
    """Flush a file or folder to disk with fsync."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Take over a file that never changes: as a hard link, or as a copy if the file system has no links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def take_over_folder(source: Path, target: Path) -> None:
    """Take over a folder of files that never change, as hard links if possible."""
    shutil.copytree(source, target, copy_function=lambda file, place: link_or_copy(Path(file), Path(place)))


def set_aside(path: Path) -> None:
    """Rename a damaged file or folder to a free name that begins with its own; do nothing if it is missing."""
    aside = path.with_name(f"{path.name}.damaged")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    with suppress(FileNotFoundError):
        path.rename(aside)


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Lock `folder` for this process while the block writes `name` in it.

    Raises:
        ArtifactError: another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # a FIFO would wait
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"Another run of rcml is writing {name} now. Wait for it to finish."
            ) from None
        yield
    finally:
        os.close(descriptor)
