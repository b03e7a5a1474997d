"""What the clients raise.

RcmlClientError
├── ConnectionFailed   no answer came, or not in time
├── UnexpectedAnswer   what came is no answer of this service
└── ApiError           the server refused, or failed; `problem` says why
    ├── Invalid        400, 413, 415, 422: the request is not one that the server takes
    ├── Unauthorized   401: it takes a key, and none or an unknown one was sent
    ├── Forbidden      403: the key is not enough
    ├── NotFound       404: no such item or relation
    ├── Conflict       409: what is asked does not go with what is there, or is being done already
    ├── Overloaded     429: too much was asked at once; `retry_after` says when to ask again
    ├── Unavailable    503: it cannot answer now
    └── ServerFailed   any other from 500: its log says why, under `request_id`
"""

from http import HTTPStatus

from service.schemas.problem import Problem
from service.schemas.relations import RelationDetail


class RcmlClientError(Exception):
    """Anything that keeps a client from returning an answer."""


class ConnectionFailed(RcmlClientError):
    """No answer came, or not in time; the error of httpx is the cause."""


class UnexpectedAnswer(RcmlClientError):
    """What came is no answer of this service: something else listens there, or another version of it."""


class AdditionFailed(RcmlClientError):
    """A relation that was being added never gets into the index; `relation` says how far it came."""

    def __init__(self, relation: RelationDetail) -> None:
        super().__init__(f"Relation {relation.relation_id!r} was not added: {relation.reason}")
        self.relation = relation


class ApiError(RcmlClientError):
    """The server answered with a problem.

    `request_id` is what its log calls the request; `retry_after` the seconds it wants to be left alone, if it said so.
    """

    def __init__(self, problem: Problem, request_id: str, retry_after: float | None = None) -> None:
        super().__init__(f"{problem.detail} (HTTP {problem.status}, request {request_id})")
        self.problem = problem
        self.status = HTTPStatus(problem.status)
        self.request_id = request_id
        self.retry_after = retry_after


class Invalid(ApiError):
    """The request is not one that the server takes; `problem.errors` names the fields at fault."""


class Unauthorized(ApiError):
    """The server takes a key, and none or an unknown one was sent."""


class Forbidden(ApiError):
    """The key is not enough for this."""


class NotFound(ApiError):
    """There is no such item or relation."""


class Conflict(ApiError):
    """What is asked does not go with what is there, or with what is being done."""


class Overloaded(ApiError):
    """Too much was asked at once."""


class Unavailable(ApiError):
    """The server cannot answer now: it starts, stops, or took too long."""


class ServerFailed(ApiError):
    """The server failed, or something between it and here."""


def error_of(problem: Problem, request_id: str, retry_after: float | None) -> ApiError:
    """Return the error that a problem is raised as."""
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
