"""All errors of the service."""

from math import ceil

from model.errors import RcmlError


class OverloadedError(RcmlError):
    """More is asked than can be answered in time; `retry_after` is in seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(
            "More is asked of this server now than it can answer in time. Ask again in a moment."
        )
        self.retry_after = max(1, ceil(wait))


class NotReadyError(RcmlError):
    """The engine is not open yet, or never will be; or no more should be asked of it."""


class NotServableError(RcmlError):
    """What was named cannot be opened together, whatever the machine."""


class NoRoomError(RcmlError):
    """The machine has not what it takes to open one more."""


class BusyError(RcmlError):
    """The same is being done already, and once is enough at a time."""


class UnfitRelationError(RcmlError):
    """A relation cannot be added, for what it is."""


class TrainedRelationError(RcmlError):
    """A relation of the checkpoint cannot be taken out."""

    def __init__(self, relation_id: str) -> None:
        super().__init__(
            f"Relation {relation_id!r} is one that the checkpoint was trained on; only those that were added by "
            "POST /relations can be deleted."
        )


class TooManyAdditionsError(OverloadedError):
    """As many relations wait as may."""

    def __init__(self, most: int) -> None:
        super().__init__(5)
        self.args = (
            f"{most} relations are being added already. Ask again when GET /relations shows fewer as pending.",
        )


class NoShadowError(RcmlError):
    """No candidate is being compared."""

    def __init__(self) -> None:
        super().__init__("No candidate is being compared. POST /admin/shadow begins with one.")
