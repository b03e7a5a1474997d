"""Artifacts: folders with the output of a stage, which are always either complete or absent.

An artifact is written into a hidden folder next to its destination, fsynced, and renamed to the destination together
with its `manifest.json` (format, kind, and the digests of its files and inputs). If the process is killed, the
destination still contains the old artifact, or is still absent. The next run removes the hidden folder and reports it.
Opening an artifact checks its kind, format and digests, and that it contains no other file that a stage could read.
Every stage writes and opens its artifacts with this module.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from . import __version__
from .console import say
from .durable_files import lock_folder, make_folder, share, storing, sync_path
from .errors import ArtifactError
from .plain_file import FileRecord, decode_json, faults_of, read_json, read_plain, reading, resolved

ARTIFACT_FORMAT = 5
"""Version of the on-disk formats; see docs/artifacts.md."""

PICTURES = "pictures"
"""Folder in an artifact whose files are checked only for their size when the artifact is opened."""

README_FILE = "README.md"
"""Documentation for users, listed in the manifest but neither verified nor part of the digest.

The model card of a checkpoint may be edited on the Hub without changing the checkpoint.
"""

IGNORED_SUFFIXES = {"", ".md", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp"}
"""Suffixes of unlisted files that do not matter: documents for people, such as a LICENSE on the Hub."""

MAX_MANIFEST_BYTES = 2**29
"""Maximum size of a manifest, which has about 130 bytes for each file: room for 4 million pictures."""

Kind = Literal["shop", "prepared", "checkpoint", "report", "index"]


class Manifest(BaseModel):
    """Content of `manifest.json`. It contains no dates, so equal content gives an equal digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    kind: Kind
    version: str
    parents: dict[str, str]
    counts: dict[str, int]
    files: dict[str, FileRecord]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest without README.md; it identifies the artifact."""
        content = self.model_dump(exclude={"files": {README_FILE}})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def names_in(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the artifact, which is empty if there is no such folder."""
        return [name.removeprefix(f"{folder}/") for name in self.files if name.rpartition("/")[0] == folder]

    @property
    def text(self) -> str:
        """Text of `manifest.json`. It includes the digest, so `read_manifest` can detect an edited manifest."""
        content = {**self.model_dump(), "digest": self.digest}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@dataclass
class Draft:
    """Artifact that is being written: files go under `path`, and `parents` and `counts` go into the manifest.

    `carried` are the records of files that were taken over from another artifact, which are not read again. If a file
    was damaged there, its record says so here as well.
    """

    path: Path
    parents: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)
    carried: dict[str, FileRecord] = field(default_factory=dict)


@contextmanager
def write_artifact(
    target: Path,
    kind: Kind,
    config: BaseModel,
    parents: Mapping[str, str] | None = None,
    taken_over: Collection[Path] = (),
) -> Iterator[Draft]:
    """Write an artifact of `kind` at `target`, and replace an earlier artifact there once the new one is complete.

    `parents` maps the name of each input to its digest. For `taken_over`, see `refuse_loss`.

    Raises:
        ArtifactError: writing would lose something (see `refuse_loss`), or another run is writing `target`.
    """
    refuse_loss(target, kind, config, taken_over)
    with write_folder(target) as folder:
        draft = Draft(folder, dict(parents or {}))
        yield draft
        _write_text(folder / "config.json", saved(config))
        files = {
            path.relative_to(folder).as_posix(): FileRecord.of(path)
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).as_posix() not in draft.carried
        }
        manifest = Manifest(
            format=ARTIFACT_FORMAT,
            kind=kind,
            version=__version__,
            parents=draft.parents,
            counts=draft.counts,
            files=dict(sorted((files | draft.carried).items(), key=lambda one: Path(one[0]))),
        )
        _write_text(folder / "manifest.json", manifest.text)


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target`; when the block ends, move it to `target` and replace an earlier folder.

    Raises:
        ArtifactError: another run is writing `target`.
        ReadOnlyError: this user may not write to the folder of `target`.
        StorageError: the disk is full or failing. The earlier folder at `target` is unchanged.
    """
    target = _place(target)
    staging = _staging(target)
    with storing(target):
        make_folder(target.parent)
        _recover(target)
        if staging.exists():
            with lock_folder(staging, target.name):
                say(
                    f"An earlier run was interrupted before it finished {target.name}. Its partial output was removed."
                )
                shutil.rmtree(staging)
        staging.mkdir()
        with lock_folder(staging, target.name):
            try:
                yield staging
                for path in sorted(staging.rglob("*")):  # folders before their contents
                    share(path)
                _sync(staging)
                _swap(staging, target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise


def open_artifact(path: Path, kind: Kind) -> Manifest:
    """Verify the artifact at `path` and return its manifest.

    Pictures are checked only for their size, and those of an index not at all: one damaged picture must not keep the
    index from being served, so `indexes/live/picture_check.py` checks each picture when it is read.

    Raises:
        ArtifactError: the artifact is absent, incomplete or of another kind or format, a file is missing or changed, or
            there is another file that a stage could read.
    """
    path = _place(path)
    with reading(path):
        return _opened(path, kind)


def _opened(path: Path, kind: Kind) -> Manifest:
    noun = _noun(kind)
    _recover(path)
    if not path.is_dir():
        if os.path.lexists(path):
            raise ArtifactError(
                f"{path} is not a folder, so it is not {_a(kind)}. Remove it, and run `rcml {MADE_BY[kind]}` again."
            )
        hint = " The run that should have created it was interrupted." if _staging(path).exists() else ""
        if _being_written(path):
            raise ArtifactError(
                f"Another run of rcml is writing the {noun} at {path} now. Wait for it to finish."
            )
        raise ArtifactError(f"There is no {noun} at {path}.{hint} Run `rcml {MADE_BY[kind]}` to create it.")
    manifest = read_manifest(path, kind)
    check_files(path, manifest, read_pictures=False, skip_pictures=kind == "index")
    _refuse_unlisted(path, manifest)
    return manifest


def check_files(
    path: Path, manifest: Manifest, read_pictures: bool = True, skip_pictures: bool = False
) -> None:
    """Compare the files of the artifact at `path` with its manifest, except README.md.

    Without `read_pictures`, only the sizes of pictures are compared. With `skip_pictures`, pictures are not compared.

    Raises:
        ArtifactError: a file is missing, is not a plain file in this folder, or was changed.
    """
    inside: set[Path] = set()
    for name, record in manifest.files.items():
        picture = name.startswith(f"{PICTURES}/")
        if name == README_FILE or (picture and skip_pictures):
            continue
        file = path / name
        if file.parent not in inside and os.path.lexists(file.parent):
            resolved(file.parent, path)
            inside.add(file.parent)
        record.check(file, path, read=read_pictures or not picture)


def _refuse_unlisted(path: Path, manifest: Manifest) -> None:
    """Refuse a file or folder that the manifest does not list, but that a stage or a library could find and read.

    Hidden files, and files with a suffix in `IGNORED_SUFFIXES`, are for people and file systems: nobody reads them.
    Pictures are read only by the names in the catalogue, so their folder is not searched.

    Raises:
        ArtifactError: there is such a file.
    """
    listed = {"manifest.json", *manifest.files}
    folders = {parent.as_posix() for name in manifest.files for parent in Path(name).parents} | {"."}
    for folder in sorted(folders - {PICTURES}):
        for entry in sorted(os.listdir(path / folder)):
            name = (Path(folder) / entry).as_posix()
            place = path / name
            if entry.startswith(".") or name in listed or name in folders:
                continue
            if place.is_dir() and not place.is_symlink():
                if not os.access(place, os.R_OK | os.X_OK) or not os.listdir(place):
                    continue  # such as lost+found, if the artifact is a whole disk
            elif Path(name).suffix.lower() in IGNORED_SUFFIXES:
                continue
            raise ArtifactError(
                f"{place} is not listed in the manifest, so rcml did not write it. Move it out of {path}, or "
                "create the artifact again."
            )


def read_manifest(path: Path, kind: Kind) -> Manifest:
    """Read the manifest of the artifact at `path`; the other files of the artifact may still be absent.

    Raises:
        ArtifactError: the manifest is missing or damaged, or it is of another kind or format.
    """
    noun, file = _noun(kind), path / "manifest.json"
    again = f"Create the {noun} again with `rcml {MADE_BY[kind]}`."
    other = f"Give the folder that `rcml {MADE_BY[kind]}` wrote."
    try:
        content = read_plain(file, path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no manifest.json, so it is not an rcml artifact. {other}") from None
    raw = decode_json(content, file)
    if isinstance(raw, dict) and raw.get("format") != ARTIFACT_FORMAT:
        raise ArtifactError(
            f"{path} has format {str(raw.get('format'))[:40]}, but this version of rcml reads format "
            f"{ARTIFACT_FORMAT}. {again}"
        )
    if isinstance(raw, dict):
        raw.pop("digest", None)  # verified below by comparing the whole text
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ArtifactError(f"{file} is damaged ({faults_of(error)}). {again}") from None
    if content.decode("utf-8") != manifest.text:
        raise ArtifactError(
            f"{file} was changed after it was written: it does not match its own digest. {again}"
        )
    if manifest.kind != kind:
        raise ArtifactError(f"{path} is {_a(manifest.kind)}, but {_a(kind)} is required. {other}")
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise ArtifactError(
                f"{path}/manifest.json lists {name!r}, which is outside the artifact. Do not use this {noun}."
            )
    return manifest


def saved(config: BaseModel) -> str:
    """Return the text of `config.json`."""
    return config.model_dump_json(indent=2) + "\n"


MADE_BY: Mapping[Kind, str] = {
    "shop": "demo",
    "prepared": "prepare",
    "checkpoint": "train",
    "report": "evaluate",
    "index": "index build",
}
"""Command that writes each kind of artifact."""


def _noun(kind: Kind) -> str:
    return "prepared data" if kind == "prepared" else kind


def _a(kind: Kind) -> str:
    return {"index": "an index", "prepared": "prepared data"}.get(kind, f"a {kind}")


def refuse_loss(target: Path, kind: Kind, config: BaseModel, taken_over: Collection[Path] = ()) -> None:
    """Raise an error if writing `target` would lose something; long stages call this before they start.

    An earlier artifact of the same kind may be replaced, but nothing else: no other artifact, no file that the artifact
    does not list, and no input of this run, which `config` names. Inputs that are `taken_over` into the new artifact
    are not lost.

    Raises:
        ArtifactError: `target` contains something else, or an input.
    """
    place = _place(target)
    for path in _paths(config.model_copy(update={"out": None})):
        if _place(path).is_relative_to(place) and path not in taken_over:
            raise ArtifactError(
                f"{path} is an input, and {target} would replace it. Choose an --out outside the inputs."
            )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / "manifest.json").is_file():
        raise ArtifactError(
            f"{target} exists and is not an rcml artifact. Choose another --out, or remove this file or folder."
        )
    try:
        content = read_json(target / "manifest.json", limit=MAX_MANIFEST_BYTES)
        earlier, listed = content["kind"], set(content["files"])
    except (ArtifactError, TypeError, KeyError):
        return  # a damaged artifact may be replaced
    if earlier != kind:
        raise ArtifactError(
            f"{target} is {_a(earlier)}, which would be lost. Choose another --out for the {_noun(kind)}, or remove "
            "this folder."
        )
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        own = name in listed or name in ("manifest.json", README_FILE) or path.name.startswith(".")
        if path.is_file() and not own:
            raise ArtifactError(
                f"{target} contains {name}, which rcml did not write and which would be lost. Move it away, or choose "
                "another --out."
            )


def _paths(value: object) -> Iterator[Path]:
    """Yield the paths in options: those of type Path, and texts that name something that exists."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)
    elif isinstance(value, Path) or (isinstance(value, str) and value and Path(value).is_dir()):
        yield Path(value)


def _place(path: Path) -> Path:
    """Return the absolute path without links, so that an artifact can lie behind one, on another disk."""
    return Path(os.path.realpath(path))


def _swap(staging: Path, target: Path) -> None:
    """Replace `target` with `staging` in two renames; if only the first happens, `_recover` undoes it."""
    replaced = _replaced(target)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    sync_path(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _recover(target: Path) -> None:
    """Undo or finish a replacement that was interrupted.

    Raises:
        ReadOnlyError: the earlier artifact must be moved back, but this user may not write to its folder.
    """
    replaced = _replaced(target)
    if replaced.exists() and not _being_written(target):
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            with storing(target):
                replaced.rename(target)


def _being_written(target: Path) -> bool:
    try:
        with lock_folder(_staging(target), target.name):
            return False
    except (FileNotFoundError, NotADirectoryError, PermissionError):
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
