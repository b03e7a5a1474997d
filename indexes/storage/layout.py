"""An index folder on disk: which generations it holds, which is newest, who may make the next."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from indexes.config import BuildConfig
from indexes.journal.postgres_store import PostgresStore, located, same_server
from indexes.journal.sqlite_store import SqliteStore
from indexes.journal.store import Store
from indexes.vectors.milvus_collections import drop_unused
from model.artifact import lock_folder, make_folder, open_artifact, read_manifest, storing
from model.errors import ArtifactError, InputError

CHECKPOINT_PATH_FILE = "checkpoint.json"
"""File of a generation that says where its checkpoint lies."""

SKIPPED_FILE = "set-aside.json"
"""File of a generation that lists the items that could not be encoded, and why."""

_NAME = re.compile(r"generation-(\d{6,})")


def lineage(parents: Mapping[str, str]) -> str:
    """Name an index by the digests of what it was built from, whatever was changed since."""
    return hashlib.sha256(json.dumps(dict(parents), sort_keys=True).encode()).hexdigest()


def generations(index: Path) -> list[Path]:
    """List the generations of an index, oldest first."""
    if not index.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in index.iterdir())
    return [path for _, path in sorted((int(name[1]), path) for name, path in found if name)]


def newest_generation(index: Path) -> Path:
    """Find the newest generation, whole or not.

    Raises:
        ArtifactError: there is none.
    """
    found = generations(index)
    if not found:
        raise no_generation_error(index)
    return found[-1]


def next_generation(index: Path) -> Path:
    """Choose the path of the next generation.

    Raises:
        ArtifactError: `index` holds something else than an index.
    """
    found = generations(index)
    if not found and index.exists() and (not index.is_dir() or not _only_remains(index)):
        raise ArtifactError(
            f"{index} exists and is not an index of this rcml; choose another --out or remove it yourself."
        )
    number = int(found[-1].name.rpartition("-")[2]) + 1 if found else 1
    return index / f"generation-{number:06d}"


def kept_config(index: Path) -> BuildConfig | None:
    """Read the options of the newest generation whose options can be read; None if there is none."""
    for path in reversed(generations(index)):
        with suppress(OSError, ValueError):
            return read_options(path)
    return None


def journal_store(index: Path, config: BuildConfig | None) -> Store:
    """Choose the store of the changes to an index, by the options of a generation."""
    if config is None or config.journal is None:
        return SqliteStore(index)
    return PostgresStore(config.journal)


def prepared_journal(index: Path, url: str | None) -> str | None:
    """Prepare the journal of an index: the one at `url`, or the one it has; return its address, None for a file.

    Raises:
        InputError: it has another; changes would be lost.
        StorageError: the server is out of reach.
    """
    kept = kept_config(index)
    if kept is not None and not (
        url == kept.journal or (url and kept.journal and same_server(url, kept.journal))
    ):
        raise InputError(
            f"{index} keeps its changes in {journal_store(index, kept).name}, not where --journal says. Name the same, "
            "or choose another --out; `rcml index snapshot` and `restore` take them elsewhere."
        )
    if url is None:
        return None
    address = (kept and kept.journal) or located(url, index)
    PostgresStore(address).prepare()
    return address


@contextmanager
def lock_index(index: Path) -> Iterator[None]:
    """Lock an index, so that no other process makes a generation; leave nothing behind of one that failed.

    Raises:
        ArtifactError: another process is making one.
    """
    with storing(index):
        make_folder(index)
    try:
        with lock_folder(index, index.name):
            drop_unused(index)
            try:
                yield
            finally:
                drop_unused(index)
    except BaseException:
        with suppress(OSError):
            index.rmdir()
        raise


def write_checkpoint_path(folder: Path, checkpoint: Path, index: Path) -> None:
    """Write where the checkpoint lies, relative to the index, so that a folder that holds both may be moved."""
    path = Path(os.path.relpath(checkpoint.resolve(), index.resolve())).as_posix()
    text = json.dumps({"path": path}, indent=2, ensure_ascii=False) + "\n"
    (folder / CHECKPOINT_PATH_FILE).write_text(text, encoding="utf-8")


def changed_since_build(index: Path, sequence: int) -> bool:
    """Tell whether items were changed, or relations added, since the build; `sequence` is that of the last change."""
    try:
        counts = read_manifest(newest_generation(index), "index").counts
    except ArtifactError:
        counts = {}
    return sequence > counts.get("built", 0) or counts.get("added", 0) > 0


def remove_generations(index: Path, keep: Collection[Path]) -> None:
    """Remove all generations but those to keep, and those that another process still has open."""
    for path in set(generations(index)) - set(keep):
        with suppress(ArtifactError), lock_folder(path, path.name):
            # Renamed first: a half-removed folder must not look like a generation.
            path.rename(path.with_name(f".{path.name}.removed"))
    for gone in index.glob(".generation-*.removed"):
        shutil.rmtree(gone, ignore_errors=True)


def read_options(generation: Path) -> BuildConfig:
    """Read the options that the generation at a path was made with.

    Raises:
        OSError, ValueError: they cannot be read, or are not those of an index.
    """
    return BuildConfig.model_validate_json((generation / "config.json").read_bytes())


def _only_remains(index: Path) -> bool:
    return all(path.name.startswith(".generation-") for path in index.iterdir())


def no_generation_error(index: Path) -> ArtifactError:
    """Make the error that says why there is no generation in `index`."""
    try:
        open_artifact(
            index if not index.is_dir() or not _only_remains(index) else next_generation(index), "index"
        )
    except ArtifactError as error:
        return error
    return ArtifactError(f"{index} was made by an earlier rcml; run `rcml index build` to make it again.")
