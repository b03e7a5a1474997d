"""One question of `POST /retrieve`, whole: any query, under any relations, narrowed, promoted, a page at a time.

Answered from one snapshot, so that nothing in an answer is of another moment than the rest. What is asked most, one
item of the catalogue under one relation, comes from the table of answers made ahead.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import LOWEST, Neighbours
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.records import Attribute
from model.similarity import Similarity, View

from .selection import EVERYTHING, Selection
from .vector_search import BlendedSearch

FEW = 100
"""So many excluded items are looked up at once; thousands take as long as many searches."""


@dataclass(frozen=True)
class KnownItems:
    """Items of the catalogue: one, or several at once, whose mean is looked for."""

    item_ids: tuple[str, ...]


@dataclass(frozen=True)
class NewItem:
    """An item that need not be in the catalogue, encoded just now: `encoding` is of this one alone.

    It must have tokens where a relation is in words, or was added to the index at run time.

    `attributes` are what conditions may refer to.
    """

    encoding: Encoding
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighted:
    """A relation, known by its id or in words, and what it weighs beside others; only ratios of weights count."""

    relation: str | FreeTextRelation
    weight: float = 1.0


@dataclass(frozen=True)
class Promotion:
    """Items that are given a `share` in (0, 1] of the places, as far as there are any that are selected."""

    item_ids: frozenset[str]
    share: float

    def takes(self, place: int) -> bool:
        """Whether the place, counted from 0, is one of theirs: they are spread evenly, none before its turn."""
        return int((place + 1) * self.share + 1e-9) > int(place * self.share + 1e-9)

    def merged(
        self,
        promoted: Sequence["Found"],
        ranked: Sequence["Found"],
        depth: int,
        variant: Callable[["Found"], Hashable] = lambda one: one.row,
    ) -> list["Found"]:
        """The first `depth` of both, each in its own order and the promoted ones in the places that are theirs.

        A promoted item that is `ranked` before its turn stands there by merit. Of those that are equal as a `variant`
        only the first is placed, and where one of the two is used up, the other has all places that are left. So
        the first places are the same whatever the depth, as long as both have `depth` items where there are as many.
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


class Found(NamedTuple):
    """The item at a row of the snapshot, its score, and the relation it was found under: its id, or its words."""

    row: int
    score: float
    relation: str
    promoted: bool = False
    fallback: bool = False


def retrieve(snapshot: Snapshot, question: Question) -> list[Found]:
    """The results of a question, best first but for promoted ones; equal scores stand in catalogue order.

    Raises:
        UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no item has
            an attribute that is named.
        MissingAttributeError: a condition refers to an attribute that the item asked about lacks.
        NoTokensError: a relation is one in words, and the index keeps no tokens.
        NoPictureError: an item has no picture, and is asked about by it.
    """
    return _Retrieval(snapshot, question).results()


def precomputed(snapshot: Snapshot, question: Question) -> list[Found] | None:
    """Answer a question from the precomputed table; None if the table does not have the answer.

    Raises:
        UnknownItemError, UnknownRelationError: there is no such item or relation.
        NoPictureError: the item has no picture, and is asked about by it.
    """
    query = question.query
    if (
        isinstance(query, NewItem)
        or len(query.item_ids) > 1
        or len(question.relations) != 1
        or question.promotion is not None
        or question.fallback
        or not question.selection.plain
        or len(question.selection.exclude) > FEW
    ):
        return None
    relation = question.relations[0].relation
    if isinstance(relation, FreeTextRelation):
        return None
    place = snapshot.position(relation)
    depth = question.offset + question.k
    best = question.selection.kept(
        snapshot, place, question.similarity, snapshot.row(query.item_ids[0]), depth
    )
    if best is None:
        return None
    scored = zip(best.rows.tolist(), best.scores.tolist(), strict=True)
    found = [Found(row, score, relation) for row, score in scored if score >= question.min_score]
    return found[question.offset :]


class _Retrieval:
    """One question put to one snapshot."""

    def __init__(self, snapshot: Snapshot, question: Question) -> None:
        self._snapshot = snapshot
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
        asked = [_Asked.of(one, self._snapshot) for one in question.relations]
        found = self._best(asked, depth, self._selection)
        if question.promotion is not None:
            found = self._promoted(asked, question.promotion, found, depth)
        if question.fallback and asked and len(found) < depth:  # without a relation, all were asked
            others = self._all_but([one.relation for one in asked])
            elsewhere = self._blended(others, None, depth - len(found), self._selection, found)
            found += [one._replace(fallback=True) for one in elsewhere]
        return found[question.offset : depth]

    def _best(self, asked: Sequence["_Asked"], k: int, selection: Selection) -> list[Found]:
        """The `k` best of what is selected that reach the least score."""
        if len(asked) == 1:
            return self._under_one(asked[0], k, selection)
        weights = None if not asked else np.asarray([one.weight for one in asked], np.float32)
        return self._blended(asked or self._all_but(()), weights, k, selection)

    def _under_one(self, asked: "_Asked", k: int, selection: Selection) -> list[Found]:
        relation, least = asked.relation, self._question.min_score
        if len(self._rows) == 1:
            similarity = self._question.similarity
            best = selection.answer(self._snapshot, relation, similarity, self._rows[0], k, least)
        else:
            query = self._query(relation)
            best = selection.search(self._snapshot, relation, self._target_view, query, k, self._rows, least)
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
        parts = selection.narrowed(self._snapshot, queries, self._target_view, without)
        search = BlendedSearch(parts, weights)
        best = selection.choose(self._snapshot, search, k, without, self._question.min_score)
        return self._reaching(best, lambda rows: [asked[part].label for part in search.brought_by(rows)])

    def _reaching(self, best: Neighbours, labels: Callable[[list[int]], list[str]]) -> list[Found]:
        rows, scores = best.rows.tolist(), best.scores.tolist()
        if self._question.min_score > LOWEST:
            reached = [place for place, score in enumerate(scores) if score >= self._question.min_score]
            rows, scores = [rows[place] for place in reached], [scores[place] for place in reached]
        return [Found(*one) for one in zip(rows, scores, labels(rows), strict=True)]

    def _promoted(
        self, asked: Sequence["_Asked"], promotion: Promotion, ranked: Sequence[Found], depth: int
    ) -> list[Found]:
        """The first `depth` of what is `ranked`, with the best of the promoted items that are selected among it."""
        chosen = self._selection.include
        wanted = promotion.item_ids if chosen is None else promotion.item_ids & chosen
        found = self._best(asked, depth, replace(self._selection, include=wanted))
        promoted = [one._replace(promoted=True) for one in found]
        rows = [one.row for one in (*promoted, *ranked)]
        variants = dict(zip(rows, self._selection.variants(self._snapshot, rows), strict=True))
        return promotion.merged(promoted, ranked, depth, lambda one: variants[one.row])

    def _all_but(self, asked: Sequence[int | FreeTextRelation]) -> list["_Asked"]:
        """All relations between different items that are not among those asked about."""
        return [
            _Asked(place, 1.0, known.relation_id)
            for place, known in enumerate(self._snapshot.generation.relations)
            if not known.relation.intra and place not in asked
        ]

    def _query(self, relation: int | FreeTextRelation) -> Float32[ndarray, " dim"]:
        """The vector looked for: that of the item asked about under the relation, or the mean of several."""
        query, view = self._question.query, self._query_view
        if isinstance(query, NewItem):
            # The encoder does not know those that were added; what they are made of does as well.
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
        """Those of the one item asked about."""
        if isinstance(self._question.query, NewItem):
            return self._question.query.attributes
        return self._snapshot.at(self._rows[:1])[0].attributes if len(self._rows) == 1 else {}


@dataclass(frozen=True)
class _Asked:
    """A relation as the vectors know it, and what it is called in an answer."""

    relation: int | FreeTextRelation
    weight: float
    label: str

    @classmethod
    def of(cls, one: Weighted, snapshot: Snapshot) -> "_Asked":
        if isinstance(one.relation, FreeTextRelation):
            return cls(one.relation, one.weight, one.relation.description)
        return cls(snapshot.position(one.relation), one.weight, one.relation)


def vector(encoding: Encoding, relation: int | FreeTextRelation, view: View) -> Float32[ndarray, " dim"]:
    """The vector of a view of the one item of an encoding; under a relation in words, made from its tokens."""
    found: ndarray
    if isinstance(relation, FreeTextRelation):
        assert encoding.tokens is not None, "tokens are kept where a relation in words is asked about"
        found = relation.view(encoding.tokens, view, np.zeros(1, np.int64))[0]
    else:
        found = encoding.view(view)[0, relation]
    return found
