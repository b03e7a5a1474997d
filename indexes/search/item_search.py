"""Search of items by words and by category, for people who look for an item before they ask about it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import CATEGORIES
from indexes.storage.filters import Condition
from indexes.storage.word_index import MAX_WORDS, contains, split_words
from model.records import Item

from .selection import Selection


def find_items(
    snapshot: Snapshot, text: str | None, category: str | None, start: int, limit: int
) -> list[tuple[int, Item]]:
    """Return at most `limit` items from row `start` on that match, in catalogue order, each with its row.

    Every word of `text` must begin a word of the title, a category or the ID of the item; upper case and accents do not
    matter. A text without letters and digits matches nothing. None matches all items.

    Raises:
        NoWordIndexError: `text` is given, and an earlier version of rcml wrote the index.
    """
    allowed = None
    if category is not None:
        where = {CATEGORIES: Condition(any_of=frozenset({category}))}
        allowed = Selection(where=where).allowed(snapshot)
    rows: Iterator[int]
    if text is not None:
        rows = _rows_with(snapshot, split_words(text), start)
    elif allowed is not None:
        rows = iter((np.flatnonzero(allowed[start:]) + start).tolist())
    else:
        return snapshot.page(start, limit)
    current = (row for row in rows if snapshot.has(row) and (allowed is None or allowed[row]))
    chosen = list(islice(current, limit))
    return list(zip(chosen, snapshot.at(chosen), strict=True))


def _rows_with(snapshot: Snapshot, words: Sequence[str], start: int) -> Iterator[int]:
    """Return the rows from `start` on whose items contain all `words`."""
    if not words:
        return iter(())
    overlay = snapshot.overlay
    added = (
        row
        for row in range(max(start, overlay.first), snapshot.end)
        if snapshot.has(row) and contains(overlay.item(row), words)
    )
    catalogue, further = snapshot.generation.catalogue, words[MAX_WORDS:]
    rows = catalogue.rows_with(words[:MAX_WORDS], start)
    if further:
        rows = (row for row in rows if contains(catalogue.at([row])[0], further))
    return chain(rows, added)


def category_counts(snapshot: Snapshot) -> list[tuple[str, int]]:
    """Return each category with its number of items, largest first; equal numbers are in alphabetical order."""
    overlay = snapshot.overlay
    counts = Counter(snapshot.generation.attributes.category_counts(overlay.gone))
    for row in range(overlay.first, snapshot.end):
        if snapshot.has(row):
            counts.update(set(overlay.item(row).categories))
    return sorted(
        ((name, items) for name, items in counts.items() if items), key=lambda one: (-one[1], one[0])
    )
