"""A snapshot: a generation and the changes since, seen as one catalogue and one set of vectors.

A snapshot never changes, so an answer made from one is consistent however many writers there are. Rows of the
generation come first, then those of the overlay; an item that was changed stands at its new row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.journal.journal import JournalEntry
from indexes.storage.generation import Generation
from indexes.storage.relation_table import IndexedRelation
from indexes.vectors.contract import Neighbours
from model.embeddings.encoding import ItemTokens
from model.embeddings.free_text import FreeTextRelation
from model.errors import NoPictureError, NoTokensError, UnknownItemError, UnknownRelationError
from model.records import Item
from model.similarity import Similarity, View

from .overlay import Overlay


@dataclass(frozen=True)
class Snapshot:
    """The items and vectors of an index at one moment; safe to use from many threads."""

    generation: Generation
    overlay: Overlay

    @classmethod
    def of(cls, generation: Generation) -> "Snapshot":
        """Make the snapshot of a generation without changes."""
        _, relations, dim = generation.shape
        first = len(generation.catalogue)
        return cls(generation, Overlay.empty(first, generation.sequence, relations, dim, generation.added))

    def __len__(self) -> int:
        """Count the items."""
        return self.overlay.first - len(self.overlay.dropped) + len(self.overlay)

    def __contains__(self, item_id: str) -> bool:
        """Whether an item has this id."""
        return self.find(item_id) is not None

    @property
    def end(self) -> int:
        """One more than the last row."""
        return self.overlay.first + len(self.overlay.entries)

    @cached_property
    def pictured(self) -> Bool[ndarray, " end"] | None:
        """Mask by row of the items that have a picture; None if all have."""
        without = [*self.generation.without_picture, *self.overlay.without_picture]
        if not without:
            return None
        mask = np.ones(self.end, bool)
        mask[without] = False
        return mask

    def check_view(self, row: int, view: View) -> None:
        """Check that the item at `row` has what `view` shows.

        Raises:
            NoPictureError: it has no picture.
        """
        if view is View.IMAGE and self.pictured is not None and not self.pictured[row]:
            raise NoPictureError(self.at([row])[0].item_id)

    def find(self, item_id: str) -> int | None:
        """Find the row of an item; None if no item has this id."""
        if item_id in self.overlay.rows:
            return self.overlay.rows[item_id]
        return self.generation.catalogue.find(item_id)

    def row(self, item_id: str) -> int:
        """Find the row of an item.

        Raises:
            UnknownItemError: no item has this id.
        """
        row = self.find(item_id)
        if row is None:
            raise UnknownItemError(item_id)
        return row

    def position(self, relation_id: str) -> int:
        """Find the place of a relation among those of the generation.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        place = self.generation.positions.get(relation_id)
        if place is None:
            raise UnknownRelationError(relation_id, tuple(self.generation.positions))
        return place

    def relation(self, relation_id: str) -> IndexedRelation:
        """Get the relation of this id.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        return self.generation.relations[self.position(relation_id)]

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the attributes that any item has, or had when the generation was made."""
        return self.generation.attributes.names | self.overlay.attributes

    def get(self, item_id: str) -> Item:
        """Get the item of this id.

        Raises:
            UnknownItemError: no item has this id.
        """
        return self.at([self.row(item_id)])[0]

    def has(self, row: int) -> bool:
        """Tell whether there is an item at `row`; the row of a changed or deleted item is empty."""
        overlay = self.overlay
        return row not in overlay.dropped if row < overlay.first else bool(overlay.live[row - overlay.first])

    def at(self, rows: Sequence[int]) -> list[Item]:
        """Get the items at `rows`, in that order."""
        first = self.overlay.first
        old = [row for row in rows if row < first]
        found = dict(zip(old, self.generation.catalogue.at(old), strict=True)) if old else {}
        return [found[row] if row < first else self.overlay.item(row) for row in rows]

    def page(self, start: int, limit: int) -> list[tuple[int, Item]]:
        """Get at most `limit` items from row `start` on, in catalogue order, each with its row."""
        rows = list(islice(filter(self.has, range(start, self.end)), limit))
        return list(zip(rows, self.at(rows), strict=True))

    def vectors(
        self, relation: int | FreeTextRelation, view: View, rows: Sequence[int]
    ) -> Float32[ndarray, "rows dim"]:
        """Get the vectors of the items at `rows`, in that order; under a free-text relation, made from their tokens.

        Raises:
            NoTokensError: the relation is a free-text one, and the index keeps no tokens.
        """
        if isinstance(relation, FreeTextRelation):
            return self._free_text_vectors(relation, view, np.asarray(rows, dtype=np.int64))
        own = np.asarray(rows, dtype=np.int64) >= self.overlay.first
        if not own.any():
            return self.generation.vectors.vectors(relation, view, rows)
        found = np.empty((len(rows), self.generation.vectors.dim), np.float32)
        for part, source in ((own, self.overlay), (~own, self.generation.vectors)):
            if part.any():
                found[part] = source.vectors(relation, view, np.asarray(rows)[part].tolist())
        return found

    def _free_text_vectors(
        self, relation: FreeTextRelation, view: View, rows: Int64[ndarray, " rows"]
    ) -> Float32[ndarray, "rows dim"]:
        if self.generation.tokens is None:
            raise NoTokensError
        own = rows >= self.overlay.first
        found = np.empty((len(rows), self.generation.vectors.dim), np.float32)
        found[~own] = relation.view(self.generation.tokens.tokens, view, rows[~own])
        if own.any():
            found[own] = relation.view(self.overlay.tokens(rows[own].tolist()), view, np.arange(own.sum()))
        return found

    def tokens(self, rows: Sequence[int]) -> ItemTokens:
        """Get the tokens of the items at `rows`, which ascend, of an index that keeps them."""
        kept = self.generation.tokens
        assert kept is not None, "this index keeps no tokens"
        first = self.overlay.first
        old = np.asarray([row for row in rows if row < first], np.int64)
        new = [row for row in rows if row >= first]
        return ItemTokens.joined([kept.tokens.take(old), *([self.overlay.tokens(new)] if new else [])])

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " end"] | None = None,
        excluded: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` items nearest to a unit `query`, or all there are, without the rows in `excluded`.

        With `allowed`, only rows for which it is true are found, and exactly.
        """
        first = self.overlay.first
        dropped = frozenset(row for row in excluded if row < first)
        here = None
        if allowed is None:
            dropped |= self.overlay.dropped
        else:
            here = allowed[:first].copy()
            here[self.overlay.gone] = False
        old = self.generation.vectors.search(relation, view, query, k, here, dropped)
        if not self.overlay.entries:
            return old
        new = self.overlay.search(
            relation, view, query, k, None if allowed is None else allowed[first:], excluded
        )
        return Neighbours.best(
            np.concatenate([old.rows, new.rows]), np.concatenate([old.scores, new.scores]), k
        )

    def precomputed(
        self,
        relation: int,
        similarity: Similarity,
        row: int,
        k: int,
        excluded: frozenset[int] = frozenset(),
    ) -> Neighbours | None:
        """Look up the `k` items that go best with the one at `row`, without it and those in `excluded`.

        None if the precomputed table does not have them: see `PrecomputedAnswers.best`, and for an item put in since.
        """
        overlay = self.overlay
        if row >= overlay.first:
            return None
        without = overlay.dropped | excluded if overlay.dropped else excluded
        old = self.generation.answers.best(relation, similarity, row, k, without)
        if old is None or not overlay.entries:
            return old
        query_view, target_view = similarity.views
        query = self.vectors(relation, query_view, [row])[0]
        new = overlay.search(relation, target_view, query, k, excluded=excluded)
        return Neighbours.best(
            np.concatenate([old.rows, new.rows]), np.concatenate([old.scores, new.scores]), k
        )

    def picture(self, row: int) -> tuple[str, Path | JournalEntry]:
        """Get the SHA-256 of an item's picture, and its file, or the change that brought an item of the overlay."""
        if row >= self.overlay.first:
            entry = self.overlay.entries[row - self.overlay.first]
            return entry.change.picture_sha256, entry
        name = self.at([row])[0].picture
        return self.generation.manifest.files[name].sha256, self.generation.path / name
