"""Functions that build the API call to each route.

The client does not validate arguments. The server validates them, and its problem documents name the field, the value
and the fix. The types in this module mirror the request schemas in `service/schemas`, which describe every field.
Arguments are sent unchanged, except that a picture is converted to its JSON form.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict
from urllib.parse import quote

from pydantic_core import to_json

from model.records import Attribute
from model.similarity import Similarity, View
from service.schemas.admin import ReloadAnswer, ShadowState
from service.schemas.catalogue import CategoryList, ItemPage
from service.schemas.embeddings import Coding, EmbeddingsAnswer
from service.schemas.explanations import ExplainAnswer
from service.schemas.fields import ItemDetail
from service.schemas.health import Ready
from service.schemas.info import Info
from service.schemas.item_changes import BulkReply, ItemStored
from service.schemas.pairs import (
    RelationTypeAnswer,
    RelationTypeBatchAnswer,
    ValidityAnswer,
    ValidityBatchAnswer,
)
from service.schemas.relations import RelationDetail, RelationList
from service.schemas.retrieve import Field_, RetrieveAnswer, RetrieveBatchAnswer

from .errors import AdditionFailed, UnexpectedAnswer
from .request import Answer, Call, asking, deleting, getting

BULK_CALL_CHANGES, BULK_CALL_BYTES = 256, 8 * 2**20
"""Limits of one bulk request: it is sent when it holds this many changes or at least this many bytes."""

PictureSource = bytes | Path | str
"""A picture: its bytes, the `Path` of its file, or a string with an http or https URL that the server fetches."""

AnyView = View | Literal["text", "image", "average"]
Comparison = Similarity | Literal["TT", "II", "TI", "IT", "AVG"]

POLL_INTERVAL_S = 0.5
"""Seconds between two polls for the state of a relation that is being added."""


class InWords(TypedDict):
    """A free-text relation, given by its description."""

    description: str


AnyRelation = str | InWords
"""A relation: the ID of an indexed relation, or a free-text relation."""


class NewItem(TypedDict, total=False):
    """A new item, which does not have to be in the catalogue, given by `text`, `picture`, or both."""

    text: str | None
    picture: PictureSource | None


AnyItem = str | NewItem
"""An item: the ID of an item in the catalogue, or a new item."""


class Weighted(TypedDict, total=False):
    """One of several relations in a query, with its weight. The default weight is 1."""

    relation: AnyRelation
    weight: float


class OfQuery(TypedDict, total=False):
    """A numeric attribute of the query item, such as `{"query": "price"}`, multiplied by `times` if given."""

    query: str
    times: float


class Condition(TypedDict, total=False):
    """A filter condition on one attribute."""

    any_of: Sequence[Attribute] | None
    min: float | OfQuery | None
    max: float | OfQuery | None
    above: float | OfQuery | None
    below: float | OfQuery | None


class Promoted(TypedDict):
    """Items to promote, and the share of the results reserved for them."""

    item_ids: Sequence[str]
    share: float


class Retrieval(TypedDict, total=False):
    """Arguments of `POST /retrieve`."""

    item_id: str | None
    item_ids: Sequence[str] | None
    text: str | None
    picture: PictureSource | None
    attributes: Mapping[str, Attribute]
    relation: AnyRelation | None
    relations: Sequence[Weighted] | None
    similarity: Comparison
    k: int
    cursor: int
    filter: Mapping[str, Condition]
    include: Sequence[str] | None
    exclude: Sequence[str]
    group_by: str | None
    diversity: float
    promoted: Promoted | None
    min_score: float
    fallback: bool
    fields: Sequence[Field_]


class ItemFields(TypedDict, total=False):
    """All fields of an item except its ID."""

    title: Required[str]
    description: str
    categories: Sequence[str]
    attributes: Mapping[str, Attribute]
    picture: PictureSource | None


class IdentifiedItem(ItemFields):
    """All fields of an item, including its ID."""

    item_id: str


class Change(TypedDict, total=False):
    """One change of a bulk upload: either an item to create or replace, or the ID of an item to delete."""

    upsert: IdentifiedItem
    delete: str


class Artifacts(TypedDict, total=False):
    """Names of folders next to the served index.

    The defaults are the served index, the checkpoint of the chosen index, and the served report if it belongs to that
    checkpoint.
    """

    index: str | None
    checkpoint: str | None
    report: str | None


class Pair(TypedDict, total=False):
    """Arguments of `POST /relation-type`."""

    item_a: Required[AnyItem]
    item_b: Required[AnyItem]
    similarity: Comparison


class Claim(TypedDict):
    """Arguments of `POST /validity`."""

    item_a: AnyItem
    item_b: AnyItem
    relation: str


def retrieve(asked: Retrieval) -> Call[RetrieveAnswer]:
    """Build the call to `POST /retrieve`."""
    return asking("retrieve", _with_picture(asked), RetrieveAnswer)


def retrieve_batch(questions: Iterable[Retrieval]) -> Call[RetrieveBatchAnswer]:
    """Build the call to `POST /retrieve/batch`."""
    body = {"questions": [_with_picture(question) for question in questions]}
    return asking("retrieve/batch", body, RetrieveBatchAnswer)


def relation_type(
    item_a: AnyItem, item_b: AnyItem, similarity: Comparison | None = None
) -> Call[RelationTypeAnswer]:
    """Build the call to `POST /relation-type`."""
    body = {"item_a": _item(item_a), "item_b": _item(item_b), "similarity": similarity}
    return asking("relation-type", body, RelationTypeAnswer)


def relation_type_batch(pairs: Iterable[Pair]) -> Call[RelationTypeBatchAnswer]:
    """Build the call to `POST /relation-type/batch`."""
    questions = [{**pair, "item_a": _item(pair["item_a"]), "item_b": _item(pair["item_b"])} for pair in pairs]
    return asking("relation-type/batch", {"questions": questions}, RelationTypeBatchAnswer)


def explain(item_a: AnyItem, item_b: AnyItem, relation: AnyRelation) -> Call[ExplainAnswer]:
    """Build the call to `POST /explain`."""
    body = {"item_a": _item(item_a), "item_b": _item(item_b), "relation": relation}
    return asking("explain", body, ExplainAnswer)


def heat_map(item: AnyItem, relation: AnyRelation) -> Call[bytes]:
    """Build the call to `POST /explain/heat-map`."""
    return Call("POST", "explain/heat-map", bytes, to_json({"item": _item(item), "relation": relation}))


def validity(item_a: AnyItem, item_b: AnyItem, relation: str) -> Call[ValidityAnswer]:
    """Build the call to `POST /validity`."""
    claim = Claim(item_a=item_a, item_b=item_b, relation=relation)
    return asking("validity", _claim(claim), ValidityAnswer)


def validity_batch(claims: Iterable[Claim]) -> Call[ValidityBatchAnswer]:
    """Build the call to `POST /validity/batch`."""
    return asking("validity/batch", {"questions": [_claim(claim) for claim in claims]}, ValidityBatchAnswer)


def embeddings(
    items: Iterable[AnyItem],
    relation: AnyRelation,
    views: Sequence[AnyView],
    encoding: Coding,
) -> Call[EmbeddingsAnswer]:
    """Build the call to `POST /embeddings`."""
    asked = [_item(item) for item in items]
    body = {"items": asked, "relation": relation, "views": views, "encoding": encoding}
    return asking("embeddings", body, EmbeddingsAnswer)


def relations() -> Call[RelationList]:
    """Build the call to `GET /relations`, which lists all relations."""
    return getting("relations", RelationList)


def relation(relation_id: str) -> Call[RelationDetail]:
    """Build the call to `GET /relations/{relation_id}`."""
    return getting(f"relations/{_step(relation_id)}", RelationDetail)


def add_relation(relation_id: str, description: str, name: str = "") -> Call[RelationDetail]:
    """Build the call to `POST /relations`, which adds a free-text relation.

    The call is not repeatable, because the server rejects a second one.
    """
    asked = {"relation_id": relation_id, "description": description, **({"name": name} if name else {})}
    content = to_json(asked)
    return Call("POST", "relations", RelationDetail.model_validate_json, content, repeatable=False)


def is_pending(detail: RelationDetail) -> bool:
    """Return whether a relation is still being added to the index.

    Raises:
        AdditionFailed: the relation could not be added.
    """
    if detail.state == "failed":
        raise AdditionFailed(detail)
    return detail.state != "indexed"


def remove_relation(relation_id: str) -> Call[None]:
    """Build the call to `DELETE /relations/{relation_id}`, which removes an added relation.

    The call is not repeatable, because the server rejects a second one.
    """
    return deleting(f"relations/{_step(relation_id)}", repeatable=False, slow=True)


def items(limit: int, cursor: int, words: str | None = None, category: str | None = None) -> Call[ItemPage]:
    """Build the call to `GET /items`, which returns a page of the catalogue."""
    selecting = {name: text for name, text in (("words", words), ("category", category)) if text is not None}
    params: dict[str, int | str] = {"limit": limit, "cursor": cursor, **selecting}
    return Call("GET", "items", ItemPage.model_validate_json, params=params)


def categories(limit: int) -> Call[CategoryList]:
    """Build the call to `GET /categories`."""
    return Call("GET", "categories", CategoryList.model_validate_json, params={"limit": limit})


def item(item_id: str) -> Call[ItemDetail]:
    """Build the call to `GET /items/{item_id}`."""
    return getting(f"items/{_step(item_id)}", ItemDetail)


def image(item_id: str) -> Call[bytes]:
    """Build the call to `GET /items/{item_id}/image`, which returns the item's picture."""
    return Call("GET", f"items/{_step(item_id)}/image", bytes)


def put_item(item_id: str, item: ItemFields) -> Call[ItemStored]:
    """Build the call to `PUT /items/{item_id}`, which creates or replaces an item."""
    content = to_json(_with_picture(item))
    return Call("PUT", f"items/{_step(item_id)}", ItemStored.model_validate_json, content)


def delete_item(item_id: str) -> Call[None]:
    """Build the call to `DELETE /items/{item_id}`."""
    return deleting(f"items/{_step(item_id)}")


def bulk(changes: Iterable[Change]) -> Iterator[Call[list[BulkReply]]]:
    """Build the calls to `POST /items/bulk`, each with up to a few hundred of the changes.

    Several requests are used instead of one endless request, so that each can be retried. The replies to one call are
    read before the next call is built.
    """
    sent, lines, size = 0, list[bytes](), 0
    for change in changes:
        lines.append(_line(change))
        size += len(lines[-1])
        if len(lines) == BULK_CALL_CHANGES or size >= BULK_CALL_BYTES:
            yield _bulk(lines, sent)
            sent, lines, size = sent + len(lines), [], 0
    if lines:
        yield _bulk(lines, sent)


def _line(change: Change) -> bytes:
    return to_json({**change, "upsert": _with_picture(change["upsert"])} if "upsert" in change else change)


def _bulk(lines: Sequence[bytes], sent: int) -> Call[list[BulkReply]]:
    def read(content: bytes) -> list[BulkReply]:
        replies = [BulkReply.model_validate_json(line) for line in content.split(b"\n") if line]
        if [reply.line for reply in replies] != list(range(1, len(lines) + 1)):
            raise UnexpectedAnswer(
                f"The replies to a bulk request do not match its changes (changes: {len(lines)}, number of the first "
                f"change: {sent + 1}, replies: {len(replies)}). Resend the changes that have no reply; it is safe to "
                "send a change twice."
            )
        return [reply.model_copy(update={"line": sent + reply.line}) for reply in replies]

    content = b"\n".join(lines)
    return Call("POST", "items/bulk", read, content, media_type="application/x-ndjson", slow=True)


def reload(artifacts: Artifacts) -> Call[ReloadAnswer]:
    """Build the call to `POST /admin/reload`, which opens an index and swaps it in."""
    return _operating("admin/reload", artifacts, ReloadAnswer)


def begin_shadow(share: float, artifacts: Artifacts) -> Call[ShadowState]:
    """Build the call to `POST /admin/shadow`, which starts a shadow run of a candidate."""
    return _operating("admin/shadow", {**artifacts, "share": share}, ShadowState)


def shadow() -> Call[ShadowState]:
    """Build the call to `GET /admin/shadow`, which returns the figures of the shadow run."""
    return getting("admin/shadow", ShadowState)


def end_shadow() -> Call[None]:
    """Build the call to `DELETE /admin/shadow`, which ends the shadow run.

    The call is not repeatable, because the server rejects a second one.
    """
    return deleting("admin/shadow", repeatable=False)


def _operating(path: str, body: Mapping[str, object], answer: type[Answer]) -> Call[Answer]:
    return Call("POST", path, answer.model_validate_json, to_json(body), repeatable=False, slow=True)


def info() -> Call[Info]:
    """Build the call to `GET /info`, which returns the versions and digests of what is served."""
    return getting("info", Info)


def ready() -> Call[Ready]:
    """Build the call to `GET /readyz`. It is not repeatable, because "not ready" is a valid result here."""
    return Call("GET", "readyz", Ready.model_validate_json, repeatable=False)


def _step(item_id: str) -> str:
    """Quote an ID as one path segment. This includes `.` and `..`, which an HTTP client would otherwise resolve."""
    return quote(item_id, safe="") if item_id.strip(".") else item_id.replace(".", "%2E")


def _claim(claim: Claim) -> dict[str, Any]:
    return {**claim, "item_a": _item(claim["item_a"]), "item_b": _item(claim["item_b"])}


def _item(item: AnyItem) -> Any:
    return item if isinstance(item, str) else _with_picture(item)


def _with_picture(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a request or an item with its picture converted to the JSON form of the API."""
    picture: PictureSource | None = asked.get("picture")
    if picture is None:
        return dict(asked)
    if isinstance(picture, str):
        return {**asked, "picture": {"url": picture}}
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    return {**asked, "picture": {"base64": b64encode(content).decode()}}
