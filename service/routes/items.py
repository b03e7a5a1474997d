"""The items of the catalogue: listed, shown, and their pictures."""

from mimetypes import guess_type
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response

from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.schemas.catalogue import ItemPage
from service.schemas.fields import MAX_NAME_CHARACTERS, ItemDetail, ItemSummary

router = APIRouter(tags=["catalogue"])

ItemId = Annotated[
    str,
    Path(
        min_length=1, max_length=MAX_NAME_CHARACTERS, description="id of an item; it may hold any character"
    ),
]


@router.get("/items", summary="List the items", responses=problems(422, 503))
async def list_items(
    engine: ReadyEngine,
    limit: Annotated[int, Query(ge=1, le=100, description="number of items, at most")] = 20,
    cursor: Annotated[
        int, Query(ge=0, le=2**53, description="where to go on: `next_cursor` of the last page")
    ] = 0,
) -> ItemPage:
    """List items in catalogue order, a page at a time."""
    snapshot = engine.index.snapshot
    page = snapshot.page(cursor, limit + 1)
    return ItemPage(
        items=[ItemSummary.of(item) for _, item in page[:limit]],
        total=len(snapshot),
        next_cursor=page[limit][0] if len(page) > limit else None,
    )


# Before the route below, whose path takes slashes too: an id that ends in /image is found in the list alone.
@router.get(
    "/items/{item_id:path}/image",
    summary="Get an item's picture",
    response_class=FileResponse,
    responses={200: {"description": "The picture.", "content": {"image/*": {}}}, **problems(404, 422, 503)},
)
async def get_image(item_id: ItemId, engine: ReadyEngine, request: Request) -> Response:
    """Get the picture of an item. It may be kept for an hour, and asked for again by its ETag."""
    digest, picture, name = await engine.run_in_thread(engine.index.picture, item_id)
    headers = {"Cache-Control": "public, max-age=3600", "ETag": f'"{digest[:32]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    media_type = guess_type(name)[0]
    if isinstance(picture, bytes):
        return Response(picture, headers=headers, media_type=media_type)
    return FileResponse(picture, headers=headers, media_type=media_type)


@router.get("/items/{item_id:path}", summary="Get an item", responses=problems(404, 422, 503))
async def get_item(item_id: ItemId, engine: ReadyEngine) -> ItemDetail:
    """Get all that the catalogue knows of an item."""
    return ItemDetail.of(engine.index.snapshot.get(item_id))
