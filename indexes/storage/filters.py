"""Filter conditions on the attributes of items, with bounds that are fixed or relative to the query item."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64
from numpy import ndarray

from model.errors import MissingAttributeError
from model.records import Attribute

_COMPARISONS = (np.greater_equal, np.less_equal, np.greater, np.less)


@dataclass(frozen=True)
class OfQuery:
    """Bound relative to the query item: one of its attributes times `factor`."""

    name: str
    factor: float = 1.0

    def value(self, attributes: Mapping[str, Attribute]) -> float:
        """Return the bound for a query item with these attributes.

        Raises:
            MissingAttributeError: the item lacks the attribute, or its value is not a number.
        """
        found = attributes.get(self.name)
        if found is None or isinstance(found, str | bool):
            raise MissingAttributeError(self.name, found)
        return float(found) * self.factor


Bound = float | OfQuery
"""End of a range: a number, or a bound relative to the query item."""


@dataclass(frozen=True)
class Condition:
    """Filter condition on an attribute: a set of accepted values, a range of numbers, or both.

    The value must be in `any_of`, at least `least`, at most `most`, greater than `above` and less than `below`. A
    field that is None has no effect. An item without the attribute never meets a condition. A condition on categories
    is met if at least one category of the item meets it.
    """

    any_of: frozenset[Attribute] | None = None
    least: Bound | None = None
    most: Bound | None = None
    above: Bound | None = None
    below: Bound | None = None

    @property
    def ranged(self) -> bool:
        """Whether the condition has a bound, so that only numbers can meet it."""
        return any(bound is not None for bound in self._bounds)

    @property
    def relative(self) -> bool:
        """Whether a bound is relative to the query item."""
        return any(isinstance(bound, OfQuery) for bound in self._bounds)

    def resolved(self, attributes: Mapping[str, Attribute]) -> "Condition":
        """Replace relative bounds with numbers, for a query item with these attributes.

        Raises:
            MissingAttributeError: the item lacks an attribute that a bound refers to, or its value is not a number.
        """
        bounds = (one.value(attributes) if isinstance(one, OfQuery) else one for one in self._bounds)
        return Condition(self.any_of, *bounds)

    @property
    def _bounds(self) -> tuple[Bound | None, ...]:
        return (self.least, self.most, self.above, self.below)

    def mask(self, numbers: pl.Series | None, texts: pl.Series | None) -> Bool[ndarray, " count"]:
        """Return for each row whether its number or its text meets the condition. At least one column must be given."""
        met: list[ndarray] = []
        if texts is not None and not self.ranged:
            strings = [value for value in self.any_of or () if isinstance(value, str)]
            met.append((_there(texts) if self.any_of is None else _any(texts, strings)).to_numpy())
        if numbers is not None:
            met.append(self.holds(numbers.to_numpy()))
        count = len(numbers if numbers is not None else texts if texts is not None else ())
        return np.logical_or.reduce(met) if met else np.zeros(count, bool)

    def holds(self, numbers: Float64[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Return for each number whether it meets the condition. NaN, which marks a missing number, never does."""
        mask: ndarray = ~np.isnan(numbers)
        for bound, compare in zip(self._bounds, _COMPARISONS, strict=True):
            if bound is not None:
                assert not isinstance(bound, OfQuery), "relative bounds must be resolved first"
                mask &= compare(numbers, bound)
        if self.any_of is not None:
            mask &= np.isin(numbers, [float(value) for value in self.any_of if not isinstance(value, str)])
        return mask


def _there(texts: pl.Series) -> pl.Series:
    """Return for each row whether it has a text, or a list with at least one text."""
    return texts.is_not_null() if texts.dtype == pl.String else texts.list.len() > 0


def _any(texts: pl.Series, values: list[str]) -> pl.Series:
    """Return for each row whether its text, or at least one text in its list, is among `values`."""
    if texts.dtype == pl.String:
        return texts.is_in(values).fill_null(False)
    return texts.list.eval(pl.element().is_in(values)).list.any()
