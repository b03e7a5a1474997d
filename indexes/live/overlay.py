"""The overlay: in-memory changes made since a generation was written.

It contains the items added or replaced since then, and the rows of the generation that are no longer current.

An overlay never changes: `after` returns a new one, and a running search keeps using the old one. Overlays share their
vector and attribute arrays, to which rows are only appended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.journal.change import JournalEntry
from indexes.storage.attributes import AppendedAttributes
from indexes.storage.filters import Condition
from indexes.storage.tokens import stored
from indexes.vectors.contract import ROUNDING, Filtered, Neighbours, cosines
from model.embeddings.encoding import ItemTokens
from model.embeddings.free_text import FLOAT32_CHUNK_ITEMS, FreeTextRelation
from model.records import Item
from model.similarity import View

INITIAL_ROOM_ITEMS = 64
"""Initial capacity of the vector array, in items; the capacity doubles as needed."""

_VIEWS = {view: position for position, view in enumerate(View)}


@dataclass(frozen=True)
class Overlay:
    """The changes up to `sequence`, as rows that follow the rows of the generation.

    `first` is the first row of the overlay, which equals the number of items in the generation. `rows` maps the ID of
    every changed item to its row, or to None if the item was deleted. `dropped` contains the rows of the generation
    that were replaced or deleted. `live[i]` is true if row `first + i` is current. `without_picture` lists the overlay
    rows of items without a picture. A change includes the vectors of its item under the relations of the checkpoint.
    Under the `added` relations, which come last, the overlay computes the vectors from the tokens of the item.
    """

    first: int
    sequence: int
    rows: MappingProxyType[str, int | None]
    dropped: frozenset[int]
    entries: tuple[JournalEntry, ...]
    live: Bool[ndarray, " entries"]
    without_picture: tuple[int, ...]
    added: tuple[FreeTextRelation, ...]
    _attributes: AppendedAttributes
    _vectors: Float32[ndarray, "views relations room dim"]

    @classmethod
    def empty(
        cls, first: int, sequence: int, relations: int, dim: int, added: tuple[FreeTextRelation, ...] = ()
    ) -> "Overlay":
        """Return an empty overlay of a generation.

        The generation has `first` items and includes the changes up to sequence number `sequence`.
        """
        none = MappingProxyType[str, int | None]({})
        room = np.zeros((len(View), relations + len(added), INITIAL_ROOM_ITEMS, dim), np.float32)
        return cls(
            first, sequence, none, frozenset(), (), np.zeros(0, bool), (), added, AppendedAttributes(), room
        )

    def __len__(self) -> int:
        """Return the number of current items in the overlay."""
        return int(self.live.sum())

    @property
    def changes(self) -> int:
        """Size of the overlay: its own rows plus the rows of the generation that searches must skip."""
        return len(self.entries) + len(self.dropped)

    def after(self, recorded: Sequence[JournalEntry], find: Callable[[str], int | None]) -> "Overlay":
        """Return a new overlay that also includes the changes in `recorded`.

        `find` returns the row of an item in the generation, or None if the generation does not contain the item. Only
        one thread at a time may call this method, and only on the newest overlay.
        """
        rows: dict[str, int | None] = {}
        dropped: set[int] = set()
        entries: list[JournalEntry] = []
        without_picture: list[int] = []
        known = len(self.entries)
        live = np.concatenate([self.live, np.zeros(len(recorded), bool)])
        vectors = self._with_room(known + len(recorded))
        brought = vectors.shape[1] - len(self.added)
        for one in recorded:
            change = one.change
            if change.item_id in rows:
                old = rows[change.item_id]
            elif change.item_id in self.rows:
                old = self.rows[change.item_id]
            else:
                old = find(change.item_id)
            if old is not None and old >= self.first:
                live[old - self.first] = False
            elif old is not None:
                dropped.add(old)
            rows[change.item_id] = None
            if change.item is not None:
                assert change.vectors is not None
                place = known + len(entries)
                vectors[:, :brought, place] = change.vectors
                self._attributes.append(place, change.item)
                live[place] = True
                rows[change.item_id] = self.first + place
                if not change.item.picture:
                    without_picture.append(self.first + place)
                entries.append(replace(one, change=replace(change, vectors=None)))
        self._complete(vectors[:, brought:, known : known + len(entries)], entries)
        # The containers are copied as a whole, once per call: with 10,000 changes this takes 0.1 ms.
        return Overlay(
            self.first,
            recorded[-1].sequence if recorded else self.sequence,
            MappingProxyType(self.rows | rows),
            self.dropped | dropped if dropped else self.dropped,
            (*self.entries, *entries),
            live[: known + len(entries)],
            (*self.without_picture, *without_picture),
            self.added,
            self._attributes,
            vectors,
        )

    def item(self, row: int) -> Item:
        """Return the item at a row of the overlay."""
        item = self.entries[row - self.first].change.item
        assert item is not None
        return item

    @cached_property
    def gone(self) -> Int64[ndarray, " dropped"]:
        """`dropped` as an array."""
        return np.fromiter(self.dropped, np.int64, len(self.dropped))

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the attributes that are or were a number on any item of the overlay."""
        return self._attributes.numbers(len(self.entries))

    @property
    def texts(self) -> frozenset[str]:
        """Names of the attributes that are or were a text on any item of the overlay."""
        return self._attributes.texts(len(self.entries))

    def mask(self, where: Mapping[str, Condition]) -> Bool[ndarray, " entries"]:
        """Return a mask over the rows of the overlay: true if the item meets all conditions."""
        return self._attributes.mask(where, len(self.entries))

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the vectors at the given rows of the overlay."""
        places = np.asarray(rows, dtype=np.int64) - self.first
        found: ndarray = self._vectors[_VIEWS[view], relation, places]
        return found

    def tokens(self, rows: Sequence[int]) -> ItemTokens:
        """Return the tokens of the items at the given rows of the overlay; the index must store tokens."""
        return _tokens([self.entries[row - self.first] for row in rows])

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " entries"] | None = None,
        excluded: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Return the `k` items of the overlay nearest to a unit `query`; see `VectorIndex.search`."""
        keep = self.live.copy() if allowed is None else self.live & allowed
        keep[[row - self.first for row in excluded if row >= self.first]] = False
        places = np.flatnonzero(keep)
        filtered = None if allowed is None else Filtered(len(places), ("scan",))
        vectors = self._vectors[_VIEWS[view], relation, : len(self.entries)]
        if len(places) > 4 * k:
            # Approximate scores in single precision exclude the rows that cannot be among the k best. BLAS would split
            # a matrix product across threads, which takes twenty times as long as `vecdot` on busy processors.
            rough = np.vecdot(vectors, query)
            least = np.partition(rough[places], -k)[-k]
            places = places[rough[places] >= least - ROUNDING]
        return Neighbours.best(places + self.first, cosines(vectors[places], query), k, filtered)

    def _complete(
        self, vectors: Float32[ndarray, "views added entries dim"], entries: Sequence[JournalEntry]
    ) -> None:
        """Compute the vectors of new items under the added relations, which the encoder does not cover."""
        for start in range(0, len(entries) if self.added else 0, FLOAT32_CHUNK_ITEMS):
            some = entries[start : start + FLOAT32_CHUNK_ITEMS]
            tokens, rows = _tokens(some), np.arange(len(some))
            for number, relation in enumerate(self.added):
                for view, position in _VIEWS.items():
                    made = relation.view(tokens, view, rows)
                    vectors[position, number, start : start + FLOAT32_CHUNK_ITEMS] = made.astype(np.float16)

    def _with_room(self, entries: int) -> Float32[ndarray, "views relations room dim"]:
        views, relations, room, dim = self._vectors.shape
        if entries <= room:
            return self._vectors
        while room < entries:
            room *= 2
        vectors = np.zeros((views, relations, room, dim), np.float32)
        vectors[:, :, : len(self.entries)] = self._vectors[:, :, : len(self.entries)]
        return vectors


def _tokens(entries: Sequence[JournalEntry]) -> ItemTokens:
    brought = [entry.change.tokens for entry in entries]
    kept = [tokens for tokens in brought if tokens is not None]
    assert len(kept) == len(brought), "an index that stores tokens accepts only items with tokens"
    return stored(ItemTokens.joined(kept))
