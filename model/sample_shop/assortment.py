"""Assortment of the sample shop and its shoppers: categories, kinds, styles, and the ten planted groups of shoppers.

The planted truth, which training never sees, is this. Each item has three *facets*: its colour, its pattern
and its emblem. Values of a facet fall into *styles* that cut across looks (navy goes with red, purple with
yellow). A group shops in five of fourteen categories, which no other group combines, and cares for one facet
only: two things go together for cyclists if their patterns are of one style, whatever their colours. So a
pair has to be judged by the relation asked about. The same striped navy helmet with a moon has one set of
partners among cyclists and another among festival goers, who go by colour.
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
"""Category -> its kinds of things; every kind has a drawing in `drawings.py`."""

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
"""Facet -> style -> the values of the facet that belong to it."""


@dataclass(frozen=True)
class Group:
    """A planted group: where its shoppers buy, most-bought category first, and which facet they go by."""

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
"""How a group's purchases fall on its five categories."""


@dataclass(frozen=True)
class Good:
    """One item of the shop, by its attributes."""

    item_id: str
    category: str
    kind: str
    colour: str
    pattern: str
    emblem: str

    def style(self, facet: Facet) -> str:
        """Return the style that the item's value of `facet` belongs to."""
        value: str = getattr(self, facet)
        return next(style for style, values in STYLES[facet].items() if value in values)
