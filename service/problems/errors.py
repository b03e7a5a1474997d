"""Errors of the service. Each error class defines the kind of problem and the headers of the response.

    RcmlError (model/errors.py)
    └── ServiceError
        ├── OverloadedError       429  the queue is too long
        │   ├── TooManyJobsError  429  too many relations are being added
        │   └── TooCostlyError    429  other large requests are in progress
        ├── RateLimitError        429  the caller's requests cost more than its rate limit allows
        ├── NotReadyError         503  no engine is open, or the open engine accepts no more work
        │   └── NetworkLostError  503  the network process has ended and is being restarted
        ├── NotServableError      422  the named artifacts are missing, damaged or do not belong together
        ├── NoRoomError           503  too little memory or too few file descriptors for another engine
        ├── BusyError             409  a conflicting operation is in progress
        ├── OneProcessError       409  the server has several workers
        ├── UnfitRelationError    422  the relation cannot be added
        ├── TrainedRelationError  409  a trained relation cannot be deleted
        └── NoShadowError         404  no shadow run is in progress

`service/problems/rejections.py` converts these errors and those of `model` to problem documents.
"""

from collections.abc import Mapping
from math import ceil
from typing import ClassVar

from model.errors import RcmlError

from . import kinds as problem_kinds
from .kinds import Kind


class ServiceError(RcmlError):
    """Base class of the service's errors.

    `kind` is the kind of the problem that the client receives. `retry_after` is the delay in seconds before a retry, or
    None if a retry does not help.
    """

    kind: ClassVar[Kind]
    retry_after: int | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class OverloadedError(ServiceError):
    """Error raised if the server has too much work to answer a request in time."""

    kind = problem_kinds.OVERLOADED
    retry_after: int

    def __init__(self, wait: float) -> None:
        """Set the retry delay to `wait` seconds, rounded up to at least 1."""
        super().__init__(
            "The server is overloaded and cannot answer this request in time. Retry in a few seconds."
        )
        self.retry_after = max(1, ceil(wait))


class RateLimitError(ServiceError):
    """Error raised if a caller's requests cost more than its rate limit allows."""

    kind = problem_kinds.TOO_MANY_REQUESTS
    retry_after: int

    def __init__(self, cost: int, rate: float, burst: int, wait: float) -> None:
        """Set the retry delay to `wait` seconds, rounded up to at least 1."""
        self.retry_after = max(1, ceil(wait))
        super().__init__(
            f"This request costs {cost:,}, and this client has used up its limit of {rate:g} per second (at most "
            f"{burst:,} at once). Retry in {self.retry_after} s."
        )


class TooManyJobsError(OverloadedError):
    """Error raised if the maximum number of relations is already being added."""

    def __init__(self, most: int) -> None:
        super().__init__(5)
        self.args = (
            f"{most} relations are already being added, which is the maximum. Retry when GET /relations lists fewer as "
            "pending.",
        )


class TooCostlyError(OverloadedError):
    """Error raised if a large request would exceed the bound on the cost of the large requests in progress."""

    def __init__(self, cost: int, pending: int, limit: int) -> None:
        """Report the cost of the request and that of the requests in progress, which together exceed `limit`."""
        RcmlError.__init__(
            self,
            f"This request costs {cost:,}. Other large requests in progress cost {pending:,}, and together they may "
            f"cost at most {limit:,}. Retry in a second, or send a smaller request.",
        )
        self.retry_after = 1


class NotReadyError(ServiceError):
    """Error raised if the engine is not open yet, failed to open, or accepts no more work."""

    kind = problem_kinds.NOT_READY
    retry_after = 1


class NetworkLostError(NotReadyError):
    """Error raised if the process that runs the network has ended; another one is being started."""

    def __init__(self) -> None:
        super().__init__(
            "The network process has ended and is being restarted. Requests without new items and free-text relations "
            "are answered. Retry in a few seconds."
        )
        self.retry_after = 3


class NotServableError(ServiceError):
    """Error raised if a named artifact is missing or damaged, or if the artifacts do not belong together."""

    kind = problem_kinds.NOT_SERVABLE


class NoRoomError(ServiceError):
    """Error raised if memory or file descriptors are insufficient for another engine."""

    kind = problem_kinds.NO_ROOM
    retry_after = 60


class BusyError(ServiceError):
    """Error raised if a conflicting operation is in progress."""

    kind = problem_kinds.BUSY
    retry_after = 5


class OneProcessError(ServiceError):
    """Error raised if a server with several workers is asked for what only a server of one process can do."""

    kind = problem_kinds.ONE_PROCESS

    def __init__(self, subject: str, workers: int) -> None:
        super().__init__(
            f"{subject} needs a server of one process, and this one has {workers} workers. Start another server of the "
            "same index with --workers 1, and send it a copy of the requests."
        )


class UnfitRelationError(ServiceError):
    """Error raised if a relation cannot be added because of its ID or its description."""

    kind = problem_kinds.UNFIT_RELATION


class TrainedRelationError(ServiceError):
    """Error raised if a client tries to delete a trained relation."""

    kind = problem_kinds.TRAINED_RELATION

    def __init__(self, relation_id: str) -> None:
        super().__init__(
            f"Relation {relation_id!r} is a trained relation and cannot be deleted. Only relations that were added by "
            "POST /relations can be deleted."
        )


class NoShadowError(ServiceError):
    """Error raised if a request needs a shadow run and none is in progress."""

    kind = problem_kinds.NO_SHADOW

    def __init__(self) -> None:
        super().__init__("No shadow run is in progress. Start one with POST /admin/shadow.")
