"""Exception handlers that answer every failed request with a problem document.

The response to an expected error states the problem and the remedy. For an invalid field, it also states the field and
its value. The response to any other error is a 500 without details.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast, get_type_hints
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from model.errors import RcmlError
from service.problems.field_messages import ECHO_LENGTH
from service.problems.kinds import Kind
from service.problems.rejections import FAILED, Rejection, rejection_of
from service.problems.response import STATUS_CLIENT_LEFT, ProblemResponse, problem_response
from service.problems.validation import validation_rejection
from service.telemetry.logs import REQUEST_ID

from .browser_policy import SECURITY_HEADERS
from .route_rules import methods_of


def install(app: FastAPI) -> None:
    """Register the handlers that answer every error of `app` with a problem document."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _answer_bug)


async def answer_error(request: Request, error: Exception) -> Response:
    """Return the response to a request that raised an error, as `install` makes the application do.

    Raises:
        Exception: `error` itself, if it is a server error that needs status 500.
    """
    for kind in type(error).__mro__:
        if kind in _HANDLERS:
            return await _HANDLERS[kind](request, error)
    raise error


async def _note_client_left(request: Request, error: Exception) -> Response:
    """Return a response that nobody receives, for the access log: the client left while its body was read."""
    return Response(status_code=STATUS_CLIENT_LEFT)


def error_response(request: Request, error: RcmlError) -> Response:
    """Return the response to a request that raised an rcml error.

    Raises:
        RcmlError: `error` itself, if it is a server error that needs status 500.
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
        HTTPStatus.NOT_FOUND: f"There is no route at {path}. GET /docs lists all routes.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not support {method}. GET /docs lists the supported methods.",
    }
    headers = http.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette lists the methods of only one route, but several routes may share the path.
        headers = {"Allow": ", ".join(methods_of(request.scope["path"]))}
    detail = details.get(status, http.detail)
    return problem_response(Kind.of(status), detail, request.scope["path"], headers=headers)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Return a 500 response; the server logs the traceback under the same request ID.

    Starlette runs this handler outside all of the app's middlewares, so the handler adds their headers itself.
    """
    kind, request_id = FAILED.kind, REQUEST_ID.get()
    problem = kind.problem(FAILED.detail, quote(request.scope["path"]), request_id=request_id)
    own = {"X-Request-Id": request_id} if request_id else {}
    return ProblemResponse(kind, problem, {**SECURITY_HEADERS, **own})


_HANDLERS: dict[type, Callable[[Request, Any], Awaitable[Response]]] = {
    RcmlError: _answer_our_error,
    RequestValidationError: _answer_invalid_request,
    HTTPException: _answer_http_error,
    ClientDisconnect: _note_client_left,
}
"""Handlers of the errors that are answered with a problem, by the class of the error."""
