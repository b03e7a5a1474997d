"""Rejections of requests: the kind of problem, the detail and the remedy that each of our errors is answered with.

Errors of the service carry their kind (`errors.py`). Those of `model` know no HTTP: their kinds, and the routes
that help a client on, are here. Routes of one question answer with the rejection; batches and bulk uploads put it in
place of one reply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from model.errors import (
    FetchError,
    IntraRelationError,
    MissingAttributeError,
    NoPictureError,
    NoTokensError,
    NoWordsError,
    PictureError,
    RcmlError,
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
    FetchError: kinds.PICTURE_NOT_FETCHED,
    IntraRelationError: kinds.INVALID_REQUEST,
    MissingAttributeError: kinds.MISSING_ATTRIBUTE,
    NoPictureError: kinds.NO_PICTURE,
    NoTokensError: kinds.NO_TOKENS,
    NoWordsError: kinds.INVALID_REQUEST,
    PictureError: kinds.BAD_PICTURE,
    StorageError: kinds.NOT_READY,
    UnknownAttributeError: kinds.UNKNOWN_ATTRIBUTE,
    UnknownItemError: kinds.UNKNOWN_ITEM,
    UnknownRelationError: kinds.UNKNOWN_RELATION,
    UnreachableError: kinds.NOT_READY,
}
"""Kinds of the model's errors and of their subclasses; an error that is missing here is the server's fault: a 500."""


@dataclass(frozen=True)
class Rejection:
    """Why a request is not answered, whichever request it was."""

    kind: Kind
    detail: str
    errors: list[FieldProblem] | None = None
    known: Sequence[str] = ()
    headers: Mapping[str, str] | None = None

    def problem(self, instance: str) -> Problem:
        """Make the problem document of the rejection of a request for `instance`."""
        return self.kind.problem(self.detail, instance, self.errors, list(self.known) or None)


FAILED = Rejection(
    Kind.of(HTTPStatus.INTERNAL_SERVER_ERROR),
    "The server failed through no fault of the request; its log says why.",
)


def rejection_of(error: RcmlError) -> Rejection | None:
    """Return the rejection that an error is answered with; None if the fault is not the client's, but a 500."""
    if isinstance(error, ServiceError):
        return Rejection(error.kind, str(error), headers=error.headers)
    kind = next((MODEL_ERROR_KINDS[cls] for cls in type(error).__mro__ if cls in MODEL_ERROR_KINDS), None)
    if kind is None:
        return None
    detail = detail_of(error)
    match error:
        case UnknownRelationError() | UnknownAttributeError():
            return Rejection(kind, detail, known=error.known)
        case IntraRelationError():
            return Rejection(kind, detail, [_intra_relation(error)])
        case NoWordsError():
            return Rejection(kind, detail, _no_words(detail, error.fields))
        case UnreachableError() | StorageError():
            # The reason names servers and files, so it is for the log alone.
            logger.warning("%s", error)
            return Rejection(kind, detail, headers={"Retry-After": "1"})
    return Rejection(kind, detail)


def detail_of(error: RcmlError) -> str:
    """Return the message of an error with the remedy that an HTTP client has."""
    match error:
        case UnknownItemError():
            return f"No item has the id {error.item_id!r}. GET /items lists the ids there are."
        case NoWordsError():
            fields = ", ".join(error.fields)
            return (
                f"Item {error.item_id!r} has no words in {fields}, which is what the network reads of an item. "
                "Send some."
            )
        case NoTokensError():
            return (
                "This index keeps no tokens, so it cannot be asked about a relation in words. Name one of "
                "GET /relations, or build the index with --token-store."
            )
        case IntraRelationError():
            return f"{error} {_other_relations(error)}"
        case UnreachableError() | StorageError():
            return "A part of the index cannot be reached now. Ask again in a second."
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
