"""Compaction: a snapshot is written as a new generation, with the current items in the order of their rows."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.config import BuildConfig, IndexKind
from indexes.journal.change import JournalEntry
from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import copy_attributes, write_attributes
from indexes.storage.catalogue import CATALOGUE_FILE, write_catalogue
from indexes.storage.generation import Generation
from indexes.storage.layout import write_checkpoint_path
from indexes.storage.precomputed import ANSWERS_DIR, PreviousAnswers, write_precomputed
from indexes.storage.relation_table import save_relations
from indexes.storage.tokens import TOKENS_DIR, write_tokens
from indexes.vectors.backends import VECTORS_DIR, keep_vectors, open_vectors
from indexes.vectors.faiss_backend import Carried
from model.artifact import Draft, write_artifact
from model.console import say
from model.durable_files import link_or_copy, take_over_folder
from model.errors import ArtifactError, UnreachableError
from model.plain_file import FileRecord, plain_status
from model.records import Item
from model.similarity import View

from .auto_options import choose_kind, precomputed_similarities
from .free_text_recall import carry_report
from .steps import Tell, step, tell_nobody

ITEMS_PER_CHUNK = 4_096
"""Number of items copied at a time."""


def write_compacted(
    snapshot: Snapshot,
    target: Path,
    picture: Callable[[JournalEntry], bytes | None],
    checkpoint: Path,
    sequence: int,
    config: BuildConfig,
    tell: Tell = tell_nobody,
) -> None:
    """Write `snapshot` as a generation at `target` that includes the changes up to `sequence`.

    `picture` returns the picture in a journal entry. `checkpoint` is the path of the checkpoint. `config` contains the
    options of the new generation, including the locations of its vectors and changes. The steps are told to `tell`.

    Raises:
        ArtifactError: another process is writing this generation.
        InputError: the vectors exceed `config.max_memory`, or the ANN index misses `config.min_recall`.
    """
    old = snapshot.generation
    dim = old.vectors.dim
    kind = choose_kind(config, len(snapshot), len(old.relations), dim, kind_of(old))

    def items() -> Iterator[Item]:
        for rows in _chunks(snapshot):
            yield from snapshot.at(rows)

    count = len(snapshot)
    with write_artifact(target, "index", config, old.manifest.parents) as draft:
        _write_vectors(snapshot, draft, target, config, kind, tell)
        if snapshot.overlay.changes:
            _write_answers(snapshot, draft, config, kind, tell)
            if old.tokens is not None:
                with step("storing tokens", count, "items", tell):
                    _write_tokens(snapshot, draft, config)
            with step("writing items", count, "items", tell):
                write_catalogue(draft.path, items())
                write_attributes(draft.path, items())
        else:
            for name in (ANSWERS_DIR, TOKENS_DIR):
                if (old.path / name).is_dir():
                    take_over_folder(old.path / name, draft.path / name)
            link_or_copy(old.path / CATALOGUE_FILE, draft.path / CATALOGUE_FILE)
            copy_attributes(old.path, draft.path)
        _write_pictures(snapshot, draft, picture)
        save_relations(draft.path, old.relations)
        write_checkpoint_path(draft.path, checkpoint, target.parent)
        old.composition.write(draft.path)
        draft.counts.update(
            old.manifest.counts, items=len(snapshot), sequence=sequence, journal=int(config.journal is None)
        )


def _write_tokens(snapshot: Snapshot, draft: Draft, config: BuildConfig) -> None:
    old, folder = snapshot.generation, draft.path / TOKENS_DIR
    write_tokens(folder, old.vectors.dim, map(snapshot.tokens, _chunks(snapshot)))
    carry_report(folder, old.path / TOKENS_DIR, config.min_recall)


def _write_vectors(
    snapshot: Snapshot, draft: Draft, target: Path, config: BuildConfig, kind: IndexKind, tell: Tell
) -> None:
    """Write the vectors, or take over the files of the old generation if nothing changed."""
    old = snapshot.generation
    relations, folder = len(old.relations), draft.path / VECTORS_DIR
    if not (snapshot.overlay.changes or config.vectors or old.config.vectors):
        take_over_folder(old.path / VECTORS_DIR, folder)
        return

    def source(relation: int, view: View) -> Iterator[Float32[ndarray, "chunk dim"]]:
        for rows in _chunks(snapshot):
            yield snapshot.vectors(relation, view, rows)

    carried = None
    if old.config.vectors is None:
        same = {position: position for position in range(relations)}
        carried = Carried(old.path / VECTORS_DIR, same, _renumbered(snapshot))
    total = len(snapshot) * relations * len(View)
    with step(f"indexing vectors ({kind})", total, "vectors", tell) as finished:
        advance = partial(finished, len(snapshot))
        keep_vectors(folder, target, config, relations, old.vectors.dim, source, kind, advance, carried)


def _write_answers(
    snapshot: Snapshot, draft: Draft, config: BuildConfig, kind: IndexKind, tell: Tell
) -> None:
    """Write the tables of precomputed answers, starting from those of the old generation."""
    old, relations = snapshot.generation, range(len(snapshot.generation.relations))
    similarities = precomputed_similarities(config, kind, len(snapshot), snapshot.pictured is None)
    total = len(snapshot) * len(relations) * len(similarities)
    with (
        closing(open_vectors(draft.path / VECTORS_DIR, old.cards)) as vectors,
        step("precomputing answers", total, "answers", tell) as finished,
    ):
        before = PreviousAnswers(old.answers, _renumbered(snapshot))
        write_precomputed(draft.path / ANSWERS_DIR, vectors, relations, similarities, before, finished)


def _write_pictures(
    snapshot: Snapshot, draft: Draft, picture: Callable[[JournalEntry], bytes | None]
) -> None:
    old = snapshot.generation
    for rows in _chunks(snapshot):
        for row, item in zip(rows, snapshot.at(rows), strict=True):
            if not item.picture:
                continue
            entry = snapshot.entry(row)
            if entry is None:
                if item.picture in old.manifest.files:
                    carry_picture(old, item.picture, draft)
                continue
            target = draft.path / item.picture
            target.parent.mkdir(exist_ok=True)
            try:
                content = picture(entry)
            except UnreachableError:
                raise
            except ArtifactError as error:
                # The item stays, and its picture stays known as damaged: the manifest lists it, and there is no file.
                say(f"{error} The new generation has no picture of item {item.item_id!r}.")
                draft.carried[item.picture] = FileRecord(size=0, sha256=entry.change.picture_sha256)
                continue
            assert content is not None, "the index is locked, so the journal cannot have been trimmed"
            target.write_bytes(content)


def carry_picture(old: Generation, name: str, draft: Draft) -> None:
    """Take over a picture of `old` with its record: as a hard link, because pictures never change, or as a copy.

    A picture that is damaged in `old` stays damaged: its record is that of the picture that was once written, and a
    picture that is missing, unreadable or not a plain file is left out. Items may share a picture, which is taken over
    once.
    """
    if name in draft.carried:
        return
    draft.carried[name] = old.manifest.files[name]
    source, target = old.path / name, draft.path / name
    target.parent.mkdir(exist_ok=True)
    try:
        plain_status(source, old.path)
    except (ArtifactError, FileNotFoundError):
        return
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        if os.access(source, os.R_OK):
            shutil.copyfile(source, target)


def kind_of(old: Generation) -> IndexKind:
    """Return the kind of the vector index of a generation."""
    return next(iter(old.vectors.report.values())).kind


def _renumbered(snapshot: Snapshot) -> Int64[ndarray, " before"]:
    """Return the new row of each item of the old generation; -1 if the item was deleted or changed."""
    remains = np.ones(snapshot.overlay.first, bool)
    remains[list(snapshot.overlay.dropped)] = False
    return np.where(remains, np.cumsum(remains) - 1, -1)


def _chunks(snapshot: Snapshot) -> Iterator[list[int]]:
    rows = filter(snapshot.has, range(snapshot.end))
    while chunk := list(islice(rows, ITEMS_PER_CHUNK)):
        yield chunk
