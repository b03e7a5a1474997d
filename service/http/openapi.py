"""The OpenAPI document: FastAPI's, with the problem documents that FastAPI does not know, and true examples.

Examples are taken from the catalogue that is being served, so that each of them can be sent as it stands.
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
from service.problems.kinds import (
    BUSY,
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
"""Lines of JSON, as a bulk upload has them."""

_RELATION_IN_WORDS = "Chosen together by people who want everything of one colour."
_NO_ITEM = "no-such-item"

_REFERENCE = "#/components/schemas/{model}"

_PROBLEMS = {
    400: (
        "The body is not JSON.",
        NOT_JSON,
        "The body is not JSON: EOF while parsing a value at line 1 column 12.",
    ),
    401: (
        "The server has keys, and the request brings none of them.",
        NO_KEY,
        "This takes an API key, and none was sent. Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.",
    ),
    403: (
        "The key is read-only, or a page of another site asks a server without keys.",
        KEY_TOO_WEAK,
        "PUT /items/i0000 takes an admin key, and shop is a read-only one. Ask with an admin key.",
    ),
    404: (
        "There is no such item or relation; the problem names it.",
        UNKNOWN_ITEM,
        "No item has the id 'unicorn'. GET /items lists the ids there are.",
    ),
    409: (
        "The same is being done already, or what is there does not allow it.",
        BUSY,
        "An index is being opened already. Ask again when that is done.",
    ),
    413: (
        "The body is longer than the server takes; the problem names the limit.",
        Kind.of(413),
        "The body is longer than the limit of 1048576 bytes. Send a shorter one.",
    ),
    415: (
        "The body is not declared to be JSON.",
        Kind.of(415),
        "The body must be JSON; text/plain was sent. Send it with Content-Type: application/json.",
    ),
    422: (
        "A field cannot be what it is; the problem names field, value and remedy.",
        INVALID_REQUEST,
        "k must be at most 100; 1000000000 was sent. Send a whole number from 1 to 100.",
    ),
    429: (
        "Too many requests came with this key, or more is asked of the server than it can answer in time; Retry-After "
        "says in how many seconds to ask again.",
        TOO_MANY_REQUESTS,
        "Too many requests came from here in a short time. Ask again in 1 s.",
    ),
    503: (
        "The index is not open yet.",
        NOT_READY,
        "The index is still being opened. Ask again in a second.",
    ),
}
"""For each status that a route may declare: what it means, and what `/retrieve` would answer."""


_KEY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key. A server without keys asks for none.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, where a proxy uses the Authorization header itself.",
    },
}


def problems(*statuses: int) -> dict[int | str, Json]:
    """Declare the problems that a route may answer with."""
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    declared: dict[int | str, Json] = {}
    for status in statuses:
        description, kind, detail = _PROBLEMS[status]
        example = {"schema": schema, "example": _example(kind, detail)}
        declared[status] = {"description": description, "content": {MEDIA_TYPE: example}}
    return declared


def uploading(model: type[Request]) -> Json:
    """Declare that a request may also come with a picture as a file: see `JsonRoute`."""
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
    """Declare that a request is lines, each of them the JSON of a model."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _example(kind: Kind, detail: str) -> Json:
    message, _, remedy = detail.partition(". ")
    fault = FieldProblem(pointer="#/k", value="1000000000", message=f"{message}.", remedy=remedy)
    problem = kind.problem(detail, "/retrieve", errors=[fault] if kind is INVALID_REQUEST else None)
    return problem.model_dump(exclude_none=True)


@cache
def document(app: FastAPI) -> Json:
    """Make the OpenAPI document of `app`, without examples: the same for every catalogue."""
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
    """Say which key an operation takes, the role in the place that OpenAPI 3.1 has for it, and how it is refused."""
    if access is Role.OPEN:
        operation["security"] = []
        return
    operation["security"] = [{scheme: [access]} for scheme in _KEY_SCHEMES]
    refusals = {str(status): declared for status, declared in problems(401, 403, 429).items()}
    operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))


def with_examples(described: Json, index: Index) -> Json:
    """Copy a document, and give the questions in it requests that `index` can answer.

    An index without two items, or without a relation between items, leaves it as it is.
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
    """Ask about an item, its best partner under a relation, and a new item with the same words."""
    pair = {"item_a": item.item_id, "item_b": best.item_id}
    new = ", ".join([item.title, *item.categories])
    retrievals: dict[str, Json] = {
        "an item of the catalogue": {"item_id": item.item_id, "relation": relation, "k": 5},
        "a new item, in words": {"text": new, "relation": relation, "k": 5},
    }
    if index.snapshot.generation.tokens is not None:
        in_words = {"description": _RELATION_IN_WORDS}
        retrievals["a relation in words"] = {"item_id": item.item_id, "relation": in_words, "k": 5}
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
    _set_examples(described, "/embeddings", {"an item and a new one": vectors})


def _set_change_examples(described: Json, index: Index, item: Item) -> None:
    """Put an item in again as it is, add a relation, reload and shadow what is served."""
    whole = {
        "title": item.title,
        "description": item.description,
        "categories": [*item.categories],
        "attributes": dict(item.attributes),
    }
    _set_examples(described, "/items/{item_id}", {"an item of words alone": whole}, "put")
    added = {"relation_id": "one colour", "description": _RELATION_IN_WORDS}
    _set_examples(described, "/relations", {"a relation in words": added})
    name = index.path.name
    _set_examples(described, "/admin/reload", {"what is served, anew": {}, "by name": {"index": name}})
    _set_examples(described, "/admin/shadow", {"every tenth question": {"index": name, "share": 0.1}})
    described["paths"]["/items/bulk"]["post"]["requestBody"]["content"][NDJSON]["example"] = (
        f'{{"delete": "{_NO_ITEM}"}}\n{{"delete": "{_NO_ITEM}"}}\n'
    )


def _set_path_examples(described: Json, item: Item, relation: str) -> None:
    """Name items and relations in paths; nothing that is there is changed."""
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
