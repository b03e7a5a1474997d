"""Errors caused by the user, the data or the environment; a bug raises an `AssertionError` instead.

    RcmlError
    ├── InputError            a raw file, a row or an option is invalid
    │   ├── PictureError      a picture cannot be decoded
    │   ├── NoWordsError      an item has no text for the text tower
    │   ├── IntraRelationError  a query about two items names the intra-sample relation
    │   └── FetchError        a picture could not be fetched from its URL
    │       └── ForbiddenUrlError  the URL is not allowed
    ├── ArtifactError         an artifact is missing, damaged, incomplete or of another kind
    │   ├── MismatchError     two artifacts do not belong together
    │   ├── LostChangesError  a journal lacks acknowledged changes
    │   ├── DamagedPictureError  a stored picture is missing or damaged
    │   └── UnreachableError  a server that stores a part of an artifact does not respond
    ├── StorageError          a change could not be made durable
    │   └── ReadOnlyError     a folder can never be written by this user
    ├── UnknownItemError      no item has this ID
    ├── UnknownRelationError  no relation has this ID
    ├── UnknownAttributeError no item has this attribute
    ├── AttributeTypeError    a filter condition can never match because of the attribute's type
    ├── MissingAttributeError the query item lacks an attribute that a filter condition refers to
    ├── NoPictureError        a query needs the picture of an item without a picture
    ├── NoTokensError         a free-text relation needs tokens, which the index does not store
    └── TrainingError         training cannot continue

Every message states in full sentences what is wrong, with the value, and what to do in Python or on the command line.
`service/problems/rejections.py` adds the remedies for HTTP clients.
"""

from collections.abc import Sequence
from typing import Literal


class RcmlError(Exception):
    """Base class of all errors whose message is meant to be shown to the user."""


class InputError(RcmlError):
    """Error raised if a raw file, a row in it, or an option is invalid."""


class PictureError(InputError):
    """Error raised if a picture is missing, damaged, in an unsupported format, or too large to decode."""


class NoWordsError(InputError):
    """Error raised if an item to be added has no text in the fields that the text tower reads."""

    def __init__(self, item_id: str, fields: Sequence[str]) -> None:
        super().__init__(
            f"Item {item_id!r} has no text in the fields that the model reads: {', '.join(fields)}. "
            "Provide text in at least one of them."
        )
        self.item_id = item_id
        self.fields = tuple(fields)


class IntraRelationError(InputError):
    """Error raised if a query about two items names the intra-sample relation, which relates an item to itself."""

    def __init__(self, relation_id: str, others: list[str]) -> None:
        super().__init__(f"{relation_id!r} relates an item to itself, not two different items.")
        self.relation_id = relation_id
        self.others = others


class FetchError(InputError):
    """Error raised if the server of a picture URL does not respond in time or does not return a picture.

    `reason` is the message without host and remedy. If `transient`, a later try may succeed, and `retry_after_s` is the
    wait in seconds that the server asks for, if it does.
    """

    def __init__(
        self, message: str, reason: str = "", transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.transient = transient
        self.retry_after_s = retry_after_s


class ForbiddenUrlError(FetchError):
    """Error raised if a picture URL, or its redirect target, is not allowed; no connection to it is opened."""


class ArtifactError(RcmlError):
    """Error raised if a folder is not a complete, undamaged artifact of the required kind."""


class MismatchError(ArtifactError):
    """Error raised if two artifacts do not belong together."""


class LostChangesError(ArtifactError):
    """Error raised if a journal lacks changes that were acknowledged, or if it is unknown whether it does."""


class DamagedPictureError(ArtifactError):
    """Error raised if the stored picture of an item is missing, unreadable, or was changed after it was written.

    `file` is the place of the picture, relative to the index folder.
    """

    def __init__(self, file: str, reason: object) -> None:
        super().__init__(
            f"The stored picture {file} is damaged: {str(reason).rstrip('.')}. Restore the file from a backup, or send "
            "the item again with its picture."
        )
        self.file = file


class UnreachableError(ArtifactError):
    """Error raised if a server that stores a part of an artifact does not respond; a retry may succeed."""


class StorageError(RcmlError):
    """Error raised if a change could not be made durable; nothing was changed."""


class ReadOnlyError(StorageError):
    """Error raised if this user may not write to a folder, or if its disk is read-only; a retry does not help."""

    def __init__(self, target: object, reason: object) -> None:
        super().__init__(
            f"{target} may not be written by this user ({reason}). Nothing was changed. Give this user the right to "
            "write to the folder, mount its disk writable, or choose another folder."
        )


class UnknownItemError(RcmlError):
    """Error raised if no item in the catalogue has the requested ID."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"No item has the ID {item_id!r}.")
        self.item_id = item_id


class UnknownRelationError(RcmlError):
    """Error raised if no relation has the requested ID."""

    def __init__(self, relation_id: str, known: tuple[str, ...]) -> None:
        super().__init__(f"No relation has the ID {relation_id!r}. Existing relations: {', '.join(known)}.")
        self.relation_id = relation_id
        self.known = known


class UnknownAttributeError(RcmlError):
    """Error raised if no item in the catalogue has an attribute with the requested name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"No item has the attribute {name!r}. Existing attributes: {', '.join(known)}.")
        self.name = name
        self.known = known


class AttributeTypeError(RcmlError):
    """Error raised if a filter condition can never match because the attribute has only values of another type."""

    def __init__(self, name: str, holds: Literal["texts", "numbers"], ranged: bool = False) -> None:
        other = "numbers" if holds == "texts" else "texts"
        asked = "has a bound, which only numbers can meet" if ranged else f"lists only {other}"
        values = "texts" if holds == "texts" else "numbers, or true or false"
        super().__init__(
            f"The attribute {name!r} holds only {holds}, but its filter condition {asked}. Use any_of with {values}"
            + ("." if holds == "texts" else ", or a bound.")
            + (f" If {name!r} should hold numbers, store its values as numbers." if ranged else "")
        )
        self.name = name
        self.holds = holds


class MissingAttributeError(RcmlError):
    """Error raised if a filter condition refers to a numeric attribute that the query item lacks."""

    def __init__(self, name: str, found: object = None) -> None:
        said = "has no such attribute" if found is None else f"has the value {found!r}"
        super().__init__(
            f"A filter condition needs the number query.{name}, but the query item {said}. Use a query item with this "
            "number, provide the number in the `attributes` of a new item, or use a constant in the condition."
        )
        self.name = name


class NoPictureError(RcmlError):
    """Error raised if a query needs the picture of an item that has none."""

    def __init__(self, item_id: str | None, remedy: str = "Use similarity TT, TI or AVG.") -> None:
        item = "The new item" if item_id is None else f"Item {item_id!r}"
        super().__init__(f"{item} has no picture, only text. {remedy}")
        self.item_id = item_id


class NoTokensError(RcmlError):
    """Error raised if a query with a free-text relation needs tokens, but the index stores none."""

    def __init__(self) -> None:
        super().__init__(
            "This index stores no tokens, so it does not support free-text relations. Use an indexed relation, or "
            "rebuild the index with --token-store."
        )


class NoWordIndexError(RcmlError):
    """Error raised if items are searched by words in an index that an earlier version of rcml wrote."""

    def __init__(self) -> None:
        super().__init__(
            "An earlier version of rcml wrote this index, so its items cannot be searched by words. Compact the index "
            "after the next change (`rcml index compact`), or build it again."
        )


class TrainingError(RcmlError):
    """Error raised if training cannot continue because of the data or the options."""
