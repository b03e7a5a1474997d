"""Tests that the content of a request is prepared without blocking the event loop."""

import asyncio
from threading import current_thread, main_thread
from typing import cast

import pytest

from model.errors import PictureError
from service.engine.engine import Engine
from service.lifecycle.app_state import Fetcher
from service.lifecycle.shadow_run import Shadow
from service.requests.context import CONCURRENT_PARTS, RequestContext
from service.schemas.fields import NewItem, Picture
from service.telemetry.prometheus import Metrics


class Watched(Picture):
    """A picture that fails if its base64 is decoded on the main thread."""

    @property
    def content(self) -> bytes | None:
        assert current_thread() is not main_thread(), "the picture is decoded on the event loop"
        return super().content


class Picky:
    """An engine that rejects one text and counts the texts that it starts to encode."""

    def __init__(self) -> None:
        self.begun = 0

    async def encode(self, text: str, picture: None) -> str:
        self.begun += 1
        await asyncio.sleep(0.001)
        if text == "bad":
            raise PictureError("It is bad.")
        return text


def test_decodes_base64_pictures_outside_the_event_loop() -> None:
    unused = object()
    query = RequestContext(cast(Engine, unused), cast(Fetcher, unused), Metrics(), cast(Shadow, unused))
    assert asyncio.run(query.content(Watched(base64="bXVn"))) == b"mug"


def test_stops_encoding_items_after_one_is_rejected() -> None:
    engine, unused = Picky(), object()
    query = RequestContext(cast(Engine, engine), cast(Fetcher, unused), Metrics(), cast(Shadow, unused))

    async def asked() -> None:
        with pytest.raises(PictureError):
            await query.items([NewItem(text=text) for text in ["bad", *"abcdefghijklmnopqrstuvwxyz"]])
        await asyncio.sleep(0.1)

    asyncio.run(asked())
    assert engine.begun <= 2 * CONCURRENT_PARTS
