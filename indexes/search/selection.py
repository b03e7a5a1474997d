"""Which of the items a search may find, which of those stand for others, and how unlike they should be."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import CATEGORIES
from indexes.storage.filters import Condition
from indexes.vectors.contract import LOWEST, Neighbours
from model.embeddings.free_text import FreeTextRelation
from model.errors import UnknownAttributeError
from model.records import Attribute, Item
from model.similarity import Similarity, View

from .free_text_search import FreeTextSearch
from .vector_search import KnownSearch, Search

DEEPEST = 10_000
"""Items whose variants are told apart for one answer: to read all of a large catalogue would take seconds."""

POOL = 10
"""Of so many times the results wanted, those are chosen that are unlike one another."""


@dataclass(frozen=True)
class Selection:
    """What a search is narrowed to; an id that no item has narrows nothing, and is no error.

    `include` lists the only items wanted (None: all), `exclude` those that are not, whatever `include` says.
    `where` has conditions on attributes, or on `categories`, all of which must be met. Of items that are equal in
    the attribute `group_by` (variants of one) only the nearest is found, and none that is a variant of the item
    asked about. `diversity` in [0, 1) trades nearness to the query for unlikeness of the results: 0 orders by
    score alone.
    """

    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    where: Mapping[str, Condition] = field(default_factory=dict)
    group_by: str | None = None
    diversity: float = 0.0

    @property
    def relative(self) -> bool:
        """Whether a condition refers to the item asked about."""
        return any(condition.relative for condition in self.where.values())

    def resolved(self, attributes: Mapping[str, Attribute]) -> "Selection":
        """The same for an item of these attributes, with numbers for what refers to them.

        Raises:
            MissingAttributeError: one of them is not there, or no number.
        """
        return replace(self, where={name: one.resolved(attributes) for name, one in self.where.items()})

    def allowed(self, snapshot: Snapshot) -> Bool[ndarray, " end"] | None:
        """By row, whether the item is included and meets the conditions; None where all do."""
        if self.include is None and not self.where:
            return None
        mask = np.ones(snapshot.end, bool)
        if self.include is not None:
            mask[:] = False
            mask[_rows(snapshot, self.include)] = True
        if self.where:
            first = snapshot.overlay.first
            mask[:first] &= snapshot.generation.attributes.mask(self.where)
            mask[first:] &= snapshot.overlay.mask(self.where)
        return mask

    def answer(
        self,
        snapshot: Snapshot,
        relation: int | FreeTextRelation,
        similarity: Similarity,
        row: int,
        k: int,
        least: float = LOWEST,
    ) -> Neighbours:
        """The `k` best of what is selected for the item at `row`, without itself; `least` is as for `choose`.

        Raises:
            UnknownAttributeError: no item has an attribute that is named.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
            NoPictureError: the item has no picture, and is asked about by it.
        """
        query_view, target_view = similarity.views
        snapshot.check_view(row, query_view)
        if self.plain and isinstance(relation, int):
            found = self.kept(snapshot, relation, similarity, row, k)
            if found is not None:
                return found
        query = snapshot.vectors(relation, query_view, [row])[0]
        return self.search(snapshot, relation, target_view, query, k, (row,), least)

    @property
    def plain(self) -> bool:
        """Whether all items are wanted, by score alone, but for those excluded."""
        return self.include is None and not self.where and self.group_by is None and self.diversity == 0

    def kept(
        self,
        snapshot: Snapshot,
        relation: int,
        similarity: Similarity,
        row: int,
        k: int,
    ) -> Neighbours | None:
        """What `answer` says, where the selection is plain and the table of answers says it; None where not.

        Raises:
            NoPictureError: the item has no picture, and is asked about by it.
        """
        query_view, target_view = similarity.views
        snapshot.check_view(row, query_view)
        if target_view is View.IMAGE and snapshot.pictured is not None:
            return None
        excluded = frozenset(_rows(snapshot, self.exclude)) if self.exclude else NOTHING
        return snapshot.answer(relation, similarity, row, k, excluded)

    def search(
        self,
        snapshot: Snapshot,
        relation: int | FreeTextRelation,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        but: Collection[int] = (),
        least: float = LOWEST,
    ) -> Neighbours:
        """The `k` best of what is selected, without the items at the rows `but`; under a relation in words see
        `FreeTextSearch`. `least` is as for `choose`.

        Raises:
            UnknownAttributeError: no item has an attribute that is named.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        (search,) = self.narrowed(snapshot, [(relation, query)], view, but)
        return self.choose(snapshot, search, k, but, least)

    def narrowed(
        self,
        snapshot: Snapshot,
        asked: Sequence[tuple[int | FreeTextRelation, Float32[ndarray, " dim"]]],
        view: View,
        but: Collection[int] = (),
    ) -> list[Search]:
        """The searches for some queries, each under its relation, that find no other items than those selected.

        Raises:
            UnknownAttributeError: no item has an attribute that is named.
        """
        self._check(snapshot)
        allowed = self.allowed(snapshot)
        if view is View.IMAGE and snapshot.pictured is not None:
            allowed = snapshot.pictured if allowed is None else allowed & snapshot.pictured
        excluded = frozenset([*_rows(snapshot, self.exclude), *but])
        return [
            FreeTextSearch(snapshot, relation, view, query, allowed, excluded)
            if isinstance(relation, FreeTextRelation)
            else KnownSearch(snapshot, relation, view, query, allowed, excluded)
            for relation, query in asked
        ]

    def choose(
        self,
        snapshot: Snapshot,
        search: Search,
        k: int,
        but: Collection[int] = (),
        least: float = LOWEST,
    ) -> Neighbours:
        """The `k` best that `search` finds, of variants only the best, and unlike one another.

        None is a variant of an item at the rows `but`. Of an attribute with fewer values than results wanted, what
        stands for them is looked for among the nearest `DEEPEST`. Where they should be unlike one another, what scores
        less than `least` is left out first, since it would take the places of what does not.
        """
        pool = k if self.diversity == 0 else POOL * k
        depth = pool
        while True:
            found = search.best(depth)
            kept = self._first_of_each(snapshot, found, but)
            if len(kept) >= pool or len(found.rows) < depth or depth >= DEEPEST:
                break
            depth *= 4
        kept = kept[:pool]
        if self.diversity > 0:
            kept = [place for place in kept if found.scores[place] >= least]
            vectors = search.vectors(found.rows[kept].tolist())
            kept = [kept[place] for place in mmr_order(found.scores[kept], vectors, k, self.diversity)]
        return Neighbours(found.rows[kept], found.scores[kept])

    def _first_of_each(self, snapshot: Snapshot, found: Neighbours, but: Collection[int]) -> list[int]:
        """Places of those found that are not equal in `group_by` to one before, or to an item asked about."""
        if self.group_by is None:
            return [*range(len(found.rows))]
        seen = {self._group(item) for item in snapshot.at([*but])}
        kept = []
        for place, item in enumerate(snapshot.at(found.rows.tolist())):
            group = self._group(item)
            if group is None or group not in seen:
                kept.append(place)
                seen.add(group)
        return kept

    def variants(self, snapshot: Snapshot, rows: Sequence[int]) -> list[Hashable]:
        """For each of the items at `rows` what is equal for variants of one, and for no others."""
        if self.group_by is None:
            return [*rows]
        groups = map(self._group, snapshot.at(rows))
        # In a tuple of two, a row is no value of an attribute.
        return [(None, row) if group is None else group for row, group in zip(rows, groups, strict=True)]

    def _group(self, item: Item) -> Hashable:
        assert self.group_by is not None
        return item.categories if self.group_by == CATEGORIES else item.attributes.get(self.group_by)

    def _check(self, snapshot: Snapshot) -> None:
        named = {*self.where, *([] if self.group_by is None else [self.group_by])} - {CATEGORIES}
        if named - snapshot.generation.attributes.names:
            known = snapshot.attributes
            if unknown := sorted(named - known):
                raise UnknownAttributeError(unknown[0], (CATEGORIES, *sorted(known)))


NOTHING: frozenset[int] = frozenset()

EVERYTHING = Selection()
"""All items, by score alone."""


def mmr_order(
    scores: Float32[ndarray, " n"], vectors: Float32[ndarray, "n dim"], k: int, diversity: float
) -> list[int]:
    """Places of `k` vectors in the order of maximal marginal relevance; the first of equals comes first.

    The next is the one that is best by (1 - diversity) * score - diversity * its cosine with the likest of those
    already chosen (Carbonell & Goldstein 1998, with lambda = 1 - diversity). The first is the nearest.
    """
    chosen: list[int] = []
    likest = np.full(len(scores), -np.inf, np.float32)
    left = np.ones(len(scores), bool)
    for _ in range(min(k, len(scores))):
        gain = (1 - diversity) * scores - (diversity * likest if chosen else 0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        likest = np.maximum(likest, np.vecdot(vectors, vectors[best]))
    return chosen


def _rows(snapshot: Snapshot, item_ids: frozenset[str]) -> list[int]:
    return [row for row in map(snapshot.find, item_ids) if row is not None]
