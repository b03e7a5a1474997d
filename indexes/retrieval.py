"""One question of `POST /retrieve`, whole: any query, under any relations, narrowed, promoted, a page at a time.

Answered from one snapshot, so that nothing in an answer is of another moment than the rest. What is asked most, one
item of the catalogue under one relation, comes from the table of answers made ahead.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.encoding import Encoding, WordedRelation
from model.errors import UnknownRelationError
from model.records import Attribute, Relation, Similarity, View

from .search import BlendedSearch
from .selection import EVERYTHING, Selection
from .snapshot import Snapshot
from .vectors import Neighbours

LOWEST = -1.0
"""No cosine is less."""


@dataclass(frozen=True)
class KnownItems:
    """Items of the catalogue: one, or several at once, whose mean is looked for."""

    item_ids: tuple[str, ...]


@dataclass(frozen=True)
class NewItem:
    """An item that need not be in the catalogue, encoded just now: `encoding` is of this one alone.

    `attributes` are what conditions may refer to.
    """

    encoding: Encoding
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighted:
    """A relation, known by its id or in words, and what it weighs beside others; only ratios of weights count."""

    relation: str | WordedRelation
    weight: float = 1.0


@dataclass(frozen=True)
class Promotion:
    """Items that are given a `share` in (0, 1] of the places, as far as there are any that are selected."""

    item_ids: frozenset[str]
    share: float

    def takes(self, place: int) -> bool:
        """Whether the place, counted from 0, is one of theirs: they are spread evenly, none before its turn."""
        return int((place + 1) * self.share + 1e-9) > int(place * self.share + 1e-9)

    def merged(self, promoted: Sequence["Found"], others: Sequence["Found"], depth: int) -> list["Found"]:
        """The first `depth` of both, each in its own order and the promoted ones in the places that are theirs.

        Where one of the two is used up, the other has all places that are left.
        """
        lists = {True: deque(promoted), False: deque(others)}
        found: list[Found] = []
        while len(found) < depth and any(lists.values()):
            turn = self.takes(len(found))
            found.append((lists[turn] or lists[not turn]).popleft())
        return found


@dataclass(frozen=True)
class Question:
    """What is asked. Without `relations`, each item counts under that between items which brings it nearest.

    `offset` results are passed over. What scores less than `min_score` is left out; with `fallback`, items that
    reach it under any other relation then follow, as far as places are left.
    """

    query: KnownItems | NewItem
    relations: tuple[Weighted, ...]
    similarity: Similarity
    k: int
    offset: int = 0
    selection: Selection = EVERYTHING
    min_score: float = LOWEST
    promotion: Promotion | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The item at a row of the snapshot, its score, and the relation it was found under: its id, or its words."""

    row: int
    score: float
    relation: str
    promoted: bool = False
    fallback: bool = False


def retrieve(snapshot: Snapshot, relations: Sequence[Relation], question: Question) -> list[Found]:
    """The results of a question, best first but for promoted ones; equal scores stand in catalogue order.

    `relations` are those of the index, in the order of its vectors.

    Raises:
        UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no item has
            an attribute that is named.
        MissingAttributeError: a condition refers to an attribute that the item asked about lacks.
        NoTokensError: a relation is one in words, and the index keeps no tokens.
        NoPictureError: an item has no picture, and is asked about by it.
    """
    return _Retrieval(snapshot, relations, question).results()


class _Retrieval:
    """One question put to one snapshot."""

    def __init__(self, snapshot: Snapshot, relations: Sequence[Relation], question: Question) -> None:
        self._snapshot = snapshot
        self._relations = relations
        self._question = question
        self._query_view, self._target_view = question.similarity.views
        self._rows: tuple[int, ...] = ()
        if isinstance(question.query, KnownItems):
            self._rows = tuple(map(snapshot.row, question.query.item_ids))
            for row in self._rows:
                snapshot.check_view(row, self._query_view)
        self._selection = question.selection
        if self._selection.relative:
            self._selection = self._selection.resolved(self._attributes())

    def results(self) -> list[Found]:
        question = self._question
        depth = question.offset + question.k
        asked = [_Asked.of(one, self._relations) for one in question.relations]
        promoted = [] if question.promotion is None else self._promoted(asked, question.promotion, depth)
        found = self._best(asked, depth, self._selection, promoted)
        if promoted and question.promotion is not None:
            found = question.promotion.merged(promoted, found, depth)
        if question.fallback and len(found) < depth:
            others = self._all_but([one.relation for one in asked])
            elsewhere = self._blended(others, None, depth - len(found), self._selection, found)
            found += [replace(one, fallback=True) for one in elsewhere]
        return found[question.offset : depth]

    def _best(
        self, asked: Sequence["_Asked"], k: int, selection: Selection, but: Sequence[Found] = ()
    ) -> list[Found]:
        """The `k` best of what is selected that reach the least score, without those found already."""
        if len(asked) == 1:
            return self._under_one(asked[0], k, selection, but)
        weights = None if not asked else np.asarray([one.weight for one in asked], np.float32)
        return self._blended(asked or self._all_but(()), weights, k, selection, but)

    def _under_one(self, asked: "_Asked", k: int, selection: Selection, but: Sequence[Found]) -> list[Found]:
        relation, others = asked.relation, [one.row for one in but]
        if len(self._rows) == 1:
            similarity = self._question.similarity
            best = selection.answer(self._snapshot, relation, similarity, self._rows[0], k, others)
        else:
            query, without = self._query(relation), (*self._rows, *others)
            best = selection.search(self._snapshot, relation, self._target_view, query, k, without)
        return self._reaching(best, lambda rows: [asked.label] * len(rows))

    def _blended(
        self,
        asked: Sequence["_Asked"],
        weights: Float32[ndarray, " asked"] | None,
        k: int,
        selection: Selection,
        but: Sequence[Found],
    ) -> list[Found]:
        if not asked:
            return []
        without = (*self._rows, *(one.row for one in but))
        queries = [(one.relation, self._query(one.relation)) for one in asked]
        parts = selection.narrowed(self._snapshot, queries, self._target_view, without)
        search = BlendedSearch(parts, weights)
        best = selection.choose(self._snapshot, search, k, without)
        return self._reaching(best, lambda rows: [asked[part].label for part in search.brought_by(rows)])

    def _reaching(self, best: Neighbours, labels: Callable[[list[int]], list[str]]) -> list[Found]:
        rows, scores = best.rows.tolist(), best.scores.tolist()
        if self._question.min_score > LOWEST:
            reached = [place for place, score in enumerate(scores) if score >= self._question.min_score]
            rows, scores = [rows[place] for place in reached], [scores[place] for place in reached]
        return [Found(*one) for one in zip(rows, scores, labels(rows), strict=True)]

    def _promoted(self, asked: Sequence["_Asked"], promotion: Promotion, depth: int) -> list[Found]:
        """The best of the promoted items that are selected, as many as there are places for."""
        places = sum(map(promotion.takes, range(depth)))
        chosen = self._selection.include
        wanted = promotion.item_ids if chosen is None else promotion.item_ids & chosen
        found = self._best(asked, places, replace(self._selection, include=wanted)) if places else []
        return [replace(one, promoted=True) for one in found]

    def _all_but(self, asked: Sequence[int | WordedRelation]) -> list["_Asked"]:
        """All relations between different items that are not among those asked about."""
        return [
            _Asked(place, 1.0, relation.relation_id)
            for place, relation in enumerate(self._relations)
            if not relation.intra and place not in asked
        ]

    def _query(self, relation: int | WordedRelation) -> Float32[ndarray, " dim"]:
        """The vector looked for: that of the item asked about under the relation, or the mean of several."""
        query, view = self._question.query, self._query_view
        if isinstance(query, NewItem):
            return vector(query.encoding, relation, view)
        vectors = self._snapshot.vectors(relation, view, self._rows)
        mean: ndarray = vectors[0]
        if len(vectors) > 1:
            mean = vectors.mean(axis=0, dtype=np.float64)
            mean = np.asarray(mean / max(np.linalg.norm(mean), 1e-12), np.float32)
        return mean

    def _attributes(self) -> Mapping[str, Attribute]:
        """Those of the one item asked about."""
        if isinstance(self._question.query, NewItem):
            return self._question.query.attributes
        return self._snapshot.at(self._rows[:1])[0].attributes if len(self._rows) == 1 else {}


@dataclass(frozen=True)
class _Asked:
    """A relation as the vectors know it, and what it is called in an answer."""

    relation: int | WordedRelation
    weight: float
    label: str

    @classmethod
    def of(cls, one: Weighted, relations: Sequence[Relation]) -> "_Asked":
        if isinstance(one.relation, WordedRelation):
            return cls(one.relation, one.weight, one.relation.description)
        return cls(position(relations, one.relation), one.weight, one.relation)


def position(relations: Sequence[Relation], relation_id: str) -> int:
    """Place of a relation among `relations`.

    Raises:
        UnknownRelationError: there is none of this id.
    """
    for place, relation in enumerate(relations):
        if relation.relation_id == relation_id:
            return place
    raise UnknownRelationError(relation_id, tuple(relation.relation_id for relation in relations))


def vector(encoding: Encoding, relation: int | WordedRelation, view: View) -> Float32[ndarray, " dim"]:
    """The vector of a view of the one item of an encoding; under a relation in words, made from its tokens."""
    found: ndarray
    if isinstance(relation, WordedRelation):
        assert encoding.tokens is not None, "tokens are kept where a relation in words is asked about"
        found = relation.view(encoding.tokens, view, np.zeros(1, np.int64))[0]
    else:
        found = encoding.view(view)[0, relation]
    return found
