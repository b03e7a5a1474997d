"""Every refusal as a problem document (RFC 9457, `application/problem+json`).

What a client can cause is answered with the field, the value and the remedy; what it cannot is a 500 that
tells it nothing but that. Kinds of our own have their own `type`; plain HTTP statuses have `about:blank`, as
section 4.2.1 asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self, cast, get_type_hints
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response

from model.errors import (
    NoPictureError,
    NoTokensError,
    StorageError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownRelationError,
    UnreachableError,
)
from model.terminal import say

from .engine import IntraRelationError
from .loading import NotReadyError
from .schemas import RELATION_TAGS
from .wording import ECHO_LENGTH, echo, field_at, refusal

MEDIA_TYPE = "application/problem+json"

MOST_ERRORS = 20
"""Errors listed in one problem: a body of a thousand unknown fields gets no longer answer than this."""


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    pointer: str | None = Field(None, description="JSON pointer to the field of the body, as in #/k")
    parameter: str | None = Field(None, description="name of the path or query parameter, where it is one")
    value: str | None = Field(None, description="what was sent, as JSON, cut short; null where nothing was")
    message: str = Field(description="what is wrong, in a sentence")
    remedy: str = Field(description="what to send instead, in a sentence")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="kind of problem; about:blank where the status says it all")
    title: str = Field(description="the kind in words")
    status: int = Field(ge=400, le=599, description="the HTTP status")
    detail: str = Field(description="what went wrong this time, and what to do about it")
    instance: str = Field(description="path of the request")
    errors: list[FieldProblem] | None = Field(None, description="the fields at fault, where fields are")
    known: list[str] | None = Field(
        None, description="the ids there are, where an unknown relation was named"
    )


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its status, and its name where the status alone does not say it."""

    status: HTTPStatus
    title: str
    name: str | None = None

    @property
    def type(self) -> str:
        """URI that names the kind."""
        return f"urn:rcml:problem:{self.name}" if self.name else "about:blank"

    @classmethod
    def of(cls, status: int) -> Self:
        """The kind that a plain HTTP status is."""
        return cls(HTTPStatus(status), HTTPStatus(status).phrase)

    def problem(
        self,
        detail: str,
        instance: str,
        errors: list[FieldProblem] | None = None,
        known: list[str] | None = None,
    ) -> Problem:
        """A problem of this kind."""
        return Problem(
            type=self.type,
            title=self.title,
            status=self.status,
            detail=detail,
            instance=instance,
            errors=errors,
            known=known,
        )


UNKNOWN_ITEM = Kind(HTTPStatus.NOT_FOUND, "Unknown item", "unknown-item")
UNKNOWN_RELATION = Kind(HTTPStatus.NOT_FOUND, "Unknown relation", "unknown-relation")
UNKNOWN_ATTRIBUTE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Unknown attribute", "unknown-attribute")
NO_PICTURE = Kind(HTTPStatus.NOT_FOUND, "No picture", "no-picture")
NO_TOKENS = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Relations in words are not kept ready", "no-tokens")
INVALID_REQUEST = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request", "invalid-request")
NOT_JSON = Kind(HTTPStatus.BAD_REQUEST, "Not JSON", "not-json")
NOT_READY = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "Not ready", "not-ready")


def install(app: FastAPI) -> None:
    """Answer every refusal of `app` with a problem document."""
    app.add_exception_handler(UnknownItemError, _unknown_item)
    app.add_exception_handler(UnknownRelationError, _unknown_relation)
    app.add_exception_handler(IntraRelationError, _intra_relation)
    app.add_exception_handler(UnknownAttributeError, _unknown_attribute)
    app.add_exception_handler(NoPictureError, _no_picture)
    app.add_exception_handler(NoTokensError, _no_tokens)
    app.add_exception_handler(NotReadyError, _not_ready)
    app.add_exception_handler(UnreachableError, _out_of_reach)
    app.add_exception_handler(StorageError, _out_of_reach)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)


def _answer(
    request: Request,
    kind: Kind,
    detail: str,
    errors: list[FieldProblem] | None = None,
    known: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = kind.problem(detail, quote(request.scope["path"]), errors, list(known) or None)
    return Response(problem.model_dump_json(exclude_none=True), kind.status, headers, MEDIA_TYPE)


async def _unknown_item(request: Request, error: Exception) -> Response:
    return _answer(request, UNKNOWN_ITEM, str(error))


async def _unknown_relation(request: Request, error: Exception) -> Response:
    return _answer(request, UNKNOWN_RELATION, str(error), known=cast(UnknownRelationError, error).known)


async def _intra_relation(request: Request, error: Exception) -> Response:
    intra = cast(IntraRelationError, error)
    remedy = f"Send one of {', '.join(intra.others)}."
    value = echo(intra.relation_id)
    problem = FieldProblem(pointer="#/relation", value=value, message=str(intra), remedy=remedy)
    return _answer(request, INVALID_REQUEST, f"{problem.message} {remedy}", [problem])


async def _unknown_attribute(request: Request, error: Exception) -> Response:
    return _answer(request, UNKNOWN_ATTRIBUTE, str(error), known=cast(UnknownAttributeError, error).known)


async def _no_picture(request: Request, error: Exception) -> Response:
    return _answer(request, NO_PICTURE, str(error))


async def _no_tokens(request: Request, error: Exception) -> Response:
    return _answer(request, NO_TOKENS, str(error))


async def _not_ready(request: Request, error: Exception) -> Response:
    return _answer(request, NOT_READY, str(error), headers={"Retry-After": "1"})


async def _out_of_reach(request: Request, error: Exception) -> Response:
    """The reason names servers and files, so it is for the log alone."""
    say(str(error))
    detail = "A part of the index cannot be reached now. Ask again in a second."
    return _answer(request, NOT_READY, detail, headers={"Retry-After": "1"})


async def _invalid_request(request: Request, error: Exception) -> Response:
    errors = cast(RequestValidationError, error).errors()
    if errors[0]["type"] == "json_invalid":
        detail = f"The body is not JSON: {errors[0]['ctx']['error']} at character {errors[0]['loc'][1]}."
        return _answer(request, NOT_JSON, detail)
    # A default that depends on other fields is not made when one of those is wrong: no fault of its own.
    faults = [one for one in errors if one["type"] != "default_factory_not_called"]
    problems = [_field_problem(request, one) for one in faults[:MOST_ERRORS]]
    detail = " ".join(f"{problem.message} {problem.remedy}" for problem in problems)
    return _answer(request, INVALID_REQUEST, detail, problems)


async def _http(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    status = HTTPStatus(http.status_code)
    if status is HTTPStatus.BAD_REQUEST:
        return _answer(request, NOT_JSON, _unreadable(http.__cause__))
    path, method = request.scope["path"][:ECHO_LENGTH], request.method
    details = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {path}. GET /docs shows what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {method}. GET /docs shows what it takes.",
    }
    return _answer(request, Kind.of(status), details.get(status, http.detail), headers=http.headers)


async def _internal(request: Request, error: Exception) -> Response:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _answer(
        request, Kind.of(status), "The server failed through no fault of the request; its log says why."
    )


def _unreadable(cause: BaseException | None) -> str:
    """Why a body could not even be parsed; FastAPI keeps the reason as the cause of its 400."""
    match cause:
        case UnicodeDecodeError():
            return f"The body is not JSON: byte {cause.start} is not UTF-8. Send JSON in UTF-8."
        case RecursionError():
            return "The body is nested too deeply to be read. Send a flat JSON object."
        case _:
            return "A number in the body has too many digits to be read. Send a shorter one."


def _field_problem(request: Request, error: ErrorDetails) -> FieldProblem:
    """Word one of pydantic's errors; its location is `body`, `query` or `path`, then the way to the field."""
    place, *path = error["loc"]
    if path[:1] == ["relation"] and path[1:2] and path[1] in RELATION_TAGS:
        del path[1]
    hints = get_type_hints(request.scope["endpoint"], include_extras=True)
    value = None if error["type"] == "missing" else echo(error["input"])
    if place != "body":
        name = str(path[0])
        refused = refusal(error, FieldInfo.from_annotation(hints[name]), name, "send")
        return FieldProblem(parameter=name, value=value, message=refused.message, remedy=refused.remedy)
    body = next(hint for hint in hints.values() if isinstance(hint, type) and issubclass(hint, BaseModel))
    name = ".".join(str(part) for part in path) or "The body"
    refused = refusal(error, field_at(body, path), name, "send")
    pointer = "#" + "".join(f"/{_escaped(part)}" for part in path)
    return FieldProblem(pointer=pointer, value=value, message=refused.message, remedy=refused.remedy)


def _escaped(part: str | int) -> str:
    """One step of a JSON pointer (RFC 6901) in a URI fragment."""
    step = str(part)[:ECHO_LENGTH].encode(errors="replace").decode()
    return quote(step.replace("~", "~0").replace("/", "~1"))
