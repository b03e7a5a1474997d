"""Generator of broken requests: valid requests with random mutations, reproducible by seed.

The valid requests are generated from the OpenAPI document, so every new route is included automatically.
"""

import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from tests.indexes.fakes import RELATIONS, ids

Json = dict[str, Any]


def _picture() -> str:
    """Return a small PNG in base64."""
    file = BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 40)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


KNOWN: dict[str, list[Any]] = {
    "item_id": ids(),
    "item_ids": ids(),
    "item_a": ids()[:6],
    "item_b": ids()[6:],
    "include": ids(),
    "exclude": ids(),
    "relation": [relation.relation_id for relation in RELATIONS[1:]],
    "relation_id": [relation.relation_id for relation in RELATIONS],
    "text": ["Green watering can", "Weiße Tasse", "x"],
    "url": ["http://127.0.0.1/a.png", "ftp://a", "http://user@[::1]:99999/"],
    "base64": [_picture()],
    "query": ["price", "stock"],
}
"""Values that the shop accepts, by field name."""

WORDS = ["price", "brand", "categories", "mug", "Kitchen", "é", "a/b?c#d e"]

NAMES = ["", "\0", "é" * 600, "~/", "[key]", "str", "id", "words", "description", "base64"]
"""Names that replace the name of a field."""

TOKENS = [
    *b"NaN Infinity -Infinity -0 -0.0 1e400 -1e400 1e-400 1E9999999999 0x10 01 .5 +1 1. 1_000 1.0 7 7.5 -1 0".split(),
    *b'true false null True None undefined [] {} \'\' \'a\' // /**/ , : } ] " \\ [[] {"a" [1,] {"a":1,}'.split(),
    *(b"9" * digits for digits in (19, 20, 39, 310, 4_300, 4_301, 20_000)),
    b"-" + b"9" * 400,
    b"0." + b"9" * 5_000,
    b'"7"',
    b'"true"',
    b'"NaN"',
    b'""',
    b'" "',
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"\\u202e\\ufeff\\uffff"',
    b'"\\x41"',
    b'"\\u12"',
    b'"\x00"',
    b'"\x1f\x7f"',
    b'"\xed\xa0\x80"',  # an unescaped lone surrogate
    b'"\xc0\xaf"',  # an overlong encoding
    b'"\xe0\x80\xaf"',
    b'"\xf8\x88\x80\x80\x80"',
    b'"\xf4\x90\x80\x80"',  # beyond Unicode
    b'"\xff\xfe"',
    b'"' + b"x" * 600 + b'"',
    b'"' + b"y" * 40_000 + b'"',
    b'"' + "🙂".encode() * 2_001 + b'"',
    *(b"[" * deep + b"]" * deep for deep in (3, 150, 199, 201, 20_000)),
    *(b'{"a":' * deep + b"1" + b"}" * deep for deep in (3, 150, 199, 201, 20_000)),
    b"[" * 50_000,
    b"[" + b"0," * 10_001 + b"0]",
    b"[" + b'"bib",' * 10_001 + b'"bib"]',
    b"{" + b",".join(b'"%d":[]' % number for number in range(3_000)) + b"}",
    b'{"description":"Worn together at the office."}',
    b'{"description":""}',
    b'{"base64":"AAAA"}',
    b'{"base64":"!"}',
    b'{"query":"price","times":1e300}',
]
"""Tokens that replace a value or are inserted between bytes."""

ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "latin-1", "utf-7"]
MEDIA_TYPES = [
    "application/json",
    "application/json; charset=utf-16",
    "application/vnd.shop+json",
    "",
    "text/plain",
]


@dataclass(frozen=True)
class Operation:
    """Operation of the API with one media type of its body."""

    method: str
    path: str
    media_type: str
    schema: Json


def operations(document: Json) -> list[Operation]:
    """Return every operation of a document that has a body, once for each media type."""
    return [
        Operation(method.upper(), path, media_type, content["schema"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
    ]


class Mutator:
    """Generator of mutated requests."""

    def __init__(self, document: Json, seed: int) -> None:
        self._chance = random.Random(seed)
        self._schemas = document["components"]["schemas"]
        self._operations = operations(document)

    def __iter__(self) -> Iterator[tuple[str, str, bytes, str]]:
        """Yield the method, path, body and media type of broken requests, without end."""
        while True:
            for operation in self._operations:
                path = operation.path
                for name in ("item_id", "relation_id"):
                    path = path.replace(f"{{{name}}}", self._chance.choice(KNOWN[name]))
                valid = self.valid(operation.schema)
                if operation.media_type == "multipart/form-data":
                    [part] = set(valid) - {"picture"}
                    body = self._garbled(upload(self._broken(valid[part]), b"\x89PNG\r\n\x1a\n", part))
                    yield operation.method, path, body, f"{operation.media_type}; boundary=cut"
                    continue
                if operation.media_type == "application/x-ndjson":
                    lines = [self._broken(valid), json.dumps(valid).encode(), self._broken(valid)]
                    yield operation.method, path, b"\n".join(lines), operation.media_type
                    continue
                media_type = operation.media_type
                if self._chance.random() < 0.02:
                    media_type = self._chance.choice(MEDIA_TYPES)
                yield operation.method, path, self._broken(valid), media_type

    def valid(self, schema: Json, name: str = "") -> Any:
        """Return a random value of the type and range that a schema declares."""
        chance = self._chance
        if "$ref" in schema:
            return self.valid(self._schemas[schema["$ref"].rpartition("/")[2]], name)
        if kinds := schema.get("anyOf") or schema.get("oneOf"):
            return self.valid(chance.choice(kinds), name)
        if "contentMediaType" in schema:  # a part of an upload, whose content has no schema
            return {"item": {"title": "Red mug"}}.get(name, {"relation": "gardeners", "k": 3})
        if "enum" in schema or "const" in schema:
            return chance.choice(schema.get("enum") or [schema["const"]])
        match schema.get("type"):
            case "object" if "properties" in schema:
                return self._object(schema)
            case "object":
                entry = schema.get("additionalProperties")
                entry = entry if isinstance(entry, dict) else {"type": "string"}
                return {chance.choice(WORDS): self.valid(entry) for _ in range(chance.randint(0, 2))}
            case "array":
                count = chance.randint(max(1, schema.get("minItems", 0)), 3)
                return [self.valid(schema["items"], name) for _ in range(count)]
            case "integer":
                return chance.randint(int(schema.get("minimum", 0)), int(min(schema.get("maximum", 9), 100)))
            case "number":
                return round(chance.uniform(schema.get("minimum", 0), schema.get("maximum", 1)), 2)
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
            case _:
                return chance.choice(KNOWN.get(name, WORDS))

    def _object(self, schema: Json) -> Json:
        """Return an object with all required and some optional properties.

        If the schema has the fields `item_id`, `item_ids` and `text`, the object contains exactly one of them, because
        a request may contain only one query. The object then contains neither `picture` nor `relations`.
        """
        properties, required = schema["properties"], set(schema.get("required", ()))
        optional = [name for name in properties if name not in required]
        chosen = {name for name in optional if self._chance.random() < min(0.5, 3 / len(optional))}
        ways = {"item_id", "item_ids", "text"}
        if ways <= set(properties):
            chosen = (chosen - ways - {"picture", "relations"}) | {self._chance.choice(sorted(ways))}
        return {
            name: self.valid(kind, name) for name, kind in properties.items() if name in required | chosen
        }

    def _broken(self, valid: Any) -> bytes:
        """Return a JSON text with one to three errors; one text in twenty is left intact."""
        chance = self._chance
        if chance.random() < 0.05:
            return json.dumps(valid).encode()
        if chance.random() < 0.6:
            body = self._mistaken(valid)
        else:
            body = json.dumps(valid, ensure_ascii=chance.random() < 0.5).encode()
            body = self._garbled(body)
        match chance.randrange(30):
            case 0:
                return body.decode(errors="replace").encode(chance.choice(ENCODINGS), errors="replace")
            case 1:
                return body[: chance.randrange(len(body) + 1)]
            case 2:
                return body + chance.choice(TOKENS)
            case 3:
                return chance.choice(TOKENS)
            case 4:
                return body * 2
            case 5:
                return bytes(chance.randint(1, 9)) + body + bytes(chance.randint(0, 9))
            case _:
                return body

    def _mistaken(self, valid: Any) -> bytes:
        """Return the JSON with a replaced value, or with a repeated, unknown, missing or renamed field."""
        chance = self._chance
        values = json.loads(json.dumps(valid))
        places: list[tuple[Any, Any]] = []
        _walk(values, places)
        if not places:
            return chance.choice(TOKENS)
        holder, key = chance.choice(places)
        token = chance.choice(TOKENS)
        match chance.randrange(8):
            case 0 if isinstance(holder, dict):
                holder["mark"] = holder[key]
                twice = json.dumps(key).encode() + b":" + token
                return (
                    json.dumps(values)
                    .encode()
                    .replace(b'"mark":', twice + b"," + json.dumps(key).encode() + b":")
                )
            case 1 if isinstance(holder, dict):
                holder |= {f"{key}{number}": number for number in range(chance.choice((1, 30, 2_000)))}
                return json.dumps(values).encode()
            case 2 if isinstance(holder, dict):
                del holder[key]
                return json.dumps(values).encode()
            case 3 if isinstance(holder, dict):
                holder[chance.choice(("", "\0", "é" * 600, "__proto__", "[key]", "str", "id", "words"))] = (
                    holder.pop(key)
                )
                return json.dumps(values).encode()
            case _:
                holder[key] = "\0mark"
                return json.dumps(values).encode().replace(b'"\\u0000mark"', token)

    def _garbled(self, body: bytes) -> bytes:
        """Return the bytes with bits flipped, or with parts deleted, repeated, randomised or replaced by a token."""
        chance = self._chance
        raw = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(raw) + 1)
            until = min(len(raw), at + chance.randint(1, 12))
            match chance.randrange(5):
                case 0 if at < len(raw):
                    raw[at] ^= 1 << chance.randrange(8)
                case 1:
                    del raw[at:until]
                case 2:
                    raw[at:at] = raw[at:until] * chance.choice((1, 2, 50))
                case 3:
                    raw[at:until] = chance.randbytes(until - at)
                case _:
                    raw[at:until] = chance.choice(TOKENS)
        return bytes(raw)


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        places.append((value, key))
        _walk(inner, places)


def upload(fields: bytes, picture: bytes, part: str = "question") -> bytes:
    """Return the body of a request that uploads a picture, with the boundary `cut` between its parts (RFC 7578)."""
    return (
        b'--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (part.encode(), fields)
        + b'--cut\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n%b\r\n--cut--\r\n'
        % picture
    )
