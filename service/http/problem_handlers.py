"""Handlers that answer every error of a request with a problem document.

What a client can cause is answered with the field, the value and the remedy; what it cannot is a 500 that
tells it nothing but that.
"""

from http import HTTPStatus
from typing import cast, get_type_hints
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from model.errors import RcmlError
from service.problems.field_messages import ECHO_LENGTH
from service.problems.kinds import Kind
from service.problems.rejections import FAILED, Rejection, rejection_of
from service.problems.response import ProblemResponse, problem_response
from service.problems.validation import validation_rejection
from service.telemetry.logs import REQUEST_ID

from .browser_policy import SECURITY_HEADERS
from .route_rules import methods_of


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(RcmlError, _answer_our_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)


def error_response(request: Request, error: RcmlError) -> Response:
    """Make the answer to a request that ended in one of our errors.

    Raises:
        RcmlError: the error, if the fault is not the client's.
    """
    rejection = rejection_of(error)
    if rejection is None:
        raise error
    return _rejection_response(request, rejection)


def _rejection_response(request: Request, rejection: Rejection) -> Response:
    return problem_response(
        rejection.kind,
        rejection.detail,
        request.scope["path"],
        rejection.errors,
        rejection.known,
        rejection.headers,
    )


async def _answer_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RcmlError)
    return error_response(request, error)


async def _answer_invalid_request(request: Request, error: Exception) -> Response:
    hints = get_type_hints(request.scope["endpoint"], include_extras=True)
    models = (hint for hint in hints.values() if isinstance(hint, type) and issubclass(hint, BaseModel))
    rejection = validation_rejection(
        cast(RequestValidationError, error), next(models, None), parameters=hints
    )
    return _rejection_response(request, rejection)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    status = HTTPStatus(http.status_code)
    path, method = request.scope["path"][:ECHO_LENGTH], request.method
    details = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {path}. GET /docs shows what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {method}. GET /docs shows what it takes.",
    }
    headers = http.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette lists the methods of one route, and several routes may share the path.
        headers = {"Allow": ", ".join(methods_of(request.scope["path"]))}
    detail = details.get(status, http.detail)
    return problem_response(Kind.of(status), detail, request.scope["path"], headers=headers)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Answer 500; the server logs the traceback, under the same id.

    Starlette answers with this outside of all middlewares, so what those would add is added here.
    """
    kind, request_id = FAILED.kind, REQUEST_ID.get()
    problem = kind.problem(FAILED.detail, quote(request.scope["path"]), request_id=request_id)
    own = {"X-Request-Id": request_id} if request_id else {}
    return ProblemResponse(kind, problem, {**SECURITY_HEADERS, **own})
