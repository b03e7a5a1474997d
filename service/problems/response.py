"""Problem documents as answers (RFC 9457, `application/problem+json`).

An answer leaves the kind of its problem in the request's scope, from which the access log and the metrics take it.
Middlewares answer with `problem_response`; the handlers of the application are in `problem_handlers.py`.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.schemas.problem import FieldProblem, Problem

from .kinds import Kind

MEDIA_TYPE = "application/problem+json"

SCOPE_PROBLEM = "rcml.problem"
"""Key of a request's scope that holds the kind of problem the request ended in, for logs and metrics."""


class ProblemResponse(Response):
    """A problem as an answer, which leaves its kind in the scope."""

    def __init__(self, kind: Kind, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.model_dump_json(exclude_none=True), kind.status, headers, MEDIA_TYPE)
        self.kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
    """Make the answer to a request for `path` that ends in a problem."""
    return ProblemResponse(kind, kind.problem(detail, quote(path), errors, list(known) or None), headers)
