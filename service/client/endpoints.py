"""The call of every route. What is asked is checked by the server alone: it names the field, the value and the remedy.

The types here say what the routes take, field by field as `service/schemas` does, which also says what each means.
Questions go out as they are given; only a picture is put into its JSON form.
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
from service.schemas.catalogue import ItemPage
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
"""Changes that one request of a bulk upload holds, at most, and bytes from which it holds fewer."""

PictureSource = bytes | Path | str
"""The bytes of a picture, the file it is in, or the http or https address that the server fetches it from."""

AnyView = View | Literal["text", "image", "average"]
Comparison = Similarity | Literal["TT", "II", "TI", "IT", "AVG"]

POLL_INTERVAL_S = 0.5
"""Seconds between two questions of how far a relation has come."""


class InWords(TypedDict):
    """A relation in words."""

    description: str


AnyRelation = str | InWords
"""A relation by its id, or in words."""


class NewItem(TypedDict, total=False):
    """An item that need not be in the catalogue: `text`, `picture`, or both."""

    text: str | None
    picture: PictureSource | None


AnyItem = str | NewItem
"""An item by its id, or a new one."""


class Weighted(TypedDict, total=False):
    """One of several relations; its weight is 1 unless given."""

    relation: AnyRelation
    weight: float


class OfQuery(TypedDict, total=False):
    """A number that the item asked about has: `{"query": "price"}`."""

    query: str
    times: float


class Condition(TypedDict, total=False):
    """What an attribute must be."""

    any_of: Sequence[Attribute] | None
    min: float | OfQuery | None
    max: float | OfQuery | None
    above: float | OfQuery | None
    below: float | OfQuery | None


class Promoted(TypedDict):
    """Items that the shop wants to be seen, and their share of the places."""

    item_ids: Sequence[str]
    share: float


class Retrieval(TypedDict, total=False):
    """What `POST /retrieve` takes."""

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
    """An item, whole, but for its id."""

    title: Required[str]
    description: str
    categories: Sequence[str]
    attributes: Mapping[str, Attribute]
    picture: PictureSource | None


class IdentifiedItem(ItemFields):
    """An item, whole."""

    item_id: str


class Change(TypedDict, total=False):
    """One of two: an item that is put in, new or instead of the one of its id, or the id of one that is taken out."""

    upsert: IdentifiedItem
    delete: str


class Artifacts(TypedDict, total=False):
    """Names of folders beside the served index; what is left out follows from the rest."""

    index: str | None
    checkpoint: str | None
    report: str | None


class Pair(TypedDict, total=False):
    """What `POST /relation-type` takes."""

    item_a: Required[AnyItem]
    item_b: Required[AnyItem]
    similarity: Comparison


class Claim(TypedDict):
    """What `POST /validity` takes."""

    item_a: AnyItem
    item_b: AnyItem
    relation: str


def retrieve(asked: Retrieval) -> Call[RetrieveAnswer]:
    """Make the call of `POST /retrieve`."""
    return asking("retrieve", _with_picture(asked), RetrieveAnswer)


def retrieve_batch(questions: Iterable[Retrieval]) -> Call[RetrieveBatchAnswer]:
    """Make the call of `POST /retrieve/batch`."""
    body = {"questions": [_with_picture(question) for question in questions]}
    return asking("retrieve/batch", body, RetrieveBatchAnswer)


def relation_type(
    item_a: AnyItem, item_b: AnyItem, similarity: Comparison | None = None
) -> Call[RelationTypeAnswer]:
    """Make the call of `POST /relation-type`."""
    body = {"item_a": _item(item_a), "item_b": _item(item_b), "similarity": similarity}
    return asking("relation-type", body, RelationTypeAnswer)


def relation_type_batch(pairs: Iterable[Pair]) -> Call[RelationTypeBatchAnswer]:
    """Make the call of `POST /relation-type/batch`."""
    questions = [{**pair, "item_a": _item(pair["item_a"]), "item_b": _item(pair["item_b"])} for pair in pairs]
    return asking("relation-type/batch", {"questions": questions}, RelationTypeBatchAnswer)


def explain(item_a: AnyItem, item_b: AnyItem, relation: AnyRelation) -> Call[ExplainAnswer]:
    """Make the call of `POST /explain`."""
    body = {"item_a": _item(item_a), "item_b": _item(item_b), "relation": relation}
    return asking("explain", body, ExplainAnswer)


def heat_map(item: AnyItem, relation: AnyRelation) -> Call[bytes]:
    """Make the call of `POST /explain/heat-map`."""
    return Call("POST", "explain/heat-map", bytes, to_json({"item": _item(item), "relation": relation}))


def validity(item_a: AnyItem, item_b: AnyItem, relation: str) -> Call[ValidityAnswer]:
    """Make the call of `POST /validity`."""
    claim = Claim(item_a=item_a, item_b=item_b, relation=relation)
    return asking("validity", _claim(claim), ValidityAnswer)


def validity_batch(claims: Iterable[Claim]) -> Call[ValidityBatchAnswer]:
    """Make the call of `POST /validity/batch`."""
    return asking("validity/batch", {"questions": [_claim(claim) for claim in claims]}, ValidityBatchAnswer)


def embeddings(
    items: Iterable[AnyItem],
    relation: AnyRelation,
    views: Sequence[AnyView],
    encoding: Coding,
) -> Call[EmbeddingsAnswer]:
    """Make the call of `POST /embeddings`."""
    asked = [_item(item) for item in items]
    body = {"items": asked, "relation": relation, "views": views, "encoding": encoding}
    return asking("embeddings", body, EmbeddingsAnswer)


def relations() -> Call[RelationList]:
    """List the relations."""
    return getting("relations", RelationList)


def relation(relation_id: str) -> Call[RelationDetail]:
    """Get a relation."""
    return getting(f"relations/{_step(relation_id)}", RelationDetail)


def add_relation(relation_id: str, description: str) -> Call[RelationDetail]:
    """Add a relation in words. Done twice, it would be refused."""
    content = to_json({"relation_id": relation_id, "description": description})
    return Call("POST", "relations", RelationDetail.model_validate_json, content, repeatable=False)


def is_pending(detail: RelationDetail) -> bool:
    """Tell whether a relation is still being added to the index.

    Raises:
        AdditionFailed: it never gets there.
    """
    if detail.state == "failed":
        raise AdditionFailed(detail)
    return detail.state != "indexed"


def remove_relation(relation_id: str) -> Call[None]:
    """Delete an added relation. Done twice, it would be refused."""
    return deleting(f"relations/{_step(relation_id)}", repeatable=False, slow=True)


def items(limit: int, cursor: int) -> Call[ItemPage]:
    """List a page of the catalogue."""
    return Call("GET", "items", ItemPage.model_validate_json, params={"limit": limit, "cursor": cursor})


def item(item_id: str) -> Call[ItemDetail]:
    """Get an item."""
    return getting(f"items/{_step(item_id)}", ItemDetail)


def image(item_id: str) -> Call[bytes]:
    """Get an item's picture."""
    return Call("GET", f"items/{_step(item_id)}/image", bytes)


def put_item(item_id: str, item: ItemFields) -> Call[ItemStored]:
    """Put an item in."""
    content = to_json(_with_picture(item))
    return Call("PUT", f"items/{_step(item_id)}", ItemStored.model_validate_json, content)


def delete_item(item_id: str) -> Call[None]:
    """Take an item out."""
    return deleting(f"items/{_step(item_id)}")


def bulk(changes: Iterable[Change]) -> Iterator[Call[list[BulkReply]]]:
    """Change many items: calls of a few hundred changes each, made one after the other.

    Many requests rather than an endless one: each can be sent again, and is answered before the next is made.
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
                f"Of {len(lines)} changes from number {sent + 1} on, {len(replies)} were answered. Send those again "
                "that were not: to make a change twice does no harm."
            )
        return [reply.model_copy(update={"line": sent + reply.line}) for reply in replies]

    content = b"\n".join(lines)
    return Call("POST", "items/bulk", read, content, media_type="application/x-ndjson", slow=True)


def reload(artifacts: Artifacts) -> Call[ReloadAnswer]:
    """Serve another index."""
    return _operating("admin/reload", artifacts, ReloadAnswer)


def begin_shadow(share: float, artifacts: Artifacts) -> Call[ShadowState]:
    """Compare a candidate."""
    return _operating("admin/shadow", {**artifacts, "share": share}, ShadowState)


def shadow() -> Call[ShadowState]:
    """Get how the candidate compares."""
    return getting("admin/shadow", ShadowState)


def end_shadow() -> Call[None]:
    """End the comparison. Done twice, it would be refused."""
    return deleting("admin/shadow", repeatable=False)


def _operating(path: str, body: Mapping[str, object], answer: type[Answer]) -> Call[Answer]:
    return Call("POST", path, answer.model_validate_json, to_json(body), repeatable=False, slow=True)


def info() -> Call[Info]:
    """Get the versions and digests of what answers."""
    return getting("info", Info)


def ready() -> Call[Ready]:
    """Get whether it can answer. Asked once, since "not now" is an answer here."""
    return Call("GET", "readyz", Ready.model_validate_json, repeatable=False)


def _step(item_id: str) -> str:
    """Quote an id as one step of a path; `.` and `..` too, which would be resolved before they are sent."""
    return quote(item_id, safe="") if item_id.strip(".") else item_id.replace(".", "%2E")


def _claim(claim: Claim) -> dict[str, Any]:
    return {**claim, "item_a": _item(claim["item_a"]), "item_b": _item(claim["item_b"])}


def _item(item: AnyItem) -> Any:
    return item if isinstance(item, str) else _with_picture(item)


def _with_picture(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a question or an item with its picture in the form that requests have."""
    picture: PictureSource | None = asked.get("picture")
    if picture is None:
        return dict(asked)
    if isinstance(picture, str):
        return {**asked, "picture": {"url": picture}}
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    return {**asked, "picture": {"base64": b64encode(content).decode()}}
