"""Context of one request: it fetches and decodes pictures, encodes items and relations, and measures durations."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from indexes.live.snapshot import Snapshot
from indexes.search.retrieve import KnownItems, NewItem, Promotion, Question, Weighted
from indexes.search.selection import EVERYTHING, Selection
from indexes.storage.filters import Bound, Condition, OfQuery
from model.data.pictures.images import decode_picture
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.similarity import PREFERRED_SIMILARITIES, Similarity, View
from service.engine.engine import Engine
from service.lifecycle.app_state import Fetcher, State
from service.lifecycle.shadow_run import Shadow
from service.schemas.attribute_filter import Filter, OfQueryAttribute
from service.schemas.fields import NewItem as NewItemFields
from service.schemas.fields import Picture, RelationInWords
from service.schemas.retrieve import RetrieveRequest
from service.telemetry.prometheus import Metrics, Stage

if TYPE_CHECKING:
    from PIL.Image import Image

CONCURRENT_PARTS = 8
"""Maximum number of items or queries of one request that are processed concurrently."""


@dataclass
class RequestContext:
    """One request to an engine, with the application state that all requests share."""

    engine: Engine
    fetcher: Fetcher
    metrics: Metrics
    shadow: Shadow
    begun: float = field(default_factory=perf_counter)
    spent: dict[Stage, float] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, engine: Engine) -> "RequestContext":
        """Create the context of an HTTP request."""
        state: State = request.scope["state"]
        return cls(engine, state["fetcher"], state["metrics"], state["shadow"])

    def stage(self, stage: Stage) -> "_StageTimer":
        """Return a context manager that adds its duration to the time of a stage."""
        return _StageTimer(self, stage)

    def milliseconds(self, stage: Stage) -> float:
        """Return the milliseconds spent in a stage so far."""
        return round(self.spent.get(stage, 0.0) * 1000, 3)

    @property
    def took_ms(self) -> float:
        """Milliseconds since the request was read."""
        return round((perf_counter() - self.begun) * 1000, 3)

    async def item(self, item: str | NewItemFields) -> str | Encoding:
        """Encode a new item. The ID of a catalogue item is returned unchanged.

        Raises:
            PictureError: The picture cannot be decoded.
            FetchError: The picture cannot be fetched.
            OverloadedError: The queue of the network is too long.
        """
        if isinstance(item, str):
            return item
        return await self.encoded(item.text, item.picture)

    async def encoded(self, text: str | None, picture: Picture | None) -> Encoding:
        """Encode a new item from its text, its picture or both.

        Raises:
            PictureError: The picture cannot be decoded.
            FetchError: The picture cannot be fetched.
            OverloadedError: The queue of the network is too long.
        """
        return await self._encode(text, await self.picture(picture))

    async def _encode(self, text: str | None, image: "Image | None") -> Encoding:
        with self.stage(Stage.ENCODE):
            return await self.engine.encode(text, image)

    async def items(self, items: Sequence[str | NewItemFields]) -> list[str | Encoding]:
        """Encode the new items. IDs of catalogue items are returned unchanged.

        At most one batch of the network is queued at a time, so that a request with many items is not rejected for the
        wait that it causes itself. At most `CONCURRENT_PARTS` pictures are fetched and decoded at a time.
        """
        queued = asyncio.Semaphore(self.engine.network.batch_size)
        fetched = asyncio.Semaphore(CONCURRENT_PARTS)

        async def item(one: str | NewItemFields) -> str | Encoding:
            if isinstance(one, str):
                return one
            async with queued:
                async with fetched:
                    image = await self.picture(one.picture)
                return await self._encode(one.text, image)

        tasks = [asyncio.create_task(item(one)) for one in items]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # if one item failed, nobody needs the others
                task.cancel()

    async def picture(self, picture: Picture | None) -> "Image | None":
        """Decode a picture. Return None if `picture` is None.

        Raises:
            PictureError: The picture cannot be decoded.
            FetchError: The picture cannot be fetched.
            OverloadedError: The queue of the search threads is too long.
        """
        if picture is None:
            return None
        content = await self.content(picture)
        with self.stage(Stage.DECODE):
            return await self.engine.run_in_thread(decode_picture, content)

    async def content(self, picture: Picture) -> bytes:
        """Return the bytes of a picture, fetched from its URL if it has one.

        Raises:
            FetchError: The picture cannot be fetched.
        """
        if picture.url is not None:
            with self.stage(Stage.FETCH):
                return await self.fetcher.fetch(picture.url)
        assert picture.base64 is not None, "a picture must have bytes or a URL"
        return picture.base64

    async def relation(self, relation: str | RelationInWords) -> str | FreeTextRelation:
        """Encode a free-text relation. The ID of an indexed relation is returned unchanged.

        Raises:
            NoTokensError: The index stores no tokens.
            OverloadedError: The queue of the network is too long.
        """
        if isinstance(relation, str):
            return relation
        with self.stage(Stage.ENCODE):
            return await self.engine.read_relation(relation.description)

    async def question(self, asked: RetrieveRequest) -> Question:
        """Convert a `POST /retrieve` request to a query of the index.

        Raises:
            RcmlError: See `item` and `relation`.
        """
        if asked.relation is not None:
            relations = [Weighted(await self.relation(asked.relation))]
        else:
            relations = [
                Weighted(await self.relation(one.relation), one.weight) for one in asked.relations or ()
            ]
        query: KnownItems | NewItem
        if asked.item_id is not None:
            query = KnownItems((asked.item_id,))
        elif asked.item_ids is not None:
            query = KnownItems(tuple(dict.fromkeys(asked.item_ids)))
        else:
            query = NewItem(await self.encoded(asked.text, asked.picture), asked.attributes)
        promoted = asked.promoted
        return Question(
            query,
            tuple(relations),
            asked.similarity,
            asked.k,
            asked.cursor,
            _selection(asked),
            asked.min_score,
            None if promoted is None else Promotion(frozenset(promoted.item_ids), promoted.share),
            asked.fallback,
        )


class _StageTimer:
    """Context manager that adds its duration to the time of a stage, even if an error is raised."""

    __slots__ = ("_begun", "_counted", "_query", "_stage")

    def __init__(self, query: RequestContext, stage: Stage) -> None:
        self._query, self._stage = query, stage
        self._counted = query.metrics.stage(stage)

    def __enter__(self) -> None:
        self._begun = perf_counter()
        self._counted.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._counted.__exit__(*error)
        spent = self._query.spent
        spent[self._stage] = spent.get(self._stage, 0.0) + perf_counter() - self._begun


def _selection(asked: RetrieveRequest) -> Selection:
    """Convert the filters of a request to a selection."""
    narrowed = asked.exclude or asked.filter or asked.group_by is not None or asked.diversity
    if asked.include is None and not narrowed:
        return EVERYTHING
    return Selection(
        None if asked.include is None else frozenset(asked.include),
        frozenset(asked.exclude),
        {name: _condition(filter_) for name, filter_ in asked.filter.items()},
        asked.group_by,
        asked.diversity,
    )


def _condition(asked: Filter) -> Condition:
    any_of = None if asked.any_of is None else frozenset(asked.any_of)
    return Condition(any_of, _bound(asked.min), _bound(asked.max), _bound(asked.above), _bound(asked.below))


def _bound(limit: int | float | OfQueryAttribute | None) -> Bound | None:
    return OfQuery(limit.query, limit.times) if isinstance(limit, OfQueryAttribute) else limit


def similarity_of(snapshot: Snapshot, *items: str | NewItemFields) -> Similarity:
    """Return the preferred similarity for the views that the items have: AVG, then TT, then the others."""
    views = [_views_of(snapshot, item) for item in items]
    return next(
        one
        for one in PREFERRED_SIMILARITIES
        if all(view in has for view, has in zip(one.views, views, strict=True))
    )


def _views_of(snapshot: Snapshot, item: str | NewItemFields) -> set[View]:
    """Return the views of an item. An unknown ID is assumed to have all views."""
    if isinstance(item, str):
        row = snapshot.find(item)
        pictured = row is None or snapshot.pictured is None or bool(snapshot.pictured[row])
        return {View.AVERAGE, View.TEXT, View.IMAGE} if pictured else {View.AVERAGE, View.TEXT}
    if item.text is not None and item.picture is not None:
        return {View.AVERAGE, View.TEXT, View.IMAGE}
    return {View.TEXT if item.picture is None else View.IMAGE}
