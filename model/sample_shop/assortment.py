"""Assortment and shoppers of the sample shop: categories, kinds, styles, and the ten planted groups of shoppers.

This module defines the planted truth, which training never uses. Each item has three *facets*: its colour, its pattern
and its emblem. The values of a facet are grouped into *styles*, which do not follow visual similarity (navy goes with
red, purple with yellow).

Each group of shoppers buys in five of the fourteen categories and cares about only one facet. No two groups have the
same five categories. For cyclists, two items go together if their patterns belong to the same style, regardless of
their colours. A pair can therefore be judged only under a given relation. The same striped navy helmet with a moon has
one set of partners among cyclists and another among festival goers, who care about colour.
"""

from dataclasses import dataclass
from typing import Literal

Facet = Literal["colour", "pattern", "emblem"]

CATEGORIES: dict[str, tuple[str, ...]] = {
    "Feeding": ("baby bottle", "bib", "sippy cup"),
    "Nursery": ("teddy bear", "rattle", "bodysuit"),
    "Kitchen": ("mug", "teapot", "saucepan"),
    "Garden": ("plant pot", "watering can", "rubber boot"),
    "Cycling": ("cycling helmet", "jersey", "drinks flask"),
    "Camping": ("tent", "lantern", "sleeping bag"),
    "Travel": ("suitcase", "backpack", "umbrella"),
    "Office": ("notebook", "desk lamp", "pencil"),
    "Home": ("cushion", "vase", "candle"),
    "Sports": ("football", "kettlebell", "skateboard"),
    "Pets": ("pet bowl", "kennel", "collar"),
    "Toys": ("kite", "toy car", "spinning top"),
    "Music": ("guitar", "drum", "headphones"),
    "Beach": ("surfboard", "bucket", "flip-flop"),
}
"""Kinds of items in each category; every kind has a drawing in `drawings.py`."""

STYLES: dict[Facet, dict[str, tuple[str, ...]]] = {
    "colour": {
        "harbour": ("navy", "red"),
        "meadow": ("green", "pink"),
        "lagoon": ("teal", "orange"),
        "dusk": ("purple", "yellow"),
    },
    "pattern": {
        "tidy": ("plain", "checked"),
        "merry": ("striped", "dotted"),
        "flowing": ("zigzag", "wavy"),
    },
    "emblem": {
        "night": ("moon", "star"),
        "garden": ("leaf", "heart"),
        "fable": ("fish", "crown"),
    },
}
"""Values of each style, grouped by facet."""


@dataclass(frozen=True)
class Group:
    """Planted group of shoppers: its five categories (most-bought first) and the only facet its shoppers care about."""

    name: str
    categories: tuple[str, str, str, str, str]
    facet: Facet


GROUPS: tuple[Group, ...] = (
    Group("new parents", ("Feeding", "Nursery", "Kitchen", "Home", "Toys"), "colour"),
    Group("cyclists", ("Cycling", "Sports", "Travel", "Camping", "Music"), "pattern"),
    Group("balcony gardeners", ("Garden", "Home", "Kitchen", "Pets", "Office"), "emblem"),
    Group("campers", ("Camping", "Travel", "Kitchen", "Garden", "Music"), "colour"),
    Group("students", ("Office", "Music", "Kitchen", "Travel", "Home"), "emblem"),
    Group("dog owners", ("Pets", "Sports", "Garden", "Toys", "Cycling"), "pattern"),
    Group("beach families", ("Beach", "Toys", "Feeding", "Travel", "Sports"), "emblem"),
    Group("festival goers", ("Music", "Beach", "Camping", "Cycling", "Home"), "colour"),
    Group("grandparents", ("Toys", "Nursery", "Garden", "Pets", "Office"), "pattern"),
    Group("nest builders", ("Home", "Nursery", "Feeding", "Office", "Pets"), "colour"),
)

CATEGORY_SHARES = (0.34, 0.24, 0.16, 0.14, 0.12)
"""Shares of a group's purchases in its five categories."""


@dataclass(frozen=True)
class Good:
    """Item of the shop, described by its attributes."""

    item_id: str
    category: str
    kind: str
    colour: str
    pattern: str
    emblem: str

    def style(self, facet: Facet) -> str:
        """Return the style of the item's value of `facet`."""
        value: str = getattr(self, facet)
        return next(style for style, values in STYLES[facet].items() if value in values)
