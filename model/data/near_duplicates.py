"""Near-duplicates of a catalogue: items with the same title or the same picture, which must be in one split.

A network that was trained on an item knows its near-duplicate, so a test on the duplicate would not be a test of an
unseen item. `rcml prepare` (`splits.py`) therefore keeps a group of near-duplicates together.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from numpy import ndarray
from scipy.sparse.csgraph import connected_components

from model.records import Item

from .pictures.picture_hash import PictureHashes

MAX_SHARED_PICTURE = 10
"""Maximum number of items with one picture. A picture of more items is a placeholder such as "no picture yet"."""


def normalised_title(title: str) -> str:
    """Return the words of a title in lower case without punctuation; titles that agree in them are the same."""
    words = unicodedata.normalize("NFKC", title).casefold()
    return re.sub(r"[\W_]+", " ", words).strip()


def duplicate_groups(items: Sequence[Item], folder: Path) -> Int[ndarray, " items"]:
    """Return the first item of the group of near-duplicates that each item is in, as a row of `items`.

    Two items are near-duplicates if they have the same normalised title, the same picture file, or pictures that are
    copies of each other (`PictureHashes.copies`), and so are the near-duplicates of near-duplicates. A picture that
    more than `MAX_SHARED_PICTURE` items have counts for none of them. The paths of pictures are relative to `folder`.
    """
    pictured = np.array([row for row, item in enumerate(items) if item.picture], dtype=np.int64)
    hashes = PictureHashes.of([folder / items[row].picture for row in pictured])
    by_picture = np.concatenate([_chained(hashes.digests), hashes.copies()])
    _, picture, counts = np.unique(
        _components(len(pictured), by_picture), return_inverse=True, return_counts=True
    )
    by_picture = by_picture[counts[picture[by_picture[:, 0]]] <= MAX_SHARED_PICTURE]
    titles = [normalised_title(item.title) for item in items]
    group = _components(len(items), np.concatenate([_chained(titles), pictured[by_picture]]))
    _, first, of = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[of])


def _chained(keys: Iterable[Hashable]) -> Int[ndarray, "pairs 2"]:
    """Pair each row with the next row that has the same key; an empty key equals no other."""
    rows = defaultdict[Hashable, list[int]](list)
    for row, key in enumerate(keys):
        if key:
            rows[key].append(row)
    pairs = [pair for same in rows.values() for pair in pairwise(same)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _components(count: int, pairs: Int[ndarray, "pairs 2"]) -> Int[ndarray, " rows"]:
    """Return a number for each of `count` rows, equal for rows that `pairs` connect directly or through others."""
    graph = sp.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])
