"""Tables in Markdown, written in one place so that a name with a `|` does not end its cell."""

from collections.abc import Iterable, Sequence

ESCAPED_BAR = r"\|"
"""A `|` inside a cell."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; all columns but the first are aligned to the right."""
    first, *others = (
        f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in row)} |" for row in (head, *rows)
    )
    return [first, f"|---|{'---:|' * (len(head) - 1)}", *others]
