"""The costliest legal request of every route, for a shop with `ITEMS` long items besides those of the fake shop."""

import io
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from model.item_limits import MAX_DESCRIPTION_CHARACTERS, MAX_TEXT_CHARACTERS

ITEMS = 120
"""Number of long items; more than a page or an answer has."""

SECOND = "second"
"""Name of a second index next to the one that is served."""


@dataclass(frozen=True)
class Ask:
    """Request: its path, its body and the media type of the body."""

    path: str
    body: bytes = b""
    media_type: str = "application/json"


def _json(path: str, content: object) -> Ask:
    return Ask(path, json.dumps(content).encode())


def long_item(number: int) -> dict[str, object]:
    """Return the content of a long item, without its ID."""
    return {
        "title": f"long item {number} " + "t" * 200,
        "description": "d" * (MAX_DESCRIPTION_CHARACTERS // 10),
        "categories": [f"category {one}" for one in range(20)],
        "attributes": {f"attribute {one}": "v" * 100 for one in range(20)},
    }


def uploads(first: int, count: int) -> bytes:
    """Return the body of a bulk upload of long items."""
    items = [{"item_id": f"long-{number}", **long_item(number)} for number in range(first, first + count)]
    return b"".join(json.dumps({"upsert": item}).encode() + b"\n" for item in items)


@cache
def long_picture() -> str:
    """Return a PNG of 65,535 x 2 pixels in base64; it has less than 500 bytes."""
    file = io.BytesIO()
    Image.new("1", (65_535, 2)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def costliest(relation: str, item_id: str) -> Mapping[tuple[str, str], Ask]:
    """Return the costliest legal request of every route, by method and path template.

    `relation` and `item_id` are IDs of the index.
    """
    new = {"text": "red mug " * (MAX_TEXT_CHARACTERS // 8), "picture": {"base64": long_picture()}}
    fields = ["item_id", "title", "categories", "image_url", "description", "attributes"]
    query = {"item_id": item_id, "relation": relation, "k": 100}
    pair = {"item_a": item_id, "item_b": "long-1"}
    claim = {**pair, "relation": relation}
    seen = {"item_a": new, "item_b": new, "relation": relation}
    return {
        ("GET", "/"): Ask("/"),
        ("GET", "/docs"): Ask("/docs"),
        ("GET", "/openapi.json"): Ask("/openapi.json"),
        ("GET", "/static/{path}"): Ask("/static/swagger-ui/swagger-ui-bundle.js"),
        ("GET", "/livez"): Ask("/livez"),
        ("GET", "/readyz"): Ask("/readyz"),
        ("GET", "/info"): Ask("/info"),
        ("GET", "/metrics"): Ask("/metrics"),
        ("POST", "/retrieve"): _json("/retrieve", {**query, "fields": fields, "diversity": 0.5}),
        ("POST", "/retrieve/batch"): _json("/retrieve/batch", {"questions": [query] * 100}),
        ("POST", "/relation-type"): _json("/relation-type", {"item_a": new, "item_b": new}),
        ("POST", "/relation-type/batch"): _json("/relation-type/batch", {"questions": [pair] * 100}),
        ("POST", "/validity"): _json("/validity", seen),
        ("POST", "/validity/batch"): _json("/validity/batch", {"questions": [claim] * 100}),
        ("POST", "/explain"): _json("/explain", seen),
        ("POST", "/explain/heat-map"): _json("/explain/heat-map", {"item": new, "relation": relation}),
        ("POST", "/embeddings"): _json("/embeddings", {"items": [item_id] * 100, "relation": relation}),
        ("GET", "/relations"): Ask("/relations"),
        ("GET", "/relations/{relation_id}"): Ask(f"/relations/{relation}"),
        ("POST", "/relations"): _json("/relations", {"relation_id": "r", "description": "d" * 2_000}),
        ("DELETE", "/relations/{relation_id}"): Ask("/relations/r"),
        ("GET", "/items"): Ask("/items?limit=100"),
        ("GET", "/categories"): Ask("/categories"),
        ("GET", "/items/{item_id}"): Ask("/items/long-1"),
        ("GET", "/items/{item_id}/image"): Ask(f"/items/{item_id}/image"),
        ("PUT", "/items/{item_id}"): _json(
            "/items/long-0",
            {**long_item(0), "picture": new["picture"]},
        ),
        ("DELETE", "/items/{item_id}"): Ask("/items/none"),
        ("POST", "/items/bulk"): Ask("/items/bulk", uploads(0, 64), "application/x-ndjson"),
        ("POST", "/admin/reload"): _json("/admin/reload", {"index": SECOND}),
        ("POST", "/admin/shadow"): _json("/admin/shadow", {"index": SECOND, "share": 1.0}),
        ("GET", "/admin/shadow"): Ask("/admin/shadow"),
        ("DELETE", "/admin/shadow"): Ask("/admin/shadow"),
    }


@cache
def large_picture() -> bytes:
    """Return a PNG of noise, which cannot be compressed, of 9.5 MB; 10 MB are allowed."""
    pixels = np.random.default_rng(0).integers(0, 256, (1_780, 1_780, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _upload(path: str, part: str, question: object) -> Ask:
    head = (
        f'--cut\r\nContent-Disposition: form-data; name="{part}"\r\n\r\n{json.dumps(question)}\r\n--cut\r\n'
    )
    file = 'Content-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    body = (head + file).encode() + large_picture() + b"\r\n--cut--\r\n"
    return Ask(path, body, "multipart/form-data; boundary=cut")


def long_bodies(relation: str) -> Mapping[str, tuple[str, Ask]]:
    """Return the method and the request of legal requests whose bodies are long, by name."""
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (350, 350, 3), np.uint8)).save(noise, "PNG")
    new = {"text": "red mug", "picture": {"base64": b64encode(noise.getvalue()).decode()}}
    picture = [
        {"upsert": {"item_id": f"long-{row}", "title": "t", "picture": new["picture"]}} for row in range(64)
    ]
    query, bulk = {"item_id": "twin-1", "relation": relation}, "application/x-ndjson"
    return {
        "uploaded query": ("POST", _upload("/retrieve", "question", {"relation": relation, "k": 100})),
        "uploaded item": ("PUT", _upload("/items/long-1", "item", long_item(1))),
        "Base64 of 1 MB": ("POST", _json("/relation-type", {"item_a": new, "item_b": new})),
        "many IDs": ("POST", _json("/retrieve", {**query, "exclude": [f"no-{n}" for n in range(10_000)]})),
        "bulk of pictures": (
            "POST",
            Ask("/items/bulk", b"\n".join(json.dumps(one).encode() for one in picture), bulk),
        ),
        "bulk of empty lines": ("POST", Ask("/items/bulk", b"\n" * 2**22, bulk)),
        "bulk of refused lines": ("POST", Ask("/items/bulk", b"{}\n" * 2**12, bulk)),
        "bulk of deletions": ("POST", Ask("/items/bulk", b'{"delete": "none"}\n' * 2**12, bulk)),
    }
