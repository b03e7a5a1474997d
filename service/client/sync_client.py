"""The client for programs that wait for their answers."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class Client:
    """Asks the server at `base_url`, with `key` where it takes one; threads may share it.

    Use it in a `with`, which closes its connections. An attempt may take `timeout` seconds to connect, and as long
    again for each part of the answer; what fails for now is asked again, `retries` times at most and within `deadline`
    seconds. `request_id` names a call in the logs of both sides. `transport` takes the place of the network.

    Every method raises:
        ApiError: the server refused or failed; see `errors` for its kinds.
        ConnectionFailed: it cannot be reached.
        UnexpectedAnswer: something else is there.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        timeout: float = 15.0,
        retries: int = 2,
        deadline: float = 60.0,
        request_id: Callable[[], str] = new_request_id,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=address(base_url), headers=headers(key), transport=transport)
        self._policy = Policy(timeout, retries, deadline, request_id)

    def __repr__(self) -> str:
        return f"Client({self._http.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def retrieve(self, **asked: Unpack[Retrieval]) -> RetrieveAnswer:
        """Rank the items that go with a query under a relation; `Retrieval` lists what may be given."""
        return self._send(endpoints.retrieve(asked))

    def retrieve_batch(self, questions: Iterable[Retrieval]) -> list[RetrieveReply]:
        """Ask many questions of `retrieve` at once; one that is refused has its problem in place of an answer."""
        return self._send(endpoints.retrieve_batch(questions)).replies

    def relation_type(
        self, item_a: AnyItem, item_b: AnyItem, similarity: Comparison | None = None
    ) -> RelationTypeAnswer:
        """Rank all relations by how probable it is that they link these two."""
        return self._send(endpoints.relation_type(item_a, item_b, similarity))

    def relation_type_batch(self, pairs: Iterable[Pair]) -> list[RelationTypeReply]:
        """Ask about many pairs at once; one that is refused has its problem in place of an answer."""
        return (self._send(endpoints.relation_type_batch(pairs))).replies

    def explain(self, item_a: AnyItem, item_b: AnyItem, relation: AnyRelation) -> ExplainAnswer:
        """Ask which words and patches of two items a relation looks at."""
        return self._send(endpoints.explain(item_a, item_b, relation))

    def heat_map(self, item: AnyItem, relation: AnyRelation) -> bytes:
        """Get what a relation looks at in the picture of an item, painted over it: a PNG."""
        return self._send(endpoints.heat_map(item, relation))

    def validity(self, item_a: AnyItem, item_b: AnyItem, relation: str) -> ValidityAnswer:
        """Say how surely a relation holds between two items."""
        return self._send(endpoints.validity(item_a, item_b, relation))

    def validity_batch(self, claims: Iterable[Claim]) -> list[ValidityReply]:
        """Ask about many claims at once; one that is refused has its problem in place of an answer."""
        return self._send(endpoints.validity_batch(claims)).replies

    def embeddings(
        self,
        items: Iterable[AnyItem],
        relation: AnyRelation,
        views: Sequence[AnyView] = tuple(View),
        encoding: Coding = "float",
    ) -> EmbeddingsAnswer:
        """Get the vectors of items under a relation."""
        return self._send(endpoints.embeddings(items, relation, views, encoding))

    def relations(self) -> RelationList:
        """List all relations, the one of an item with itself first."""
        return self._send(endpoints.relations())

    def relation(self, relation_id: str) -> RelationDetail:
        """Get all that is known of a relation, or how far it has come on its way into the index."""
        return self._send(endpoints.relation(relation_id))

    def add_relation(self, relation_id: str, description: str, *, wait: bool = False) -> RelationDetail:
        """Begin to make a relation in words one of the index, and `wait` until it is, however long that takes.

        Raises AdditionFailed, too, if it waits in vain.
        """
        detail = self._send(endpoints.add_relation(relation_id, description))
        while wait and endpoints.is_pending(detail):
            time.sleep(endpoints.POLL_INTERVAL_S)
            detail = self._send(endpoints.relation(relation_id))
        return detail

    def remove_relation(self, relation_id: str) -> None:
        """Take a relation that was added out of the index, or give up one on its way."""
        self._send(endpoints.remove_relation(relation_id))

    def items(self, page: int = 100) -> Iterator[ItemSummary]:
        """Go through all items in catalogue order, asking for a page of them when it comes to it."""
        cursor: int | None = 0
        while cursor is not None:
            answer = self._send(endpoints.items(page, cursor))
            yield from answer.items
            cursor = answer.next_cursor

    def item(self, item_id: str) -> ItemDetail:
        """Get all that the catalogue knows of an item."""
        return self._send(endpoints.item(item_id))

    def image(self, item_id: str) -> bytes:
        """Get the file of an item's picture."""
        return self._send(endpoints.image(item_id))

    def put_item(self, item_id: str, **item: Unpack[ItemFields]) -> ItemStored:
        """Put an item in, new or instead of the one of its id, all of which is replaced."""
        return self._send(endpoints.put_item(item_id, item))

    def delete_item(self, item_id: str) -> None:
        """Take an item out; one that is not there is no error."""
        self._send(endpoints.delete_item(item_id))

    def bulk(self, changes: Iterable[Change]) -> Iterator[BulkReply]:
        """Put in and take out any number of items, as fast as the replies are asked for; `line` counts from 1.

        A change that was refused has its problem in its reply, and keeps none of the others from being made.
        """
        for call in endpoints.bulk(changes):
            yield from self._send(call)

    def info(self) -> Info:
        """Get the versions and digests of what answers."""
        return self._send(endpoints.info())

    def ready(self) -> Ready:
        """Get what the server can answer about; raises Unavailable, without trying again, while it cannot."""
        return self._send(endpoints.ready())

    def reload(self, **artifacts: Unpack[Artifacts]) -> ReloadAnswer:
        """Have another index or checkpoint answer, or the same index opened anew; returns when it does."""
        return self._send(endpoints.reload(artifacts))

    def begin_shadow(self, share: float, **artifacts: Unpack[Artifacts]) -> ShadowState:
        """Compare a candidate with what answers, on a share of the questions as they come."""
        return self._send(endpoints.begin_shadow(share, artifacts))

    def shadow(self) -> ShadowState:
        """Get how the candidate compares so far."""
        return self._send(endpoints.shadow())

    def end_shadow(self) -> None:
        """Close the candidate."""
        self._send(endpoints.end_shadow())

    def _send(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._policy)
        while True:
            try:
                response = self._http.send(attempts.request(self._http))
            except httpx.RequestError as error:
                pause = attempts.after_failure(error, self._http.base_url)
            else:
                if (wanted := attempts.after_answer(response)) is None:
                    return call.answer(response)
                pause = wanted
            time.sleep(pause)
