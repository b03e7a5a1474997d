"""Conditions on the attributes of items, fixed or relative to those of the query."""

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
    """A number that is an attribute of the query item, times `factor`."""

    name: str
    factor: float = 1.0

    def value(self, attributes: Mapping[str, Attribute]) -> float:
        """Calculate the number for an item of these attributes.

        Raises:
            MissingAttributeError: it has none of this name, or it is no number.
        """
        found = attributes.get(self.name)
        if found is None or isinstance(found, str | bool):
            raise MissingAttributeError(self.name, found)
        return float(found) * self.factor


Bound = float | OfQuery
"""End of a range: a number, or an attribute of the query item."""


@dataclass(frozen=True)
class Condition:
    """A condition on an attribute: one of `any_of`, and a number from `least` to `most`, both included, and above
    `above`, below `below`, which are not.

    What is None asks for nothing. An item without the attribute never meets a condition; of the categories of an
    item, one must.
    """

    any_of: frozenset[Attribute] | None = None
    least: Bound | None = None
    most: Bound | None = None
    above: Bound | None = None
    below: Bound | None = None

    @property
    def ranged(self) -> bool:
        """Whether only numbers will do."""
        return any(bound is not None for bound in self._bounds)

    @property
    def relative(self) -> bool:
        """Whether a bound is an attribute of the query item."""
        return any(isinstance(bound, OfQuery) for bound in self._bounds)

    def resolved(self, attributes: Mapping[str, Attribute]) -> "Condition":
        """Replace the bounds by numbers, for a query item of these attributes.

        Raises:
            MissingAttributeError: one of them is not there, or no number.
        """
        bounds = (one.value(attributes) if isinstance(one, OfQuery) else one for one in self._bounds)
        return Condition(self.any_of, *bounds)

    @property
    def _bounds(self) -> tuple[Bound | None, ...]:
        return (self.least, self.most, self.above, self.below)

    def mask(self, numbers: pl.Series | None, texts: pl.Series | None) -> Bool[ndarray, " count"]:
        """Tell by row whether a number or a text meets the condition; at least one of the columns is given."""
        met: list[ndarray] = []
        if texts is not None and not self.ranged:
            strings = [value for value in self.any_of or () if isinstance(value, str)]
            met.append((_there(texts) if self.any_of is None else _any(texts, strings)).to_numpy())
        if numbers is not None:
            met.append(self.holds(numbers.to_numpy()))
        count = len(numbers if numbers is not None else texts if texts is not None else ())
        return np.logical_or.reduce(met) if met else np.zeros(count, bool)

    def holds(self, numbers: Float64[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Tell which numbers meet the condition; NaN, which stands for no number, does not."""
        mask: ndarray = ~np.isnan(numbers)
        for bound, compare in zip(self._bounds, _COMPARISONS, strict=True):
            if bound is not None:
                assert not isinstance(bound, OfQuery), "it was resolved for an item"
                mask &= compare(numbers, bound)
        if self.any_of is not None:
            mask &= np.isin(numbers, [float(value) for value in self.any_of if not isinstance(value, str)])
        return mask


def _there(texts: pl.Series) -> pl.Series:
    """Tell whether there is a text, or at least one in a list of texts."""
    return texts.is_not_null() if texts.dtype == pl.String else texts.list.len() > 0


def _any(texts: pl.Series, values: list[str]) -> pl.Series:
    """Tell whether a text, or one of a list of texts, is among some values."""
    if texts.dtype == pl.String:
        return texts.is_in(values).fill_null(False)
    return texts.list.eval(pl.element().is_in(values)).list.any()
