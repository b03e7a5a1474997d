"""Skipped items, grouped by the kind of their reason: a list of 10,000 lines is not read."""

import re
from collections.abc import Mapping

from .preparation_report import SkippedItems

MAX_EXAMPLES = 3
"""Number of items named for each reason."""

MAX_REASONS = 50
"""Maximum number of reasons; all rarer ones are counted together."""

VALUES = re.compile(
    r"'[^']*'|\"[^\"]*\"|\([^()]*\)|(?:(?<=picture )|(?<=file ))\S.*?(?= (?:does|cannot|is|has)\b)|\d[\d.,]*"
)
"""Parts of a reason that belong to one item: quoted texts, what stands in brackets, names of pictures, and numbers."""


def grouped(set_aside: Mapping[str, str]) -> tuple[SkippedItems, ...]:
    """Group the items of `set_aside` (ID -> reason) by the kind of the reason, the most frequent first.

    A kind is the reason with "…" for everything that belongs to one item.
    """
    counts: dict[str, int] = {}
    examples: dict[str, list[tuple[str, str]]] = {}
    for item_id, reason in set_aside.items():
        kind = VALUES.sub("…", reason)
        counts[kind] = counts.get(kind, 0) + 1
        own = examples.setdefault(kind, [])
        if len(own) < MAX_EXAMPLES:
            own.append((item_id, reason))
    ordered = sorted(counts, key=lambda kind: -counts[kind])
    found = [
        SkippedItems(reason=kind, items=counts[kind], examples=tuple(examples[kind])) for kind in ordered
    ]
    if len(found) <= MAX_REASONS:
        return tuple(found)
    rest = found[MAX_REASONS - 1 :]
    other = SkippedItems(
        reason="other reasons",
        items=sum(one.items for one in rest),
        examples=tuple(one.examples[0] for one in rest[:MAX_EXAMPLES]),
    )
    return (*found[: MAX_REASONS - 1], other)
