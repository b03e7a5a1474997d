"""Filter conditions on the attributes of items, with bounds that are fixed or relative to the query item."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num
from numpy import ndarray

from model.errors import MissingAttributeError
from model.records import Attribute

_COMPARISONS = (np.greater_equal, np.less_equal, np.greater, np.less)


@dataclass(frozen=True)
class OfQuery:
    """Bound relative to the query item: one of its attributes times `factor`."""

    name: str
    factor: float = 1.0

    def value(self, attributes: Mapping[str, Attribute]) -> float | int:
        """Return the bound for a query item with these attributes.

        Raises:
            MissingAttributeError: the item lacks the attribute, or its value is not a number.
        """
        found = attributes.get(self.name)
        if found is None or isinstance(found, str | bool):
            raise MissingAttributeError(self.name, found)
        return found if self.factor == 1 else float(found) * self.factor


Bound = int | float | OfQuery
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
    def takes(self) -> Literal["numbers", "texts", "both"]:
        """Type of the values that can meet the condition; true and false count as numbers."""
        if self.ranged:
            return "numbers"
        texts = {isinstance(value, str) for value in self.any_of or ()}
        return "both" if len(texts) != 1 else "texts" if texts == {True} else "numbers"

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

    def spans(self, values: Num[ndarray, " n"]) -> list[slice]:
        """Return the parts of ascending `values` that meet the condition; see `holds` and `holds_exactly`.

        The values are doubles, or whole numbers that a double cannot hold.
        """
        whole = values.dtype.kind == "i"
        start, stop = 0, len(values)
        rounding: Sequence[Callable[[float], float]] = _INTEGERS if whole else _DOUBLES
        for bound, find, first, rounded in zip(
            self._bounds, _SEARCHES, (True, False, True, False), rounding, strict=True
        ):
            if bound is None:
                continue
            assert not isinstance(bound, OfQuery), "relative bounds must be resolved first"
            if math.isnan(bound):
                return []
            infinite = isinstance(bound, float) and math.isinf(bound)
            place = find(values, bound if infinite else rounded(bound))
            start, stop = (max(start, place), stop) if first else (start, min(stop, place))
        if self.any_of is None:
            return [slice(start, stop)]
        wanted = {
            value if whole else float(value)
            for value in self.any_of
            if not isinstance(value, str) and is_double(value) is not whole
        }
        return [
            slice(max(start, bisect_left(values, one)), min(stop, bisect_right(values, one)))
            for one in wanted
        ]

    def holds(self, numbers: Float64[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Return for each number whether it meets the condition. NaN, which marks a missing number, never does."""
        mask: ndarray = ~np.isnan(numbers)
        for bound, compare, rounded in zip(self._bounds, _COMPARISONS, _DOUBLES, strict=True):
            if bound is not None:
                assert not isinstance(bound, OfQuery), "relative bounds must be resolved first"
                mask &= compare(numbers, rounded(bound))
        if self.any_of is not None:
            wanted = [
                float(value) for value in self.any_of if not isinstance(value, str) and is_double(value)
            ]
            mask &= np.isin(numbers, wanted)
        return mask

    def holds_exactly(self, integers: Int64[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Return for each whole number whether it meets the condition, without rounding it."""
        mask: ndarray = np.ones(len(integers), bool)
        for bound, compare, rounded in zip(self._bounds, _COMPARISONS, _INTEGERS, strict=True):
            if bound is not None:
                assert not isinstance(bound, OfQuery), "relative bounds must be resolved first"
                if isinstance(bound, float) and math.isinf(bound):
                    mask &= bool(compare(0.0, bound))
                else:
                    mask &= compare(integers, rounded(bound))  # NumPy compares any whole number exactly
        if self.any_of is not None:
            wanted = [value for value in self.any_of if isinstance(value, int) and not is_double(value)]
            mask &= np.isin(integers, np.array(wanted, np.int64))
        return mask


def is_double(value: float | int) -> bool:
    """Return whether a double holds the number exactly."""
    return isinstance(value, float) or float(value) == value


def _at_least(bound: float | int) -> float:
    """Return the smallest double that is not below `bound`."""
    double = float(bound)
    return double if double >= bound else math.nextafter(double, math.inf)


def _at_most(bound: float | int) -> float:
    """Return the largest double that is not above `bound`."""
    double = float(bound)
    return double if double <= bound else math.nextafter(double, -math.inf)


_DOUBLES = (_at_least, _at_most, _at_most, _at_least)
"""Rounding of each bound to a double with which doubles compare as with the bound."""

_SEARCHES: tuple[Callable[[Any, float], int], ...] = (bisect_left, bisect_right, bisect_right, bisect_left)
"""Search for the place of each bound among ascending values: before or after the values equal to the bound."""

_INTEGERS = (math.ceil, math.floor, math.floor, math.ceil)
"""Rounding of each bound to a whole number with which whole numbers compare as with the bound."""
