"""Layout of an index folder: its generations, the newest of them, and the lock for creating the next."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from indexes.config import BuildConfig
from indexes.journal.high_water_mark import HighWaterMark
from indexes.journal.postgres_store import PostgresStore, located, same_server
from indexes.journal.sqlite_store import SqliteStore
from indexes.journal.store import Store, last_sequence
from indexes.vectors.milvus.milvus_collections import drop_unused
from model.artifact import open_artifact, read_manifest
from model.durable_files import lock_folder, make_folder, storing
from model.errors import ArtifactError, InputError
from model.plain_file import read_model

CHECKPOINT_PATH_FILE = "checkpoint.json"
"""Name of the file in a generation that contains the path of its checkpoint."""

SKIPPED_FILE = "set-aside.json"
"""Name of the file in a generation that lists the skipped items, each with the reason why it was not encoded."""

_NAME = re.compile(r"generation-(\d{6,})")


def lineage(parents: Mapping[str, str]) -> str:
    """Return the identifier of an index: a hash of the digests of its inputs, which later changes do not affect."""
    return hashlib.sha256(json.dumps(dict(parents), sort_keys=True).encode()).hexdigest()


def generations(index: Path) -> list[Path]:
    """Return the folders of the generations of an index, oldest first."""
    if not index.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in index.iterdir())
    return [path for _, path in sorted((int(name[1]), path) for name, path in found if name)]


def newest_generation(index: Path) -> Path:
    """Return the folder of the newest generation, even if it is damaged.

    Raises:
        ArtifactError: there is no generation.
    """
    found = generations(index)
    if not found:
        raise no_generation_error(index)
    return found[-1]


def next_generation(index: Path) -> Path:
    """Return the path of the next generation.

    Raises:
        ArtifactError: `index` exists and is not an index.
    """
    found = generations(index)
    if not found and index.exists() and (not index.is_dir() or not _only_remains(index)):
        raise ArtifactError(
            f"{index} exists and is not an index of this rcml version. Remove it, or choose another --out."
        )
    number = int(found[-1].name.rpartition("-")[2]) + 1 if found else 1
    return index / f"generation-{number:06d}"


def kept_config(index: Path) -> BuildConfig | None:
    """Read the options of the newest generation whose options are readable; None if there is no such generation."""
    for path in reversed(generations(index)):
        with suppress(FileNotFoundError, ArtifactError):
            return read_options(path)
    return None


def journal_store(index: Path, config: BuildConfig | None) -> Store:
    """Return the store of the changes to an index, as selected by the options of a generation."""
    if config is None or config.journal is None:
        return SqliteStore(index)
    return PostgresStore(config.journal)


def prepared_journal(index: Path, url: str | None) -> str | None:
    """Prepare the journal of an index, and return its URL; None if the journal is a file.

    If the index exists, `url` must be the URL of its journal, with or without the schema.

    Raises:
        InputError: the index has a different journal, whose changes would be lost.
        StorageError: the server is unreachable.
    """
    kept = kept_config(index)
    if kept is not None and not (
        url == kept.journal or (url and kept.journal and same_server(url, kept.journal))
    ):
        raise InputError(
            f"{index} keeps its changes in {journal_store(index, kept).name}, but --journal selects another "
            "location. Use the same --journal as before, or choose another --out. To move the changes, run "
            "`rcml index snapshot` and then `rcml index restore` with another --out."
        )
    if url is None:
        return None
    address = (kept and kept.journal) or located(url, index)
    PostgresStore(address).prepare()
    return address


def prepare_local_journal(index: Path, config: BuildConfig, replaced: bool = False) -> None:
    """Create the files of a local journal before the first generation that requires them is published.

    If the newest generation requires them already, a missing file is evidence of a loss and stays missing, unless a new
    generation has just `replaced` the state that the journal belongs to.

    Raises:
        StorageError: the disk is full or failing.
    """
    if config.journal is not None or (not replaced and any(map(_requires_journal, generations(index)))):
        return
    SqliteStore(index).prepare()
    with storing(index):
        HighWaterMark(index).create()


def _requires_journal(generation: Path) -> bool:
    try:
        return requires_journal(read_manifest(generation, "index").counts)
    except ArtifactError:
        return True


def requires_journal(counts: Mapping[str, int]) -> bool:
    """Return whether the journal of a generation was created with it, according to the `counts` of its manifest."""
    return counts.get("journal", 0) > 0


def last_known_sequence(index: Path, config: BuildConfig) -> int:
    """Return the sequence number of the last change to an index, even if its journal has lost the change.

    Raises:
        ArtifactError: the journal is damaged.
        StorageError: the journal is unreachable.
    """
    return max(last_sequence(journal_store(index, config)), marked_sequence(index))


def marked_sequence(index: Path, of: str | None = None) -> int:
    """Return the sequence number that the high-water mark names; 0 if the mark is missing or damaged.

    With `of`, the mark of an index with another lineage counts as missing.
    """
    with suppress(ArtifactError):
        mark = HighWaterMark(index).read()
        if mark is not None and of in (None, mark.lineage):
            return mark.sequence
    return 0


@contextmanager
def lock_index(index: Path) -> Iterator[None]:
    """Lock an index, so that no other process creates a generation; remove the remains of a failed attempt.

    Raises:
        ArtifactError: another process is creating a generation.
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
    """Write the path of the checkpoint relative to the index, so that a folder with both can be moved."""
    path = Path(os.path.relpath(checkpoint.resolve(), index.resolve())).as_posix()
    text = json.dumps({"path": path}, indent=2, ensure_ascii=False) + "\n"
    (folder / CHECKPOINT_PATH_FILE).write_text(text, encoding="utf-8")


def changed_since_build(index: Path, sequence: int) -> bool:
    """Return whether items were changed or relations added since the build.

    `sequence` is the sequence number of the last change.
    """
    try:
        counts = read_manifest(newest_generation(index), "index").counts
    except ArtifactError:
        counts = {}
    return sequence > counts.get("built", 0) or counts.get("added", 0) > 0


def remove_generations(index: Path, keep: Collection[Path]) -> None:
    """Remove all generations except those in `keep` and those that another process has open."""
    for path in set(generations(index)) - set(keep):
        with suppress(ArtifactError), lock_folder(path, path.name):
            # Rename the folder first, because a partly removed folder must not look like a generation.
            path.rename(path.with_name(f".{path.name}.removed"))
    for gone in index.glob(".generation-*.removed"):
        shutil.rmtree(gone, ignore_errors=True)


def read_options(generation: Path) -> BuildConfig:
    """Read the options that a generation was built with.

    Raises:
        FileNotFoundError: there are no options.
        ArtifactError: the options cannot be read, or are not those of an index.
    """
    return read_model(BuildConfig, generation / "config.json")


def _only_remains(index: Path) -> bool:
    """Return whether a folder has only the remains of a failed build: staged generations and an empty journal."""
    return all(path.name.startswith((".generation-", "changes.", ".changes.")) for path in index.iterdir())


def no_generation_error(index: Path) -> ArtifactError:
    """Return the error that explains why `index` has no generation."""
    try:
        open_artifact(
            index if not index.is_dir() or not _only_remains(index) else next_generation(index), "index"
        )
    except ArtifactError as error:
        return error
    return ArtifactError(
        f"{index} was built by an earlier version of rcml. Run `rcml index build` to rebuild it."
    )
