"""An index, opened: which items go with this one, which relations link two, how surely one holds.

It joins a generation, the changes since, and the torch-free part of the checkpoint (the relations, the validity
head). The service asks it and changes it; it knows no HTTP and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from jaxtyping import Float32
from numpy import ndarray

from model.checkpoint import Checkpoint
from model.encoding import WordedRelation
from model.errors import (
    ArtifactError,
    InputError,
    MismatchError,
    UnreachableError,
)
from model.records import Item, Relation, Similarity, View
from model.validity import PairVectors

from .compaction import fold
from .generation import (
    Generation,
    lock_index,
    newest_generation,
    next_generation,
    remove_generations,
)
from .journal import Change, Journal, Recorded
from .retrieval import Found, Question, position, retrieve
from .selection import EVERYTHING, Selection
from .snapshot import Snapshot
from .vectors import Neighbours, cosines


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found, and its cosine with the query."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class RelationScore:
    """A relation, and the cosine of two items under it."""

    relation: Relation
    score: float


class Index:
    """An index folder, opened: asked and changed from many threads, and followed by many processes.

    Every question is answered from one `snapshot`. A change is durable before it is acknowledged, and seen by every
    snapshot taken afterwards.
    """

    def __init__(self, path: Path, checkpoint: Checkpoint, generation: Generation, journal: Journal) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.snapshot = Snapshot.of(generation, len(checkpoint.relations))
        self._newest = newest_generation(path).name
        self._journal = journal
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
        """Give the files back."""
        self._journal.close()
        self.snapshot.generation.close()

    def __len__(self) -> int:
        """Number of items."""
        return len(self.snapshot)

    @property
    def digest(self) -> str:
        """SHA-256 that names the generation."""
        return self.snapshot.generation.manifest.digest

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self.snapshot.generation.vectors.dim

    @property
    def pairs(self) -> dict[str, int | None]:
        """Pairs of items known under each relation when the index was built; see `Generation`."""
        return self.snapshot.generation.pairs

    def apply(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable, all or none, and then visible, in their order.

        Taking out an item that is not there is no error: it is not there afterwards.

        Raises:
            InputError: an item came without its tokens, which this index keeps; nothing was changed.
            StorageError: the disk is full or failing; nothing was changed.
        """
        kept = self.snapshot.generation.tokens is not None
        for change in changes:
            if kept and change.item is not None and change.tokens is None:
                raise InputError(
                    f"Item {change.item_id!r} came without its tokens, which this index keeps for relations in words. "
                    "Encode it with tokens, and put it in again."
                )
        if changes:
            self._journal.append(
                changes if kept else [replace(change, tokens=None) for change in changes], self._publish
            )

    def refresh(self) -> None:
        """Take over what other processes did: their changes, and a newer generation.

        Raises:
            ArtifactError: either is damaged.
        """
        newest = newest_generation(self.path)
        if newest.name > self._newest:
            before, self._newest = self._newest, newest.name  # if it is damaged, that is said once
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
        with self._compacting, lock_index(self.path):
            self.refresh()
            snapshot = self.snapshot
            path = next_generation(self.path)
            config = snapshot.generation.config
            fold(snapshot, path, self.picture_of, self.checkpoint.path, snapshot.overlay.sequence, config)
            self._newest = path.name
            self._take_over(Generation.open(path))
            remove_generations(self.path, {path, snapshot.generation.path})
            self._journal.trim(snapshot.generation.sequence)

    def picture(self, item_id: str) -> tuple[str, Path | bytes]:
        """SHA-256 of an item's picture, and its file, or its content where it has no file yet.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError: it has none.
            ArtifactError: it is damaged.
        """
        snapshot = self.snapshot
        row = snapshot.row(item_id)
        snapshot.check_view(row, View.IMAGE)
        digest, place = snapshot.picture(row)
        content = self.picture_of(place) if isinstance(place, Recorded) else place
        if content is None:  # the change was folded into a generation meanwhile, and forgotten
            self.refresh()
            return self.picture(item_id)
        return digest, content

    def picture_of(self, recorded: Recorded) -> bytes | None:
        """See `Journal.picture`."""
        return self._journal.picture(recorded)

    def _publish(self, recorded: Sequence[Recorded] = ()) -> None:
        """Have later snapshots show what is durable; `recorded` are those changes that this process made last."""
        with self._publishing:
            sequence = self.snapshot.overlay.sequence
            if not recorded or recorded[0].sequence > sequence + 1:
                recorded = self._journal.since(sequence)  # others came before
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
        if generation.manifest.parents["checkpoint"] != self.checkpoint.manifest.digest:
            raise MismatchError(
                f"The index at {self.path} was built again from another checkpoint; open it anew."
            )
        snapshot = Snapshot.of(generation, len(self.relations))
        if recorded := self._journal.since(generation.sequence):
            if recorded[0].sequence > generation.sequence + 1:
                raise ArtifactError(
                    f"{self.path} has no longer the changes that came after {generation.path.name}; restore a snapshot."
                )
            overlay = snapshot.overlay.after(recorded, generation.catalogue.find)
            snapshot = replace(snapshot, overlay=overlay)
        return snapshot

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All relations, the intra-sample one first."""
        return self.checkpoint.relations

    def relation(self, relation_id: str) -> Relation:
        """The relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        return self.relations[self.position(relation_id)]

    def position(self, relation_id: str) -> int:
        """Place of a relation among `relations`.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        return position(self.relations, relation_id)

    def retrieve(self, question: Question) -> tuple[Snapshot, list[Found]]:
        """The results of a question, and the snapshot whose rows they are; see `indexes.retrieval.retrieve`."""
        snapshot = self.snapshot
        return snapshot, retrieve(snapshot, self.relations, question)

    def neighbours(
        self,
        item_id: str,
        relation: str | WordedRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The `k` items that go best with an item of the catalogue under a relation, itself left out.

        The relation is named by its id, or one in words: then see `WordedSearch`.

        Raises:
            UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no
                item has an attribute that `selection` names.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        asked = self.position(relation) if isinstance(relation, str) else relation
        snapshot = self.snapshot
        row = snapshot.row(item_id)
        return _hits(snapshot, selection.answer(snapshot, asked, similarity, row, k))

    def search(
        self,
        query: Float32[ndarray, " dim"],
        relation: str | WordedRelation,
        view: View,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The `k` items whose `view` is nearest to a unit vector made under the same relation.

        Raises:
            UnknownRelationError, UnknownAttributeError: there is no such relation, or no item has an attribute that
                `selection` names.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        asked = self.position(relation) if isinstance(relation, str) else relation
        snapshot = self.snapshot
        return _hits(snapshot, selection.search(snapshot, asked, view, query, k))

    def relation_scores(self, item_a: str, item_b: str, similarity: Similarity) -> list[RelationScore]:
        """All relations between different items, the likeliest link of these two first.

        `similarity` compares a view of `item_a` with a view of `item_b`: the order matters for TI and IT.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError: an item has no picture, and is compared by it.
        """
        snapshot = self.snapshot
        rows = [snapshot.row(item_a), snapshot.row(item_b)]
        for row, view in zip(rows, similarity.views, strict=True):
            snapshot.check_view(row, view)
        scores = [
            RelationScore(relation, _cosine(snapshot, position, rows, similarity))
            for position, relation in enumerate(self.relations)
            if not relation.intra
        ]
        return sorted(scores, key=lambda scored: -scored.score)

    def validity(self, item_a: str, item_b: str, relation_id: str) -> float:
        """Probability in (0, 1) that the relation holds between the two items; their order does not matter.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
        """
        relation = self.position(relation_id)
        snapshot = self.snapshot
        rows = [snapshot.row(item_a), snapshot.row(item_b)]
        texts = snapshot.vectors(relation, View.TEXT, rows)
        images = snapshot.vectors(relation, View.IMAGE, rows)
        pair = PairVectors(
            text_a=texts[:1],
            image_a=images[:1],
            text_b=texts[1:],
            image_b=images[1:],
            relation=self.checkpoint.relation_vectors[relation : relation + 1],
        )
        return float(self.checkpoint.validity.probability(pair)[0])


def _hits(snapshot: Snapshot, found: Neighbours) -> list[Hit]:
    items = snapshot.at(found.rows.tolist())
    return [Hit(item, score) for item, score in zip(items, found.scores.tolist(), strict=True)]


def _cosine(snapshot: Snapshot, relation: int, rows: list[int], similarity: Similarity) -> float:
    view_a, view_b = similarity.views
    a = snapshot.vectors(relation, view_a, rows[:1])
    b = snapshot.vectors(relation, view_b, rows[1:])
    return float(cosines(a, b[0])[0])
