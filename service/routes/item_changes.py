"""Endpoints that create, replace and delete items. A change is durable before it is acknowledged."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import AfterValidator
from starlette.exceptions import HTTPException

from indexes.journal.change import Change
from model.item_limits import MAX_NAME_CHARACTERS
from service.engine.item_json import version
from service.http.openapi import NDJSON, problems, streaming, uploading
from service.lifecycle.app_state import FitEngine, ReadyEngine
from service.requests.apply_item_changes import ItemChanges
from service.requests.bulk import Bulk, BulkResponse
from service.requests.context import RequestContext
from service.requests.json_route import JsonRoute
from service.schemas.fields import ItemDetail
from service.schemas.item_changes import BulkLine, BulkReply, ItemStored, ItemUpsert, one_line

from .items import ItemId

router = APIRouter(tags=["catalogue"])
json = APIRouter(route_class=JsonRoute)

GivenId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="ID of the item to create or replace: one line of text. Slashes do not need to be escaped. "
        "GET cannot return an item whose ID ends in `/image`.",
    ),
    AfterValidator(one_line),
]

_LINES = (NDJSON, "application/ndjson", "application/jsonl")


@json.put(
    "/items/{item_id:path}",
    summary="Create or replace an item",
    response_model=ItemStored,
    responses={
        201: {"description": "The item was created.", "model": ItemStored},
        **problems(400, 404, 413, 415, 422, 429, 503),
    },
    openapi_extra=uploading(ItemUpsert),
)
async def put_item(item_id: GivenId, asked: ItemUpsert, engine: ReadyEngine, request: Request) -> Response:
    """Create an item, or replace the existing item with this ID completely.

    The response is sent once the item is durable, and the next request to this server finds the item. The network
    encodes the same text fields as for the items that the index was built from. The picture is scaled and re-encoded.
    A rejected request changes nothing.
    """
    changes = ItemChanges(RequestContext.of(request, engine))
    change = await changes.put(item_id, asked)
    [existed] = await changes.apply([change])
    assert change.item is not None, "the change must be an upsert"
    answer = ItemStored(
        version=version(engine.index.snapshot),
        created=not existed,
        item=ItemDetail.of(change.item, engine.root_path),
    )
    return Response(
        answer.__pydantic_serializer__.to_json(answer), 200 if existed else 201, media_type="application/json"
    )


@router.delete(
    "/items/{item_id:path}",
    summary="Delete an item",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422, 429, 503),
)
async def delete_item(item_id: ItemId, engine: ReadyEngine, request: Request) -> None:
    """Delete an item durably. Deleting an item that does not exist is not an error, so the request can be repeated."""
    await ItemChanges(RequestContext.of(request, engine)).apply([Change(item_id)])


@router.post(
    "/items/bulk",
    summary="Create, replace or delete many items",
    status_code=200,
    response_class=BulkResponse,
    responses={
        200: {
            "description": "One reply per non-empty line of the request, in the same order.",
            "content": {NDJSON: {"schema": {"$ref": f"#/components/schemas/{BulkReply.__name__}"}}},
        },
        **problems(413, 415, 503),
    },
    openapi_extra=streaming(BulkLine, NDJSON),
)
async def change_items(request: Request, fit: FitEngine) -> Response:
    """Create, replace and delete any number of items, with one JSON object per line (NDJSON).

    The response has one line for each non-empty line of the request. Lines are processed in order and are accepted or
    rejected independently. The maximum length of a line is the maximum size of a JSON body. Every change reported as
    successful is durable.

    If the client sends items faster than the server can encode them, the server reads more slowly. The server closes
    the connection of a client that sends less than 16 KiB a second. An interrupted upload can be sent again safely.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _LINES:
        sent = f"{kind[:80]} was sent" if kind else "the request has no Content-Type"
        raise HTTPException(
            415,
            f"The body must be NDJSON, one JSON object per line; {sent}. Send it with Content-Type: {NDJSON}.",
        )
    # The dependency `fit` rejects the upload with 503 before it starts if the engine accepts no new work. Its value is
    # unused: each group of lines uses the current engine, which may be swapped during the upload.
    return BulkResponse(Bulk(request, request.state.engine_holder, request.state.config.max_body_bytes))


router.include_router(json)
