"""Kinds of problems in the service's responses (RFC 9457), each with a status, a title and a `type`.

Kinds that are specific to rcml have their own `type`. Plain HTTP statuses have the `type` `about:blank` (RFC 9457,
section 4.2.1). The error classes in `errors.py` name their kinds, and `rejections.py` maps the errors of `model` to
kinds.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from service.schemas.problem import FieldProblem, Problem


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its status, its title, and a name if the kind is more specific than the status."""

    status: HTTPStatus
    title: str
    name: str | None = None

    @property
    def type(self) -> str:
        """URI that identifies the kind."""
        return f"urn:rcml:problem:{self.name}" if self.name else "about:blank"

    @property
    def label(self) -> str:
        """Name of the kind in logs and metrics."""
        return self.name or self.title.lower().replace(" ", "-").replace("'", "")

    @classmethod
    def of(cls, status: int) -> Self:
        """Return the kind for a plain HTTP status."""
        return cls(HTTPStatus(status), HTTPStatus(status).phrase)

    def problem(
        self,
        detail: str,
        instance: str,
        errors: list[FieldProblem] | None = None,
        known: list[str] | None = None,
        request_id: str | None = None,
    ) -> Problem:
        """Return a problem document of this kind."""
        # A file name that is not UTF-8 has surrogates, which JSON cannot have.
        detail = detail.encode(errors="backslashreplace").decode()
        return Problem(
            type=self.type,
            title=self.title,
            status=self.status,
            detail=detail,
            instance=instance,
            errors=errors,
            known=known,
            request_id=request_id,
        )


UNKNOWN_ITEM = Kind(HTTPStatus.NOT_FOUND, "Unknown item", "unknown-item")
UNKNOWN_RELATION = Kind(HTTPStatus.NOT_FOUND, "Unknown relation", "unknown-relation")
UNKNOWN_ATTRIBUTE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Unknown attribute", "unknown-attribute")
ATTRIBUTE_TYPE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Attribute of another type", "attribute-type")
MISSING_ATTRIBUTE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Missing attribute", "missing-attribute")
BAD_PICTURE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid picture", "bad-picture")
PICTURE_NOT_FETCHED = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Picture not fetched", "picture-not-fetched")
DAMAGED_PICTURE = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "Stored picture is damaged", "damaged-picture")
OVERLOADED = Kind(HTTPStatus.TOO_MANY_REQUESTS, "Overloaded", "overloaded")
NO_PICTURE = Kind(HTTPStatus.NOT_FOUND, "Item has no picture", "no-picture")
NO_TOKENS = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Free-text relations not supported", "no-tokens")
NO_WORD_INDEX = Kind(HTTPStatus.CONFLICT, "Items cannot be searched by words", "no-word-index")
UNFIT_RELATION = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Relation cannot be added", "unfit-relation")
TRAINED_RELATION = Kind(HTTPStatus.CONFLICT, "Trained relation cannot be deleted", "trained-relation")
NOT_SERVABLE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Artifacts cannot be served", "not-servable")
NO_ROOM = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Insufficient resources", "no-room")
ONE_PROCESS = Kind(HTTPStatus.CONFLICT, "Needs a server of one process", "one-process")
BUSY = Kind(HTTPStatus.CONFLICT, "Conflicting operation in progress", "busy")
NO_SHADOW = Kind(HTTPStatus.NOT_FOUND, "No shadow run", "no-shadow")
INVALID_REQUEST = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request", "invalid-request")
NOT_JSON = Kind(HTTPStatus.BAD_REQUEST, "Invalid JSON", "not-json")
NOT_READY = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Not ready", "not-ready")
OVERDUE = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Deadline exceeded", "overdue")
NO_KEY = Kind(HTTPStatus.UNAUTHORIZED, "Missing API key", "no-key")
UNKNOWN_KEY = Kind(HTTPStatus.UNAUTHORIZED, "Unknown API key", "unknown-key")
KEY_TOO_WEAK = Kind(HTTPStatus.FORBIDDEN, "API key lacks the required role", "key-too-weak")
READ_ONLY = Kind(HTTPStatus.FORBIDDEN, "Index is read-only", "read-only")
FOREIGN_SITE = Kind(HTTPStatus.FORBIDDEN, "Cross-site request", "foreign-site")
MISDIRECTED = Kind(HTTPStatus.MISDIRECTED_REQUEST, "Misdirected request", "misdirected")
TOO_MANY_REQUESTS = Kind(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", "rate-limit")
