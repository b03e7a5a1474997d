"""Filters of the search benchmark: shares drawn at random, and categories and ranges near a query or far from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from benchmarks.rig.embeddings import Embeddings

FILTERS = {"none": 1.0, "10 %": 0.1, "0.5 %": 0.005}
"""Share of the items that each filter allows; the allowed items are drawn at random."""

SHARES = (0.0001, 0.001, 0.01, 0.039, 0.1, 0.5, 0.9)
"""Shares of `--filters` besides all items. Of a million items, 3.9 % are the most of which every vector is scanned."""

FilterKind = Literal["category", "range", "both"]
Place = Literal["near", "far"]


def drawn(items: int, share: float) -> Bool[ndarray, " items"]:
    """Return a mask that allows a share of the items, drawn at random."""
    return np.random.default_rng(2).random(items) < share


@dataclass(frozen=True)
class FilterCase:
    """Filter of a `kind` that allows a share of the items, which are near the query or far from it."""

    share: float
    kind: FilterKind
    place: Place

    @classmethod
    def every(cls) -> Iterator[Self]:
        """Yield all filters except the one that allows all items."""
        kinds: tuple[FilterKind, ...] = ("category", "range", "both")
        places: tuple[Place, ...] = ("near", "far")
        for share, kind, place in product(SHARES, kinds, places):
            yield cls(share, kind, place)


class FilteredItems:
    """Category and price of synthetic items; both depend on the vector, so that filters can be far from a query.

    The category is the subgroup of the item, and the price its component along one direction.
    """

    def __init__(self, embeddings: Embeddings, items: int) -> None:
        self._categories = np.concatenate([*embeddings.categories(items)])
        self._sizes = np.bincount(self._categories, minlength=len(embeddings.centres))
        self._centres = embeddings.centres
        self._direction = np.random.default_rng(3).standard_normal(embeddings.centres.shape[1], np.float32)
        prices = np.concatenate([chunk @ self._direction for chunk in embeddings.chunks(items)])
        self._by_price = np.argsort(prices)
        self._prices = prices[self._by_price]

    def mask(self, case: FilterCase, query: Float32[ndarray, " dim"]) -> Bool[ndarray, " items"]:
        """Return which items a filter allows. `both` allows a range of the items of some categories."""
        match case.kind:
            case "category":
                return self._in_categories(case.share, case.place, query)
            case "range":
                return self._in_range(case.share, case.place, query, np.arange(len(self._prices)))
            case "both":
                allowed = self._in_categories(case.share**0.5, case.place, query)
                kept = np.flatnonzero(allowed[self._by_price])
                return self._in_range(case.share, case.place, query, kept)

    def _in_categories(
        self, share: float, place: Place, query: Float32[ndarray, " dim"]
    ) -> Bool[ndarray, " items"]:
        """Allow the categories nearest to the query, or farthest from it, that fit into the share."""
        left = round(share * len(self._categories))
        enough = left // 50
        chosen = np.zeros(len(self._sizes), bool)
        nearness = self._centres @ query
        for category in np.argsort(-nearness if place == "near" else nearness).tolist():
            size = int(self._sizes[category])
            if size <= left:
                chosen[category] = True
                left -= size
                if left <= enough:
                    break
        allowed: ndarray = chosen[self._categories]
        return allowed

    def _in_range(
        self, share: float, place: Place, query: Float32[ndarray, " dim"], kept: Int64[ndarray, " kept"]
    ) -> Bool[ndarray, " items"]:
        """Allow a range of prices, at the query's price or at the end that is farther from it.

        `kept` are the ascending positions, among the items in the order of their price, of which the range allows some.
        """
        wanted = min(round(share * len(self._prices)), len(kept))
        at = int(np.searchsorted(self._prices[kept], query @ self._direction))
        far = 0 if at > len(kept) / 2 else len(kept)
        first = min(max((at if place == "near" else far) - wanted // 2, 0), len(kept) - wanted)
        allowed = np.zeros(len(self._prices), bool)
        allowed[self._by_price[kept[first : first + wanted]]] = True
        return allowed
