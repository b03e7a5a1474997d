"""Check for free disk space before a memory-mapped file is written."""

import shutil
from pathlib import Path

from model.errors import InputError


def check_room(folder: Path, needed: int, content: str, alternative: str) -> None:
    """Check that `folder` has room for `needed` bytes of `content`.

    A memory-mapped file takes disk space only when it is written to, and a full disk then kills the process.

    Raises:
        InputError: there is too little free space; the message names `alternative` as another remedy.
    """
    free = shutil.disk_usage(folder).free
    if not has_room(folder, needed):
        raise InputError(
            f"The {content} need {needed / 1e9:.1f} GB, but {folder} has only {free / 1e9:.1f} GB free. "
            f"Free disk space, or {alternative}."
        )


def has_room(folder: Path, needed: int) -> bool:
    """Return whether `folder` has room for `needed` bytes."""
    return needed <= shutil.disk_usage(folder).free


def free_space(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, which need not exist yet."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
