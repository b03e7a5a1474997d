"""Items put into the catalogue and taken out: durable when they are answered, and seen by the next question."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import AfterValidator
from starlette.exceptions import HTTPException

from indexes.journal.journal import Change
from service.engine.item_json import version
from service.http.openapi import NDJSON, problems, streaming, uploading
from service.lifecycle.app_state import FitEngine, ReadyEngine
from service.requests.apply_item_changes import ItemChanges
from service.requests.bulk import Bulk, BulkResponse
from service.requests.context import RequestContext
from service.requests.json_route import JsonRoute
from service.schemas.fields import MAX_NAME_CHARACTERS, ItemDetail
from service.schemas.item_changes import BulkLine, BulkReply, ItemStored, ItemUpsert, one_line

from .items import ItemId

router = APIRouter(tags=["catalogue"])
json = APIRouter(route_class=JsonRoute)

GivenId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="id of the item, new or instead of the one that has it: one line of text. A slash in it may stand "
        "as it is; of one that ends in /image, GET shows nothing",
    ),
    AfterValidator(one_line),
]

_LINES = (NDJSON, "application/ndjson", "application/jsonl")


@json.put(
    "/items/{item_id:path}",
    summary="Put an item in",
    response_model=ItemStored,
    responses={
        201: {"description": "There was none of this id before.", "model": ItemStored},
        **problems(400, 404, 413, 415, 422, 429, 503),
    },
    openapi_extra=uploading(ItemUpsert),
)
async def put_item(item_id: GivenId, asked: ItemUpsert, engine: ReadyEngine, request: Request) -> Response:
    """Put an item into the catalogue, new or instead of the one of its id, all of which is replaced.

    The answer comes once the item is durable, and the next question of this server finds it. Its words are read as
    those of all others are, its picture is scaled and coded anew. What is refused changes nothing.
    """
    changes = ItemChanges(RequestContext.of(request, engine))
    created = item_id not in engine.index.snapshot
    change = await changes.put(item_id, asked)
    await changes.apply([change])
    assert change.item is not None, "it was put in"
    answer = ItemStored(
        version=version(engine.index.snapshot), created=created, item=ItemDetail.of(change.item)
    )
    return Response(
        answer.__pydantic_serializer__.to_json(answer), 201 if created else 200, media_type="application/json"
    )


@router.delete(
    "/items/{item_id:path}",
    summary="Take an item out",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422, 429, 503),
)
async def delete_item(item_id: ItemId, engine: ReadyEngine, request: Request) -> None:
    """Take an item out of the catalogue, durably. One that is not there is no error, so that this may be sent again."""
    await ItemChanges(RequestContext.of(request, engine)).apply([Change(item_id)])


@router.post(
    "/items/bulk",
    summary="Change many items",
    status_code=200,
    response_class=BulkResponse,
    responses={
        200: {
            "description": "A line for each line that was sent, in their order.",
            "content": {NDJSON: {"schema": {"$ref": f"#/components/schemas/{BulkReply.__name__}"}}},
        },
        **problems(413, 415, 503),
    },
    openapi_extra=streaming(BulkLine, NDJSON),
)
async def change_items(request: Request, fit: FitEngine) -> Response:
    """Put in and take out any number of items: a JSON object a line (NDJSON), each answered by a line of its own.

    A line is as long as the body of another request may be, and is taken or refused by itself; whatever is answered
    with success is durable. Lines are worked off in their order. Where more is sent than this server can encode, it
    reads more slowly; who sends less than 16 KiB a second is cut. To send a body again that was cut is safe.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _LINES:
        sent = f"{kind[:80]} was sent" if kind else "the request does not say what its body is"
        raise HTTPException(
            415, f"The body must be lines of JSON; {sent}. Send it with Content-Type: {NDJSON}."
        )
    # Another engine may be the current one before the last line has come, so `fit` is but looked at.
    return BulkResponse(Bulk(request, request.state.engine_holder, request.state.config.max_body_bytes))


router.include_router(json)
