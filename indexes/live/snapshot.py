"""A snapshot: a generation and the changes made since, combined into one catalogue and one set of vectors.

A snapshot never changes, so the results computed from it are consistent even while other threads write. The rows of
the generation come first, followed by the rows of the overlay. A changed item has a new row in the overlay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.journal.change import JournalEntry
from indexes.storage.generation import Generation
from indexes.storage.relation_table import IndexedRelation
from indexes.vectors.contract import Filtered, Neighbours
from model.embeddings.encoding import ItemTokens
from model.embeddings.free_text import FreeTextRelation
from model.errors import NoPictureError, NoTokensError, UnknownItemError, UnknownRelationError
from model.records import Item
from model.similarity import Similarity, View

from .overlay import Overlay


@dataclass(frozen=True)
class Snapshot:
    """Items and vectors of an index at one moment; safe to use from many threads."""

    generation: Generation
    overlay: Overlay

    @classmethod
    def of(cls, generation: Generation) -> "Snapshot":
        """Return the snapshot of a generation without changes."""
        _, relations, dim = generation.shape
        first = len(generation.catalogue)
        return cls(generation, Overlay.empty(first, generation.sequence, relations, dim, generation.added))

    def __len__(self) -> int:
        """Return the number of items."""
        return self.overlay.first - len(self.overlay.dropped) + len(self.overlay)

    def __contains__(self, item_id: str) -> bool:
        """Return whether an item has this ID."""
        return self.find(item_id) is not None

    @property
    def end(self) -> int:
        """One past the last row."""
        return self.overlay.first + len(self.overlay.entries)

    @cached_property
    def pictured(self) -> Bool[ndarray, " end"] | None:
        """Mask over the rows: true if the item has a picture. None if all items have one."""
        without = [*self.generation.without_picture, *self.overlay.without_picture]
        if not without:
            return None
        mask = np.ones(self.end, bool)
        mask[without] = False
        return mask

    def check_view(self, row: int, view: View) -> None:
        """Check that the item at `row` has a picture if `view` is the image view.

        Raises:
            NoPictureError: the item has no picture.
        """
        if view is View.IMAGE and self.pictured is not None and not self.pictured[row]:
            raise NoPictureError(self.at([row])[0].item_id)

    def find(self, item_id: str) -> int | None:
        """Return the row of an item, or None if no item has this ID."""
        if item_id in self.overlay.rows:
            return self.overlay.rows[item_id]
        return self.generation.catalogue.find(item_id)

    def row(self, item_id: str) -> int:
        """Return the row of an item.

        Raises:
            UnknownItemError: no item has this ID.
        """
        row = self.find(item_id)
        if row is None:
            raise UnknownItemError(item_id)
        return row

    def position(self, relation_id: str) -> int:
        """Return the position of a relation in the generation.

        Raises:
            UnknownRelationError: no relation has this ID.
        """
        place = self.generation.positions.get(relation_id)
        if place is None:
            raise UnknownRelationError(relation_id, tuple(self.generation.positions))
        return place

    def relation(self, relation_id: str) -> IndexedRelation:
        """Return the relation with this ID.

        Raises:
            UnknownRelationError: no relation has this ID.
        """
        return self.generation.relations[self.position(relation_id)]

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the attributes that any item has, or had when the generation was written."""
        return self.numbers | self.texts

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the attributes that are a number, true or false on any item, or were so in the generation."""
        return self.generation.attributes.numbers | self.overlay.numbers

    @property
    def texts(self) -> frozenset[str]:
        """Names of the attributes that are a text on any item, or were so in the generation."""
        return self.generation.attributes.texts | self.overlay.texts

    def get(self, item_id: str) -> Item:
        """Return the item with this ID.

        Raises:
            UnknownItemError: no item has this ID.
        """
        return self.at([self.row(item_id)])[0]

    def has(self, row: int) -> bool:
        """Return whether `row` holds a current item; the former row of a changed or deleted item does not."""
        overlay = self.overlay
        return row not in overlay.dropped if row < overlay.first else bool(overlay.live[row - overlay.first])

    def at(self, rows: Sequence[int]) -> list[Item]:
        """Return the items at `rows`, in the same order."""
        first = self.overlay.first
        old = [row for row in rows if row < first]
        found = dict(zip(old, self.generation.catalogue.at(old), strict=True)) if old else {}
        return [found[row] if row < first else self.overlay.item(row) for row in rows]

    def page(self, start: int, limit: int) -> list[tuple[int, Item]]:
        """Return at most `limit` items from row `start` on, in catalogue order, each with its row."""
        rows = list(islice(filter(self.has, range(start, self.end)), limit))
        return list(zip(rows, self.at(rows), strict=True))

    def vectors(
        self, relation: int | FreeTextRelation, view: View, rows: Sequence[int]
    ) -> Float32[ndarray, "rows dim"]:
        """Return the vectors of the items at `rows`, in the same order.

        Under a free-text relation, the vectors are computed from the tokens of the items.

        Raises:
            NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
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
        """Return the tokens of the items at the ascending `rows`; the index must store tokens."""
        kept = self.generation.tokens
        assert kept is not None, "this index stores no tokens"
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
        """Return the `k` items nearest to a unit `query`, or all items if there are fewer.

        Rows in `excluded` are left out. If `allowed` is given, the search returns only the rows at which `allowed` is
        true; see `VectorIndex.search`.
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
        filtered = None
        if old.filtered is not None and new.filtered is not None:
            # The overlay always scans; the way in which the generation was searched is the one that can differ.
            filtered = Filtered(old.filtered.allowed + new.filtered.allowed, old.filtered.methods)
        return Neighbours.best(
            np.concatenate([old.rows, new.rows]), np.concatenate([old.scores, new.scores]), k, filtered
        )

    def precomputed(
        self,
        relation: int,
        similarity: Similarity,
        row: int,
        k: int,
        excluded: frozenset[int] = frozenset(),
    ) -> Neighbours | None:
        """Look up the `k` best results for the item at `row`, except the item itself and the rows in `excluded`.

        Return None if the precomputed table does not contain them (see `PrecomputedAnswers.best`), or if the item was
        added or changed since the generation was written.
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

    def entries(
        self, relation: int, similarity: Similarity, row: int, start: int, stop: int
    ) -> list[tuple[int, float]] | None:
        """Look up the results `start` to `stop` (excluded) of `precomputed`, each with its score, as one table row.

        Return None if the table row lacks one of them, or if items were changed since the generation was written.
        """
        if self.overlay.dropped or self.overlay.entries:
            return None
        return self.generation.answers.entries(relation, similarity, row, start, stop)

    def entry(self, row: int) -> JournalEntry | None:
        """Return the journal entry of the item at `row`; None if the generation includes the item."""
        return self.overlay.entries[row - self.overlay.first] if row >= self.overlay.first else None

    def picture_sha256(self, row: int) -> str | None:
        """Return the SHA-256 of the picture of the item at `row`; None if no record of the picture exists."""
        entry = self.entry(row)
        if entry is not None:
            return entry.change.picture_sha256
        record = self.generation.manifest.files.get(self.at([row])[0].picture)
        return None if record is None else record.sha256
