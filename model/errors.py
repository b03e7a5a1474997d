"""The errors a user or their data can cause, and nothing else; a bug stays an `AssertionError`.

    RcmlError
    ├── InputError            a raw file, a row or an option is wrong
    │   ├── PictureError      a picture cannot be decoded
    │   ├── NoWordsError      an item has nothing that the text tower reads
    │   ├── IntraRelationError  two items were asked about under the relation of an item with itself
    │   └── FetchError        a picture given by URL could not be fetched
    │       └── ForbiddenUrlError  its URL is one that is never asked
    ├── ArtifactError         an artifact is missing, damaged, unfinished or of another kind
    │   ├── MismatchError     two artifacts do not belong together
    │   └── UnreachableError  a server that holds a part of one does not answer
    ├── StorageError          a change could not be made durable
    ├── UnknownItemError      no such item
    ├── UnknownRelationError  no such relation
    ├── UnknownAttributeError no item has such an attribute
    ├── MissingAttributeError the item asked about lacks an attribute that a condition refers to
    ├── NoPictureError        an item without a picture was asked about by its picture
    ├── NoTokensError         an index that keeps no tokens was asked about a free-text relation
    └── TrainingError         the optimisation went astray

Every message is one or two full sentences: what was found, the value, and what to do about it in Python or on the
command line. `service/problems/rejections.py` adds what to do over HTTP.
"""

from collections.abc import Sequence


class RcmlError(Exception):
    """Anything `rcml` refuses, in words meant for its user."""


class InputError(RcmlError):
    """A raw file, a row of it, or an option cannot be used."""


class PictureError(InputError):
    """A picture is not there, damaged, of a format that is not read, or too large to be decoded."""


class NoWordsError(InputError):
    """An item that is to be put in has none of the words that the text tower reads."""

    def __init__(self, item_id: str, fields: Sequence[str]) -> None:
        super().__init__(
            f"Item {item_id!r} has no words in {', '.join(fields)}, which is what the network reads of an item. "
            "Give it some."
        )
        self.item_id = item_id
        self.fields = tuple(fields)


class IntraRelationError(InputError):
    """A question about two items was asked under the relation of an item with itself."""

    def __init__(self, relation_id: str, others: list[str]) -> None:
        super().__init__(f"{relation_id!r} relates an item to itself, not two different items.")
        self.relation_id = relation_id
        self.others = others


class FetchError(InputError):
    """A picture given by URL could not be fetched: its server did not answer in time, or not with a picture."""


class ForbiddenUrlError(FetchError):
    """A URL, or one that it redirects to, is refused by rule, and no connection to it was made."""


class ArtifactError(RcmlError):
    """A folder is not the sound, finished artifact that was asked for."""


class MismatchError(ArtifactError):
    """Two artifacts were not made from one another."""


class UnreachableError(ArtifactError):
    """A server that holds a part of an artifact does not answer; it may do so again."""


class StorageError(RcmlError):
    """A change was refused because it could not be stored; nothing was changed."""


class UnknownItemError(RcmlError):
    """The catalogue has no item of this id."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"No item has the id {item_id!r}.")
        self.item_id = item_id


class UnknownRelationError(RcmlError):
    """The checkpoint knows no relation of this id."""

    def __init__(self, relation_id: str, known: tuple[str, ...]) -> None:
        super().__init__(f"No relation has the id {relation_id!r}. Known relations: {', '.join(known)}.")
        self.relation_id = relation_id
        self.known = known


class UnknownAttributeError(RcmlError):
    """No item of the catalogue has an attribute of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"No item has the attribute {name!r}. Known attributes: {', '.join(known)}.")
        self.name = name
        self.known = known


class MissingAttributeError(RcmlError):
    """A condition refers to an attribute of the item asked about, which lacks it."""

    def __init__(self, name: str, found: object = None) -> None:
        said = "has none of this name" if found is None else f"has {found!r} there"
        super().__init__(
            f"A filter refers to the number query.{name}, and the item asked about {said}. Ask about one item that "
            "has it, give it in `attributes` with a new item, or send a number."
        )
        self.name = name


class NoPictureError(RcmlError):
    """An item without a picture was asked about by its picture."""

    def __init__(self, item_id: str | None, remedy: str = "Ask with similarity TT, TI or AVG.") -> None:
        item = "The new item" if item_id is None else f"Item {item_id!r}"
        super().__init__(f"{item} has no picture; it is known by its words alone. {remedy}")
        self.item_id = item_id


class NoTokensError(RcmlError):
    """A free-text relation needs the tokens of items, and the index keeps none."""

    def __init__(self) -> None:
        super().__init__(
            "This index keeps no tokens, so it cannot be asked about a relation in words. Name one of its relations, "
            "or build the index with --token-store."
        )


class TrainingError(RcmlError):
    """Training cannot go on, for a reason in the data or the options."""
