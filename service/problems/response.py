"""Responses with problem documents (RFC 9457, `application/problem+json`).

A response stores the kind of its problem in the request's scope, where the access log and the metrics read it.
Middlewares create responses with `problem_response`. The handlers of the application are in `problem_handlers.py`.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.schemas.problem import FieldProblem, Problem

from .kinds import Kind

MEDIA_TYPE = "application/problem+json"

SCOPE_PROBLEM = "rcml.problem"
"""Key in a request's scope under which the kind of its problem is stored for logs and metrics."""

STATUS_CLIENT_LEFT = 499
"""Status in logs and metrics if the client disconnected before a response was sent, as in nginx."""


class ProblemResponse(Response):
    """Response that contains a problem document and stores the kind of the problem in the scope."""

    def __init__(self, kind: Kind, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.model_dump_json(exclude_none=True), kind.status, headers, MEDIA_TYPE)
        self.kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        scope[SCOPE_PROBLEM] = self.kind.label
        await super().__call__(scope, receive, send)


def problem_response(
    kind: Kind,
    detail: str,
    path: str,
    errors: list[FieldProblem] | None = None,
    known: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem response. Its problem document names `path` as the path of the request."""
    return ProblemResponse(kind, kind.problem(detail, quote(path), errors, list(known) or None), headers)
