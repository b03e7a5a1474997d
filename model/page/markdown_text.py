"""Text from outside inside Markdown: names, titles and values of a shop, which may contain any character.

Such a text must be shown as it is. It may neither be markup nor end a line or a table cell, and a text that runs from
right to left may not reorder the words around it.
"""

import re
import unicodedata

MAX_TEXT = 120
"""Maximum number of characters of a text; a longer one is cut."""

MARKUP = re.compile(
    r"([\\`*_{}\[\]<>|#~$]|&(?=[#A-Za-z])|:(?=\S)|(?<=www)\.|@(?=\w)|^(?:[-+=]|\d+[.)](?=\s|$)))",
    re.IGNORECASE,
)
"""Characters that Markdown, its tables, links without brackets, and mathematics on code hosts give a meaning."""

BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of the text after them (Unicode Standard Annex 9)."""

ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"
"""First strong isolate and its end: between them, text has its own direction (Unicode Standard Annex 9)."""


def shown_text(text: str, most: int = MAX_TEXT) -> str:
    """Return `text` on one line with at most `most` characters, without control characters and lone surrogates."""
    line = BIDI_CONTROLS.sub("", " ".join(text.split()))
    kept = "".join(
        "\ufffd" if kind == "Cs" else letter
        for letter in line[: most + 1]
        if (kind := unicodedata.category(letter)) != "Cc"
    )
    return kept if len(kept) <= most else kept[: most - 1].rstrip() + "…"


def escaped(text: str, most: int = MAX_TEXT) -> str:
    """Return `text` as Markdown that shows it as it is, on one line with at most `most` characters.

    Text with letters from right to left is put between isolates, so that it does not reorder what follows.
    """
    line = shown_text(text, most)
    safe = MARKUP.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)
    if any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in line):
        return f"{ISOLATE}{safe}{END_OF_ISOLATE}"
    return safe


def code(text: str, most: int = MAX_TEXT) -> str:
    """Return `text` as code in Markdown; a text with backticks gets a longer fence (CommonMark, code spans)."""
    line = shown_text(text, most)
    runs = [len(run) for run in re.findall("`+", line)]
    if not runs:
        return f"`{line or ' '}`"
    fence = "`" * (max(runs) + 1)
    return f"{fence} {line} {fence}"
