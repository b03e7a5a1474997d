"""Texts as people should read them: without markup, entities and invisible characters. Each change is counted."""

import html
import re
from collections import Counter

from model.item_limits import INVISIBLE

_TAGS = (
    "a abbr address area article aside audio b base bdi bdo big blockquote body br button canvas caption "
    "center cite code col colgroup data dd del details dfn div dl dt em embed fieldset figcaption figure "
    "font footer form frame h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend "
    "li link main map mark meta nav noscript object ol option p param picture pre q s samp section select "
    "small source span strike strong style sub summary sup svg table tbody td template textarea tfoot th "
    "thead time title tr track tt u ul var video wbr script"
).replace(" ", "|")

_MARKUP = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>"
    rf"|</?(?:{_TAGS})(?:\s[^<>]*|/)?>|<!DOCTYPE[^<>]*>",
    re.DOTALL | re.IGNORECASE,
)
"""Comments, scripts and tags of HTML. `5 < 6`, `<3` and `<M>` are no tags.

A comment ends its search at the next one, so that many without an end take no longer than one.
"""

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_BREAKING = re.compile(r"<(?:br|p|div|li|tr|h[1-6])\b", re.IGNORECASE)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_SURROGATE = re.compile("[\ud800-\udfff]")

MARKUP = "HTML tags removed"
ENTITIES = "HTML entities decoded"
CHARACTERS = "invisible and control characters removed"
SURROGATES = "lone surrogates replaced"


def clean_text(text: str, changes: Counter[str]) -> str:
    """Return `text` without HTML, invisible and control characters, and count each kind of change once.

    Entities are decoded until none is left, at most three times, because exports encode them repeatedly.
    """
    if "<" in text and (plain := _without_markup(text)) != text:
        changes[MARKUP] += 1
        text = plain
    if "&" in text and _ENTITY.search(text):
        decoded = text
        for _ in range(3):
            if not _ENTITY.search(decoded):
                break
            decoded = html.unescape(decoded)
        # Entities may hide tags, as in `&lt;p&gt;Soft&lt;/p&gt;`.
        decoded = _without_markup(decoded) if "<" in decoded else decoded
        if decoded != text:
            changes[ENTITIES] += 1
            text = decoded
    if not text.isascii() or _CONTROL.search(text):
        visible = _CONTROL.sub(" ", INVISIBLE.sub("", text))
        if visible != text:
            changes[CHARACTERS] += 1
            text = visible
        if _SURROGATE.search(text):
            changes[SURROGATES] += 1
            text = _joined_surrogates(text)
        text = text.replace("\u00a0", " ")
    return text.strip()


def _without_markup(text: str) -> str:
    spaced = _BREAKING.sub(lambda found: " " + found.group(), text)
    plain = _MARKUP.sub("", spaced)
    return re.sub(r"[ \t]{2,}", " ", plain) if plain != spaced else text


def _joined_surrogates(text: str) -> str:
    """Join pairs of surrogates to the characters that they stand for, and replace single ones with U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
