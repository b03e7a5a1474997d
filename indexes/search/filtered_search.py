"""Search among the items that pass a filter, with a catalogue item or any vector as the query."""

from collections.abc import Collection, Sequence

from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import LOWEST_COSINE, Neighbours
from model.embeddings.free_text import FreeTextRelation
from model.similarity import Similarity, View

from .diversity import choose
from .free_text_search import FreeTextSearch
from .selection import Selection
from .vector_search import KnownSearch, Search


def best_for_item(
    snapshot: Snapshot,
    selection: Selection,
    relation: int | FreeTextRelation,
    similarity: Similarity,
    row: int,
    k: int,
    min_score: float = LOWEST_COSINE,
) -> Neighbours:
    """Return the `k` best items that pass `selection` for the item at `row`, without that item.

    `min_score` has the same meaning as in `choose`.

    Raises:
        UnknownAttributeError: `selection` names an attribute that no item has.
        NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
        NoPictureError: the similarity compares the picture of the item at `row`, which has none.
    """
    query_view, target_view = similarity.views
    snapshot.check_view(row, query_view)
    if selection.plain and isinstance(relation, int):
        found = precomputed_for_item(snapshot, selection, relation, similarity, row, k)
        if found is not None:
            return found
    query = snapshot.vectors(relation, query_view, [row])[0]
    return best_for_query(snapshot, selection, relation, target_view, query, k, (row,), min_score)


def precomputed_for_item(
    snapshot: Snapshot, selection: Selection, relation: int, similarity: Similarity, row: int, k: int
) -> Neighbours | None:
    """Look up the results of `best_for_item` for a plain `selection`; return None if the table does not contain them.

    Raises:
        NoPictureError: the similarity compares the picture of the item at `row`, which has none.
    """
    query_view, target_view = similarity.views
    snapshot.check_view(row, query_view)
    if target_view is View.IMAGE and snapshot.pictured is not None:
        return None
    excluded = selection.excluded_rows(snapshot) if selection.exclude else _NO_ROWS
    return snapshot.precomputed(relation, similarity, row, k, excluded)


def best_for_query(
    snapshot: Snapshot,
    selection: Selection,
    relation: int | FreeTextRelation,
    view: View,
    query: Float32[ndarray, " dim"],
    k: int,
    query_rows: Collection[int] = (),
    min_score: float = LOWEST_COSINE,
) -> Neighbours:
    """Return the `k` best items that pass `selection` for a unit `query`, without the items at `query_rows`.

    See `FreeTextSearch` for free-text relations. `min_score` has the same meaning as in `choose`.

    Raises:
        UnknownAttributeError: `selection` names an attribute that no item has.
        NoTokensError: `relation` is a free-text relation, and the index stores no tokens.
    """
    (search,) = filtered_searches(snapshot, selection, [(relation, query)], view, query_rows)
    return choose(snapshot, selection, search, k, query_rows, min_score)


def filtered_searches(
    snapshot: Snapshot,
    selection: Selection,
    asked: Sequence[tuple[int | FreeTextRelation, Float32[ndarray, " dim"]]],
    view: View,
    query_rows: Collection[int] = (),
) -> list[Search]:
    """Return a search for each (relation, query), limited to items that pass `selection` and are not at `query_rows`.

    Raises:
        UnknownAttributeError: `selection` names an attribute that no item has.
    """
    selection.check_attributes(snapshot)
    allowed = selection.allowed(snapshot)
    if view is View.IMAGE and snapshot.pictured is not None:
        allowed = snapshot.pictured if allowed is None else allowed & snapshot.pictured
    excluded = selection.excluded_rows(snapshot, query_rows)
    return [
        FreeTextSearch(snapshot, relation, view, query, allowed, excluded)
        if isinstance(relation, FreeTextRelation)
        else KnownSearch(snapshot, relation, view, query, allowed, excluded)
        for relation, query in asked
    ]


_NO_ROWS: frozenset[int] = frozenset()
