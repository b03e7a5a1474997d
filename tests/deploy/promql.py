"""Names in PromQL expressions: the metrics that an expression reads, and the values that it compares labels with."""

import re
from collections.abc import Iterator

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHERS = re.compile(r"\{[^{}]*\}")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_RANGE = re.compile(r"\[[^][]*\]")
_NAME = re.compile(r"(?<![\w:.$])[A-Za-z_:][\w:]*\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool"}
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics that an expression reads."""
    for hidden in (_STRING, _MATCHERS, _LABELS, _RANGE):
        expression = hidden.sub(" ", expression)
    return set(_NAME.findall(expression)) - _WORDS


def matchers(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield the matchers of an expression: label, operator and value."""
    yield from _MATCHER.findall(expression)


def unmatched(expression: str, known: dict[str, set[str]]) -> list[str]:
    """Return the parts of matchers that match no known value of their label; labels that are not in `known` pass."""
    parts = [
        (label, part)
        for label, operator, value in matchers(expression)
        if label in known
        for part in (value.split("|") if "~" in operator else [value])
    ]
    return [
        f"{label}={part}"
        for label, part in parts
        if not any(re.fullmatch(part, value) for value in known[label])
    ]
