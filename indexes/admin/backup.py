"""Backup and restore of an index that may be in use: `rcml index snapshot` and `rcml index restore`.

A backup has the layout of an index, with one generation and a journal, so it can be opened and served like any index.
It is self-contained: vectors and changes that an index stores on servers are files in the backup.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from indexes.builder.compact import write_compacted
from indexes.config import RestoreConfig, SnapshotConfig
from indexes.index import Index
from indexes.journal.store import Store, last_sequence
from indexes.live.snapshot import Snapshot
from indexes.storage.generation import Generation
from indexes.storage.layout import (
    journal_store,
    kept_config,
    lock_index,
    marked_sequence,
    next_generation,
    prepare_local_journal,
    prepared_journal,
    remove_generations,
)
from model.artifact import PICTURES, check_files, write_folder
from model.console import say
from model.errors import ArtifactError
from model.plain_file import plain_status

NAMED_PICTURES = 3
"""Maximum number of damaged pictures that a message names."""


def snapshot(config: SnapshotConfig) -> str:
    """Back up an index with all changes acknowledged before the call, and return a one-line summary.

    Raises:
        ArtifactError: the index is missing or damaged, or `config.out` is a file or a folder that is not empty.
        StorageError: the disk is full or failing; nothing is left at `config.out`.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ArtifactError(
            f"{config.out} already exists, and a backup does not overwrite it. Choose another --out."
        )
    with write_folder(config.out) as folder:
        # Copy the journal before the generation. If the index is compacted between the two copies, some changes are
        # in both, which does no harm. In the opposite order, a compaction between the two copies could trim changes
        # that the copied generation does not include, and the backup would lack them.
        generation = Generation.open_newest(config.index)
        journal = generation.journal()
        journal.copy(folder)
        journal.close()
        generation.close()
        generation = Generation.open_newest(config.index)
        _copy(generation, folder / generation.path.name)
        generation.close()
    copied = Generation.open_newest(config.out)
    try:
        _report_damaged_pictures(copied)
    finally:
        copied.close()
    return f"Backed up {config.index} to {config.out}: {copied.path.name} and all later changes."


def restore(config: RestoreConfig) -> str:
    """Restore an index from a backup, and return a one-line summary.

    The state in the backup becomes a new generation, and a server that has the index open switches to it. Changes made
    before the restore began are lost. Changes made during the restore are applied on top of the new generation. The
    vectors are stored at `config.vectors` and the changes at `config.journal`; by default, where the existing index
    stores them. A restore can move the vectors of an existing index, but not its changes.

    Raises:
        InputError: the index exists, and `config.journal` is not where it stores its changes.
        ArtifactError: the backup is missing or damaged, or `config.out` exists and is not an index.
        MismatchError: the backup was built from a different checkpoint than `config.checkpoint`.
        StorageError: the disk is full or failing; the index is unchanged.
    """
    target = next_generation(config.out)
    kept = kept_config(config.out)
    generation = Generation.open_newest(config.snapshot)
    check_files(generation.path, generation.manifest)
    checkpoint = config.checkpoint or generation.checkpoint_seen_from(config.out)
    generation.close()
    source = Index.open(config.snapshot, checkpoint)
    try:
        with lock_index(config.out):
            vectors, url = (kept.vectors, kept.journal) if kept is not None else (None, None)
            options = source.snapshot.generation.config.moved(
                config.vectors or vectors, prepared_journal(config.out, config.journal or url)
            )
            last = _last_sequence(journal_store(config.out, options), config.out)
            sequence = max(last, source.snapshot.overlay.sequence)
            prepare_local_journal(config.out, options)
            write_compacted(source.snapshot, target, source.journal.picture, checkpoint, sequence, options)
            remove_generations(config.out, {target})
            prepare_local_journal(config.out, options, replaced=True)
            restored = Generation.open(target)
            journal = restored.journal()
            journal.trim(sequence)
            journal.close()
            restored.close()
    finally:
        source.close()
    return f"Restored {config.out} from {config.snapshot}: {target.name}, {len(source):,} items."


def _copy(generation: Generation, target: Path) -> None:
    """Copy a generation. In the copy, vectors and changes are in files, even if the original stores them on servers."""
    config = generation.config
    here = config.moved(None, None)
    if config == here:

        def copy(source: str, destination: str) -> None:
            # Opening has checked all files but the pictures. A picture that cannot be copied is reported as damaged.
            with suppress(ArtifactError, FileNotFoundError):
                plain_status(Path(source), generation.path)
                if os.access(source, os.R_OK):
                    shutil.copy2(source, destination)

        shutil.copytree(generation.path, target, copy_function=copy)
        return
    unchanged = Snapshot.of(generation)
    checkpoint = generation.checkpoint_seen_from(target.parent)
    write_compacted(unchanged, target, lambda recorded: None, checkpoint, generation.sequence, here)


def _report_damaged_pictures(copied: Generation) -> None:
    """Print which pictures are damaged in a backup. Only `restore` and `verify` would notice them otherwise."""
    damaged = []
    for name, record in copied.manifest.files.items():
        if name.startswith(f"{PICTURES}/"):
            try:
                record.check(copied.path / name, copied.path)
            except (ArtifactError, OSError):
                damaged.append(name)
    if damaged:
        named = ", ".join(damaged[:NAMED_PICTURES]) + (", ..." if len(damaged) > NAMED_PICTURES else "")
        say(
            f"{len(damaged):,} pictures in the backup are damaged, so `rcml index restore` will refuse it: {named}. "
            "Restore their files, or send the items again and run `rcml index compact`, then back up again."
        )


def _last_sequence(store: Store, index: Path) -> int:
    marked = marked_sequence(index)
    try:
        return max(last_sequence(store), marked)
    except ArtifactError as error:
        say(
            f"{error} The damaged journal is kept under another name. Restart the servers that have {index} open."
        )
        store.set_aside()
        return marked
