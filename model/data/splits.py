"""Splits of a catalogue into training, validation and test items, by a hash of the item IDs or by time.

By hash, an item's split depends on its ID, the shares and the seed alone, so a catalogue can grow without mixing what
was trained on with what is tested on. The shares hold in expectation, also for each relation: of n items, the number of
test items has a standard deviation of sqrt(n x share x (1 - share)). Exact shares would have to move items.

Near-duplicates (`near_duplicates.py`) are in one split, that of the first of them in the catalogue:

- An item without near-duplicates never moves, whatever is added, removed or reordered.
- If items are only appended, a group never moves either, and a new near-duplicate joins its split.
- Only an item that connects two groups moves one of them: the later group joins the split of the earlier one. A
  near-duplicate that is inserted before the others, and the removal of the first one, can also move a group.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from model.errors import InputError
from model.records import Split


def split_of(item_id: str, validation_share: float, test_share: float, seed: int) -> Split:
    """Return the split of an item by a hash of its ID that is uniform in [0, 1).

    Test items have the lowest hashes and validation items the highest. If one share grows, items therefore move only
    from training to this split.
    """
    digest = blake2b(f"{seed}\0{item_id}".encode(), digest_size=8).digest()
    place = (int.from_bytes(digest, "big") >> 11) / 2**53  # a float has 53 bits
    if place < test_share:
        return Split.TEST
    return Split.VALIDATION if place >= 1 - validation_share else Split.TRAIN


def split_by_hash(
    item_ids: Sequence[str],
    groups: Int[ndarray, " items"],
    validation_share: float,
    test_share: float,
    seed: int,
) -> list[Split]:
    """Assign each item to the split of its group: `groups` has the row of the first item of the group of each item."""
    return [split_of(item_ids[first], validation_share, test_share, seed) for first in groups.tolist()]


def split_by_time(
    item_ids: Sequence[str],
    groups: Int[ndarray, " items"],
    first_seen: Mapping[str, float],
    validation_share: float,
    test_share: float,
) -> list[Split]:
    """Assign the items with the latest first interactions to the test split, and those before them to validation.

    `first_seen` has the time of the first interaction of each item ID. A group of near-duplicates counts from its
    earliest interaction. Every test item is later than every validation item, and these are later than every training
    item: groups that begin at the same time are in one split, so a split can be smaller than its share. The shares are
    those of the items with a time. The others belong to no pair; they are training items.

    Raises:
        InputError: fewer than three different times are known.
    """
    begin = np.full(len(item_ids), np.inf)
    own = np.array([first_seen.get(item_id, np.inf) for item_id in item_ids])
    np.minimum.at(begin, groups, own)
    begin = begin[groups]
    known = np.sort(begin[np.isfinite(begin)])
    if len(np.unique(known)) < 3:
        raise InputError(
            f"--split time needs items whose first interactions have at least 3 different times, but the log has "
            f"{len(np.unique(known))}. Give interactions with a timestamp, or use --split items."
        )
    test = round(len(known) * test_share)
    validation = round(len(known) * validation_share)
    # An item is in a split if it is later than the last item before the split.
    train_ends = known[max(len(known) - test - validation, 1) - 1]
    validation_ends = known[max(len(known) - test, 1) - 1]
    return [
        Split.TRAIN
        if not np.isfinite(time) or time <= train_ends
        else Split.TEST
        if time > validation_ends
        else Split.VALIDATION
        for time in begin.tolist()
    ]
