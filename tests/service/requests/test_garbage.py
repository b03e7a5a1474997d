"""Garbage: requests leave no cycles of references, so the garbage collector of the server need not look often."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.embeddings.encoding import Encoding
from model.errors import PictureError
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.service.campaigns import application, directly
from tests.service.costliest import Ask
from tests.service.test_costs import LONG_BODIES, REQUESTS

ADMIN = {("POST", "/admin/reload"), ("POST", "/admin/shadow")}
"""Routes that open an index, which may leave a few cycles."""

LEGAL = {" ".join(route): (route[0], ask) for route, ask in REQUESTS.items() if route not in ADMIN} | dict(
    LONG_BODIES
)
BROKEN = {"picture": {"base64": "iVBORw0KGgo="}}
WRONG = {
    "unknown path": ("GET", Ask("/nothing")),
    "wrong method": ("PATCH", Ask("/relations")),
    "unknown item": ("POST", Ask("/retrieve", b'{"item_id": "none", "relation": "none"}')),
    "broken picture": ("POST", Ask("/retrieve", json.dumps(BROKEN).encode())),
    "picture at a private address": (
        "POST",
        Ask("/retrieve", b'{"picture": {"url": "http://127.0.0.1:1/a.png"}}'),
    ),
    "broken pictures": ("POST", Ask("/retrieve/batch", json.dumps({"questions": [BROKEN] * 3}).encode())),
    "broken item": ("PUT", Ask("/items/new", json.dumps({"title": "new", **BROKEN}).encode())),
    "error of the network": ("POST", Ask("/retrieve", b'{"text": "unreadable"}')),
    "unknown items": ("POST", Ask("/relation-type", b'{"item_a": "none", "item_b": "other"}')),
    "no JSON": ("POST", Ask("/retrieve", b"{")),
    **{
        f"wrong type {method} {path}": (method, Ask(path, b'{"item_id": [3], "questions": [3, 4]}'))
        for method, path in REQUESTS
        if method != "GET" and "{" not in path and (method, path) not in ADMIN
    },
}
REPETITIONS = 5


class Encoder(FakeEncoder):
    """An encoder that cannot read one text."""

    def read_items(self, texts: Sequence[str], *others: Any) -> Callable[[], Encoding]:
        if "unreadable" in texts:
            raise PictureError("The encoder cannot read this.")
        return super().read_items(texts, *others)


async def _cycles(shop: FakeShop, folder: Path) -> dict[str, int]:
    """Return how many objects in cycles `REPETITIONS` equal requests leave, by name of the request.

    The first requests may leave some, because they fill caches.
    """
    left = {}
    async with directly(application(shop, folder, encoder=Encoder())) as direct:
        for name, (method, ask) in (LEGAL | WRONG).items():
            for count in (2, REPETITIONS):
                gc.collect()
                for _ in range(count):
                    await direct.ask(method, ask.path.partition("?")[0], ask.body, ask.media_type)
            left[name] = gc.collect()
    return left


def test_requests_leave_no_cycles(shop: FakeShop, tmp_path: Path) -> None:
    gc.disable()
    gc.freeze()
    try:
        left = asyncio.run(_cycles(shop, tmp_path))
    finally:
        gc.unfreeze()
        gc.enable()
    assert {name: count for name, count in left.items() if count >= REPETITIONS} == {}
