"""Rejections of requests: the kind of problem, the detail and the remedy for each error.

The errors of the service define their own kinds (`errors.py`). The errors of `model` are independent of HTTP, so this
module maps them to kinds and adds remedies for HTTP clients, such as "GET /items lists the existing IDs". A route
with a single query answers with the rejection. Batches and bulk uploads return it as the reply to one query or line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from model.errors import (
    AttributeTypeError,
    DamagedPictureError,
    FetchError,
    IntraRelationError,
    MissingAttributeError,
    NoPictureError,
    NoTokensError,
    NoWordIndexError,
    NoWordsError,
    PictureError,
    RcmlError,
    ReadOnlyError,
    StorageError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownRelationError,
    UnreachableError,
)
from service.schemas.problem import FieldProblem, Problem
from service.telemetry.logs import logger

from . import kinds
from .errors import ServiceError
from .field_messages import quoted
from .kinds import Kind

MODEL_ERROR_KINDS: Mapping[type[RcmlError], Kind] = {
    AttributeTypeError: kinds.ATTRIBUTE_TYPE,
    DamagedPictureError: kinds.DAMAGED_PICTURE,
    FetchError: kinds.PICTURE_NOT_FETCHED,
    IntraRelationError: kinds.INVALID_REQUEST,
    MissingAttributeError: kinds.MISSING_ATTRIBUTE,
    NoPictureError: kinds.NO_PICTURE,
    NoTokensError: kinds.NO_TOKENS,
    NoWordIndexError: kinds.NO_WORD_INDEX,
    NoWordsError: kinds.INVALID_REQUEST,
    PictureError: kinds.BAD_PICTURE,
    ReadOnlyError: kinds.READ_ONLY,
    StorageError: kinds.NOT_READY,
    UnknownAttributeError: kinds.UNKNOWN_ATTRIBUTE,
    UnknownItemError: kinds.UNKNOWN_ITEM,
    UnknownRelationError: kinds.UNKNOWN_RELATION,
    UnreachableError: kinds.NOT_READY,
}
"""Kinds of the errors of `model`, including their subclasses. Any other error is a server error with status 500."""


@dataclass(frozen=True)
class Rejection:
    """Reason for rejecting a request, independent of the route."""

    kind: Kind
    detail: str
    errors: list[FieldProblem] | None = None
    known: Sequence[str] = ()
    headers: Mapping[str, str] | None = None

    def problem(self, instance: str) -> Problem:
        """Return the problem document for a request to the path `instance`."""
        return self.kind.problem(self.detail, instance, self.errors, list(self.known) or None)


FAILED = Rejection(
    Kind.of(HTTPStatus.INTERNAL_SERVER_ERROR),
    "An internal error prevented the server from answering this request. The server log has the details.",
)


def rejection_of(error: RcmlError) -> Rejection | None:
    """Return the rejection for an error, or None for a server error that needs status 500."""
    if isinstance(error, ServiceError):
        return Rejection(error.kind, str(error), headers=error.headers)
    kind = next((MODEL_ERROR_KINDS[cls] for cls in type(error).__mro__ if cls in MODEL_ERROR_KINDS), None)
    if kind is None:
        return None
    detail = detail_of(error)
    match error:
        case UnknownRelationError() | UnknownAttributeError():
            return Rejection(kind, detail, known=error.known)
        case AttributeTypeError():
            message, _, remedy = detail.partition(". ")
            pointer = f"#/filter/{error.name.replace('~', '~0').replace('/', '~1')}"  # RFC 6901, section 3
            fault = FieldProblem(pointer=pointer, message=f"{message}.", remedy=remedy)
            return Rejection(kind, detail, [fault])
        case IntraRelationError():
            return Rejection(kind, detail, [_intra_relation(error)])
        case NoWordsError():
            return Rejection(kind, detail, _no_words(detail, error.fields))
        case ReadOnlyError() | DamagedPictureError():
            logger.warning("%s", error)  # with the folder, which clients need not know
        case UnreachableError() | StorageError():
            # The message names servers and files, so it is only logged.
            logger.warning("%s", error)
            return Rejection(kind, detail, headers={"Retry-After": "1"})
    return Rejection(kind, detail)


def detail_of(error: RcmlError) -> str:
    """Return the message of an error with the remedy for an HTTP client."""
    match error:
        case UnknownItemError():
            return f"No item has the ID {error.item_id!r}. GET /items lists the existing IDs."
        case NoWordsError():
            fields = ", ".join(error.fields)
            return (
                f"Item {error.item_id!r} has no text in the fields that the model reads: {fields}. "
                "Send text in at least one of them."
            )
        case NoTokensError():
            return (
                "This index stores no tokens, so it does not support free-text relations. Send the ID of a relation "
                "listed by GET /relations, or rebuild the index with --token-store."
            )
        case NoWordIndexError():
            return (
                "An earlier version of rcml wrote this index, so its items cannot be searched by words. List the items "
                "without `words`, or ask the operator to compact the index after a change, or to build it again."
            )
        case IntraRelationError():
            return f"{error} {_other_relations(error)}"
        case ReadOnlyError():
            return (
                "This index cannot be changed here, because the server has no right to write to its folder. Send the "
                "change to a server that has this right, or ask the operator to give this server the right."
            )
        case DamagedPictureError():
            return (
                f"The stored picture {error.file} of this server is damaged. The request is valid. The operator can "
                "restore the file, or send the item again with its picture."
            )
        case UnreachableError() | StorageError():
            return (
                "A part of the index cannot be read or written. Retry in one second. If that fails again, ask the "
                "operator: the log of the server has the reason, such as a full disk."
            )
        case _:
            return str(error)


def _other_relations(error: IntraRelationError) -> str:
    return f"Send one of {', '.join(error.others)}."


def _intra_relation(error: IntraRelationError) -> FieldProblem:
    return FieldProblem(
        pointer="#/relation",
        value=quoted(error.relation_id),
        message=str(error),
        remedy=_other_relations(error),
    )


def _no_words(detail: str, fields: Sequence[str]) -> list[FieldProblem]:
    message, _, remedy = detail.rpartition(". ")
    return [FieldProblem(pointer=f"#/{field}", message=f"{message}.", remedy=remedy) for field in fields]
