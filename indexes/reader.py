"""An index at one moment: every question to its items, vectors and relations.

`Index.reader` gives a reader of the newest snapshot. All answers of one reader are of the same moment, however many
writers there are, so a caller takes one reader for everything that has to fit together: the service one a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float32
from numpy import ndarray

from indexes.journal.journal import Journal, JournalEntry
from indexes.live.snapshot import Snapshot
from indexes.search.filtered_search import best_for_item, best_for_query
from indexes.search.pairs import PairItem, PairScorer, RelationScore, Verdict
from indexes.search.retrieve import Found, Question, precomputed, retrieve
from indexes.search.selection import EVERYTHING, Selection
from indexes.vectors.contract import Neighbours
from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.free_text import FreeTextRelation
from model.embeddings.novelty import Novelty
from model.errors import RcmlError
from model.records import Item, Relation
from model.similarity import Similarity, View


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found, and its cosine with the query."""

    item: Item
    score: float


class StoredPicture(NamedTuple):
    """The picture of an item: its SHA-256, its file (or its content, if it has no file yet), and its file name."""

    sha256: str
    content: Path | bytes
    name: str


@dataclass(frozen=True)
class Reader:
    """A snapshot of an index and the torch-free part of its checkpoint; safe to use from many threads.

    `journal` has the pictures of the items that were put in since the generation was made.
    """

    snapshot: Snapshot
    checkpoint: Checkpoint
    journal: Journal

    def __len__(self) -> int:
        """Count the items."""
        return len(self.snapshot)

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self.snapshot.generation.vectors.dim

    @property
    def calibration(self) -> str:
        """Version of the calibration that turns scores into probabilities, or "none"."""
        return self.checkpoint.calibration.version

    # Relations.

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All relations: the intra-sample one first, those added at run time last."""
        return tuple(known.relation for known in self.snapshot.generation.relations)

    def relation(self, relation_id: str) -> Relation:
        """Get the relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        return self.snapshot.relation(relation_id).relation

    def position(self, relation_id: str) -> int:
        """Find the place of a relation among `relations`; that of a relation of the checkpoint never changes.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        return self.snapshot.position(relation_id)

    def free_text(self, relation_id: str) -> FreeTextRelation | None:
        """Get the free-text form of a relation that was added at run time; None for one of the checkpoint.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        return self.snapshot.relation(relation_id).free_text

    def novelty(self, relation: FreeTextRelation) -> Novelty:
        """Measure how near a free-text relation is to those that the checkpoint was trained on."""
        return Novelty.of(relation.vector, self.checkpoint.relations, self.checkpoint.relation_vectors)

    # Items.

    def picture(self, item_id: str) -> StoredPicture | None:
        """Get the picture of an item; None once the change that brought it was folded in and forgotten.

        That takes two compactions since the snapshot was taken; `Index.picture` then looks in the newest one.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError: it has no picture.
            ArtifactError: the picture is damaged.
        """
        row = self.snapshot.row(item_id)
        self.snapshot.check_view(row, View.IMAGE)
        sha256, place = self.snapshot.picture(row)
        content = self.journal.picture(place) if isinstance(place, JournalEntry) else place
        return None if content is None else StoredPicture(sha256, content, self.snapshot.at([row])[0].picture)

    def vectors(
        self, items: Sequence[PairItem], relation: str | FreeTextRelation, views: Sequence[View]
    ) -> dict[View, Float32[ndarray, "items dim"]]:
        """Get the vectors of items of the catalogue and of new ones, by view.

        A row is zero if the item has nothing to show in that view.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            NoTokensError: the relation is a free-text one, and the index keeps no tokens.
        """
        asked = self._relation_key(relation)
        return {view: self._pairs.vectors(items, asked, view) for view in views}

    # Searches.

    def retrieve(self, question: Question) -> list[Found]:
        """Answer a question; see `indexes.search.retrieve.retrieve`."""
        return retrieve(self.snapshot, question)

    def precomputed(self, question: Question) -> list[Found] | None:
        """Answer a question from the precomputed table, at once; None if a search has to be made.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            NoPictureError: the item has no picture, and the similarity compares pictures.
        """
        return precomputed(self.snapshot, question)

    def neighbours(
        self,
        item_id: str,
        relation: str | FreeTextRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """Find the `k` items that go best with an item of the catalogue under a relation, without that item.

        The relation is given by its id, or is a free-text one: see `FreeTextSearch`.

        Raises:
            UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no
                item has an attribute that `selection` names.
            NoTokensError: the relation is a free-text one, and the index keeps no tokens.
        """
        asked, row = self._relation_key(relation), self.snapshot.row(item_id)
        return self._hits(best_for_item(self.snapshot, selection, asked, similarity, row, k))

    def search(
        self,
        query: Float32[ndarray, " dim"],
        relation: str | FreeTextRelation,
        view: View,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """Find the `k` items whose `view` is nearest to a unit vector made under the same relation.

        Raises:
            UnknownRelationError, UnknownAttributeError: there is no such relation, or no item has an attribute that
                `selection` names.
            NoTokensError: the relation is a free-text one, and the index keeps no tokens.
        """
        asked = self._relation_key(relation)
        return self._hits(best_for_query(self.snapshot, selection, asked, view, query, k))

    # Pairs of items.

    def relation_scores(self, a: PairItem, b: PairItem, similarity: Similarity) -> list[RelationScore]:
        """Rank all relations between different items by how probable it is that they link these two.

        An item is given by its id, or a new one by its encoding. `similarity` compares a view of `a` with a view of
        `b`: the order matters for TI and IT. The probabilities add up to 1. The relation of the greatest cosine need
        not be the most probable, since cosines under different relations have levels of their own.

        Raises:
            UnknownItemError: there is no such item.
            NoPictureError, InputError: an item has no picture, or a new one no text, and is compared by it.
        """
        return self._pairs.relation_scores(a, b, similarity)

    def validity(self, a: PairItem, b: PairItem, relation_id: str) -> Verdict:
        """Judge whether a relation holds between two items; their order does not matter.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            IntraRelationError: the relation is that of an item with itself, which was never learnt for two.
        """
        [verdict] = self.validities([(a, b, relation_id)])
        if isinstance(verdict, RcmlError):
            raise verdict
        return verdict

    def validities(self, claims: Sequence[tuple[PairItem, PairItem, str]]) -> list[Verdict | RcmlError]:
        """Judge many claims at once, each two items and a relation, in their order.

        In place of the verdict on a claim that cannot be judged stands the error that `validity` raises on it.
        """
        return self._pairs.verdicts(claims)

    @property
    def _pairs(self) -> PairScorer:
        return PairScorer(self.snapshot, self.checkpoint)

    def _relation_key(self, relation: str | FreeTextRelation) -> int | FreeTextRelation:
        """Turn the id of a relation into its position, as vectors are kept by that."""
        return self.position(relation) if isinstance(relation, str) else relation

    def _hits(self, found: Neighbours) -> list[Hit]:
        items = self.snapshot.at(found.rows.tolist())
        return [Hit(item, score) for item, score in zip(items, found.scores.tolist(), strict=True)]
