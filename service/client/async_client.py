"""The asynchronous client. It behaves like `Client`, but its methods are awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from model.similarity import View
from service.schemas.admin import ReloadAnswer, ShadowState
from service.schemas.catalogue import CategoryList
from service.schemas.embeddings import Coding, EmbeddingsAnswer
from service.schemas.explanations import ExplainAnswer
from service.schemas.fields import ItemDetail, ItemSummary
from service.schemas.health import Ready
from service.schemas.info import Info
from service.schemas.item_changes import BulkReply, ItemStored
from service.schemas.pairs import RelationTypeAnswer, RelationTypeReply, ValidityAnswer, ValidityReply
from service.schemas.relations import RelationDetail, RelationList
from service.schemas.retrieve import RetrieveAnswer, RetrieveReply

from . import endpoints
from .endpoints import (
    AnyItem,
    AnyRelation,
    AnyView,
    Artifacts,
    Change,
    Claim,
    Comparison,
    ItemFields,
    Pair,
    Retrieval,
)
from .request import Call
from .retries import Attempts, Policy, new_request_id
from .server_address import address, headers

T = TypeVar("T")


class AsyncClient:
    """The asyncio version of `Client`. Use it in an `async with` statement; tasks may share it."""

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        timeout: float = 15.0,
        retries: int = 2,
        deadline: float = 60.0,
        request_id: Callable[[], str] = new_request_id,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=address(base_url), headers=headers(key), transport=transport)
        self._policy = Policy(timeout, retries, deadline, request_id)

    def __repr__(self) -> str:
        return f"AsyncClient({self._http.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def retrieve(self, **asked: Unpack[Retrieval]) -> RetrieveAnswer:
        """Retrieve the best items for a query under a relation; `Retrieval` lists the arguments."""
        return await self._send(endpoints.retrieve(asked))

    async def retrieve_batch(self, questions: Iterable[Retrieval]) -> list[RetrieveReply]:
        """Send many `retrieve` requests at once. The reply to a rejected request holds its problem, not an answer."""
        return (await self._send(endpoints.retrieve_batch(questions))).replies

    async def relation_type(
        self, item_a: AnyItem, item_b: AnyItem, similarity: Comparison | None = None
    ) -> RelationTypeAnswer:
        """Rank all relations by the probability that they link the two items."""
        return await self._send(endpoints.relation_type(item_a, item_b, similarity))

    async def relation_type_batch(self, pairs: Iterable[Pair]) -> list[RelationTypeReply]:
        """Rank the relations of many pairs at once. The reply to a rejected pair holds its problem, not an answer."""
        return (await self._send(endpoints.relation_type_batch(pairs))).replies

    async def explain(self, item_a: AnyItem, item_b: AnyItem, relation: AnyRelation) -> ExplainAnswer:
        """Return how much attention a relation pays to each word and image patch of two items."""
        return await self._send(endpoints.explain(item_a, item_b, relation))

    async def heat_map(self, item: AnyItem, relation: AnyRelation) -> bytes:
        """Return a PNG of an item's picture with the attention of a relation painted over it."""
        return await self._send(endpoints.heat_map(item, relation))

    async def validity(self, item_a: AnyItem, item_b: AnyItem, relation: str) -> ValidityAnswer:
        """Return the probability that a relation holds between two items."""
        return await self._send(endpoints.validity(item_a, item_b, relation))

    async def validity_batch(self, claims: Iterable[Claim]) -> list[ValidityReply]:
        """Validate many claims at once. The reply to a rejected claim holds its problem, not an answer."""
        return (await self._send(endpoints.validity_batch(claims))).replies

    async def embeddings(
        self,
        items: Iterable[AnyItem],
        relation: AnyRelation,
        views: Sequence[AnyView] = tuple(View),
        encoding: Coding = "float",
    ) -> EmbeddingsAnswer:
        """Return the vectors of items under a relation."""
        return await self._send(endpoints.embeddings(items, relation, views, encoding))

    async def relations(self) -> RelationList:
        """List all relations. The intra-sample relation (an item with itself) comes first."""
        return await self._send(endpoints.relations())

    async def relation(self, relation_id: str) -> RelationDetail:
        """Return the details of a relation, or the progress of a relation that is being added."""
        return await self._send(endpoints.relation(relation_id))

    async def add_relation(
        self, relation_id: str, description: str, *, name: str = "", wait: bool = False
    ) -> RelationDetail:
        """Start adding a free-text relation to the index. With `wait`, return only after the relation is indexed.

        `name` is its short name for people; without one, the name is made from the ID.

        The wait has no time limit.

        Raises:
            AdditionFailed: the relation could not be added. It is raised only with `wait`.
        """
        detail = await self._send(endpoints.add_relation(relation_id, description, name))
        while wait and endpoints.is_pending(detail):
            await asyncio.sleep(endpoints.POLL_INTERVAL_S)
            detail = await self._send(endpoints.relation(relation_id))
        return detail

    async def remove_relation(self, relation_id: str) -> None:
        """Remove an added relation from the index, or cancel a relation that is being added."""
        await self._send(endpoints.remove_relation(relation_id))

    async def items(
        self, page: int = 100, *, words: str | None = None, category: str | None = None
    ) -> AsyncIterator[ItemSummary]:
        """Iterate over the items in catalogue order. Each page is requested when the iteration reaches it.

        `words` and `category` select items; see `GET /items`.
        """
        cursor: int | None = 0
        while cursor is not None:
            answer = await self._send(endpoints.items(page, cursor, words, category))
            for item in answer.items:
                yield item
            cursor = answer.next_cursor

    async def categories(self, limit: int = 100) -> CategoryList:
        """Return the largest categories with their numbers of items."""
        return await self._send(endpoints.categories(limit))

    async def item(self, item_id: str) -> ItemDetail:
        """Return an item with all its fields."""
        return await self._send(endpoints.item(item_id))

    async def image(self, item_id: str) -> bytes:
        """Return the picture file of an item as bytes."""
        return await self._send(endpoints.image(item_id))

    async def put_item(self, item_id: str, **item: Unpack[ItemFields]) -> ItemStored:
        """Create an item. If an item with this ID exists, replace all its fields."""
        return await self._send(endpoints.put_item(item_id, item))

    async def delete_item(self, item_id: str) -> None:
        """Delete an item. It is not an error if the item does not exist."""
        await self._send(endpoints.delete_item(item_id))

    async def bulk(self, changes: Iterable[Change]) -> AsyncIterator[BulkReply]:
        """Upsert and delete any number of items. Changes are sent only as fast as the replies are consumed.

        The changes are numbered from 1, and each reply holds the number of its change in `line`. The reply to a
        rejected change also holds the problem. The other changes are still made.
        """
        for call in endpoints.bulk(changes):
            for reply in await self._send(call):
                yield reply

    async def info(self) -> Info:
        """Return the versions and digests of what the server serves."""
        return await self._send(endpoints.info())

    async def ready(self) -> Ready:
        """Return what the server serves. If the server is not ready, raise Unavailable without a retry."""
        return await self._send(endpoints.ready())

    async def reload(self, **artifacts: Unpack[Artifacts]) -> ReloadAnswer:
        """Swap in another index or checkpoint, or reopen the served index. Return after the swap."""
        return await self._send(endpoints.reload(artifacts))

    async def begin_shadow(self, share: float, **artifacts: Unpack[Artifacts]) -> ShadowState:
        """Start a shadow run, which compares a candidate with the served index on a share of the traffic."""
        return await self._send(endpoints.begin_shadow(share, artifacts))

    async def shadow(self) -> ShadowState:
        """Return the figures of the shadow run so far."""
        return await self._send(endpoints.shadow())

    async def end_shadow(self) -> None:
        """End the shadow run and close the candidate."""
        await self._send(endpoints.end_shadow())

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._policy)
        while True:
            try:
                response = await self._http.send(attempts.request(self._http))
            except httpx.RequestError as error:
                pause = attempts.after_failure(error, self._http.base_url)
            else:
                if (wanted := attempts.after_answer(response)) is None:
                    return call.answer(response)
                pause = wanted
            await asyncio.sleep(pause)
