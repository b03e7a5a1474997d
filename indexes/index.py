"""An index, opened: which items go with this one, which relations link two, how surely one holds.

It joins a generation, the changes since, and the torch-free part of the checkpoint (the relations, the validity
head, its calibration). The service asks it and changes it; it knows no HTTP and no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from unicodedata import category

from jaxtyping import Float32
from numpy import ndarray

from indexes.builder.compact import write_compacted
from indexes.builder.revise import write_revised
from indexes.journal.journal import Change, Journal, JournalEntry
from indexes.live.snapshot import Snapshot
from indexes.search.pairs import PairItem, PairScorer, RelationScore
from indexes.search.retrieve import Found, Question, kept, retrieve
from indexes.search.selection import EVERYTHING, Selection
from indexes.storage.generation import Generation
from indexes.storage.layout import lock_index, newest_generation, next_generation, remove_generations
from indexes.storage.relation_table import IndexedRelation
from indexes.vectors.contract import Neighbours
from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.free_text import FreeTextRelation
from model.embeddings.novelty import Novelty
from model.errors import ArtifactError, InputError, MismatchError, NoTokensError, RcmlError, UnreachableError
from model.records import Item, Relation
from model.similarity import Similarity, View


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found, and its cosine with the query."""

    item: Item
    score: float


class Index:
    """An index folder, opened: asked and changed from many threads, and followed by many processes.

    Every question is answered from one `snapshot`. A change is durable before it is acknowledged, and seen by every
    snapshot taken afterwards.
    """

    def __init__(self, path: Path, checkpoint: Checkpoint, generation: Generation, journal: Journal) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.snapshot = Snapshot.of(generation)
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
        return self.snapshot.generation.digest

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self.snapshot.generation.vectors.dim

    @property
    def pairs(self) -> dict[str, int | None]:
        """Pairs of items known under each relation when the index was built; see `IndexedRelation`."""
        return {known.relation_id: known.pairs for known in self.snapshot.generation.relations}

    @property
    def paired_items(self) -> dict[str, int | None]:
        """Items that stand in one of these pairs, under each relation; see `IndexedRelation`."""
        return {known.relation_id: known.paired_items for known in self.snapshot.generation.relations}

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
            write_compacted(
                snapshot, path, self.picture_of, self.checkpoint.path, snapshot.overlay.sequence, config
            )
            self._go_on_with(path, snapshot.generation)

    def check_new_relation(self, relation: Relation) -> None:
        """That `add_relation` could begin with this one.

        Raises:
            InputError: its id or description is no line of text, or that of a relation there is.
            NoTokensError: the index keeps no tokens.
        """
        generation = self.snapshot.generation
        if generation.tokens is None:
            raise NoTokensError
        for name, value in (("id", relation.relation_id), ("description", relation.description)):
            if not value.strip() or any(category(one) in ("Cc", "Cs") for one in value):
                raise InputError(
                    f"{value!r} cannot be the {name} of a relation; write one line of text, without control characters."
                )
        for known in generation.relations:
            if known.relation_id == relation.relation_id:
                raise InputError(f"There is a relation {known.relation_id!r} already; choose another id.")
            if known.relation.description == relation.description:
                raise InputError(
                    f"Relation {known.relation_id!r} has the description {relation.description!r} already; ask by that."
                )

    def add_relation(
        self,
        relation: Relation,
        worded: FreeTextRelation,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Make a relation in words one of this index, in all respects, in a new generation.

        It takes as long as making the vectors of all items from their tokens, and what the index keeps of vectors;
        searches and changes go on meanwhile. `progress` is told how much of that is `done`, of which `total`. Whatever
        happens, all is done afterwards, or nothing.

        Raises:
            InputError, NoTokensError: as `check_new_relation`; or one relation more takes more memory, or finds
                less, than the options of the index allow.
            ArtifactError: another process is making a generation.
            StorageError: the disk is full or failing.
        """
        assert relation.description == worded.description, "the words are those of another"
        self.check_new_relation(relation)
        with self._compacting, lock_index(self.path):
            self.refresh()
            self.check_new_relation(relation)  # others may have added it meanwhile
            known = self.snapshot.generation.relations
            self._revise((*known, IndexedRelation(relation, None, worded)), progress)

    def remove_relation(self, relation_id: str) -> None:
        """Take a relation that was added out again, in a new generation.

        Raises:
            UnknownRelationError: there is none of this id.
            InputError: it is one of the checkpoint, whose encoder goes on making its vectors.
            ArtifactError: another process is making a generation.
            StorageError: the disk is full or failing.
        """
        with self._compacting, lock_index(self.path):
            self.refresh()
            if self.worded(relation_id) is None:
                raise InputError(
                    f"Relation {relation_id!r} is one that the checkpoint was trained on; only those that were added "
                    "can be taken out."
                )
            known = self.snapshot.generation.relations
            self._revise([one for one in known if one.relation_id != relation_id])

    def _revise(
        self,
        relations: Sequence[IndexedRelation],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        old, path = self.snapshot.generation, next_generation(self.path)
        write_revised(old, path, relations, self.checkpoint.path, progress)
        self._go_on_with(path, old)

    def _go_on_with(self, path: Path, before: Generation) -> None:
        """Take over the generation just made at `path`, and forget all but the one `before`."""
        self._newest = path.name
        self._take_over(Generation.open(path))
        remove_generations(self.path, {path, before.path})
        self._journal.trim(before.sequence)

    def picture(self, item_id: str) -> tuple[str, Path | bytes, str]:
        """SHA-256 of an item's picture, its file, or its content where it has no file yet, and what the file is called.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError: it has none.
            ArtifactError: it is damaged.
        """
        snapshot = self.snapshot
        row = snapshot.row(item_id)
        snapshot.check_view(row, View.IMAGE)
        digest, place = snapshot.picture(row)
        name = snapshot.at([row])[0].picture
        content = self.picture_of(place) if isinstance(place, JournalEntry) else place
        if content is None:  # the change was folded into a generation meanwhile, and forgotten
            self.refresh()
            return self.picture(item_id)
        return digest, content, name

    def picture_of(self, recorded: JournalEntry) -> bytes | None:
        """See `Journal.picture`."""
        return self._journal.picture(recorded)

    def _publish(self, recorded: Sequence[JournalEntry] = ()) -> None:
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
        snapshot = Snapshot.of(generation)
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
        """All relations, the intra-sample one first, those that were added last."""
        return tuple(known.relation for known in self.snapshot.generation.relations)

    def relation(self, relation_id: str) -> Relation:
        """The relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        snapshot = self.snapshot
        return snapshot.generation.relations[snapshot.position(relation_id)].relation

    def position(self, relation_id: str) -> int:
        """Place of a relation among `relations`; that of one of the checkpoint never changes.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        return self.snapshot.position(relation_id)

    def worded(self, relation_id: str) -> FreeTextRelation | None:
        """What a relation that was added is made of, to be put to tokens; None for one of the checkpoint.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        snapshot = self.snapshot
        return snapshot.generation.relations[snapshot.position(relation_id)].worded

    def familiarity(self, worded: FreeTextRelation) -> Novelty:
        """How near a relation in words is to those that the checkpoint was trained on."""
        return Novelty.of(worded.vector, self.checkpoint.relations, self.checkpoint.relation_vectors)

    def kept(self, question: Question) -> tuple[Snapshot, list[Found]] | None:
        """What `retrieve` gives, at once; None where a search has to be made."""
        snapshot = self.snapshot
        found = kept(snapshot, question)
        return None if found is None else (snapshot, found)

    def retrieve(self, question: Question) -> tuple[Snapshot, list[Found]]:
        """The results of a question, and the snapshot whose rows they are; see `indexes.search.retrieve.retrieve`."""
        snapshot = self.snapshot
        return snapshot, retrieve(snapshot, question)

    def neighbours(
        self,
        item_id: str,
        relation: str | FreeTextRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The `k` items that go best with an item of the catalogue under a relation, itself left out.

        The relation is named by its id, or one in words: then see `FreeTextSearch`.

        Raises:
            UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no
                item has an attribute that `selection` names.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        snapshot = self.snapshot
        asked = snapshot.position(relation) if isinstance(relation, str) else relation
        row = snapshot.row(item_id)
        return _hits(snapshot, selection.answer(snapshot, asked, similarity, row, k))

    def search(
        self,
        query: Float32[ndarray, " dim"],
        relation: str | FreeTextRelation,
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
        snapshot = self.snapshot
        asked = snapshot.position(relation) if isinstance(relation, str) else relation
        return _hits(snapshot, selection.search(snapshot, asked, view, query, k))

    def relation_scores(self, a: PairItem, b: PairItem, similarity: Similarity) -> list[RelationScore]:
        """All relations between different items, the likeliest link of these two first.

        An item is named by its id, or is a new one by its encoding. `similarity` compares a view of `a` with a view of
        `b`: the order matters for TI and IT. The probabilities add up to 1; a relation of a less cosine may be the
        likelier, since cosines under different relations have levels of their own.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError, InputError: an item has no picture, or a new one no words, and is compared by them.
        """
        return PairScorer(self.snapshot, self.checkpoint).relation_scores(a, b, similarity)

    def validity(self, a: PairItem, b: PairItem, relation_id: str) -> float:
        """Probability in [0, 1] that the relation holds between the two items; their order does not matter.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
        """
        return float(self.validities([(a, b, relation_id)])[0])

    def validities(self, claims: Sequence[tuple[PairItem, PairItem, str]]) -> Float32[ndarray, " claims"]:
        """`validity` of many claims at once, each two items and a relation, in their order; of one snapshot.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
        """
        snapshot = self.snapshot
        positions = {relation_id: snapshot.position(relation_id) for _, _, relation_id in claims}
        return PairScorer(snapshot, self.checkpoint).validities(
            [(a, b, positions[relation_id]) for a, b, relation_id in claims]
        )

    def validity_of_each(
        self, claims: Sequence[tuple[PairItem, PairItem, str]]
    ) -> tuple[Snapshot, list[float | RcmlError]]:
        """`validity` of many claims, and the snapshot that all are of; in place of one that cannot be, why not.

        That is an UnknownItemError, an UnknownRelationError, or an IntraRelationError: the relation is that of an
        item with itself, which was never learnt for two.
        """
        snapshot = self.snapshot
        comparison = PairScorer(snapshot, self.checkpoint)
        found: list[float | RcmlError] = []
        sound: dict[int, tuple[PairItem, PairItem, int]] = {}
        for number, (a, b, relation_id) in enumerate(claims):
            try:
                sound[number] = (a, b, comparison.check(a, b, relation_id))
                found.append(0.0)
            except RcmlError as error:
                found.append(error)
        if sound:
            probabilities = comparison.validities([*sound.values()])
            for number, probability in zip(sound, probabilities.tolist(), strict=True):
                found[number] = probability
        return snapshot, found

    def vectors(
        self, items: Sequence[PairItem], relation: str | FreeTextRelation, views: Sequence[View]
    ) -> tuple[Snapshot, dict[View, Float32[ndarray, "items dim"]]]:
        """The vectors of items of the catalogue and new ones, by view, and the snapshot they are of.

        That of a view which an item has nothing to show in is zero.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        snapshot = self.snapshot
        asked = snapshot.position(relation) if isinstance(relation, str) else relation
        comparison = PairScorer(snapshot, self.checkpoint)
        return snapshot, {view: comparison.vectors(items, asked, view) for view in views}

    @property
    def calibration(self) -> str:
        """Version of what makes probabilities of scores, or "none"."""
        return self.checkpoint.calibration.version


def _hits(snapshot: Snapshot, found: Neighbours) -> list[Hit]:
    items = snapshot.at(found.rows.tolist())
    return [Hit(item, score) for item, score in zip(items, found.scores.tolist(), strict=True)]
