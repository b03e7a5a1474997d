"""Folder of downloaded pictures, scaled, each named after the SHA-256 of its content, with an index of addresses.

A kill at any moment loses no finished picture. A picture is written aside and renamed; only then is its line appended
to the index, by one write. An incomplete last line is ignored, and a picture that does not match its name is not used,
so that after a power failure only such pictures are fetched again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Self

import polars as pl

from model.durable_files import lock_folder, storing
from model.errors import ArtifactError
from model.plain_file import read_plain

INDEX_FILE = "addresses.jsonl"
FAILURES_FILE = "failures.csv"
PARTIAL_SUFFIX = ".partial"

MAX_INDEX_BYTES = 2**31
"""Maximum size of the index, which has about 200 bytes for each address."""

MAX_STORED_BYTES = 2**28
"""Maximum size of a stored picture."""


@dataclass(frozen=True)
class Failure:
    """Picture that could not be downloaded after `tries` tries."""

    address: str
    host: str
    reason: str
    tries: int


def store_picture(folder: Path, content: bytes, suffix: str) -> str:
    """Store a scaled picture in the folder of a cache and return its name; several processes may do so at once.

    Raises:
        OSError: the folder cannot be written.
    """
    name = hashlib.sha256(content).hexdigest() + suffix
    path = folder / name[:2] / name
    if not (path.exists() and path.stat().st_size == len(content)):
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{name}.{os.getpid()}.{get_ident()}{PARTIAL_SUFFIX}")
        partial.write_bytes(content)
        partial.replace(path)
    return name


@dataclass
class PictureCache:
    """Cache in `folder` of pictures scaled to at most `side` pixels per side; `files` maps addresses to file names."""

    folder: Path
    side: int
    files: dict[str, str] = field(default_factory=dict)
    _index: int = -1

    @classmethod
    @contextmanager
    def open(cls, folder: Path, side: int) -> Iterator[Self]:
        """Open the cache for this process alone, and create it if it does not exist.

        Raises:
            StorageError: the folder cannot be created or written.
            ArtifactError: another process uses the cache, or its index is not a plain file.
        """
        cache = cls(folder, side)
        with cache.writing():
            folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, folder.name):
            with cache.writing():
                for path in folder.glob(f"*/*{PARTIAL_SUFFIX}"):
                    path.unlink()
                cache._index = os.open(folder / INDEX_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                cache._read_index()
                yield cache
            finally:
                os.close(cache._index)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Convert errors of the file system in the block to errors that name the folder.

        Raises:
            StorageError: the disk is full or failing.
            StorageError: the folder cannot be written.
        """
        with storing(self.folder):
            yield

    def _read_index(self) -> None:
        content = read_plain(self.folder / INDEX_FILE, self.folder, MAX_INDEX_BYTES)
        for line in content.splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # an incomplete line
                entry = json.loads(line)
                if entry["side"] == self.side:
                    self.files[entry["address"]] = str(entry["file"])
        if content and not content.endswith(b"\n"):
            os.write(self._index, b"\n")

    def read(self, address: str) -> tuple[bytes, str] | None:
        """Return the content and file suffix of the picture at `address`; None if it is absent or damaged."""
        name = self.files.get(address)
        if name is None:
            return None
        path = self.folder / name[:2] / name
        try:
            content = read_plain(path, self.folder, MAX_STORED_BYTES)
        except (OSError, ArtifactError):
            content = b""
        if hashlib.sha256(content).hexdigest() != path.stem:
            del self.files[address]
            return None
        return content, path.suffix

    def keep(self, address: str, content: bytes, suffix: str) -> None:
        """Store a scaled picture.

        Raises:
            StorageError: the folder cannot be written.
        """
        with self.writing():
            name = store_picture(self.folder, content, suffix)
        self.record({address: name})

    def record(self, names: Mapping[str, str]) -> None:
        """Add stored pictures to the index, by one write; `names` maps addresses to the names of their files.

        Raises:
            StorageError: the folder cannot be written.
        """
        entries = [{"address": address, "side": self.side, "file": name} for address, name in names.items()]
        with self.writing():
            os.write(self._index, "".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
        self.files.update(names)

    def write_failures(self, failures: Sequence[Failure]) -> Path:
        """Write the table of pictures that could not be downloaded, and return its path."""
        path = self.folder / FAILURES_FILE
        columns = {
            name: [getattr(failure, name) for failure in failures] for name in ("address", "host", "reason")
        }
        table = pl.DataFrame(columns, dict.fromkeys(columns, pl.String)).with_columns(
            tries=pl.Series([failure.tries for failure in failures], dtype=pl.Int64)
        )
        with self.writing():
            partial = path.with_suffix(PARTIAL_SUFFIX)
            partial.write_bytes(table.write_csv().encode("utf-8", "replace"))
            partial.replace(path)
        return path
