"""`rcml index snapshot` and `restore`: a copy of an index taken, and brought back, while it is served.

A snapshot is laid out as an index is: a generation and a journal. It can be opened and served like one. It is whole
by itself: what an index keeps on servers lies in files of the snapshot.
"""

import shutil
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
    next_generation,
    prepared_journal,
    remove_generations,
)
from model.artifact import check_files, write_folder
from model.console import say
from model.errors import ArtifactError


def snapshot(config: SnapshotConfig) -> str:
    """Copy an index, with every change that was acknowledged before; returns a one-line summary.

    Raises:
        ArtifactError: the index is missing or damaged, or `config.out` holds something.
        StorageError: the disk is full or failing; nothing is left at `config.out`.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ArtifactError(
            f"{config.out} is there already; choose another --out, so that nothing is overwritten."
        )
    with write_folder(config.out) as folder:
        # The changes first: a generation made since then holds them, and the journal always has those that
        # came after the newest generation there is.
        generation = Generation.open_newest(config.index)
        journal = generation.journal()
        journal.copy(folder)
        journal.close()
        generation.close()
        generation = Generation.open_newest(config.index)
        _copy(generation, folder / generation.path.name)
        generation.close()
    copied = Generation.open_newest(config.out)
    copied.close()
    return f"Copied {config.index} to {config.out}: {copied.path.name} and the changes since."


def restore(config: RestoreConfig) -> str:
    """Have an index be again what a snapshot of it holds; returns a one-line summary.

    That becomes a new generation, to which a server that has the index open goes over. Changes from before this
    began are lost; those made meanwhile come on top. Vectors and changes come to lie where those of the index do,
    unless `config` says otherwise.

    Raises:
        InputError: `config` names another place for the changes than the index has.
        ArtifactError: the snapshot is missing or damaged, or `config.out` holds something else than an index.
        MismatchError: the snapshot was made with another checkpoint than the one named.
        StorageError: the disk is full or failing; the index is as it was.
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
            places = {
                "vectors": config.vectors or vectors,
                "journal": prepared_journal(config.out, config.journal or url),
            }
            options = source.snapshot.generation.config.model_copy(update=places)
            last = _last_sequence(journal_store(config.out, options), config.out)
            sequence = max(last, source.snapshot.overlay.sequence)
            write_compacted(source.snapshot, target, source.journal.picture, checkpoint, sequence, options)
            remove_generations(config.out, {target})
            restored = Generation.open(target)
            journal = restored.journal()
            journal.trim(sequence)
            journal.close()
            restored.close()
    finally:
        source.close()
    return f"Restored {config.out} from {config.snapshot}: {target.name}, {len(source):,} items."


def _copy(generation: Generation, target: Path) -> None:
    """Copy a generation, with its vectors and its changes in files, wherever they lie."""
    config = generation.config
    here = config.model_copy(update={"vectors": None, "journal": None})
    if config == here:
        shutil.copytree(generation.path, target)
        return
    unchanged = Snapshot.of(generation)
    checkpoint = generation.checkpoint_seen_from(target.parent)
    write_compacted(unchanged, target, lambda recorded: None, checkpoint, generation.sequence, here)


def _last_sequence(store: Store, index: Path) -> int:
    try:
        return last_sequence(store)
    except ArtifactError as error:
        say(f"{error} It is set aside; restart the servers that have {index} open.")
        store.set_aside()
        return 0
