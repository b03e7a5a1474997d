"""Kinds of problems that the service answers with (RFC 9457): the status, the title and the `type` of each.

Kinds of our own have a `type` of their own; plain HTTP statuses have `about:blank`, as section 4.2.1 asks. The errors
of `errors.py` name their kind, and `rejections.py` has the kinds of the model's errors.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from service.schemas.problem import FieldProblem, Problem


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its status, its title, and a name if the status alone does not say it."""

    status: HTTPStatus
    title: str
    name: str | None = None

    @property
    def type(self) -> str:
        """URI that names the kind."""
        return f"urn:rcml:problem:{self.name}" if self.name else "about:blank"

    @property
    def label(self) -> str:
        """Name of the kind in logs and metrics."""
        return self.name or self.title.lower().replace(" ", "-").replace("'", "")

    @classmethod
    def of(cls, status: int) -> Self:
        """Return the kind of a plain HTTP status."""
        return cls(HTTPStatus(status), HTTPStatus(status).phrase)

    def problem(
        self,
        detail: str,
        instance: str,
        errors: list[FieldProblem] | None = None,
        known: list[str] | None = None,
        request_id: str | None = None,
    ) -> Problem:
        """Make a problem document of this kind."""
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
MISSING_ATTRIBUTE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Missing attribute", "missing-attribute")
BAD_PICTURE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Bad picture", "bad-picture")
PICTURE_NOT_FETCHED = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Picture not fetched", "picture-not-fetched")
OVERLOADED = Kind(HTTPStatus.TOO_MANY_REQUESTS, "Overloaded", "overloaded")
NO_PICTURE = Kind(HTTPStatus.NOT_FOUND, "No picture", "no-picture")
NO_TOKENS = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Relations in words are not kept ready", "no-tokens")
UNFIT_RELATION = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Relation cannot be added", "unfit-relation")
TRAINED_RELATION = Kind(HTTPStatus.CONFLICT, "Relation of the checkpoint", "trained-relation")
NOT_SERVABLE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Cannot be served", "not-servable")
NO_ROOM = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "No room for another", "no-room")
BUSY = Kind(HTTPStatus.CONFLICT, "Being done already", "busy")
NO_SHADOW = Kind(HTTPStatus.NOT_FOUND, "No candidate", "no-shadow")
INVALID_REQUEST = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request", "invalid-request")
NOT_JSON = Kind(HTTPStatus.BAD_REQUEST, "Not JSON", "not-json")
NOT_READY = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Not ready", "not-ready")
OVERDUE = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Overdue", "overdue")
NO_KEY = Kind(HTTPStatus.UNAUTHORIZED, "No API key", "no-key")
UNKNOWN_KEY = Kind(HTTPStatus.UNAUTHORIZED, "Unknown API key", "unknown-key")
KEY_TOO_WEAK = Kind(HTTPStatus.FORBIDDEN, "Not for this API key", "key-too-weak")
FOREIGN_SITE = Kind(HTTPStatus.FORBIDDEN, "Page of another site", "foreign-site")
MISDIRECTED = Kind(HTTPStatus.MISDIRECTED_REQUEST, "Not this host", "misdirected")
TOO_MANY_REQUESTS = Kind(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", "rate-limit")
