"""Tests that the content of a request is prepared without blocking the event loop."""

import asyncio
from threading import current_thread, main_thread
from typing import cast

import pytest

from model.errors import PictureError
from service.engine.engine import Engine
from service.lifecycle.app_state import Fetcher
from service.lifecycle.shadow_run import Shadow
from service.requests.context import RequestContext
from service.schemas.fields import NewItem, Picture
from service.telemetry.prometheus import Metrics


class Watched(Picture):
    """A picture that fails if its base64 is decoded on the main thread."""

    @property
    def content(self) -> bytes | None:
        assert current_thread() is not main_thread(), "the picture is decoded on the event loop"
        return super().content


class Queue:
    """Queue of a network that encodes four items together."""

    batch_size = 4


class Picky:
    """An engine that rejects one text, counts the texts that it starts to encode, and how many of them at once."""

    network = Queue()

    def __init__(self) -> None:
        self.begun = self.running = self.most = 0

    async def encode(self, text: str, picture: None) -> str:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
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
    assert engine.begun <= 2 * Queue.batch_size


def test_queues_one_batch_of_a_request_at_a_time() -> None:
    engine, unused = Picky(), object()
    query = RequestContext(cast(Engine, engine), cast(Fetcher, unused), Metrics(), cast(Shadow, unused))
    asked = [NewItem(text=text) for text in "abcdefghij"]
    assert asyncio.run(query.items([*asked, "i7"])) == [*"abcdefghij", "i7"]
    assert engine.most == Queue.batch_size
