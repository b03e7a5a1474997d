"""Options of a search: which items it may return, and how its results are diversified."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import CATEGORIES
from indexes.storage.filters import Condition
from model.errors import AttributeTypeError, UnknownAttributeError
from model.records import Attribute, Item


@dataclass(frozen=True)
class Selection:
    """A filter on the items that a search may return, with diversification options.

    `include` contains the IDs of the only items allowed (None: all items). `exclude` contains the IDs of items to leave
    out and takes precedence over `include`. IDs that no item has are ignored. `where` maps attribute names, or
    `categories`, to conditions, all of which an item must meet.

    Items with equal values of the attribute `group_by` are variants of each other. Only the nearest variant is
    returned, and no variant of the query item. `diversity` in [0, 1) trades similarity to the query for differences
    between the results; 0 orders by score only. `indexes/search/diversity.py` applies `group_by` and `diversity`.
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
    def filters(self) -> bool:
        """Whether only some items are allowed, apart from the excluded ones."""
        return self.include is not None or bool(self.where)

    @property
    def plain(self) -> bool:
        """Whether all items except the excluded ones are allowed and ordered by score only."""
        return not self.filters and self.group_by is None and self.diversity == 0

    def resolved(self, attributes: Mapping[str, Attribute]) -> "Selection":
        """Replace references to the query item by numbers, given the attributes of the query item.

        Raises:
            MissingAttributeError: the query item lacks the attribute, or its value is not a number.
        """
        return replace(self, where={name: one.resolved(attributes) for name, one in self.where.items()})

    def check_attributes(self, snapshot: Snapshot) -> None:
        """Check that each attribute named in the selection exists on at least one item, with a type that can match.

        Raises:
            UnknownAttributeError: no item has the attribute.
            AttributeTypeError: a condition asks for numbers of an attribute that has only texts, or the reverse.
        """
        named = {*self.where, *([] if self.group_by is None else [self.group_by])} - {CATEGORIES}
        if not named and not self.where:
            return
        numbers, texts = snapshot.numbers, snapshot.texts | {CATEGORIES}
        if unknown := sorted(named - numbers - texts):
            raise UnknownAttributeError(unknown[0], (CATEGORIES, *sorted((numbers | texts) - {CATEGORIES})))
        for name, condition in self.where.items():
            if name not in numbers and condition.takes == "numbers":
                raise AttributeTypeError(name, "texts", condition.ranged)
            if name not in texts and condition.takes == "texts":
                raise AttributeTypeError(name, "numbers")

    def allowed(self, snapshot: Snapshot) -> Bool[ndarray, " end"] | None:
        """Return a mask over the rows: true if the item is included and meets all conditions. None if all items do."""
        if not self.filters:
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
        """Return the rows of the excluded items, and the rows in `besides`."""
        return frozenset([*_rows(snapshot, self.exclude), *besides])

    def group_of(self, item: Item) -> Hashable:
        """Return the value of `group_by` for an item, or None if it has no value; variants have equal values."""
        assert self.group_by is not None
        return item.categories if self.group_by == CATEGORIES else item.attributes.get(self.group_by)


EVERYTHING = Selection()
"""Selection of all items, ordered by score only."""


def _rows(snapshot: Snapshot, item_ids: frozenset[str]) -> list[int]:
    return [row for row in map(snapshot.find, item_ids) if row is not None]
