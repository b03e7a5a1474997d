"""The nouns that every stage shares: item, relation, edge and split.

Plain frozen values without behaviour of their own, free of torch and polars, used by all three packages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Split(StrEnum):
    """The part of the catalogue that an item belongs to; every pair lies within one part."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


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
