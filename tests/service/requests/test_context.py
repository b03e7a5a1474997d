"""Tests that the content of a request is prepared without blocking the event loop."""

import asyncio
from typing import cast

import pytest

from model.errors import PictureError
from service.engine.engine import Engine
from service.lifecycle.app_state import Fetcher
from service.lifecycle.shadow_run import Shadow
from service.requests.context import RequestContext
from service.schemas.fields import NewItem
from service.telemetry.prometheus import Metrics


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
