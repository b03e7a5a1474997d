"""Plain files: found without waiting, read up to a limit, and decoded with errors that name the file.

Anything may lie where rcml expects a file. Opening a FIFO waits for a writer, a link to a device never ends, and JSON
with a million brackets or a number of 5,000 digits makes Python's parser raise an error that is not about JSON. All
stages open the files of their artifacts with this module. It opens only regular files, without waiting for anything,
and converts every failure to an `ArtifactError` with the path, the reason and the remedy.

A link may lead to another place in the same folder: Kubernetes mounts files as links into a hidden folder next to them.
The cache of the Hugging Face Hub links from `snapshots/COMMIT` to `blobs`. Every other link is refused, because the
files of an artifact must not change with files elsewhere.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ArtifactError, RcmlError

MAX_DOCUMENT_BYTES = 2**24
"""Maximum size of a document whose size no manifest lists, such as README.md or the `run.json` of a training run."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Error codes of a process or machine without resources, which say nothing about the file."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Model = TypeVar("Model", bound=BaseModel)


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the record of a file that this process has written."""
        return cls(size=path.stat().st_size, sha256=file_digest(path))

    def check(self, path: Path, folder: Path, read: bool = True) -> None:
        """Compare the file at `path` in the artifact at `folder` with this record; only its size unless `read`.

        Raises:
            ArtifactError: the file is missing, is not a plain file of this artifact, or was changed.
        """
        try:
            same = plain_status(path, folder).st_size == self.size
            if same and read:  # the size is compared first, so that a huge file is not read
                with open_plain(path, folder) as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            raise ArtifactError(
                f"{path} is missing although the manifest lists it. Create the artifact again."
            ) from None
        if not same:
            raise ArtifactError(
                f"{path} was changed after it was written: its size or SHA-256 differs from the manifest. Create the "
                "artifact again."
            )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_status(path: Path, folder: Path) -> os.stat_result:
    """Return the status of the plain file at `path`, which must lie in `folder`. Nothing is opened.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: `path` is not a plain file, or is a link out of `folder`.
    """
    with reading(path):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            found = os.lstat(resolved(path, folder))
        _check_mode(path, found.st_mode)
        return found


def open_plain(path: Path, folder: Path) -> BufferedReader:
    """Open the plain file at `path`, which must lie in `folder`, for reading. Opening never waits.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: `path` is not a plain file, or is a link out of `folder`.
    """
    with reading(path):
        place = resolved(path, folder)
        _check_mode(path, os.lstat(place).st_mode)
        # Something else may lie there by now, so the file that was opened is checked as well.
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_mode(path, os.fstat(descriptor).st_mode)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise


def resolved(path: Path, folder: Path) -> Path:
    """Return the real path of a file or folder in `folder`, without links.

    Raises:
        OSError: nothing is at `path`, or the links lead in a circle.
        ArtifactError: a link leads out of `folder`.
    """
    real, root = Path(os.path.realpath(path, strict=True)), Path(os.path.realpath(folder))
    inside = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    if not any(real.is_relative_to(place) for place in inside):
        raise ArtifactError(
            f"{path} is a link out of its folder, to {real}. Replace the link with a copy of the file."
        )
    return real


def read_plain(path: Path, folder: Path | None = None, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Read the plain file at `path` in `folder`, by default the folder of the file.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: `path` is not a plain file, is a link out of `folder`, or has more than `limit` bytes.
    """
    with open_plain(path, folder or path.parent) as file, reading(path):
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise ArtifactError(
            f"{path} has {size:,} bytes, but at most {limit:,} are read. It was not written by rcml; restore the file."
        )
    return content


def read_text(path: Path, folder: Path | None = None) -> str:
    """Read the plain text file at `path`; see `read_plain`.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: the file cannot be read, or is not UTF-8.
    """
    try:
        return read_plain(path, folder).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{path} is not UTF-8 (byte {error.start + 1}: {error.reason}). Save it as UTF-8 text."
        ) from None


def read_json(path: Path, folder: Path | None = None, limit: int = MAX_DOCUMENT_BYTES) -> Any:
    """Read the JSON file at `path`; see `read_plain`.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: the file cannot be read, or is not JSON (RFC 8259) with unique names in each object.
    """
    return decode_json(read_plain(path, folder, limit), path)


def decode_json(content: bytes, path: Path) -> Any:
    """Decode the JSON `content` of the file at `path`.

    Raises:
        ArtifactError: it is not JSON (RFC 8259) with unique names in each object, or is nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise damaged(path, "its JSON is nested too deeply") from None
    except ValueError as error:  # also a number with more digits than Python converts
        raise damaged(path, error) from None


def read_model(model: type[Model], path: Path, folder: Path | None = None) -> Model:
    """Read the JSON file at `path` into a `model`; see `read_json`.

    Raises:
        FileNotFoundError: nothing is at `path`.
        ArtifactError: the file cannot be read, is not JSON, or does not match `model`.
    """
    content = read_plain(path, folder)
    decode_json(content, path)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise damaged(path, faults_of(error)) from None


def faults_of(error: ValidationError) -> str:
    """Return the first faults that a validation found, on one line."""
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'JSON'}: {fault['msg']}" for fault in error.errors()]
    return "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise an `ArtifactError` with the path of a file that a library cannot decode in the block.

    The errors of NumPy, safetensors, polars, SQLite and FAISS have no common class but `Exception`.
    """
    try:
        yield
    except (RcmlError, FileNotFoundError, MemoryError):
        raise
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        raise damaged(path, error.strerror or error) from None
    except Exception as error:
        raise damaged(path, " ".join(f"{type(error).__name__}: {error}".split())) from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise an `ArtifactError` if the operating system does not let the block read the file or folder at `path`.

    Raises:
        FileNotFoundError: nothing is at `path`.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise ArtifactError(
            f"{error.filename} may not be read by this user ({error.strerror}). Give this user the right to read the "
            "folder and all files in it, for example with chmod -R a+rX."
        ) from None
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}). Restore the file, or create the artifact again."
        ) from None


def damaged(path: Path, reason: object) -> ArtifactError:
    """Return the error for a file whose content cannot be decoded."""
    return ArtifactError(f"{path} is damaged ({reason}). Restore the file, or create the artifact again.")


def special_kind(mode: int) -> str | None:
    """Return what a file that is not a plain file is, according to its mode; None for a plain file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for found, name in _KINDS if found(mode)), "a special file")


def _check_mode(path: Path, mode: int) -> None:
    if kind := special_kind(mode):
        raise ArtifactError(
            f"{path} is {kind}, not a plain file. Remove it, and restore the file or create the artifact again."
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
