"""An open index, which provides readers of its newest snapshot and applies changes.

An `Index` combines a generation, the changes made since, and the torch-free part of the checkpoint (the relations, the
validity head and its calibration). `Index.reader` returns a `Reader`, which answers all queries. The service queries
and changes an index; the index itself depends on neither HTTP nor torch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from indexes.builder import revise
from indexes.builder.compact import write_compacted
from indexes.builder.steps import Tell, tell_nobody
from indexes.journal.change import Change, JournalEntry
from indexes.journal.journal import Journal
from indexes.live.picture_check import PictureCheck
from indexes.live.snapshot import Snapshot
from indexes.storage.generation import Generation
from indexes.storage.layout import (
    lock_index,
    newest_generation,
    next_generation,
    prepare_local_journal,
    remove_generations,
)
from indexes.storage.tokens import ESTIMATE_BYTES
from indexes.vectors.gpu_vectors import CPU, Cards
from model.checkpoint.checkpoint import Checkpoint
from model.durable_files import may_write
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, InputError, MismatchError, ReadOnlyError, UnreachableError
from model.records import Relation

from .reader import Reader, StoredPicture


class Index:
    """An open index folder that many threads may read and change; `refresh` loads the changes of other processes.

    A change is durable before it is acknowledged, and every reader created afterwards sees it. `journal` stores the
    changes made since the newest generation. `pictures` checks the pictures that are read.
    """

    def __init__(self, path: Path, checkpoint: Checkpoint, generation: Generation, journal: Journal) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.journal = journal
        self.snapshot = Snapshot.of(generation)
        self.pictures = PictureCheck()
        self.pictures.switch_to(generation)
        self._newest = newest_generation(path).name
        self._publishing = Lock()
        self._refreshing = Lock()
        self._compacting = Lock()

    @classmethod
    def open(
        cls,
        path: Path,
        checkpoint: Path | None = None,
        cards: Cards = CPU,
        estimate_bytes: int = ESTIMATE_BYTES,
    ) -> "Index":
        """Open the index at `path` with the checkpoint that it names, or with `checkpoint` if given.

        Vectors in files are copied to `cards`, also those of later generations. In each generation, estimates for
        free-text relations take at most `estimate_bytes` of memory.

        Raises:
            ArtifactError: the index or the checkpoint is missing or damaged, or the journal is damaged.
            MismatchError: the index was built from another checkpoint.
        """
        generation = Generation.open_newest(path, cards, estimate_bytes)
        if checkpoint is None:
            checkpoint = generation.checkpoint_seen_from(path)
        parent = Checkpoint.open(checkpoint)
        made_from, found = generation.manifest.parents["checkpoint"], parent.manifest.digest
        if made_from != found:
            raise MismatchError(
                f"The index at {path} was built from checkpoint {made_from[:12]}, but the checkpoint at "
                f"{checkpoint} is {found[:12]}. Run `rcml index build` again, or pass the matching checkpoint with "
                "--checkpoint."
            )
        index = cls(path, parent, generation, generation.journal())
        try:
            index._publish()
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Close all files and connections."""
        self.journal.close()
        self.snapshot.generation.close()

    def reader(self) -> Reader:
        """Return a reader of the newest snapshot; all queries go through a reader."""
        return Reader(self.snapshot, self.checkpoint, self.journal, self.pictures)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.snapshot)

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the generation."""
        return self.snapshot.generation.digest

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All relations: the intra-sample relation first, relations added at run time last."""
        return self.reader().relations

    def picture(self, item_id: str) -> StoredPicture:
        """Return the picture of an item in the newest snapshot; see `Reader.picture`.

        Raises:
            UnknownItemError: no item has this ID.
            NoPictureError: the item has no picture.
            DamagedPictureError: the picture is damaged.
        """
        while (found := self.reader().picture(item_id)) is None:
            self.refresh()
        return found

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply all `changes` in order, or none of them, and return which of their items existed before.

        Changes are durable before readers see them. Deleting an item that does not exist is not an error. Of several
        writers that add the same item at the same time, on any machine, only the first to commit finds it missing.

        Raises:
            InputError: the index stores tokens, but an item has none; nothing was changed.
            StorageError: the disk is full or failing; nothing was changed.
        """
        keeps_tokens = self.snapshot.generation.tokens is not None
        for change in changes:
            if keeps_tokens and change.item is not None and change.tokens is None:
                raise InputError(
                    f"Item {change.item_id!r} has no tokens, but this index stores the tokens of every item for "
                    "free-text relations. Encode the item with tokens and add it again."
                )
        if not changes:
            return []
        stored = changes if keeps_tokens else [replace(change, tokens=None) for change in changes]
        return [one.existed for one in self.journal.append(stored, self._publish, self._existing)]

    def check(self) -> None:
        """Check that the vectors can be searched now.

        Raises:
            UnreachableError: the server that stores the vectors does not answer.
        """
        self.snapshot.generation.vectors.check()

    def refresh(self) -> None:
        """Load the changes that other processes made, and their newer generation if they wrote one.

        Raises:
            ArtifactError: the journal or the newer generation is damaged.
        """
        with self._refreshing:  # who comes second waits until the newer generation is open
            newest = newest_generation(self.path)
            if newest.name > self._newest:
                # Record the name before opening the generation, so that a damaged generation is reported only once.
                before, self._newest = self._newest, newest.name
                try:
                    self._take_over(self.snapshot.generation.successor(newest))
                except UnreachableError:
                    self._newest = before
                    raise
        self._publish()

    def read_changes(self) -> None:
        """Load the changes that other processes made, but not a newer generation unless some changes need it.

        Raises:
            ArtifactError: the journal is damaged.
            StorageError: the journal is unreachable.
        """
        self._publish()

    def compact(self, tell: Tell = tell_nobody) -> None:
        """Compact the changes into a new generation and switch to it; searches and changes continue meanwhile.

        `tell` receives a line about each step.

        Raises:
            ArtifactError: another process is writing a generation.
        """
        with self._next_generation() as target:
            snapshot = self.snapshot
            write_compacted(
                snapshot,
                target,
                self.journal.picture,
                self.checkpoint.path,
                snapshot.overlay.sequence,
                snapshot.generation.config,
                tell,
            )
            self._switch_to(target, snapshot.generation)

    def check_new_relation(self, relation: Relation) -> None:
        """Check that `add_relation` would accept this relation.

        Raises:
            ReadOnlyError: this user may not write to the folder of the index.
            InputError: the ID or the description is not one line of text, or an existing relation already has it.
            NoTokensError: the index stores no tokens.
        """
        if not may_write(self.path):
            raise ReadOnlyError(self.path, "there is no right to write")
        revise.check_new_relation(self.snapshot.generation, relation)

    def add_relation(
        self,
        relation: Relation,
        free_text: FreeTextRelation,
        progress: Callable[[int, int], None] = lambda done, total: None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """Add a free-text relation to the index by writing a new generation.

        The relation then works like any other indexed relation. The call computes the vectors of all items from their
        tokens and adds them to the vector index. Searches and changes continue meanwhile. `progress` is called with the
        work `done` and its `total`. The relation is added completely or not at all. `announce` is called once the new
        generation is on disk, before this process answers from it.

        Raises:
            InputError: see `check_new_relation`; also if adding the relation would exceed the maximum memory or miss
                the minimum recall that the options of the index specify.
            NoTokensError: the index stores no tokens.
            ArtifactError: another process is writing a generation.
            StorageError: the disk is full or failing.
        """
        self.check_new_relation(relation)  # fail before waiting for the lock
        with self._next_generation() as target:
            old = self.snapshot.generation
            revise.write_with_relation(old, target, relation, free_text, self.checkpoint.path, progress)
            announce()
            self._switch_to(target, old)

    def remove_relation(self, relation_id: str, announce: Callable[[], None] = lambda: None) -> None:
        """Remove a relation that was added at run time, by writing a new generation without it; see `add_relation`.

        Raises:
            UnknownRelationError: no relation has this ID.
            InputError: the relation belongs to the checkpoint, so the encoder would still compute its vectors.
            ArtifactError: another process is writing a generation.
            StorageError: the disk is full or failing.
        """
        with self._next_generation() as target:
            old = self.snapshot.generation
            revise.write_without_relation(old, target, relation_id, self.checkpoint.path)
            announce()
            self._switch_to(target, old)

    @contextmanager
    def _next_generation(self) -> Iterator[Path]:
        """Lock the index, refresh it, and yield the path for the next generation.

        Raises:
            ArtifactError: another process is writing a generation.
        """
        with self._compacting, lock_index(self.path):
            prepare_local_journal(self.path, self.snapshot.generation.config)
            self.refresh()
            yield next_generation(self.path)

    def _switch_to(self, path: Path, before: Generation) -> None:
        """Switch to the generation just written at `path`, and remove all older generations except `before`."""
        self._newest = path.name
        self._take_over(before.successor(path))
        remove_generations(self.path, {path, before.path})
        self.journal.trim(before.sequence)

    def _publish(self, recorded: Sequence[JournalEntry] = ()) -> None:
        """Add the durable changes to the snapshot.

        `recorded` contains the changes that this process has just appended. If it is empty, or if there are other
        changes between the snapshot and `recorded`, all changes since the snapshot are read from the journal.
        """
        with self._publishing:
            sequence = self.snapshot.overlay.sequence
            if not recorded or recorded[0].sequence > sequence + 1:
                recorded = self.journal.since(sequence)  # includes the changes of other processes
            if recorded := [one for one in recorded if one.sequence > sequence]:
                if recorded[0].sequence > sequence + 1:
                    # Another process compacted the index and trimmed some of the changes that this snapshot lacks.
                    # The newest generation includes them.
                    before = self.snapshot.generation
                    newest = Generation.open_newest(self.path, before.cards, before.estimate_bytes)
                    self.snapshot = self._with_changes(newest)
                    return
                overlay = self.snapshot.overlay.after(recorded, self.snapshot.generation.catalogue.find)
                self.snapshot = replace(self.snapshot, overlay=overlay)

    def _existing(self, sequence: int, item_ids: Sequence[str]) -> list[bool]:
        """Return which items exist after the change `sequence`, which must be the newest change in the journal."""
        if self.snapshot.overlay.sequence < sequence:
            self.refresh()
        snapshot = self.snapshot
        return [item_id in snapshot for item_id in item_ids]

    def _take_over(self, generation: Generation) -> None:
        with self._publishing:
            self.snapshot = self._with_changes(generation)

    def _with_changes(self, generation: Generation) -> Snapshot:
        """Return a snapshot of a generation and the changes made since.

        Raises:
            MismatchError: the generation was built from another checkpoint.
            ArtifactError: some of the changes made since are missing.
        """
        if generation.manifest.parents["checkpoint"] != self.checkpoint.manifest.digest:
            raise MismatchError(
                f"The index at {self.path} was rebuilt from another checkpoint. Open the index again."
            )
        snapshot = Snapshot.of(generation)
        if recorded := self.journal.since(generation.sequence):
            if recorded[0].sequence > generation.sequence + 1:
                raise ArtifactError(
                    f"{self.path} no longer has all changes made after {generation.path.name}. Restore a backup."
                )
            overlay = snapshot.overlay.after(recorded, generation.catalogue.find)
            snapshot = replace(snapshot, overlay=overlay)
        self.pictures.switch_to(generation)
        return snapshot
