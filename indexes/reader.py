"""A reader: all queries about the items, vectors and relations of an index at one moment.

`Index.reader` returns a reader of the newest snapshot. All results from one reader describe the same moment, even while
other threads write. Use one reader for all results that must be consistent; the service uses one per request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float32
from numpy import ndarray

from indexes.journal.journal import Journal
from indexes.live.picture_check import PictureCheck
from indexes.live.snapshot import Snapshot
from indexes.search.filtered_search import best_for_item, best_for_query
from indexes.search.pairs import PairItem, PairScorer, RelationScore, Verdict
from indexes.search.retrieve import Found, Question, Ranking, precomputed, precomputed_entries, retrieve
from indexes.search.selection import EVERYTHING, Selection
from indexes.vectors.contract import Neighbours
from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.free_text import FreeTextRelation
from model.embeddings.novelty import Novelty
from model.errors import ArtifactError, RcmlError, UnreachableError
from model.records import Item, Relation
from model.similarity import Similarity, View


@dataclass(frozen=True, slots=True)
class Hit:
    """A result of a search: an item and its cosine with the query."""

    item: Item
    score: float


class StoredPicture(NamedTuple):
    """Picture of an item: its SHA-256, its file (or its content, if it has no file yet), and its file name."""

    sha256: str
    content: Path | bytes
    name: str


@dataclass(frozen=True)
class Reader:
    """A snapshot of an index and the torch-free part of its checkpoint; safe to use from many threads.

    `journal` stores the pictures of the items that were added or changed since the generation was written. `pictures`
    checks all pictures that are read.
    """

    snapshot: Snapshot
    checkpoint: Checkpoint
    journal: Journal
    pictures: PictureCheck

    def __len__(self) -> int:
        """Return the number of items."""
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
        """All relations: the intra-sample relation first, relations added at run time last."""
        return tuple(known.relation for known in self.snapshot.generation.relations)

    def relation(self, relation_id: str) -> Relation:
        """Return the relation with this ID.

        Raises:
            UnknownRelationError: no relation has this ID.
        """
        return self.snapshot.relation(relation_id).relation

    def position(self, relation_id: str) -> int:
        """Return the position of a relation in `relations`; positions of the checkpoint's relations never change.

        Raises:
            UnknownRelationError: no relation has this ID.
        """
        return self.snapshot.position(relation_id)

    def free_text(self, relation_id: str) -> FreeTextRelation | None:
        """Return the free-text form of a relation added at run time, or None for a relation of the checkpoint.

        Raises:
            UnknownRelationError: no relation has this ID.
        """
        return self.snapshot.relation(relation_id).free_text

    def novelty(self, relation: FreeTextRelation) -> Novelty:
        """Measure how close a free-text relation is to the relations that the checkpoint was trained on."""
        return Novelty.of(relation.vector, self.checkpoint.relations, self.checkpoint.relation_vectors)

    # Items.

    def picture(self, item_id: str) -> StoredPicture | None:
        """Return the picture of an item, or None if the journal no longer stores it.

        The journal drops the picture of a changed item at the second compaction after the snapshot was taken.
        `Index.picture` then uses the newest snapshot.

        Raises:
            UnknownItemError: no item has this ID.
            NoPictureError: the item has no picture.
            DamagedPictureError: the picture is damaged.
            StorageError, UnreachableError: the database of the journal does not respond.
        """
        row = self.snapshot.row(item_id)
        self.snapshot.check_view(row, View.IMAGE)
        name = self.snapshot.at([row])[0].picture
        entry = self.snapshot.entry(row)
        if entry is None:
            generation = self.snapshot.generation
            path = self.pictures.file(generation, name)
            return StoredPicture(generation.manifest.files[name].sha256, path, name)
        sha256 = entry.change.picture_sha256
        try:
            content = self.journal.picture(entry)
        except UnreachableError:
            raise
        except ArtifactError as error:
            raise self.pictures.report(f"change {entry.sequence}", name, sha256, error) from None
        return None if content is None else StoredPicture(sha256, content, name)

    def vectors(
        self, items: Sequence[PairItem], relation: str | FreeTextRelation, views: Sequence[View]
    ) -> dict[View, Float32[ndarray, "items dim"]]:
        """Return the vectors of catalogue items and new items, by view.

        A vector is zero if the item lacks the view, for example the image view of an item without a picture.

        Raises:
            UnknownItemError, UnknownRelationError: no item or relation has this ID.
            NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
        """
        asked = self._relation_key(relation)
        return {view: self._pairs.vectors(items, asked, view) for view in views}

    # Searches.

    def retrieve(self, question: Question) -> Ranking:
        """Return the results of a request; see `indexes.search.retrieve.retrieve`."""
        return retrieve(self.snapshot, question)

    def precomputed(self, question: Question) -> list[Found] | None:
        """Look up the results of a request in the precomputed table; return None if a search is needed.

        Raises:
            UnknownItemError, UnknownRelationError: no item or relation has this ID.
            NoPictureError: the similarity compares the picture of the query item, which has none.
        """
        return precomputed(self.snapshot, question)

    def precomputed_entries(
        self, item_id: str, relation_id: str, similarity: Similarity, start: int, stop: int
    ) -> list[tuple[int, float]] | None:
        """Look up rows and scores of the results for an item; see `indexes.search.retrieve.precomputed_entries`."""
        return precomputed_entries(self.snapshot, item_id, relation_id, similarity, start, stop)

    def neighbours(
        self,
        item_id: str,
        relation: str | FreeTextRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """Return the `k` best results for a catalogue item under a relation, without the item itself.

        `relation` is the ID of an indexed relation or a free-text relation (see `FreeTextSearch`).

        Raises:
            UnknownItemError, UnknownRelationError: no item or relation has this ID.
            UnknownAttributeError: `selection` names an attribute that no item has.
            NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
            NoPictureError: the similarity compares the picture of the query item, which has none.
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
        """Return the `k` items whose `view` is nearest to `query`, a unit vector computed under the same relation.

        Raises:
            UnknownRelationError: no relation has this ID.
            UnknownAttributeError: `selection` names an attribute that no item has.
            NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
        """
        asked = self._relation_key(relation)
        return self._hits(best_for_query(self.snapshot, selection, asked, view, query, k))

    # Pairs of items.

    def relation_scores(self, a: PairItem, b: PairItem, similarity: Similarity) -> list[RelationScore]:
        """Rank all relations except the intra-sample relation by the probability that they link `a` and `b`.

        A catalogue item is given by its ID, a new item by its encoding. `similarity` compares a view of `a` with a view
        of `b`, so the order matters for TI and IT. The probabilities add up to 1. The relation with the greatest cosine
        is not always the most probable one, because typical cosines differ between relations.

        Raises:
            UnknownItemError: no item has this ID.
            NoPictureError: the similarity compares the picture of an item that has none.
            InputError: the similarity compares the text of a new item that has none.
        """
        return self._pairs.relation_scores(a, b, similarity)

    def validity(self, a: PairItem, b: PairItem, relation_id: str) -> Verdict:
        """Judge whether a relation holds between two items; the order of the items does not matter.

        Raises:
            UnknownItemError, UnknownRelationError: no item or relation has this ID.
            IntraRelationError: the relation links an item to itself, so the network never learned it for two items.
        """
        [verdict] = self.validities([(a, b, relation_id)])
        if isinstance(verdict, RcmlError):
            raise verdict
        return verdict

    def validities(self, claims: Sequence[tuple[PairItem, PairItem, str]]) -> list[Verdict | RcmlError]:
        """Judge many claims at once; a claim is two items and a relation.

        The results are in the order of the claims. The result for a claim that cannot be judged is the error that
        `validity` would raise.
        """
        return self._pairs.verdicts(claims)

    @property
    def _pairs(self) -> PairScorer:
        return PairScorer(self.snapshot, self.checkpoint)

    def _relation_key(self, relation: str | FreeTextRelation) -> int | FreeTextRelation:
        """Replace a relation ID by the position of the relation, which identifies its stored vectors."""
        return self.position(relation) if isinstance(relation, str) else relation

    def _hits(self, found: Neighbours) -> list[Hit]:
        items = self.snapshot.at(found.rows.tolist())
        return [Hit(item, score) for item, score in zip(items, found.scores.tolist(), strict=True)]
