"""A change to an index, and the row of the journal that stores it."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16
from numpy import ndarray
from safetensors.numpy import load, save
from sqlalchemy import Row

from model.artifact import PICTURES
from model.embeddings.encoding import ItemTokens, TokenRows
from model.records import Item


@dataclass(frozen=True)
class Change:
    """Upsert of an item, or its deletion if `item` is None.

    `vectors` contains a vector for each view, in the order of `View`, under each relation. `tokens` contains the
    tokens of the item if the index stores tokens. `picture` is the content of the file that `item.picture` names. It
    is not read back together with the other fields; see `Journal.picture`.
    """

    item_id: str
    item: Item | None = None
    vectors: Float16[ndarray, "views relations dim"] | None = None
    picture: bytes = b""
    picture_sha256: str = ""
    tokens: ItemTokens | None = None

    @classmethod
    def put(
        cls,
        item: Item,
        vectors: Float16[ndarray, "views relations dim"],
        picture: bytes,
        tokens: ItemTokens | None = None,
    ) -> "Change":
        """Create the upsert of an item with its picture. The suffix of `item.picture` determines the picture format."""
        return cls(item.item_id, item, vectors, picture, hashlib.sha256(picture).hexdigest(), tokens)


@dataclass(frozen=True)
class JournalEntry:
    """Durable change with its sequence number. `change.item.picture` is the permanent file name of the picture.

    `existed` tells whether an item had this ID before the change. Only `Journal.append` sets it.
    """

    sequence: int
    change: Change
    existed: bool = False


def row_of(change: Change) -> dict[str, Any]:
    """Return the row of a change, without its sequence number."""
    item = vectors = tokens = None
    if change.item is not None:
        assert change.vectors is not None
        content = {**asdict(change.item), "picture_sha256": change.picture_sha256}
        item = json.dumps(content, ensure_ascii=False)
        vectors = change.vectors.tobytes()
        if change.tokens is not None:
            tokens = save({"text": change.tokens.text.states, "image": change.tokens.image.states})
    return {
        "item_id": change.item_id,
        "item": item,
        "picture": change.picture or None,
        "vectors": vectors,
        "tokens": tokens,
        "digest": digest(change.item_id, item, vectors, tokens),
    }


def entry_of(row: Row[Any], shape: tuple[int, int, int]) -> JournalEntry:
    """Read the change in a row of the journal, whose vectors have the given shape.

    Raises:
        ValueError: the row is damaged. Damaged contents may raise other errors of `json` and NumPy too.
    """
    if digest(row.item_id, row.item, row.vectors, row.tokens) != row.digest:
        raise ValueError(f"change {row.sequence} does not match its digest")
    item = vectors = tokens = None
    picture_sha256 = ""
    if row.item is not None:
        content = json.loads(row.item)
        picture_sha256 = content.pop("picture_sha256")
        item = Item(**{**content, "categories": tuple(content["categories"])})
        vectors = np.frombuffer(row.vectors, dtype=np.float16).reshape(shape)
        tokens = None if row.tokens is None else _tokens(row.tokens)
    change = Change(row.item_id, item, vectors, picture_sha256=picture_sha256, tokens=tokens)
    return JournalEntry(row.sequence, named(change, row.sequence))


def _tokens(content: bytes) -> ItemTokens:
    states = load(content)
    return ItemTokens(
        *(TokenRows(states[name], np.array([0, len(states[name])])) for name in ("text", "image"))
    )


def named(change: Change, sequence: int) -> Change:
    """Give the picture of the item a unique file name, and drop the picture content from the change."""
    if change.item is None or not change.item.picture:
        return change
    name = f"{PICTURES}/change-{sequence:09d}{Path(change.item.picture).suffix}"
    # The content may be large, and the journal already stores it.
    return replace(change, item=replace(change.item, picture=name), picture=b"")


def digest(item_id: str, item: str | None, vectors: bytes | None, tokens: bytes | None) -> bytes:
    """Return the digest of a change: SHA-256 of its columns, each preceded by its length."""
    parts = [item_id.encode(), b"" if item is None else item.encode(), vectors or b"", tokens or b""]
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()
