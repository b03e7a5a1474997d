"""Whether an answer is like the one that is shown.

What is shown was answered by the demo, what is compared by a smaller shop with other items and a network that hardly
learnt: scores differ, and what they decide. Form, counts and refusals do not.
"""

from typing import Any

COUNTED = frozenset({"results", "relations", "replies", "embeddings"})
"""Lists whose length is the same in any shop."""

EQUAL = frozenset({"rank", "similarity", "how", "status", "encoding", "promoted", "state", "line", "title"})
"""Values that are the same in any shop, where no item is told of."""

_ITEM = "item_id"


def unlike(shown: Any, got: Any, at: str = "") -> list[str]:
    """Where the two differ, in words; nothing where they are alike."""
    if isinstance(shown, dict) and "type" in shown and "instance" in shown:
        return _differ(_without_ids(shown), _without_ids(got), at)
    match shown, got:
        case dict(), dict():
            if shown.keys() != got.keys():
                return [f"{at or 'the answer'} has {sorted(got)}, where {sorted(shown)} are shown"]
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
                return [f"{at} has {len(got)} entries, where {len(shown)} are shown"]
            return [
                difference
                for place, (one, other) in enumerate(zip(shown, got, strict=False))
                for difference in unlike(one, other, f"{at}.{place}")
            ]
        case _:
            return [] if _kind(shown) is _kind(got) else [f"{at} is {got!r}, where {shown!r} is shown"]


def _differ(shown: Any, got: Any, at: str) -> list[str]:
    return [] if shown == got else [f"{at or 'the problem'} is {got!r}, where {shown!r} is shown"]


def _without_ids(problem: Any) -> Any:
    """A problem without the list of the ids there are, and what its sentence says of them."""
    if not isinstance(problem, dict) or "known" not in problem:
        return problem
    detail = str(problem["detail"]).partition(": ")[0]
    return {**problem, "known": bool(problem["known"]), "detail": detail}


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
