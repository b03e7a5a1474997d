"""Endpoints that list and return the items of the catalogue and their pictures."""

from mimetypes import guess_type
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, Response

from indexes.index import Index
from indexes.reader import StoredPicture
from indexes.search.item_search import category_counts, find_items
from model.errors import ArtifactError
from model.item_limits import MAX_NAME_CHARACTERS
from service.engine.engine import Engine
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.problems.errors import NotReadyError
from service.requests.query_parameters import each_once
from service.schemas.catalogue import CategoryCount, CategoryList, ItemPage
from service.schemas.fields import ItemDetail, ItemSummary

router = APIRouter(tags=["catalogue"])

MAX_WORDS_CHARACTERS = 200
"""Maximum length of a search by words."""

ItemId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="ID of an item; it may contain any character",
    ),
]


@router.get(
    "/items",
    summary="List items",
    response_model=ItemPage,
    dependencies=[Depends(each_once)],
    responses=problems(409, 422, 429, 503),
)
async def list_items(
    engine: ReadyEngine,
    limit: Annotated[int, Query(ge=1, le=100, description="maximum number of items")] = 20,
    cursor: Annotated[
        int, Query(ge=0, le=2**53, description="start of the page: `next_cursor` of the previous page")
    ] = 0,
    words: Annotated[
        str | None,
        Query(
            max_length=MAX_WORDS_CHARACTERS,
            description="only items with all of these words in their title, categories or ID; the beginning of a word "
            "is enough, and upper case and accents do not matter",
        ),
    ] = None,
    category: Annotated[
        str | None,
        Query(
            max_length=MAX_NAME_CHARACTERS,
            description="only items of this category, as GET /categories lists it",
        ),
    ] = None,
) -> Response:
    """Return a page of items, in catalogue order. `words` and `category` select items, for example while a user types.

    POST /retrieve ranks items by similarity to an item or a text instead.
    """
    content = await engine.run_in_thread(_page, engine, limit, cursor, words, category)
    return Response(content, media_type="application/json")


def _page(engine: Engine, limit: int, cursor: int, words: str | None, category: str | None) -> bytes:
    """Return a page as JSON. Must be called in a thread, because a hundred items are read from the disk."""
    snapshot = engine.index.snapshot
    page = find_items(snapshot, words, category, cursor, limit + 1)
    answer = ItemPage(
        items=[ItemSummary.of(item, engine.root_path) for _, item in page[:limit]],
        total=len(snapshot),
        next_cursor=page[limit][0] if len(page) > limit else None,
    )
    return answer.__pydantic_serializer__.to_json(answer)


@router.get(
    "/categories",
    summary="List categories",
    dependencies=[Depends(each_once)],
    responses=problems(422, 429, 503),
)
async def list_categories(
    engine: ReadyEngine,
    limit: Annotated[int, Query(ge=1, le=1000, description="maximum number of categories")] = 100,
) -> CategoryList:
    """Return the categories of the catalogue with their numbers of items, the largest first."""
    counts = await engine.run_in_thread(category_counts, engine.index.snapshot)
    return CategoryList(
        categories=[CategoryCount(category=name, items=items) for name, items in counts[:limit]],
        total=len(counts),
    )


# This route must precede the one below, whose path also matches slashes. As a result, an item whose ID ends in /image
# is only returned by the list.
@router.get(
    "/items/{item_id:path}/image",
    summary="Get the picture of an item",
    response_class=FileResponse,
    responses={
        200: {"description": "Picture of the item.", "content": {"image/*": {}}},
        **problems(404, 422, 500, 503),
    },
)
async def get_image(item_id: ItemId, engine: ReadyEngine, request: Request) -> Response:
    """Return the picture of an item. The response may be cached for an hour and revalidated by its ETag."""
    digest, picture, name = await engine.run_in_thread(_stored_picture, engine.index, item_id)
    headers = {"Cache-Control": "public, max-age=3600", "ETag": f'"{digest[:32]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    media_type = guess_type(name)[0]
    if isinstance(picture, bytes):
        return Response(picture, headers=headers, media_type=media_type)
    return FileResponse(picture, headers=headers, media_type=media_type)


def _stored_picture(index: Index, item_id: str) -> StoredPicture:
    """Return the picture of an item. Must be called in a thread, because it reads a folder.

    Raises:
        NotReadyError: The folder of the pictures is missing.
        UnknownItemError: No item has this ID.
        NoPictureError: The item has no picture.
        ArtifactError: The picture is damaged.
    """
    try:
        stored = index.picture(item_id)
        missing = isinstance(stored.content, FilePath) and not stored.content.parent.is_dir()
    except ArtifactError:
        if index.snapshot.generation.path.is_dir():
            raise
        missing = True
    if missing:
        raise NotReadyError("The folder of the index has disappeared. Ask the operator to restore it.")
    return stored


@router.get("/items/{item_id:path}", summary="Get an item", responses=problems(404, 422, 503))
async def get_item(item_id: ItemId, engine: ReadyEngine) -> ItemDetail:
    """Return all stored fields of an item."""
    return ItemDetail.of(engine.index.snapshot.get(item_id), engine.root_path)
