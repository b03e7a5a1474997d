"""Comparison of a response with the response shown in the documentation.

The demo produced the shown responses. The tests use a smaller shop with different items and a barely trained network,
so scores and everything that depends on scores differ. Structure, counts and problem documents must be the same.
"""

from typing import Any

COUNTED = frozenset({"results", "relations", "replies", "embeddings"})
"""Fields whose lists have the same length in every shop."""

EQUAL = frozenset({"rank", "similarity", "how", "status", "encoding", "promoted", "state", "line", "title"})
"""Fields whose values are the same in every shop, except in objects that describe an item."""

_ITEM = "item_id"


def unlike(shown: Any, got: Any, at: str = "") -> list[str]:
    """Return a description of each difference between `shown` and `got`, except in values that depend on the shop."""
    if isinstance(shown, dict) and "type" in shown and "instance" in shown:
        return _differ(_without_ids(shown), _without_ids(got), at)
    match shown, got:
        case dict(), dict():
            if shown.keys() != got.keys():
                return [f"{at or 'the answer'} has {sorted(got)}, but the document shows {sorted(shown)}"]
            told = _ITEM in shown
            return [
                difference
                for name, value in shown.items()
                for difference in (
                    _differ(value, got[name], f"{at}.{name}")
                    if name in EQUAL and not told
                    else unlike(value, got[name], f"{at}.{name}")
                )
            ]
        case list(), list():
            counted = at.rpartition(".")[2] in COUNTED
            if len(shown) != len(got) if counted else bool(shown) != bool(got):
                return [f"{at} has {len(got)} entries, but the document shows {len(shown)}"]
            return [
                difference
                for place, (one, other) in enumerate(zip(shown, got, strict=False))
                for difference in unlike(one, other, f"{at}.{place}")
            ]
        case _:
            return (
                [] if _kind(shown) is _kind(got) else [f"{at} is {got!r}, but the document shows {shown!r}"]
            )


def excerpt(shown: Any, got: Any) -> Any:
    """Return `got` with only the fields that `shown` has."""
    match shown, got:
        case dict(), dict():
            return {name: excerpt(shown[name], value) for name, value in got.items() if name in shown}
        case [first, *_], list():
            return [excerpt(first, value) for value in got]
        case _:
            return got


def _differ(shown: Any, got: Any, at: str) -> list[str]:
    return [] if shown == got else [f"{at or 'the problem'} is {got!r}, but the document shows {shown!r}"]


def _without_ids(problem: Any) -> Any:
    """Return the problem document without its list of known IDs, which depends on the shop."""
    if not isinstance(problem, dict) or "known" not in problem:
        return problem
    detail = str(problem["detail"]).partition(": ")[0]
    return {**problem, "known": bool(problem["known"]), "detail": detail}


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
