"""Every refusal as a problem document (RFC 9457, `application/problem+json`).

What a client can cause is answered with the field, the value and the remedy; what it cannot is a 500 that
tells it nothing but that. Kinds of our own have their own `type`; plain HTTP statuses have `about:blank`, as
section 4.2.1 asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Self, cast, get_type_hints
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

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
from service.errors import (
    BusyError,
    NoRoomError,
    NoShadowError,
    NotReadyError,
    NotServableError,
    OverloadedError,
    TrainedRelationError,
    UnfitRelationError,
)
from service.schemas.problem import FieldProblem, Problem
from service.telemetry.logs import REQUEST_ID, logger
from service.validation_messages import ECHO_LENGTH, place, quoted, refusal

from .browser_policy import HEADERS as SECURITY_HEADERS
from .route_rules import methods_of

MEDIA_TYPE = "application/problem+json"

MOST_ERRORS = 20
"""Errors listed in one problem: a body of a thousand unknown fields gets no longer answer than this."""

PROBLEM = "rcml.problem"
"""Where in a request's scope the kind of problem it ended in is left for logs and metrics."""


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

    @property
    def label(self) -> str:
        """What logs and metrics call the kind."""
        return self.name or self.title.lower().replace(" ", "-").replace("'", "")

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
        request_id: str | None = None,
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


@dataclass(frozen=True)
class Rejection:
    """Why a request is not answered, whichever request it was."""

    kind: Kind
    detail: str
    errors: list[FieldProblem] | None = None
    known: Sequence[str] = ()
    headers: Mapping[str, str] | None = None

    def problem(self, instance: str) -> Problem:
        """The document that says so."""
        return self.kind.problem(self.detail, instance, self.errors, list(self.known) or None)


FAILED = Rejection(
    Kind.of(HTTPStatus.INTERNAL_SERVER_ERROR),
    "The server failed through no fault of the request; its log says why.",
)


def refusal_of(error: RcmlError) -> Rejection | None:
    """What an error of ours says to a client; None if that is none of its business."""
    match error:
        case UnknownItemError():
            return Rejection(UNKNOWN_ITEM, str(error))
        case UnknownRelationError():
            return Rejection(UNKNOWN_RELATION, str(error), known=error.known)
        case UnknownAttributeError():
            return Rejection(UNKNOWN_ATTRIBUTE, str(error), known=error.known)
        case MissingAttributeError():
            return Rejection(MISSING_ATTRIBUTE, str(error))
        case IntraRelationError():
            return _intra_relation(error)
        case NoWordsError():
            return _no_words(error)
        case NoPictureError():
            return Rejection(NO_PICTURE, str(error))
        case NoTokensError():
            return Rejection(NO_TOKENS, str(error))
        case UnfitRelationError():
            return Rejection(UNFIT_RELATION, str(error))
        case TrainedRelationError():
            return Rejection(TRAINED_RELATION, str(error))
        case NotServableError():
            return Rejection(NOT_SERVABLE, str(error))
        case NoRoomError():
            return Rejection(NO_ROOM, str(error), headers={"Retry-After": "60"})
        case BusyError():
            return Rejection(BUSY, str(error), headers={"Retry-After": "5"})
        case NoShadowError():
            return Rejection(NO_SHADOW, str(error))
        case FetchError():
            return Rejection(PICTURE_NOT_FETCHED, str(error))
        case PictureError():
            return Rejection(BAD_PICTURE, str(error))
        case OverloadedError():
            return Rejection(OVERLOADED, str(error), headers={"Retry-After": str(error.retry_after)})
        case NotReadyError():
            return Rejection(NOT_READY, str(error), headers={"Retry-After": "1"})
        case UnreachableError() | StorageError():
            # The reason names servers and files, so it is for the log alone.
            logger.warning("%s", error)
            detail = "A part of the index cannot be reached now. Ask again in a second."
            return Rejection(NOT_READY, detail, headers={"Retry-After": "1"})
        case _:
            return None


def install(app: FastAPI) -> None:
    """Answer every refusal of `app` with a problem document."""
    app.add_exception_handler(RcmlError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)


class ProblemResponse(Response):
    """A problem as an answer, which leaves its kind in the scope."""

    def __init__(self, kind: Kind, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.model_dump_json(exclude_none=True), kind.status, headers, MEDIA_TYPE)
        self.kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM] = self.kind.label
        await super().__call__(scope, receive, send)


def problem_response(
    kind: Kind,
    detail: str,
    path: str,
    errors: list[FieldProblem] | None = None,
    known: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as an answer to a request for `path`; middlewares send it too."""
    return ProblemResponse(kind, kind.problem(detail, quote(path), errors, list(known) or None), headers)


def _answer(
    request: Request,
    kind: Kind,
    detail: str,
    errors: list[FieldProblem] | None = None,
    known: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    return problem_response(kind, detail, request.scope["path"], errors, known, headers)


def refused(request: Request, error: RcmlError) -> Response:
    """The answer to a request that ended in one of our errors.

    Raises:
        RcmlError: the error, if it is none of the client's business.
    """
    refusal = refusal_of(error)
    if refusal is None:
        raise error
    return _answer(request, refusal.kind, refusal.detail, refusal.errors, refusal.known, refusal.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RcmlError)
    return refused(request, error)


def _intra_relation(error: IntraRelationError) -> Rejection:
    remedy = f"Send one of {', '.join(error.others)}."
    value = quoted(error.relation_id)
    problem = FieldProblem(pointer="#/relation", value=value, message=str(error), remedy=remedy)
    return Rejection(INVALID_REQUEST, f"{problem.message} {remedy}", [problem])


def _no_words(error: NoWordsError) -> Rejection:
    message, _, remedy = str(error).rpartition(". ")
    problems = [
        FieldProblem(pointer=f"#/{field}", message=f"{message}.", remedy=remedy) for field in error.fields
    ]
    return Rejection(INVALID_REQUEST, str(error), problems)


async def _invalid_request(request: Request, error: Exception) -> Response:
    hints = get_type_hints(request.scope["endpoint"], include_extras=True)
    models = (hint for hint in hints.values() if isinstance(hint, type) and issubclass(hint, BaseModel))
    refusal = invalid(cast(RequestValidationError, error), next(models, None), parameters=hints)
    return _answer(request, refusal.kind, refusal.detail, refusal.errors)


def invalid(
    error: RequestValidationError,
    body: type[BaseModel] | None,
    name: str = "body",
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Rejection:
    """What is wrong with a `body`, which its sender calls `name`, or with the `parameters` of a path or a query."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        return Rejection(NOT_JSON, f"The {name} is not JSON: {errors[0]['ctx']['error'][:ECHO_LENGTH]}.")
    # A default that depends on other fields is not made when one of those is wrong: no fault of its own.
    faults = [one for one in errors if one["type"] != "default_factory_not_called"]
    problems: dict[str | None, FieldProblem] = {}
    for fault in faults[:MOST_ERRORS]:
        problem = _field_problem(fault, body, name, parameters)
        # What may be of several types is refused once for each, in the order in which they are declared.
        problems.setdefault(problem.pointer or problem.parameter, problem)
    detail = " ".join(f"{problem.message} {problem.remedy}" for problem in problems.values())
    return Rejection(INVALID_REQUEST, detail, [*problems.values()])


async def _http(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    status = HTTPStatus(http.status_code)
    path, method = request.scope["path"][:ECHO_LENGTH], request.method
    details = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {path}. GET /docs shows what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {method}. GET /docs shows what it takes.",
    }
    headers = http.headers
    if (
        status is HTTPStatus.METHOD_NOT_ALLOWED
    ):  # Starlette names those of one route, and others share its path
        headers = {"Allow": ", ".join(methods_of(request.scope["path"]))}
    return _answer(request, Kind.of(status), details.get(status, http.detail), headers=headers)


async def _internal(request: Request, error: Exception) -> Response:
    """The server logs the traceback, under the same id.

    Starlette answers with this outside of all middlewares, so what those would add is added here.
    """
    kind, request_id = FAILED.kind, REQUEST_ID.get()
    problem = kind.problem(FAILED.detail, quote(request.scope["path"]), request_id=request_id)
    own = {"X-Request-Id": request_id} if request_id else {}
    return ProblemResponse(kind, problem, {**SECURITY_HEADERS, **own})


def _field_problem(
    error: ErrorDetails, model: type[BaseModel] | None, body: str, parameters: Mapping[str, Any]
) -> FieldProblem:
    """Word one of pydantic's errors; its location is `body`, `query` or `path`, then the way to the field."""
    where, *location = error["loc"]
    value = None if error["type"] == "missing" else quoted(error["input"])
    if where != "body":
        name = str(location[0])
        refused = refusal(error, FieldInfo.from_annotation(parameters[name]), name, "send")
        return FieldProblem(parameter=name, value=value, message=refused.message, remedy=refused.remedy)
    assert model is not None, "what takes a body has a model of it"
    found = place(model, location)
    name = ".".join(_shortened(part) for part in found.path) or f"The {body}"
    refused = refusal(error, found.field, name, "send")
    pointer = "#" + "".join(f"/{_escaped(part)}" for part in found.path)
    return FieldProblem(pointer=pointer, value=value, message=refused.message, remedy=refused.remedy)


def _shortened(part: str | int) -> str:
    """One step of the way to a field; the name of one that is not known may be of any length."""
    step = str(part)
    return step[:ECHO_LENGTH] + "…" * (len(step) > ECHO_LENGTH)


def _escaped(part: str | int) -> str:
    """One step of a JSON pointer (RFC 6901) in a URI fragment."""
    return quote(str(part)[:ECHO_LENGTH].replace("~", "~0").replace("/", "~1"))
