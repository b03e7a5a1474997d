"""Limits of an item: one definition of a valid item for `rcml prepare`, `rcml index build` and `PUT /items`.

The service's schemas take the lengths from here, and `refusal` applies the same limits to items that come from files.
Without limits, an item could be prepared and indexed but neither be asked about nor be deleted.
"""

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from unicodedata import category

from .records import Attribute

MAX_NAME_CHARACTERS = 512
"""Maximum length of an ID, an attribute name or a category, in characters."""

MAX_TEXT_CHARACTERS = 2_000
"""Maximum length of a title or a text attribute, in characters."""

MAX_DESCRIPTION_CHARACTERS = 20_000
"""Maximum length of the description of an item, in characters."""

MAX_CATEGORIES = 100
"""Maximum number of categories of an item."""

MAX_ATTRIBUTES = 100
"""Maximum number of attributes of an item."""

RESERVED_NAMES = frozenset({"item_id", "title", "description", "categories", "image"})
"""Names of fields that `rcml prepare` reads from an item. An attribute cannot have one of these names."""

VALUES = (
    f"text of at most {MAX_TEXT_CHARACTERS} characters, a finite number (if whole, from -2^63 to 2^63 - 1), true or "
    "false"
)
"""Values that an attribute can have, in words."""

INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufff9-\ufffb]")
"""Characters without width. The joiners U+200C and U+200D are allowed: Persian, Hindi and emoji need them."""

_BETWEEN_LINES = frozenset("\t\n\r")

_SHOWN_CHARACTERS = 60


def is_one_line(text: str) -> bool:
    """Return whether a text has neither control characters nor lone surrogates, which logs and databases refuse."""
    return not any(category(one) in ("Cc", "Cs") for one in text)


def unreadable_character(text: str, lines: bool = False) -> str | None:
    """Return the first control or invisible character or lone surrogate of a text as `U+200B`, or None.

    With `lines`, the text may have several lines and tabs.
    """
    found = INVISIBLE.search(text)
    if found is None and text.isprintable():
        return None
    for one in text:
        if INVISIBLE.match(one) or (category(one) in ("Cc", "Cs") and not (lines and one in _BETWEEN_LINES)):
            return f"U+{ord(one):04X}"
    return None


def is_attribute_name(name: str) -> bool:
    """Return whether an attribute can have this name, regardless of its length."""
    return name not in RESERVED_NAMES and is_one_line(name)


def is_storable(value: Attribute) -> bool:
    """Return whether an attribute can have this value, which is then stored and compared exactly."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_CHARACTERS
    return isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63


def refusal(
    item_id: str,
    title: str = "",
    description: str = "",
    categories: Sequence[str] = (),
    attributes: Mapping[str, Attribute] | None = None,
) -> str | None:
    """Return why an item cannot be stored, with the value and the remedy, or None if it can be stored."""
    attributes = attributes or {}
    if not item_id:
        return "the ID is empty; give each item an ID"
    if not is_one_line(item_id):
        return f"the ID {_shown(item_id)} has control characters or lone surrogates; remove them"
    named = {
        "the ID": (item_id, MAX_NAME_CHARACTERS),
        "the title": (title, MAX_TEXT_CHARACTERS),
        "the description": (description, MAX_DESCRIPTION_CHARACTERS),
        **{f"the category {_shown(name)}": (name, MAX_NAME_CHARACTERS) for name in categories},
        **{f"the attribute name {_shown(name)}": (name, MAX_NAME_CHARACTERS) for name in attributes},
    }
    for what, (text, most) in named.items():
        if len(text) > most:
            return f"{what} has {len(text):,} characters; at most {most:,} are possible, so shorten it"
    for what, count, most in (
        ("categories", len(categories), MAX_CATEGORIES),
        ("attributes", len(attributes), MAX_ATTRIBUTES),
    ):
        if count > most:
            return f"the item has {count:,} {what}; at most {most} are possible, so leave some out"
    if "" in categories:
        return "a category is empty; leave it out"
    texts = {"the title": title, **{f"the category {_shown(name)}": name for name in categories}}
    for what, text in {**texts, "the description": description}.items():
        if character := unreadable_character(text, lines=what == "the description"):
            return f"{what} has the control or invisible character {character}; remove it"
    for name, value in attributes.items():
        if not name or not is_attribute_name(name):
            taken = ", ".join(sorted(RESERVED_NAMES))
            return f"an attribute cannot have the name {name!r}; choose a single-line name that is not one of {taken}"
        if not is_storable(value):
            return f"the attribute {_shown(name)} cannot be {_shown(value)}; give {VALUES}"
    return None


def _shown(value: Attribute) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
