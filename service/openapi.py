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
from model.records import Similarity

from .problems import (
    INVALID_REQUEST,
    MEDIA_TYPE,
    NOT_JSON,
    NOT_READY,
    UNKNOWN_ITEM,
    FieldProblem,
    Kind,
    Problem,
)

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"

_PROBLEMS = {
    400: ("The body is not JSON.", NOT_JSON, "The body is not JSON: Expecting value at character 11."),
    404: (
        "There is no such item or relation; the problem names it.",
        UNKNOWN_ITEM,
        "No item has the id 'unicorn'. GET /items lists the ids there are.",
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
    503: (
        "The index is not open yet.",
        NOT_READY,
        "The index is still being opened. Ask again in a second.",
    ),
}
"""For each status that a route may declare: what it means, and what `/retrieve` would answer."""


def problems(*statuses: int) -> dict[int | str, Json]:
    """What a route declares about the problems it may answer with."""
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    declared: dict[int | str, Json] = {}
    for status in statuses:
        description, kind, detail = _PROBLEMS[status]
        example = {"schema": schema, "example": _example(kind, detail)}
        declared[status] = {"description": description, "content": {MEDIA_TYPE: example}}
    return declared


def _example(kind: Kind, detail: str) -> Json:
    message, _, remedy = detail.partition(". ")
    fault = FieldProblem(pointer="#/k", value="1000000000", message=f"{message}.", remedy=remedy)
    problem = kind.problem(detail, "/retrieve", errors=[fault] if kind is INVALID_REQUEST else None)
    return problem.model_dump(exclude_none=True)


@cache
def document(app: FastAPI) -> Json:
    """The OpenAPI document of `app`, without examples: the same for every catalogue."""
    described = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    _, schemas = models_json_schema([(Problem, "serialization")], ref_template=_REFERENCE)
    described["components"]["schemas"].update(schemas["$defs"])
    return described


def with_examples(described: Json, index: Index) -> Json:
    """A copy of a document in which the three questions carry requests that `index` can answer.

    An index without two items, or without a relation between items, leaves it as it is.
    """
    described = deepcopy(described)
    relations = [relation.relation_id for relation in index.relations if not relation.intra]
    items = [item for _, item in index.snapshot.page(0, 1)]
    if not relations or len(index) < 2:
        return described
    item, relation = items[0], relations[0]
    best = index.neighbours(item.item_id, relation, Similarity.AVG, 1)[0].item
    pair = {"item_a": item.item_id, "item_b": best.item_id}
    new = ", ".join([item.title, *item.categories])
    words = "Chosen together by people who want everything of one colour."
    _set_examples(
        described,
        "/retrieve",
        {
            "an item of the catalogue": {"item_id": item.item_id, "relation": relation, "k": 5},
            "a new item, in words": {"text": new, "relation": relation, "k": 5},
            **(
                {"a relation in words": {"item_id": item.item_id, "relation": {"description": words}, "k": 5}}
                if index.snapshot.generation.tokens is not None
                else {}
            ),
        },
    )
    _set_examples(described, "/relation-type", {"two items": pair})
    _set_examples(described, "/validity", {"two items": {**pair, "relation": relation}})
    for path in ("/items/{item_id}", "/items/{item_id}/image"):
        for parameter in described["paths"][path]["get"]["parameters"]:
            parameter["example"] = item.item_id
    return described


def _set_examples(described: Json, path: str, requests: dict[str, Json]) -> None:
    content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {
        summary: {"summary": summary, "value": value} for summary, value in requests.items()
    }
