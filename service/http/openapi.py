"""OpenAPI document: FastAPI's own, plus the problem documents of every route and working examples.

The examples use items and relations of the served catalogue, so each of them can be sent unchanged.
"""

from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from indexes.index import Index
from model.records import Item
from model.similarity import Similarity
from service.problems.errors import RateLimitError
from service.problems.kinds import (
    BUSY,
    DAMAGED_PICTURE,
    INVALID_REQUEST,
    KEY_TOO_WEAK,
    NO_KEY,
    NOT_JSON,
    NOT_READY,
    TOO_MANY_REQUESTS,
    UNKNOWN_ITEM,
    Kind,
)
from service.problems.response import MEDIA_TYPE
from service.schemas.fields import Request
from service.schemas.item_changes import BulkLine, BulkReply
from service.schemas.problem import FieldProblem, Problem

from .route_rules import Role, rule_of

Json = dict[str, Any]

NDJSON = "application/x-ndjson"
"""Media type of newline-delimited JSON, the format of a bulk upload."""

_RELATION_IN_WORDS = "Chosen together by people who want everything in one colour."
_NO_ITEM = "no-such-item"

_REFERENCE = "#/components/schemas/{model}"

_PROBLEMS = {
    400: (
        "The body is not valid JSON.",
        NOT_JSON,
        "The body is not valid JSON: EOF while parsing a value at line 1 column 12.",
    ),
    401: (
        "The route requires an API key, and the request has none or an unknown one.",
        NO_KEY,
        "This route requires an API key, and none was sent. Send the key as `Authorization: Bearer KEY` or as "
        "`X-API-Key: KEY`.",
    ),
    403: (
        "The route requires an admin key, a page from another site sent the request to a server without keys, or the "
        "server has no right to change the index.",
        KEY_TOO_WEAK,
        "PUT /items/i0000 requires an admin key, but the key 'shop' is read-only. Use an admin key.",
    ),
    404: (
        "The item or relation does not exist; the problem names it.",
        UNKNOWN_ITEM,
        "No item has the ID 'unicorn'. GET /items lists the existing IDs.",
    ),
    409: (
        "The request conflicts with an operation in progress or with the server's state.",
        BUSY,
        "Another index is already being opened. Retry when it is open.",
    ),
    413: (
        "The body is longer than the server accepts; the problem states the limit.",
        Kind.of(413),
        "The body is longer than the limit of 1048576 bytes. Send a shorter body.",
    ),
    415: (
        "The Content-Type of the body is not JSON.",
        Kind.of(415),
        "The body must be JSON, but its Content-Type is text/plain. Send it with Content-Type: application/json.",
    ),
    422: (
        "A field is invalid; the problem states the field, its value and the remedy.",
        INVALID_REQUEST,
        "k must be at most 100; 1000000000 was sent. Send a whole number from 1 to 100.",
    ),
    429: (
        "The client sent too many requests, or the server is overloaded; Retry-After gives the seconds to wait before "
        "the next request.",
        TOO_MANY_REQUESTS,
        str(RateLimitError(1, 200, 20, 1)),
    ),
    500: (
        "A stored picture is damaged; the problem names its file.",
        DAMAGED_PICTURE,
        "The stored picture generation-000002/pictures/00017.jpg of this server is damaged. The request is valid. The "
        "operator can restore the file, or send the item again with its picture.",
    ),
    503: (
        "The index is not open yet.",
        NOT_READY,
        "The index is still being opened. Retry in a second.",
    ),
}
"""Problems that a route may declare, by status: a description, and the kind and detail of an example problem."""


_KEY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key. A server without keys does not require one.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, for use behind a proxy that uses the Authorization header itself.",
    },
}


def problems(*statuses: int) -> dict[int | str, Json]:
    """Return the OpenAPI declarations of the problems that a route may return."""
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    declared: dict[int | str, Json] = {}
    for status in statuses:
        description, kind, detail = _PROBLEMS[status]
        example = {"schema": schema, "example": _example(kind, detail)}
        declared[status] = {"description": description, "content": {MEDIA_TYPE: example}}
    return declared


def uploading(model: type[Request]) -> Json:
    """Return the OpenAPI declaration of a request that may also upload a picture as a file (see `JsonRoute`)."""
    schema = {
        "type": "object",
        "required": [model.part, "picture"],
        "properties": {
            model.part: {
                "type": "string",
                "contentMediaType": "application/json",
                "description": f"the JSON of a {model.__name__} without `picture`",
            },
            "picture": {
                "type": "string",
                "format": "binary",
                "description": "a JPEG, PNG or WebP file",
            },
        },
    }
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


def streaming(model: type[Request], media_type: str) -> Json:
    """Return the OpenAPI declaration of a request body with the JSON of one `model` per line."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _example(kind: Kind, detail: str) -> Json:
    message, _, remedy = detail.partition(". ")
    fault = FieldProblem(pointer="#/k", value="1000000000", message=f"{message}.", remedy=remedy)
    problem = kind.problem(detail, "/retrieve", errors=[fault] if kind is INVALID_REQUEST else None)
    return problem.model_dump(exclude_none=True)


@cache
def document(app: FastAPI) -> Json:
    """Return the OpenAPI document of `app` without examples; it is the same for every catalogue."""
    described = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    _, schemas = models_json_schema(
        [(Problem, "serialization"), (BulkLine, "validation"), (BulkReply, "serialization")],
        ref_template=_REFERENCE,
    )
    described["components"]["schemas"].update(schemas["$defs"])
    described["components"]["securitySchemes"] = _KEY_SCHEMES
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            _declare_access(operation, rule_of(method.upper(), path).access)
    return described


def _declare_access(operation: Json, access: Role) -> None:
    """Declare the keys that an operation accepts and the responses that reject a request.

    The security requirement lists the role. OpenAPI 3.1 allows roles in the requirement of every scheme.
    """
    if access is Role.OPEN:
        operation["security"] = []
        return
    operation["security"] = [{scheme: [access]} for scheme in _KEY_SCHEMES]
    refusals = {str(status): declared for status, declared in problems(401, 403, 429).items()}
    operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))


def with_examples(described: Json, index: Index) -> Json:
    """Return a copy of a document with example requests that `index` can answer.

    The copy has no examples if the index has fewer than two items or no relation between different items.
    """
    described = deepcopy(described)
    relations = [relation.relation_id for relation in index.relations if not relation.intra]
    items = [item for _, item in index.snapshot.page(0, 1)]
    if not relations or len(index) < 2:
        return described
    item, relation = items[0], relations[0]
    best = index.reader().neighbours(item.item_id, relation, Similarity.AVG, 1)[0].item
    _set_question_examples(described, index, item, best, relation)
    _set_change_examples(described, index, item)
    _set_path_examples(described, item, relation)
    return described


def _set_question_examples(described: Json, index: Index, item: Item, best: Item, relation: str) -> None:
    """Set examples of queries with `item`, with `best` (its best match under `relation`), and with a new item."""
    pair = {"item_a": item.item_id, "item_b": best.item_id}
    new = ", ".join([item.title, *item.categories])
    retrievals: dict[str, Json] = {
        "an item of the catalogue": {"item_id": item.item_id, "relation": relation, "k": 5},
        "a new item, as text": {"text": new, "relation": relation, "k": 5},
    }
    if index.snapshot.generation.tokens is not None:
        in_words = {"description": _RELATION_IN_WORDS}
        retrievals["a free-text relation"] = {"item_id": item.item_id, "relation": in_words, "k": 5}
    _set_examples(described, "/retrieve", retrievals)
    claim = {**pair, "relation": relation}
    _set_examples(described, "/relation-type", {"two items": pair})
    _set_examples(described, "/relation-type/batch", {"two pairs": {"questions": [pair, _turned(pair)]}})
    _set_examples(described, "/validity", {"two items": claim})
    _set_examples(described, "/validity/batch", {"two claims": {"questions": [claim, _turned(claim)]}})
    _set_examples(described, "/explain", {"two items": claim})
    pictured = next((one.item_id for one in (item, best) if one.picture), None)
    if pictured is not None:
        heat_map = {"item": pictured, "relation": relation}
        _set_examples(described, "/explain/heat-map", {"an item's picture": heat_map})
    vectors = {"items": [item.item_id, {"text": new}], "relation": relation}
    _set_examples(described, "/embeddings", {"an item of the catalogue and a new item": vectors})


def _set_change_examples(described: Json, index: Index, item: Item) -> None:
    """Set examples that create a copy of an item, add a relation, and reload or shadow the served index."""
    whole = {
        "title": item.title,
        "description": item.description,
        "categories": [*item.categories],
        "attributes": dict(item.attributes),
    }
    _set_examples(described, "/items/{item_id}", {"a text-only item": whole}, "put")
    added = {"relation_id": "one colour", "description": _RELATION_IN_WORDS}
    _set_examples(described, "/relations", {"a free-text relation": added})
    name = index.path.name.encode(errors="surrogateescape").decode(errors="replace")
    _set_examples(described, "/admin/reload", {"the served index": {}, "an index by name": {"index": name}})
    _set_examples(described, "/admin/shadow", {"a tenth of the requests": {"index": name, "share": 0.1}})
    described["paths"]["/items/bulk"]["post"]["requestBody"]["content"][NDJSON]["example"] = (
        f'{{"delete": "{_NO_ITEM}"}}\n{{"delete": "{_NO_ITEM}"}}\n'
    )


def _set_path_examples(described: Json, item: Item, relation: str) -> None:
    """Set examples of the items and relations in paths; sending any of them leaves the existing data unchanged."""
    for path, method, example in (
        ("/items/{item_id}", "get", item.item_id),
        ("/items/{item_id}/image", "get", item.item_id),
        ("/items/{item_id}", "put", _NO_ITEM),
        ("/items/{item_id}", "delete", _NO_ITEM),
        ("/relations/{relation_id}", "get", relation),
        ("/relations/{relation_id}", "delete", relation),
    ):
        for parameter in described["paths"][path][method]["parameters"]:
            parameter["example"] = example


def _turned(pair: Json) -> Json:
    return {**pair, "item_a": pair["item_b"], "item_b": pair["item_a"]}


def _set_examples(described: Json, path: str, requests: dict[str, Json], method: str = "post") -> None:
    content = described["paths"][path][method]["requestBody"]["content"]["application/json"]
    content["examples"] = {
        summary: {"summary": summary, "value": value} for summary, value in requests.items()
    }
