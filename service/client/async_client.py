"""The client for programs on an event loop. It says and does what `Client` does; its methods are awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from model.similarity import View
from service.schemas.admin import ReloadAnswer, ShadowState
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
    """The same for an event loop; see `Client`. Use it in an `async with`; tasks may share it."""

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
        """Rank the items that go with a query under a relation; `Retrieval` lists what may be given."""
        return await self._send(endpoints.retrieve(asked))

    async def retrieve_batch(self, questions: Iterable[Retrieval]) -> list[RetrieveReply]:
        """Ask many questions of `retrieve` at once; one that is refused has its problem in place of an answer."""
        return (await self._send(endpoints.retrieve_batch(questions))).replies

    async def relation_type(
        self, item_a: AnyItem, item_b: AnyItem, similarity: Comparison | None = None
    ) -> RelationTypeAnswer:
        """Rank all relations by how probable it is that they link these two."""
        return await self._send(endpoints.relation_type(item_a, item_b, similarity))

    async def relation_type_batch(self, pairs: Iterable[Pair]) -> list[RelationTypeReply]:
        """Ask about many pairs at once; one that is refused has its problem in place of an answer."""
        return (await self._send(endpoints.relation_type_batch(pairs))).replies

    async def explain(self, item_a: AnyItem, item_b: AnyItem, relation: AnyRelation) -> ExplainAnswer:
        """Ask which words and patches of two items a relation looks at."""
        return await self._send(endpoints.explain(item_a, item_b, relation))

    async def heat_map(self, item: AnyItem, relation: AnyRelation) -> bytes:
        """Get what a relation looks at in the picture of an item, painted over it: a PNG."""
        return await self._send(endpoints.heat_map(item, relation))

    async def validity(self, item_a: AnyItem, item_b: AnyItem, relation: str) -> ValidityAnswer:
        """Say how surely a relation holds between two items."""
        return await self._send(endpoints.validity(item_a, item_b, relation))

    async def validity_batch(self, claims: Iterable[Claim]) -> list[ValidityReply]:
        """Ask about many claims at once; one that is refused has its problem in place of an answer."""
        return (await self._send(endpoints.validity_batch(claims))).replies

    async def embeddings(
        self,
        items: Iterable[AnyItem],
        relation: AnyRelation,
        views: Sequence[AnyView] = tuple(View),
        encoding: Coding = "float",
    ) -> EmbeddingsAnswer:
        """Get the vectors of items under a relation."""
        return await self._send(endpoints.embeddings(items, relation, views, encoding))

    async def relations(self) -> RelationList:
        """List all relations, the one of an item with itself first."""
        return await self._send(endpoints.relations())

    async def relation(self, relation_id: str) -> RelationDetail:
        """Get all that is known of a relation, or how far it has come on its way into the index."""
        return await self._send(endpoints.relation(relation_id))

    async def add_relation(self, relation_id: str, description: str, *, wait: bool = False) -> RelationDetail:
        """Begin to make a relation in words one of the index, and `wait` until it is, however long that takes.

        Raises AdditionFailed, too, if it waits in vain.
        """
        detail = await self._send(endpoints.add_relation(relation_id, description))
        while wait and endpoints.is_pending(detail):
            await asyncio.sleep(endpoints.POLL_INTERVAL_S)
            detail = await self._send(endpoints.relation(relation_id))
        return detail

    async def remove_relation(self, relation_id: str) -> None:
        """Take a relation that was added out of the index, or give up one on its way."""
        await self._send(endpoints.remove_relation(relation_id))

    async def items(self, page: int = 100) -> AsyncIterator[ItemSummary]:
        """Go through all items in catalogue order, asking for a page of them when it comes to it."""
        cursor: int | None = 0
        while cursor is not None:
            answer = await self._send(endpoints.items(page, cursor))
            for item in answer.items:
                yield item
            cursor = answer.next_cursor

    async def item(self, item_id: str) -> ItemDetail:
        """Get all that the catalogue knows of an item."""
        return await self._send(endpoints.item(item_id))

    async def image(self, item_id: str) -> bytes:
        """Get the file of an item's picture."""
        return await self._send(endpoints.image(item_id))

    async def put_item(self, item_id: str, **item: Unpack[ItemFields]) -> ItemStored:
        """Put an item in, new or instead of the one of its id, all of which is replaced."""
        return await self._send(endpoints.put_item(item_id, item))

    async def delete_item(self, item_id: str) -> None:
        """Take an item out; one that is not there is no error."""
        await self._send(endpoints.delete_item(item_id))

    async def bulk(self, changes: Iterable[Change]) -> AsyncIterator[BulkReply]:
        """Put in and take out any number of items, as fast as the replies are asked for; `line` counts from 1.

        A change that was refused has its problem in its reply, and keeps none of the others from being made.
        """
        for call in endpoints.bulk(changes):
            for reply in await self._send(call):
                yield reply

    async def info(self) -> Info:
        """Get the versions and digests of what answers."""
        return await self._send(endpoints.info())

    async def ready(self) -> Ready:
        """Get what the server can answer about; raises Unavailable, without trying again, while it cannot."""
        return await self._send(endpoints.ready())

    async def reload(self, **artifacts: Unpack[Artifacts]) -> ReloadAnswer:
        """Have another index or checkpoint answer, or the same index opened anew; returns when it does."""
        return await self._send(endpoints.reload(artifacts))

    async def begin_shadow(self, share: float, **artifacts: Unpack[Artifacts]) -> ShadowState:
        """Compare a candidate with what answers, on a share of the questions as they come."""
        return await self._send(endpoints.begin_shadow(share, artifacts))

    async def shadow(self) -> ShadowState:
        """Get how the candidate compares so far."""
        return await self._send(endpoints.shadow())

    async def end_shadow(self) -> None:
        """Close the candidate."""
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
