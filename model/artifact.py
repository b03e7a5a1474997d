"""A stage's result on disk: a folder that is either whole or not there.

An artifact is written into a hidden folder beside its place, fsynced, and renamed into place with its
`manifest.json` (format, kind, digests of every file and of its parents). A kill at any moment leaves the
old artifact or none, never half of one; the next run finds the remains, says so and removes them.
Opening checks the kind, the format and the digests. Every stage writes and opens through this file.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from . import __version__
from .console import say
from .errors import ArtifactError, StorageError

ARTIFACT_FORMAT = 5
"""Version of the on-disk formats; see docs/artifacts.md."""

PICTURES = "pictures"
"""Folder of an artifact whose files are checked for their size on opening, not read through."""

README_FILE = "README.md"
"""Words for people: listed in the manifest, but neither checked nor part of the digest.

The model card of a checkpoint is edited on the Hub, and what it describes stays what it was.
"""

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""What the operating system says of a disk that takes no more."""

Kind = Literal["shop", "prepared", "checkpoint", "report", "index"]


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """The content of `manifest.json`. It carries no dates: equal content gives an equal digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    kind: Kind
    version: str
    parents: dict[str, str]
    counts: dict[str, int]
    files: dict[str, FileRecord]

    @property
    def digest(self) -> str:
        """SHA-256 that names the whole artifact, its words for people aside."""
        content = self.model_dump(exclude={"files": {README_FILE}})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def text(self) -> str:
        """What is written: with its own digest, so that a count or a parent cannot change unseen."""
        content = {**self.model_dump(), "digest": self.digest}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@dataclass
class Draft:
    """An artifact being written: put files under `path`; `parents` and `counts` go into the manifest."""

    path: Path
    parents: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)


@contextmanager
def write_artifact(
    target: Path, kind: Kind, config: BaseModel, parents: Mapping[str, str] | None = None
) -> Iterator[Draft]:
    """Write an artifact of `kind` at `target`, replacing an earlier artifact there when all is done.

    `parents` names what it was made from and the digest of each.

    Raises:
        ArtifactError: `target` holds something that is not an artifact, or another run is writing it.
    """
    refuse_foreign(target)
    with write_folder(target) as folder:
        draft = Draft(folder, dict(parents or {}))
        yield draft
        _write_text(folder / "config.json", saved(config))
        manifest = Manifest(
            format=ARTIFACT_FORMAT,
            kind=kind,
            version=__version__,
            parents=draft.parents,
            counts=draft.counts,
            files={
                path.relative_to(folder).as_posix(): _record(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        )
        _write_text(folder / "manifest.json", manifest.text)


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Fill a folder next to `target`, then move it to `target` whole, in place of an earlier one.

    Raises:
        ArtifactError: another run is writing it.
        StorageError: the disk is full or failing; what was there is still there.
    """
    target = target.absolute()
    staging = _staging(target)
    with storing(target):
        make_folder(target.parent)
        _recover(target)
        if staging.exists():
            with lock_folder(staging, target.name):
                say(
                    f"An earlier run was interrupted before {target.name} was finished; its remains were removed."
                )
                shutil.rmtree(staging)
        staging.mkdir()
        with lock_folder(staging, target.name):
            try:
                yield staging
                _sync(staging)
                _swap(staging, target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise


@contextmanager
def storing(target: Path) -> Iterator[None]:
    """Turn what a full or failing disk raises while `target` is made into a `StorageError`."""
    try:
        yield
    except shutil.Error as error:  # of a tree that was copied: a list of (from, to, why)
        raise not_stored(target, error.args[0][0][2]) from None
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise not_stored(target, error.strerror) from None


def not_stored(target: Path, reason: object) -> StorageError:
    """Make the error that says that `target` could not be written."""
    return StorageError(
        f"{target} could not be written ({reason}); make room or mend the disk. What was there before is unchanged."
    )


def open_artifact(path: Path, kind: Kind) -> Manifest:
    """Return the manifest of the artifact at `path` after checking every file against it.

    Raises:
        ArtifactError: nothing there, unfinished, of another kind or format, or a file is missing or changed.
    """
    path = path.absolute()
    noun = _noun(kind)
    _recover(path)
    if not path.is_dir():
        hint = " Its last run was interrupted." if _staging(path).exists() else ""
        if _being_written(path):
            raise ArtifactError(f"The {noun} at {path} is being made now; wait for it to be finished.")
        raise ArtifactError(f"There is no {noun} at {path}.{hint} Run `rcml {MADE_BY[kind]}` to make it.")
    manifest = read_manifest(path, kind)
    check_files(path, manifest, read_pictures=False)
    return manifest


def check_files(path: Path, manifest: Manifest, read_pictures: bool = True) -> None:
    """Read the files of the artifact at `path` and compare them with its manifest, its words for people aside.

    Raises:
        ArtifactError: a file is missing or changed.
    """
    for name, record in manifest.files.items():
        if name != README_FILE:
            _check(path / name, record, read=read_pictures or not name.startswith(f"{PICTURES}/"))


def read_manifest(path: Path, kind: Kind) -> Manifest:
    """Read the manifest of the artifact at `path`, whose files may not all be there yet.

    Raises:
        ArtifactError: it has none, or that of another kind or format.
    """
    noun = _noun(kind)
    try:
        text = (path / "manifest.json").read_text("utf-8")
        raw = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no manifest.json, so it is not an artifact of rcml.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}/manifest.json is damaged ({error}); make the {noun} again.") from None
    if isinstance(raw, dict) and raw.get("format") != ARTIFACT_FORMAT:
        raise ArtifactError(
            f"{path} has format {raw.get('format')!r}; this rcml reads {ARTIFACT_FORMAT}. Make the {noun} again."
        )
    if isinstance(raw, dict):
        raw.pop("digest", None)  # compared below, with all else
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(f"{path}/manifest.json is damaged: {error}; make the {noun} again.") from None
    if text != manifest.text:
        raise ArtifactError(
            f"{path}/manifest.json is not the file that was written (it disagrees with the digest in it); make the "
            f"{noun} again."
        )
    if manifest.kind != kind:
        raise ArtifactError(f"{path} is {_a(manifest.kind)}, where {_a(kind)} is needed.")
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(
                f"{path}/manifest.json lists {name}, which lies outside; do not trust this {noun}."
            )
    return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def saved(config: BaseModel) -> str:
    """Make the text of `config.json`."""
    return config.model_dump_json(indent=2) + "\n"


MADE_BY: Mapping[Kind, str] = {
    "shop": "demo",
    "prepared": "prepare",
    "checkpoint": "train",
    "report": "evaluate",
    "index": "index build",
}
"""The verb that makes each kind."""


def _noun(kind: Kind) -> str:
    return "prepared data" if kind == "prepared" else kind


def _a(kind: Kind) -> str:
    return {"index": "an index", "prepared": "prepared data"}.get(kind, f"a {kind}")


def _check(path: Path, record: FileRecord, read: bool) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing although the manifest lists it; make the artifact again.")
    if path.stat().st_size != record.size or (read and _record(path) != record):
        raise ArtifactError(
            f"{path} is not the file that was written (its size or SHA-256 differs); make the artifact again."
        )


def _record(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=file_digest(path))


def refuse_foreign(target: Path) -> None:
    """Refuse to make an artifact where something else is; long work asks before it begins.

    Raises:
        ArtifactError: `target` holds something that is not an artifact.
    """
    ours = (target / "manifest.json").is_file()
    if target.exists() and not ours and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(
            f"{target} exists and is not an artifact of rcml; choose another --out or remove it yourself."
        )


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Hold `folder` for this process while `name` is being made in it.

    Raises:
        ArtifactError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"Another run of rcml is writing {name} now; wait for it to end.") from None
        yield
    finally:
        os.close(descriptor)


def _swap(staging: Path, target: Path) -> None:
    """Two renames; `_recover` undoes the first if the second never came."""
    replaced = _replaced(target)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    sync_path(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _recover(target: Path) -> None:
    replaced = _replaced(target)
    if replaced.exists() and not _being_written(target):
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(target)


def _being_written(target: Path) -> bool:
    try:
        with lock_folder(_staging(target), target.name):
            return False
    except FileNotFoundError:
        return False
    except ArtifactError:
        return True


def _staging(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync_path(path)
    sync_path(folder)


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, as far as they are not there, and have that on the disk."""
    path = path.absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_path(folder.parent)


def sync_path(path: Path) -> None:
    """Have what was written to a file or folder on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
