"""Retrieval for `POST /retrieve`: any query under any relations, with filters, promotion and pages.

All results of a request come from one snapshot. The most frequent request, one catalogue item under one relation, is
looked up in the precomputed table.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import LOWEST_COSINE, Filtered, FilterMethod, Neighbours
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.records import Attribute
from model.similarity import Similarity, View

from .diversity import choose, variants
from .filtered_search import best_for_item, best_for_query, filtered_searches, precomputed_for_item
from .selection import EVERYTHING, Selection
from .vector_search import BlendedSearch

MAX_PRECOMPUTED_EXCLUDE = 100
"""Maximum number of excluded items in a precomputed lookup.

The lookup runs on the event loop. With thousands of excluded items, it would block the event loop for as long as many
searches take.
"""


@dataclass(frozen=True)
class KnownItems:
    """Catalogue items as the query: one item, or the mean of several."""

    item_ids: tuple[str, ...]


@dataclass(frozen=True)
class NewItem:
    """A query item that need not be in the catalogue; `encoding` contains this item only.

    The encoding must include tokens if a relation is a free-text relation or was added to the index at run time. Filter
    conditions may refer to the `attributes` of the item.
    """

    encoding: Encoding
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighted:
    """A relation, given by its ID or as free text, and its weight; only the ratios of weights matter."""

    relation: str | FreeTextRelation
    weight: float = 1.0


@dataclass(frozen=True)
class Promotion:
    """Items that receive a `share` in (0, 1] of the result positions, if enough of them pass the filter."""

    item_ids: frozenset[str]
    share: float

    def takes(self, place: int) -> bool:
        """Return whether a position, counted from 0, is reserved for a promoted item.

        The reserved positions are spread evenly: of the first n positions, at most `share` * n are reserved.
        """
        return int((place + 1) * self.share + 1e-9) > int(place * self.share + 1e-9)

    def merged(
        self,
        promoted: Sequence["Found"],
        ranked: Sequence["Found"],
        depth: int,
        variant: Callable[["Found"], Hashable] = lambda one: one.row,
    ) -> list["Found"]:
        """Merge both lists into at most `depth` items; each list keeps its order.

        Promoted items take the positions reserved for them. An item in both lists is placed once, at the earlier of its
        two positions. Of items with equal `variant` keys, only the first is kept. If one list runs out, the other fills
        all remaining positions.

        Each list must contain `depth` items, or all available items if there are fewer. A merge with a greater `depth`
        and longer lists then begins with the same items.
        """
        lists = {True: deque(promoted), False: deque(ranked)}
        placed: set[Hashable] = set()
        found: list[Found] = []
        while len(found) < depth:
            for left in lists.values():
                while left and variant(left[0]) in placed:
                    left.popleft()
            if not any(lists.values()):
                break
            turn = self.takes(len(found))
            found.append((lists[turn] or lists[not turn]).popleft())
            placed.add(variant(found[-1]))
        return found


@dataclass(frozen=True)
class Question:
    """A retrieval request.

    Without `relations`, the score of an item is its greatest score under any relation except the intra-sample relation.
    The first `offset` results are skipped, and items that score below `min_score` are left out. With `fallback`, items
    that reach `min_score` under any other relation fill the remaining positions.
    """

    query: KnownItems | NewItem
    relations: tuple[Weighted, ...]
    similarity: Similarity
    k: int
    offset: int = 0
    selection: Selection = EVERYTHING
    min_score: float = LOWEST_COSINE
    promotion: Promotion | None = None
    fallback: bool = False


class Found(NamedTuple):
    """A result: the row of an item in the snapshot, its score, and the ID or text of the relation that found it."""

    row: int
    score: float
    relation: str
    promoted: bool = False
    fallback: bool = False


class FilterUse(NamedTuple):
    """How the searches of a request used its filter.

    `share` is the share of all items among which the first search looked: those that pass the filter, and are neither
    query items nor excluded. `methods` contains each way in which a search found the nearest of them.
    """

    share: float
    methods: tuple[FilterMethod, ...]


class Ranking(NamedTuple):
    """Results of a request, and how its filter was used (None: it has no filter)."""

    found: list[Found]
    filter_use: FilterUse | None = None


def retrieve(snapshot: Snapshot, question: Question) -> Ranking:
    """Return the results of a request, best first except for promoted items; equal scores are in catalogue order.

    Raises:
        UnknownItemError, UnknownRelationError: no item or relation has this ID.
        UnknownAttributeError: the filter names an attribute that no item has.
        MissingAttributeError: a condition refers to an attribute that the query item lacks.
        NoTokensError: a relation is a free-text relation, and the index stores no tokens.
        NoPictureError: the similarity compares the picture of a query item that has none.
    """
    retrieval = _Retrieval(snapshot, question)
    return Ranking(retrieval.results(), retrieval.filter_use)


def precomputed(snapshot: Snapshot, question: Question) -> list[Found] | None:
    """Look up the results of a request in the precomputed table; return None if the table does not contain them.

    Raises:
        UnknownItemError, UnknownRelationError: no item or relation has this ID.
        NoPictureError: the similarity compares the picture of the query item, which has none.
    """
    query = question.query
    if (
        isinstance(query, NewItem)
        or len(query.item_ids) > 1
        or len(question.relations) != 1
        or question.promotion is not None
        or question.fallback
        or not question.selection.plain
        or len(question.selection.exclude) > MAX_PRECOMPUTED_EXCLUDE
    ):
        return None
    relation = question.relations[0].relation
    if isinstance(relation, FreeTextRelation):
        return None
    start, stop = question.offset, question.offset + question.k
    (item_id,) = query.item_ids
    selection = question.selection
    best = precomputed_entries(snapshot, item_id, relation, question.similarity, start, stop, selection)
    if best is None:
        return None
    return [Found(row, score, relation) for row, score in best if score >= question.min_score]


def precomputed_entries(
    snapshot: Snapshot,
    item_id: str,
    relation_id: str,
    similarity: Similarity,
    start: int,
    stop: int,
    selection: Selection = EVERYTHING,
) -> list[tuple[int, float]] | None:
    """Look up the results `start` to `stop` (excluded) for an item, as rows and scores; None if a search is needed.

    `selection` may only exclude items.

    Raises:
        UnknownItemError, UnknownRelationError: no item or relation has this ID.
        NoPictureError: the similarity compares the picture of the query item, which has none.
    """
    place = snapshot.position(relation_id)
    row = snapshot.row(item_id)
    query_view, target_view = similarity.views
    snapshot.check_view(row, query_view)
    if target_view is View.IMAGE and snapshot.pictured is not None:
        return None
    if not selection.exclude and (found := snapshot.entries(place, similarity, row, start, stop)) is not None:
        return found
    best = precomputed_for_item(snapshot, selection, place, similarity, row, stop)
    if best is None:
        return None
    return list(zip(best.rows[start:].tolist(), best.scores[start:].tolist(), strict=True))


class _Retrieval:
    """Execution of one request on one snapshot."""

    def __init__(self, snapshot: Snapshot, question: Question) -> None:
        self._snapshot = snapshot
        self._question = question
        self._query_view, self._target_view = question.similarity.views
        self._rows: tuple[int, ...] = ()
        self._filtered: list[Filtered | None] = []
        if isinstance(question.query, KnownItems):
            self._rows = tuple(map(snapshot.row, question.query.item_ids))
            for row in self._rows:
                snapshot.check_view(row, self._query_view)
        self._selection = question.selection
        if self._selection.relative:
            self._selection = self._selection.resolved(self._attributes())

    @property
    def filter_use(self) -> FilterUse | None:
        """How the searches made so far used the filter of the request."""
        used = Filtered.joined(self._filtered)
        if used is None or not self._selection.filters:
            return None
        return FilterUse(used.allowed / max(len(self._snapshot), 1), used.methods)

    def results(self) -> list[Found]:
        question = self._question
        depth = question.offset + question.k
        asked = [_Asked.of(one, self._snapshot) for one in question.relations]
        found = self._best(asked, depth, self._selection)
        if question.promotion is not None:
            found = self._promoted(asked, question.promotion, found, depth)
        # A request without `relations` has already searched all relations.
        if question.fallback and asked and len(found) < depth:
            others = self._all_but([one.relation for one in asked])
            elsewhere = self._blended(others, None, depth - len(found), self._selection, found)
            found += [one._replace(fallback=True) for one in elsewhere]
        return found[question.offset : depth]

    def _best(self, asked: Sequence["_Asked"], k: int, selection: Selection) -> list[Found]:
        """Return the `k` best items that pass `selection` and reach the minimum score."""
        if len(asked) == 1:
            return self._under_one(asked[0], k, selection)
        weights = None if not asked else np.asarray([one.weight for one in asked], np.float32)
        return self._blended(asked or self._all_but(()), weights, k, selection)

    def _under_one(self, asked: "_Asked", k: int, selection: Selection) -> list[Found]:
        relation, min_score = asked.relation, self._question.min_score
        if len(self._rows) == 1:
            similarity = self._question.similarity
            row = self._rows[0]
            best = best_for_item(self._snapshot, selection, relation, similarity, row, k, min_score)
        else:
            query = self._query(relation)
            view = self._target_view
            best = best_for_query(self._snapshot, selection, relation, view, query, k, self._rows, min_score)
        return self._reaching(best, lambda rows: [asked.label] * len(rows))

    def _blended(
        self,
        asked: Sequence["_Asked"],
        weights: Float32[ndarray, " asked"] | None,
        k: int,
        selection: Selection,
        but: Sequence[Found] = (),
    ) -> list[Found]:
        if not asked:
            return []
        without = (*self._rows, *(one.row for one in but))
        queries = [(one.relation, self._query(one.relation)) for one in asked]
        parts = filtered_searches(self._snapshot, selection, queries, self._target_view, without)
        search = BlendedSearch(parts, weights)
        best = choose(self._snapshot, selection, search, k, without, self._question.min_score)
        return self._reaching(best, lambda rows: [asked[part].label for part in search.brought_by(rows)])

    def _reaching(self, best: Neighbours, labels: Callable[[list[int]], list[str]]) -> list[Found]:
        self._filtered.append(best.filtered)
        rows, scores = best.rows.tolist(), best.scores.tolist()
        if self._question.min_score > LOWEST_COSINE:
            reached = [place for place, score in enumerate(scores) if score >= self._question.min_score]
            rows, scores = [rows[place] for place in reached], [scores[place] for place in reached]
        return [Found(*one) for one in zip(rows, scores, labels(rows), strict=True)]

    def _promoted(
        self, asked: Sequence["_Asked"], promotion: Promotion, ranked: Sequence[Found], depth: int
    ) -> list[Found]:
        """Merge the best promoted items that pass the filter into `ranked`; see `Promotion.merged`."""
        chosen = self._selection.include
        wanted = promotion.item_ids if chosen is None else promotion.item_ids & chosen
        found = self._best(asked, depth, replace(self._selection, include=wanted))
        promoted = [one._replace(promoted=True) for one in found]
        rows = [one.row for one in (*promoted, *ranked)]
        keys = dict(zip(rows, variants(self._snapshot, self._selection, rows), strict=True))
        return promotion.merged(promoted, ranked, depth, lambda one: keys[one.row])

    def _all_but(self, asked: Sequence[int | FreeTextRelation]) -> list["_Asked"]:
        """Return all relations except the intra-sample relation and the relations in `asked`."""
        return [
            _Asked(place, 1.0, known.relation_id)
            for place, known in enumerate(self._snapshot.generation.relations)
            if not known.relation.intra and place not in asked
        ]

    def _query(self, relation: int | FreeTextRelation) -> Float32[ndarray, " dim"]:
        """Return the query vector under a relation: the vector of the query item, or the mean of several vectors."""
        query, view = self._question.query, self._query_view
        if isinstance(query, NewItem):
            # The encoder does not cover relations added at run time. Their free-text form computes the vector.
            free_text = None
            if isinstance(relation, int):
                free_text = self._snapshot.generation.relations[relation].free_text
            return vector(query.encoding, free_text or relation, view)
        vectors = self._snapshot.vectors(relation, view, self._rows)
        mean: ndarray = vectors[0]
        if len(vectors) > 1:
            mean = vectors.mean(axis=0, dtype=np.float64)
            mean = np.asarray(mean / max(np.linalg.norm(mean), 1e-12), np.float32)
        return mean

    def _attributes(self) -> Mapping[str, Attribute]:
        """Return the attributes of the query item; none if there are several query items."""
        if isinstance(self._question.query, NewItem):
            return self._question.query.attributes
        return self._snapshot.at(self._rows[:1])[0].attributes if len(self._rows) == 1 else {}


@dataclass(frozen=True)
class _Asked:
    """A relation, given by its position or as free text, with its weight and its label in the results."""

    relation: int | FreeTextRelation
    weight: float
    label: str

    @classmethod
    def of(cls, one: Weighted, snapshot: Snapshot) -> "_Asked":
        if isinstance(one.relation, FreeTextRelation):
            return cls(one.relation, one.weight, one.relation.description)
        return cls(snapshot.position(one.relation), one.weight, one.relation)


def vector(encoding: Encoding, relation: int | FreeTextRelation, view: View) -> Float32[ndarray, " dim"]:
    """Return the vector, in one view, of the only item in an encoding.

    Under a free-text relation, the vector is computed from the tokens of the item.
    """
    found: ndarray
    if isinstance(relation, FreeTextRelation):
        assert encoding.tokens is not None, "items are encoded with tokens if the index stores tokens"
        found = relation.view(encoding.tokens, view, np.zeros(1, np.int64))[0]
    else:
        found = encoding.view(view)[0, relation]
    return found
