"""Data types that all stages share: item, relation, edge and split.

They are plain frozen values, used by all three packages. This module imports neither torch nor polars.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Split(StrEnum):
    """Part of the catalogue that an item belongs to; both items of a pair in training belong to the same part."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


FIELD_END = ".\n"
"""Characters between two fields of an item's text."""

Attribute = str | int | float | bool
"""Value stored with an item, such as its price. True equals 1, and a number never equals a string."""


@dataclass(frozen=True, slots=True)
class Item:
    """Item of the catalogue.

    `text` is the input of the text tower; its fields are separated by `FIELD_END`. `picture` is a path relative to the
    artifact's folder, or empty for a text-only item. `attributes` contains further values by name, which the network
    does not see.
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
    """Natural-language relation between items.

    `intra` marks the intra-sample relation, which relates an item to itself (section 3.2). The summary token receives
    its bonus in eq. 5 only under this relation. `domain` is the name of the shop or trade in which the relation was
    learnt, and `name` a short name for people, such as "Office, then Music". Both are shown to users but not to the
    network, and may be empty.
    """

    relation_id: str
    description: str
    intra: bool = False
    domain: str = ""
    name: str = ""

    @property
    def display_name(self) -> str:
        """Name for people: `name`, or a name made from the ID if a relation has none."""
        if self.name:
            return self.name
        if self.intra:
            return "Look-alikes"
        words = re.sub(r"[-_\s]+", " ", self.relation_id).strip()
        return words[:1].upper() + words[1:] or self.relation_id


INTRA_RELATION = Relation(
    relation_id="same-item",
    description="These two items represent the same product. Align their features accordingly.",
    intra=True,
)


@dataclass(frozen=True, slots=True)
class Edge:
    """Undirected edge between two different items under a relation, with `item_a < item_b`.

    `support` is the number of users in the relation's cluster who have both items. `npmi` in [-1, 1] compares this
    number with the number expected from the popularity of each item; 0 means that they are equal. `split` is the split
    of both items, or of the held-out item if the other is a training item.
    """

    item_a: str
    item_b: str
    relation_id: str
    support: int
    npmi: float
    split: Split
