"""Changes to the catalogue: requested items are encoded and applied to the index.

An item is processed exactly as `rcml prepare` and `rcml index` process it (`item_input.py`). Its texts are joined in
the same order. Its picture is scaled and re-encoded, so an uploaded file is never stored unmodified. Its vectors are
computed from the stored form, so a rebuilt index contains the same vectors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from indexes.journal.change import Change
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
"""Seconds to wait before a change is retried while the server is overloaded."""


@dataclass(frozen=True)
class ItemChanges:
    """Changes of one request. If `retries` is set, they wait instead of failing while the server is overloaded."""

    query: RequestContext
    retries: bool = False

    async def put(self, item_id: str, asked: ItemUpsert) -> Change:
        """Return the change that creates or replaces an item.

        Raises:
            NoWordsError: The item has no text in the fields that the text tower reads.
            PictureError: The picture cannot be decoded.
            FetchError: The picture cannot be fetched.
            OverloadedError: The queue of the server is too long.
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
            name = f"{PICTURES}/new{suffix}"  # the journal replaces it with a unique name
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

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes atomically: make them durable and visible, either all or none of them.

        Return for each change whether its item existed before.

        Raises:
            StorageError: The disk is full or failing, and nothing was changed.
            OverloadedError: The queue of the server is too long.
        """
        engine = self.query.engine
        return await self._in_turn(engine.run_in_thread, engine.changes.apply, changes)

    async def _in_turn(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await work(*args, **kwargs)
            except OverloadedError:
                if not self.retries:
                    raise
            await asyncio.sleep(RETRY_INTERVAL_S)


def _stored_form(composition: ItemFormat, sent: bytes) -> "tuple[bytes, str, Image]":
    """Convert a picture to the stored form. Return its bytes, its file suffix and the decoded image.

    Must be called in a thread, because it blocks.
    """
    content, suffix = composition.picture(sent)
    return content, suffix, decoded(content)
