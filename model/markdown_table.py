"""Tables in Markdown, written in one place so that a name with a `|` does not end its cell."""

from collections.abc import Collection, Iterable, Sequence

ESCAPED_BAR = r"\|"
"""A `|` inside a cell."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str] = ()) -> list[str]:
    """Return the lines of a table.

    The first column and those named in `texts` are aligned to the left, and all others to the right.
    """
    first, *others = (
        f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in row)} |" for row in (head, *rows)
    )
    rules = ("---" if name in texts else "---:" for name in head[1:])
    return [first, f"|{'|'.join(['---', *rules])}|", *others]
