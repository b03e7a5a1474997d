"""An index folder, opened: the holder of its newest snapshot, through which it is changed.

It joins a generation, the changes since, and the torch-free part of the checkpoint (the relations, the validity
head, its calibration). Questions go to a `Reader`, which `reader` gives. The service asks and changes an index; an
index knows no HTTP and no torch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from indexes.builder import revise
from indexes.builder.compact import write_compacted
from indexes.journal.journal import Change, Journal, JournalEntry
from indexes.live.snapshot import Snapshot
from indexes.storage.generation import Generation
from indexes.storage.layout import lock_index, newest_generation, next_generation, remove_generations
from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, InputError, MismatchError, UnreachableError
from model.records import Relation

from .reader import Reader, StoredPicture


class Index:
    """An index folder, opened: read and changed from many threads, and refreshed from what other processes do.

    A change is durable before it is acknowledged, and seen by every reader taken afterwards. `journal` has the
    changes since the newest generation.
    """

    def __init__(self, path: Path, checkpoint: Checkpoint, generation: Generation, journal: Journal) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.journal = journal
        self.snapshot = Snapshot.of(generation)
        self._newest = newest_generation(path).name
        self._publishing = Lock()
        self._compacting = Lock()

    @classmethod
    def open(cls, path: Path, checkpoint: Path | None = None) -> "Index":
        """Open the index at `path` with the checkpoint it names, or with `checkpoint`.

        Raises:
            ArtifactError: either is missing or damaged, or so are the changes.
            MismatchError: the index was made from another checkpoint.
        """
        generation = Generation.open_newest(path)
        if checkpoint is None:
            checkpoint = generation.checkpoint_seen_from(path)
        parent = Checkpoint.open(checkpoint)
        made_from, found = generation.manifest.parents["checkpoint"], parent.manifest.digest
        if made_from != found:
            raise MismatchError(
                f"The index at {path} was made from checkpoint {made_from[:12]}, but the checkpoint at "
                f"{checkpoint} is {found[:12]}. Run `rcml index build` again, or name the right one with "
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
        """Close the files."""
        self.journal.close()
        self.snapshot.generation.close()

    def reader(self) -> Reader:
        """Take a reader of the newest snapshot, to which all questions go."""
        return Reader(self.snapshot, self.checkpoint, self.journal)

    def __len__(self) -> int:
        """Count the items."""
        return len(self.snapshot)

    @property
    def digest(self) -> str:
        """SHA-256 that names the generation."""
        return self.snapshot.generation.digest

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All relations: the intra-sample one first, those added at run time last."""
        return self.reader().relations

    def picture(self, item_id: str) -> StoredPicture:
        """Get the picture of an item of the newest snapshot; see `Reader.picture`.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError: it has no picture.
            ArtifactError: the picture is damaged.
        """
        while (found := self.reader().picture(item_id)) is None:
            self.refresh()
        return found

    def apply(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable, all or none, and then visible, in their order.

        Deleting an item that is not there is no error: it is not there afterwards.

        Raises:
            InputError: an item came without its tokens, which this index keeps; nothing was changed.
            StorageError: the disk is full or failing; nothing was changed.
        """
        keeps_tokens = self.snapshot.generation.tokens is not None
        for change in changes:
            if keeps_tokens and change.item is not None and change.tokens is None:
                raise InputError(
                    f"Item {change.item_id!r} came without its tokens, which this index keeps for relations in words. "
                    "Encode it with tokens, and put it in again."
                )
        if changes:
            stored = changes if keeps_tokens else [replace(change, tokens=None) for change in changes]
            self.journal.append(stored, self._publish)

    def refresh(self) -> None:
        """Take over what other processes did: their changes, and a newer generation.

        Raises:
            ArtifactError: either is damaged.
        """
        newest = newest_generation(self.path)
        if newest.name > self._newest:
            # Remembered before it is opened, so that a damaged one is reported once.
            before, self._newest = self._newest, newest.name
            try:
                self._take_over(Generation.open(newest))
            except UnreachableError:
                self._newest = before
                raise
        self._publish()

    def compact(self) -> None:
        """Fold the changes into a new generation, and go on with it; searches and changes go on meanwhile.

        Raises:
            ArtifactError: another process is doing so.
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
            )
            self._switch_to(target, snapshot.generation)

    def check_new_relation(self, relation: Relation) -> None:
        """Check that `add_relation` could begin with this relation.

        Raises:
            InputError: its id or description is no line of text, or that of a relation there is.
            NoTokensError: the index keeps no tokens.
        """
        revise.check_new_relation(self.snapshot.generation, relation)

    def add_relation(
        self,
        relation: Relation,
        free_text: FreeTextRelation,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Make a free-text relation one of this index, in all respects, in a new generation.

        It takes as long as making the vectors of all items from their tokens, and what the index keeps of vectors;
        searches and changes go on meanwhile. `progress` is called with the work `done`, and its `total`. Whatever
        happens, all is done afterwards, or nothing.

        Raises:
            InputError, NoTokensError: as `check_new_relation`; or one relation more takes more memory, or finds
                less, than the options of the index allow.
            ArtifactError: another process is making a generation.
            StorageError: the disk is full or failing.
        """
        self.check_new_relation(relation)  # before waiting for the lock
        with self._next_generation() as target:
            old = self.snapshot.generation
            revise.write_with_relation(old, target, relation, free_text, self.checkpoint.path, progress)
            self._switch_to(target, old)

    def remove_relation(self, relation_id: str) -> None:
        """Remove a relation that was added at run time, in a new generation.

        Raises:
            UnknownRelationError: there is none of this id.
            InputError: it is one of the checkpoint, whose encoder goes on making its vectors.
            ArtifactError: another process is making a generation.
            StorageError: the disk is full or failing.
        """
        with self._next_generation() as target:
            old = self.snapshot.generation
            revise.write_without_relation(old, target, relation_id, self.checkpoint.path)
            self._switch_to(target, old)

    @contextmanager
    def _next_generation(self) -> Iterator[Path]:
        """Lock the index, refresh it, and say where the next generation is to be written.

        Raises:
            ArtifactError: another process is making a generation.
        """
        with self._compacting, lock_index(self.path):
            self.refresh()
            yield next_generation(self.path)

    def _switch_to(self, path: Path, before: Generation) -> None:
        """Go on with the generation just made at `path`, and forget all others but the one `before`."""
        self._newest = path.name
        self._take_over(Generation.open(path))
        remove_generations(self.path, {path, before.path})
        self.journal.trim(before.sequence)

    def _publish(self, recorded: Sequence[JournalEntry] = ()) -> None:
        """Have later snapshots show what is durable; `recorded` are those changes that this process made last."""
        with self._publishing:
            sequence = self.snapshot.overlay.sequence
            if not recorded or recorded[0].sequence > sequence + 1:
                recorded = self.journal.since(sequence)  # others came before
            if recorded := [one for one in recorded if one.sequence > sequence]:
                if recorded[0].sequence > sequence + 1:
                    # Others have compacted, and what is between was trimmed: their generation holds it.
                    self.snapshot = self._with_changes(Generation.open_newest(self.path))
                    return
                overlay = self.snapshot.overlay.after(recorded, self.snapshot.generation.catalogue.find)
                self.snapshot = replace(self.snapshot, overlay=overlay)

    def _take_over(self, generation: Generation) -> None:
        with self._publishing:
            self.snapshot = self._with_changes(generation)

    def _with_changes(self, generation: Generation) -> Snapshot:
        """Make a snapshot of a generation and the changes since.

        Raises:
            MismatchError: the generation was made from another checkpoint.
            ArtifactError: some of the changes since are gone.
        """
        if generation.manifest.parents["checkpoint"] != self.checkpoint.manifest.digest:
            raise MismatchError(
                f"The index at {self.path} was built again from another checkpoint; open it anew."
            )
        snapshot = Snapshot.of(generation)
        if recorded := self.journal.since(generation.sequence):
            if recorded[0].sequence > generation.sequence + 1:
                raise ArtifactError(
                    f"{self.path} has no longer the changes that came after {generation.path.name}; restore a snapshot."
                )
            overlay = snapshot.overlay.after(recorded, generation.catalogue.find)
            snapshot = replace(snapshot, overlay=overlay)
        return snapshot
