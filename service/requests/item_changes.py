"""Changes to the catalogue as requests bring them, made ready for the index and applied to it.

An item is read as `rcml prepare` and `rcml index` would have read it (`item_input.py`): its words in the same
order, its picture scaled and coded anew, so that nothing of a stranger's file is ever kept, and its vectors made of
what is kept, so that an index that is built again is the same.
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
from service.errors import OverloadedError
from service.schemas.item_changes import ItemUpsert
from service.telemetry.prometheus import Stage

from .context import RequestContext

if TYPE_CHECKING:
    from PIL.Image import Image

P = ParamSpec("P")
T = TypeVar("T")

RETRY_INTERVAL_S = 0.1
"""Seconds after which a patient change asks again for its turn."""


@dataclass(frozen=True)
class ItemChanges:
    """Changes of one request. Patient ones wait for their turn where others are refused as one too many."""

    query: RequestContext
    patient: bool = False

    async def put(self, item_id: str, asked: ItemUpsert) -> Change:
        """The change that puts an item in, new or instead of the one of its id.

        Raises:
            NoWordsError: of what the text tower reads, the item has nothing.
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
                content, suffix, image = await self._turn(engine.run_in_thread, _kept, composition, sent)
            name = f"{PICTURES}/new{suffix}"  # the journal gives it one that no other has
        with query.stage(Stage.ENCODE):
            encoding = await self._turn(engine.encode, text, image)
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
        await self._turn(engine.run_in_thread, engine.index.apply, changes)

    async def _turn(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await work(*args, **kwargs)
            except OverloadedError:
                if not self.patient:
                    raise
            await asyncio.sleep(RETRY_INTERVAL_S)


def _kept(composition: ItemFormat, sent: bytes) -> "tuple[bytes, str, Image]":
    """A picture as it is kept, the suffix of its file, and what the network sees of that; in a thread."""
    content, suffix = composition.picture(sent)
    return content, suffix, decoded(content)
