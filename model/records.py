"""The nouns that every stage shares: item, relation, edge, split, view and similarity.

Plain frozen values without behaviour of their own, free of torch and polars, used by all three packages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Split(StrEnum):
    """Which part of the catalogue an item belongs to; every pair lies within one part."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class View(StrEnum):
    """Which vector of an item: of its text, of its picture, or the renormalised mean of the two."""

    TEXT = "text"
    IMAGE = "image"
    AVERAGE = "average"


class Similarity(StrEnum):
    """How a query is compared with a target: the paper's five (section 4.3.1)."""

    TT = "TT"
    II = "II"
    TI = "TI"
    IT = "IT"
    AVG = "AVG"

    @property
    def views(self) -> tuple[View, View]:
        """The (query, target) views whose cosine this similarity is."""
        return _VIEWS[self]


_VIEWS = {
    Similarity.TT: (View.TEXT, View.TEXT),
    Similarity.II: (View.IMAGE, View.IMAGE),
    Similarity.TI: (View.TEXT, View.IMAGE),
    Similarity.IT: (View.IMAGE, View.TEXT),
    Similarity.AVG: (View.AVERAGE, View.AVERAGE),
}


Attribute = str | int | float | bool
"""A value stored with an item, such as its price; true is 1, and a number is never equal to a text."""


@dataclass(frozen=True, slots=True)
class Item:
    """A thing of the catalogue.

    `text` is what the text tower reads; `picture` is a path relative to the artifact's folder, or empty for an item
    of words alone; `attributes` are what a shop stores beside, by name, and no network sees.
    """

    item_id: str
    title: str
    description: str
    categories: tuple[str, ...]
    text: str
    picture: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Relation:
    """A natural-language relation between items.

    `intra` marks the one relation of an item with itself (section 3.2): only there does the summary
    token receive its bonus in eq. 5. `domain` names the shop or the trade that it was learnt in, for people; it
    may be empty, and no network sees it.
    """

    relation_id: str
    description: str
    intra: bool = False
    domain: str = ""


INTRA_RELATION = Relation(
    relation_id="same-item",
    description="These two items represent the same product. Align their features accordingly.",
    intra=True,
)


@dataclass(frozen=True, slots=True)
class Edge:
    """An undirected relation between two different items, `item_a < item_b`.

    `support` counts the users of the cluster who had both; `npmi` in [-1, 1] says how far that is above
    what their popularity alone would give.
    """

    item_a: str
    item_b: str
    relation_id: str
    support: int
    npmi: float
    split: Split
