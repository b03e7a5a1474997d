"""Items as JSON: the bytes of an item are made once and cached, since many answers repeat them."""

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

CACHED_ITEMS = 200_000
"""Items whose JSON is kept: some 250 bytes each."""


class ItemJson:
    """The items of one generation as JSON; used from the event loop alone."""

    def __init__(self) -> None:
        self._generation: object = None
        # Bytes, not fragments: those the garbage collector would look through, every time that it runs.
        self._summaries: dict[int, bytes] = {}

    def summaries(self, snapshot: Snapshot, rows: Sequence[int]) -> list[Fragment]:
        """Give the default fields of the items at `rows`."""
        if snapshot.generation is not self._generation:
            self._generation, self._summaries = snapshot.generation, {}
        kept = self._summaries
        if missing := [row for row in rows if row not in kept]:
            for row, item in zip(missing, snapshot.at(missing), strict=True):
                kept[row] = orjson.dumps(fields_of(item, SUMMARY))
            if len(kept) > CACHED_ITEMS:
                for row in list(islice(kept, len(kept) - CACHED_ITEMS // 2)):
                    if row not in rows:
                        del kept[row]
        return [Fragment(kept[row]) for row in rows]

    def items(self, snapshot: Snapshot, rows: Sequence[int], fields: Sequence[str]) -> Sequence[Any]:
        """Give these fields of the items at `rows`."""
        if tuple(fields) == SUMMARY:
            return self.summaries(snapshot, rows)
        return [fields_of(item, fields) for item in snapshot.at(rows)]


def fields_of(item: Item, fields: Sequence[str]) -> dict[str, Any]:
    """Give these fields of an item."""
    return {field: _FIELDS[field](item) for field in fields}


def asked_item(snapshot: Snapshot, item: str | NewItem) -> ItemSummary | NewItemEcho:
    """Give what an answer repeats of an item in the request.

    Raises:
        UnknownItemError: there is none of this id.
    """
    if isinstance(item, str):
        return ItemSummary.of(snapshot.get(item))
    return NewItemEcho(text=item.text, picture=item.picture is not None)


def asked_relation(snapshot: Snapshot, relation: str | RelationInWords) -> RelationSummary | RelationInWords:
    """Give what an answer repeats of a relation in the request.

    Raises:
        UnknownRelationError: there is none of this id.
    """
    return known_relation(snapshot, relation) if isinstance(relation, str) else relation


def known_relation(snapshot: Snapshot, relation_id: str) -> RelationSummary:
    """Give the summary of a relation of the index.

    Raises:
        UnknownRelationError: there is none of this id.
    """
    return RelationSummary.of(snapshot.relation(relation_id).relation)


def version(snapshot: Snapshot) -> str:
    """Name a snapshot, as answers do: digest of the generation, sequence of the last change."""
    return f"{snapshot.generation.digest[:12]}.{snapshot.overlay.sequence}"


_FIELDS: dict[str, Callable[[Item], Any]] = {
    "item_id": lambda item: item.item_id,
    "title": lambda item: item.title,
    "categories": lambda item: list(item.categories),
    "image_url": image_url,
    "description": lambda item: item.description,
    "attributes": lambda item: dict(item.attributes),
}
