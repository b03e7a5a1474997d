"""The errors of the service; each carries the kind of problem and the headers that it is answered with.

    RcmlError (model/errors.py)
    └── ServiceError
        ├── OverloadedError       429  the queue is too long
        │   └── TooManyJobsError  429  too many relations are being added
        ├── NotReadyError         503  no engine is open, or it should get no more work
        ├── NotServableError      422  the named artifacts cannot be served together
        ├── NoRoomError           503  not enough memory or open files for another engine
        ├── BusyError             409  the same is in progress already
        ├── UnfitRelationError    422  the relation cannot be added
        ├── TrainedRelationError  409  a relation of the checkpoint cannot be deleted
        └── NoShadowError         404  no candidate is being compared

`service/problems/rejections.py` turns them, and the model's errors, into problem documents.
"""

from collections.abc import Mapping
from math import ceil
from typing import ClassVar

from model.errors import RcmlError

from . import kinds as problem_kinds
from .kinds import Kind


class ServiceError(RcmlError):
    """An error that ends a request in a problem of its `kind`; `retry_after` is in seconds, if a retry helps."""

    kind: ClassVar[Kind]
    retry_after: int | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class OverloadedError(ServiceError):
    """More is asked than can be answered in time."""

    kind = problem_kinds.OVERLOADED
    retry_after: int

    def __init__(self, wait: float) -> None:
        """Ask the caller to come back after about `wait` seconds."""
        super().__init__(
            "More is asked of this server now than it can answer in time. Ask again in a moment."
        )
        self.retry_after = max(1, ceil(wait))


class TooManyJobsError(OverloadedError):
    """The most relations that may be added at a time are being added already."""

    def __init__(self, most: int) -> None:
        super().__init__(5)
        self.args = (
            f"{most} relations are being added already. Ask again when GET /relations shows fewer as pending.",
        )


class NotReadyError(ServiceError):
    """The engine is not open yet, could not be opened, or should get no more work."""

    kind = problem_kinds.NOT_READY
    retry_after = 1


class NotServableError(ServiceError):
    """The named artifacts cannot be opened together, whatever the machine."""

    kind = problem_kinds.NOT_SERVABLE


class NoRoomError(ServiceError):
    """Not enough memory or file descriptors to open another engine."""

    kind = problem_kinds.NO_ROOM
    retry_after = 60


class BusyError(ServiceError):
    """The same is in progress already."""

    kind = problem_kinds.BUSY
    retry_after = 5


class UnfitRelationError(ServiceError):
    """A relation cannot be added because of its id or its description."""

    kind = problem_kinds.UNFIT_RELATION


class TrainedRelationError(ServiceError):
    """A relation of the checkpoint cannot be deleted."""

    kind = problem_kinds.TRAINED_RELATION

    def __init__(self, relation_id: str) -> None:
        super().__init__(
            f"Relation {relation_id!r} is one that the checkpoint was trained on; only those that were added by "
            "POST /relations can be deleted."
        )


class NoShadowError(ServiceError):
    """No candidate is being compared."""

    kind = problem_kinds.NO_SHADOW

    def __init__(self) -> None:
        super().__init__("No candidate is being compared. POST /admin/shadow begins with one.")
