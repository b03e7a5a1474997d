"""Endpoints that return a relation's attention over the words and picture patches of items."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from jaxtyping import Float32
from numpy import ndarray

from indexes.reader import Reader
from indexes.search.pairs import PairItem
from indexes.vectors.contract import cosines
from model.embeddings.attention_map import Attention, PatchWeights
from model.errors import NoPictureError
from model.records import Item
from model.similarity import Similarity, View
from service.engine.item_json import asked_item, asked_relation, version
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.requests.context import RequestContext, similarity_of
from service.requests.json_route import JsonRoute
from service.schemas.explanations import (
    Cosines,
    ExplainAnswer,
    ExplainRequest,
    HeatMapRequest,
    ImageAttention,
    ItemAttention,
    TextAttention,
    WordWeight,
)
from service.schemas.fields import ItemSummary, NewItem, NewItemEcho
from service.telemetry.prometheus import Stage

if TYPE_CHECKING:
    from PIL.Image import Image

router = APIRouter(tags=["questions"], route_class=JsonRoute)


@router.post(
    "/explain",
    summary="Explain the similarity of two items",
    response_model=ExplainAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 500, 503),
)
async def explain(asked: ExplainRequest, engine: ReadyEngine, request: Request) -> ExplainAnswer:
    """Return a relation's attention over the words and patches of two items, and their similarity under it.

    The weights are the attention weights with which the network pools an item, not an estimate of importance. The
    summary token, which stands for the whole text or picture, often receives most of the attention. Therefore compare
    words only with words, and patches only with patches.
    """
    query = RequestContext.of(request, engine)
    relation = await query.relation(asked.relation)
    reader = engine.index.reader()
    snapshot = reader.snapshot
    seen = await asyncio.gather(*(_seen(query, reader, item) for item in (asked.item_a, asked.item_b)))
    compared = await asyncio.gather(*(_compared(query, one) for one in seen))
    with query.stage(Stage.SEARCH):
        vectors = await engine.run_in_thread(reader.vectors, compared, relation, list(View))
    with query.stage(Stage.ENCODE):
        attention = await asyncio.gather(
            *(engine.explain(reader, one.text, one.picture, relation) for one in seen)
        )
    found = {similarity: _cosine(vectors, similarity) for similarity in Similarity}
    similarity = similarity_of(snapshot, asked.item_a, asked.item_b)
    item_a, item_b = (
        _item_attention(asked_item(snapshot, item, engine.root_path), one, looked)
        for item, one, looked in zip((asked.item_a, asked.item_b), seen, attention, strict=True)
    )
    return ExplainAnswer(
        version=version(snapshot),
        relation=asked_relation(snapshot, asked.relation),
        item_a=item_a,
        item_b=item_b,
        similarity=similarity,
        score=found[similarity] or 0.0,
        cosines=Cosines(**found),
        took_ms=query.took_ms,
    )


@router.post(
    "/explain/heat-map",
    summary="Render an attention heat map",
    response_class=Response,
    responses={
        200: {"description": "Heat map as a PNG image.", "content": {"image/png": {}}},
        **problems(400, 404, 413, 415, 422, 429, 500, 503),
    },
)
async def heat_map(asked: HeatMapRequest, engine: ReadyEngine, request: Request) -> Response:
    """Render a relation's attention over the picture of an item, as a PNG whose longer side has 512 pixels.

    The colour of a patch shows its attention relative to the mean over all patches: black is none, purple is the mean,
    red is twice the mean and yellow is ten times the mean. The heat map does not show the share of the summary token,
    which is often the largest. POST /explain returns that share.
    """
    query = RequestContext.of(request, engine)
    relation = await query.relation(asked.relation)
    reader = engine.index.reader()
    seen = await _seen(query, reader, asked.item)
    if seen.picture is None:
        raise NoPictureError(
            seen.item.item_id if seen.item else None, "Use POST /explain to get the attention over its text."
        )
    with query.stage(Stage.ENCODE):
        attention = await engine.explain(reader, None, seen.picture, relation)
    assert attention.image is not None, "the attention must cover the picture"
    painted = await engine.run_in_thread(_painted, seen.picture, attention.image)
    return Response(painted, media_type="image/png")


@dataclass(frozen=True)
class _Seen:
    """Text and picture of a requested item, as the network receives them.

    `item` is the catalogue item, or None for a new item.
    """

    item: Item | None
    text: str | None
    picture: "Image | None"


async def _seen(query: RequestContext, reader: Reader, item: str | NewItem) -> _Seen:
    """Return an item with its decoded picture.

    Raises:
        UnknownItemError: the item does not exist.
        DamagedPictureError: the stored picture of a catalogue item is damaged.
        PictureError, FetchError: the picture of a new item cannot be decoded or fetched.
        OverloadedError: too many requests are waiting.
        NotReadyError: the item changed during the request; see `Engine.picture`.
    """
    if isinstance(item, NewItem):
        return _Seen(None, item.text, await query.picture(item.picture))
    engine = query.engine
    known = reader.snapshot.get(item)
    with query.stage(Stage.DECODE):
        return _Seen(known, known.text, await engine.run_in_thread(engine.picture, reader, item))


async def _compared(query: RequestContext, seen: _Seen) -> PairItem:
    if seen.item is not None:
        return seen.item.item_id
    with query.stage(Stage.ENCODE):
        return await query.engine.encode(seen.text, seen.picture)


def _cosine(vectors: dict[View, Float32[ndarray, "pair dim"]], similarity: Similarity) -> float | None:
    view_a, view_b = similarity.views
    a, b = vectors[view_a][0], vectors[view_b][1]
    return float(cosines(b[None], a)[0]) if a.any() and b.any() else None


def _item_attention(item: ItemSummary | NewItemEcho, seen: _Seen, attention: Attention) -> ItemAttention:
    text = image = None
    if attention.text is not None:
        words = [
            WordWeight(text=w.text, start=w.start, end=w.end, weight=w.weight) for w in attention.text.words
        ]
        text = TextAttention(text=seen.text or "", words=words, summary=attention.text.summary)
    if attention.image is not None:
        box = attention.image.box
        image = ImageAttention(
            grid=attention.image.grid.tolist(),
            summary=attention.image.summary,
            left=box.left,
            top=box.top,
            right=box.right,
            bottom=box.bottom,
        )
    return ItemAttention(item=item, text=text, image=image)


def _painted(picture: "Image", weights: PatchWeights) -> bytes:
    """Render the heat map as a PNG. Must be called in a thread, because the first call imports matplotlib."""
    from model.embeddings.heat_map import heat_map

    return heat_map(picture, weights)
