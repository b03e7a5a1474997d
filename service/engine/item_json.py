"""Answers as bytes: what is told of an item is written once and kept, since every answer tells it again."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import orjson
from orjson import Fragment

from indexes.live.snapshot import Snapshot
from model.records import Item
from service.schemas.fields import (
    ItemSummary,
    NewItem,
    NewItemEcho,
    RelationInWords,
    RelationSummary,
    image_url,
)
from service.schemas.retrieve import SUMMARY

KEPT = 200_000
"""Items that are kept as they are told: some 250 bytes each."""


class ItemJson:
    """The items of one generation as JSON; used from the event loop alone."""

    def __init__(self) -> None:
        self._generation: object = None
        # Bytes, not fragments: those the garbage collector would look through, every time that it runs.
        self._summaries: dict[int, bytes] = {}

    def summaries(self, snapshot: Snapshot, rows: Sequence[int]) -> list[Fragment]:
        """What answers tell of the items at `rows`, unless asked for other fields."""
        if snapshot.generation is not self._generation:
            self._generation, self._summaries = snapshot.generation, {}
        kept = self._summaries
        if missing := [row for row in rows if row not in kept]:
            for row, item in zip(missing, snapshot.at(missing), strict=True):
                kept[row] = orjson.dumps(told(item, SUMMARY))
            if len(kept) > KEPT:
                for row in list(islice(kept, len(kept) - KEPT // 2)):
                    if row not in rows:
                        del kept[row]
        return [Fragment(kept[row]) for row in rows]

    def items(self, snapshot: Snapshot, rows: Sequence[int], fields: Sequence[str]) -> Sequence[Any]:
        """What is told of the items at `rows` when it is these fields."""
        if tuple(fields) == SUMMARY:
            return self.summaries(snapshot, rows)
        return [told(item, fields) for item in snapshot.at(rows)]


def told(item: Item, fields: Sequence[str]) -> dict[str, Any]:
    """These fields of an item."""
    return {field: _TELLING[field](item) for field in fields}


def asked_item(snapshot: Snapshot, item: str | NewItem) -> ItemSummary | NewItemEcho:
    """What an answer repeats of an item that was asked about.

    Raises:
        UnknownItemError: there is none of this id.
    """
    if isinstance(item, str):
        return ItemSummary.of(snapshot.get(item))
    return NewItemEcho(text=item.text, picture=item.picture is not None)


def asked_relation(snapshot: Snapshot, relation: str | RelationInWords) -> RelationSummary | RelationInWords:
    """What an answer repeats of a relation that was asked about.

    Raises:
        UnknownRelationError: there is none of this id.
    """
    return known_relation(snapshot, relation) if isinstance(relation, str) else relation


def known_relation(snapshot: Snapshot, relation_id: str) -> RelationSummary:
    """What answers tell of a relation of the index.

    Raises:
        UnknownRelationError: there is none of this id.
    """
    return RelationSummary.of(snapshot.generation.relations[snapshot.position(relation_id)].relation)


def version(snapshot: Snapshot) -> str:
    """What answers call a snapshot."""
    return f"{snapshot.generation.digest[:12]}.{snapshot.overlay.sequence}"


_TELLING: dict[str, Callable[[Item], Any]] = {
    "item_id": lambda item: item.item_id,
    "title": lambda item: item.title,
    "categories": lambda item: list(item.categories),
    "image_url": image_url,
    "description": lambda item: item.description,
    "attributes": lambda item: dict(item.attributes),
}
