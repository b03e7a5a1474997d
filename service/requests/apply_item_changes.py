"""Changes to the catalogue: items of requests are encoded, and applied to the index.

An item is read as `rcml prepare` and `rcml index` would have read it (`item_input.py`): its texts in the same
order, its picture scaled and encoded again, so that no uploaded file is ever stored as it is, and its vectors made
from what is stored, so that an index that is built again is the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from indexes.journal.journal import Change
from model.artifact import PICTURES
from model.data.item_input import ItemFormat, decoded
from model.errors import NoWordsError
from model.records import Item
from model.similarity import View
from service.problems.errors import OverloadedError
from service.schemas.item_changes import ItemUpsert
from service.telemetry.prometheus import Stage

from .context import RequestContext

if TYPE_CHECKING:
    from PIL.Image import Image

P = ParamSpec("P")
T = TypeVar("T")

RETRY_INTERVAL_S = 0.1
"""Seconds after which a change that the server had no time for is tried again."""


@dataclass(frozen=True)
class ItemChanges:
    """The changes of one request; if `retries`, they wait for their turn when the server is overloaded."""

    query: RequestContext
    retries: bool = False

    async def put(self, item_id: str, asked: ItemUpsert) -> Change:
        """Make the change that puts an item in, new or instead of the one of its id.

        Raises:
            NoWordsError: the item has no text for the text tower to read.
            PictureError, FetchError: its picture cannot be used, or not be had.
            OverloadedError: too much waits already.
        """
        query, engine = self.query, self.query.engine
        composition = engine.index.snapshot.generation.composition
        categories = tuple(name for one in asked.categories if (name := one.strip()))
        text = composition.text(asked.title, categories, asked.description)
        if not text:
            raise NoWordsError(item_id, composition.text_fields)
        content, name, image = b"", "", None
        if asked.picture is not None:
            sent = await query.content(asked.picture)
            with query.stage(Stage.DECODE):
                content, suffix, image = await self._in_turn(
                    engine.run_in_thread, _stored_form, composition, sent
                )
            name = f"{PICTURES}/new{suffix}"  # the journal gives it one that no other has
        with query.stage(Stage.ENCODE):
            encoding = await self._in_turn(engine.encode, text, image)
        vectors = np.stack([encoding.view(view)[0] for view in View]).astype(np.float16)
        item = Item(
            item_id,
            asked.title.strip(),
            asked.description.strip(),
            categories,
            text,
            name,
            dict(asked.attributes),
        )
        return Change.put(item, vectors, content, encoding.tokens)

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none, and visible.

        Raises:
            StorageError: the disk is full or failing; nothing was changed.
            OverloadedError: too much waits already.
        """
        engine = self.query.engine
        await self._in_turn(engine.run_in_thread, engine.index.apply, changes)

    async def _in_turn(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await work(*args, **kwargs)
            except OverloadedError:
                if not self.retries:
                    raise
            await asyncio.sleep(RETRY_INTERVAL_S)


def _stored_form(composition: ItemFormat, sent: bytes) -> "tuple[bytes, str, Image]":
    """Encode a picture as it is stored; return that, the suffix of its file, and its pixels; to be run in a thread."""
    content, suffix = composition.picture(sent)
    return content, suffix, decoded(content)
