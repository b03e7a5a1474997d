"""Which items a search may find, and how the results are diversified: a value that knows no search."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import CATEGORIES
from indexes.storage.filters import Condition
from model.errors import UnknownAttributeError
from model.records import Attribute, Item


@dataclass(frozen=True)
class Selection:
    """A filter of the items that a search may find, with options of diversification.

    `include` lists the only items wanted (None: all), `exclude` those that are not, whatever `include` says; an id
    that no item has filters nothing, and is no error. `where` has conditions on attributes, or on `categories`, all
    of which must be met. Of items that are equal in the attribute `group_by` (variants of one) only the nearest is
    found, and none that is a variant of the query item. `diversity` in [0, 1) trades nearness to the query for
    unlikeness of the results: 0 orders by score alone. `indexes/search/diversity.py` applies the last two.
    """

    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    where: Mapping[str, Condition] = field(default_factory=dict)
    group_by: str | None = None
    diversity: float = 0.0

    @property
    def relative(self) -> bool:
        """Whether a condition refers to the query item."""
        return any(condition.relative for condition in self.where.values())

    @property
    def plain(self) -> bool:
        """Whether all items are wanted, by score alone, but for those excluded."""
        return self.include is None and not self.where and self.group_by is None and self.diversity == 0

    def resolved(self, attributes: Mapping[str, Attribute]) -> "Selection":
        """Replace what refers to the query item by numbers, for a query item of these attributes.

        Raises:
            MissingAttributeError: one of them is not there, or no number.
        """
        return replace(self, where={name: one.resolved(attributes) for name, one in self.where.items()})

    def check_attributes(self, snapshot: Snapshot) -> None:
        """Check that some item has each of the attributes that are named.

        Raises:
            UnknownAttributeError: no item has it.
        """
        named = {*self.where, *([] if self.group_by is None else [self.group_by])} - {CATEGORIES}
        if named - snapshot.generation.attributes.names:
            known = snapshot.attributes
            if unknown := sorted(named - known):
                raise UnknownAttributeError(unknown[0], (CATEGORIES, *sorted(known)))

    def allowed(self, snapshot: Snapshot) -> Bool[ndarray, " end"] | None:
        """Tell by row whether the item is included and meets the conditions; None if all items do."""
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

    def excluded_rows(self, snapshot: Snapshot, besides: Collection[int] = ()) -> frozenset[int]:
        """List the rows of the items excluded, and those `besides`."""
        return frozenset([*_rows(snapshot, self.exclude), *besides])

    def group_of(self, item: Item) -> Hashable:
        """Give the value of `group_by` for an item, which is equal for variants of one; None if it has no value."""
        assert self.group_by is not None
        return item.categories if self.group_by == CATEGORIES else item.attributes.get(self.group_by)


EVERYTHING = Selection()
"""All items, by score alone."""


def _rows(snapshot: Snapshot, item_ids: frozenset[str]) -> list[int]:
    return [row for row in map(snapshot.find, item_ids) if row is not None]
