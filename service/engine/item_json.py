"""Items as JSON. The serialised bytes of an item are cached, because many answers contain the same items."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, cast

import orjson

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
"""Maximum number of items whose JSON is cached, at about 250 bytes each."""


class ItemJson:
    """Cache of the items of one generation as JSON. The cache is used only from the event loop."""

    def __init__(self, root_path: str = "") -> None:
        self._root_path = root_path
        self._generation: object = None
        # The cache stores bytes because the garbage collector would traverse cached `Fragment` objects on every run.
        self._summaries: dict[int, bytes] = {}

    def missing(self, snapshot: Snapshot, rows: Sequence[int]) -> list[int]:
        """Return those of `rows` whose default fields are not cached."""
        if snapshot.generation is not self._generation:
            self._generation, self._summaries = snapshot.generation, {}
        return [row for row in rows if row not in self._summaries]

    def cached(self, snapshot: Snapshot, rows: Sequence[int]) -> list[bytes] | None:
        """Return the default fields of the items at `rows` as JSON; None if they are not all cached."""
        if snapshot.generation is not self._generation:
            return None
        found = list(map(self._summaries.get, rows))
        return None if None in found else cast(list[bytes], found)

    def read(self, snapshot: Snapshot, rows: Sequence[int], fields: Sequence[str]) -> list[bytes]:
        """Read the given fields of the items at `rows` as JSON; not from the cache, so any thread may call it.

        Each item is serialised by itself, so that no thread holds the interpreter for long.
        """
        return [orjson.dumps(fields_of(item, fields, self._root_path)) for item in snapshot.at(rows)]

    def summaries(
        self, snapshot: Snapshot, rows: Sequence[int], found: Mapping[int, bytes] = MappingProxyType({})
    ) -> list[bytes]:
        """Return the default fields of the items at `rows` as JSON; those in `found` have just been read."""
        missing = self.missing(snapshot, rows)
        kept = self._summaries
        if missing:
            kept.update((row, found[row]) for row in missing if row in found)
            if rest := [row for row in missing if row not in found]:
                kept.update(zip(rest, self.read(snapshot, rest, SUMMARY), strict=True))
            if len(kept) > CACHED_ITEMS:
                for row in list(islice(kept, len(kept) - CACHED_ITEMS // 2)):
                    if row not in rows:
                        del kept[row]
        return [kept[row] for row in rows]


def fields_of(item: Item, fields: Sequence[str], root_path: str = "") -> dict[str, Any]:
    """Return the given fields of an item; the server is published below `root_path`."""
    return {
        field: image_url(item, root_path) if field == "image_url" else _FIELDS[field](item)
        for field in fields
    }


def asked_item(snapshot: Snapshot, item: str | NewItem, root_path: str) -> ItemSummary | NewItemEcho:
    """Return a requested item as the answer shows it.

    Raises:
        UnknownItemError: No item has this ID.
    """
    if isinstance(item, str):
        return ItemSummary.of(snapshot.get(item), root_path)
    return NewItemEcho(text=item.text, picture=item.picture is not None)


def asked_relation(snapshot: Snapshot, relation: str | RelationInWords) -> RelationSummary | RelationInWords:
    """Return a requested relation as the answer shows it.

    Raises:
        UnknownRelationError: No relation has this ID.
    """
    return known_relation(snapshot, relation) if isinstance(relation, str) else relation


def known_relation(snapshot: Snapshot, relation_id: str) -> RelationSummary:
    """Return the summary of a relation of the index.

    Raises:
        UnknownRelationError: No relation has this ID.
    """
    return RelationSummary.of(snapshot.relation(relation_id).relation)


def version(snapshot: Snapshot) -> str:
    """Return the version of a snapshot as answers show it: generation digest and sequence number of the last change."""
    return f"{snapshot.generation.digest[:12]}.{snapshot.overlay.sequence}"


_FIELDS: dict[str, Callable[[Item], Any]] = {
    "item_id": lambda item: item.item_id,
    "title": lambda item: item.title,
    "categories": lambda item: list(item.categories),
    "description": lambda item: item.description,
    "attributes": lambda item: dict(item.attributes),
}
