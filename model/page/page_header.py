"""Head of a report page: the verdict, the warnings below it, and the most important counts as tiles."""

from collections.abc import Mapping, Sequence
from typing import Literal

from .markdown_page import inline

Mood = Literal["good", "open", "warn", "bad"]
"""Colour of the bar beside the verdict."""


def page_header(
    verdict: str, mood: Mood, warnings: Sequence[str], tiles: Mapping[str, str], counts: str = ""
) -> str:
    """Return the head of a page as HTML.

    `verdict`, `warnings` and `counts` are Markdown of one paragraph each. `tiles` maps labels to figures.
    """
    listed = "".join(f"<li>{inline(warning)}</li>" for warning in warnings)
    boxes = "".join(
        f"<div><dd>{inline(figure)}</dd><dt>{inline(label)}</dt></div>" for label, figure in tiles.items()
    )
    return (
        f'<div class="verdict {mood}"><p>{inline(verdict)}</p></div>\n'
        + (f'<ul class="warnings">{listed}</ul>\n' if warnings else "")
        + f'<dl class="tiles">{boxes}</dl>'
        + (f'\n<p class="soft">{inline(counts)}</p>' if counts else "")
    )
