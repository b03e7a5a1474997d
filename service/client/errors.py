"""Exceptions that the clients raise.

RcmlClientError
├── ConnectionFailed   no response arrived, or not in time
├── UnexpectedAnswer   the response is not from this service
├── AdditionFailed     a relation could not be added to the index
└── ApiError           the server rejected the request or failed; `problem` states the reason
    ├── Invalid        400, 413, 415, 422: the request is invalid
    ├── Unauthorized   401: the API key is missing or unknown
    ├── Forbidden      403: the API key lacks the required role
    ├── NotFound       404: the item or relation does not exist
    ├── Conflict       409: the request conflicts with the server's state or with an operation in progress
    ├── Overloaded     429: the server received too many requests; retry after `retry_after` seconds
    ├── Unavailable    503: the server cannot answer at the moment
    └── ServerFailed   any other 5xx status: the server log shows the cause under `request_id`
"""

from http import HTTPStatus

from service.schemas.problem import Problem
from service.schemas.relations import RelationDetail


class RcmlClientError(Exception):
    """Base class of all errors that the clients raise."""


class ConnectionFailed(RcmlClientError):
    """A request that received no response, or none in time. The cause (`__cause__`) is the error from httpx."""


class UnexpectedAnswer(RcmlClientError):
    """A response that is not from this service: another program, or another version of the service, sent it."""


class AdditionFailed(RcmlClientError):
    """A relation that could not be added to the index. `relation` holds its final state."""

    def __init__(self, relation: RelationDetail) -> None:
        super().__init__(f"Relation {relation.relation_id!r} was not added: {relation.reason}")
        self.relation = relation


class ApiError(RcmlClientError):
    """A request that the server rejected or failed to process.

    `request_id` identifies the request in the server log. `retry_after` is the number of seconds to wait before a
    retry, if the server specified it.
    """

    def __init__(self, problem: Problem, request_id: str, retry_after: float | None = None) -> None:
        super().__init__(f"{problem.detail} (HTTP {problem.status}, request {request_id})")
        self.problem = problem
        self.status = HTTPStatus(problem.status)
        self.request_id = request_id
        self.retry_after = retry_after


class Invalid(ApiError):
    """An invalid request. `problem.errors` lists the invalid fields."""


class Unauthorized(ApiError):
    """A request with a missing or unknown API key."""


class Forbidden(ApiError):
    """A request whose API key lacks the required role."""


class NotFound(ApiError):
    """A request for an item or relation that does not exist."""


class Conflict(ApiError):
    """A request that conflicts with the server's state or with an operation in progress."""


class Overloaded(ApiError):
    """A request rejected because the server received too many."""


class Unavailable(ApiError):
    """A request that the server cannot answer now, because it is starting, is stopping, or took too long."""


class ServerFailed(ApiError):
    """A failure of the server, or of a proxy between the client and the server."""


def error_of(problem: Problem, request_id: str, retry_after: float | None) -> ApiError:
    """Return the exception for a problem."""
    otherwise = ServerFailed if problem.status >= 500 else ApiError
    return _KINDS.get(problem.status, otherwise)(problem, request_id, retry_after)


_KINDS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Overloaded,
    503: Unavailable,
}
