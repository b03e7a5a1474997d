"""Sheet of example queries with their best candidates under two relations: one picture, and the same as HTML."""

from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from PIL import ImageOps

from model.data.pictures.thumbnails import thumbnail
from model.page.data_uris import jpeg_uri

from .examples import BEST, Answer, Case, ShownItem
from .system_plots import new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SIDE = 128
"""Side of a picture in pixels."""

JPEG_QUALITY = 80

TRUE_COLOUR = "#2f7d4f"

SHEET_WIDTH = 8.4
"""Width of the sheet in inches."""

MAX_TITLE = 60
"""Maximum number of characters of a title."""

MAX_DESCRIPTION = 130
"""Maximum number of characters of a description."""


def cases_html(cases: tuple[Case, ...]) -> str:
    """Return the sheet as HTML, in which all pictures are data URIs."""
    return f'<div class="cases">{"".join(_case_html(case) for case in cases)}</div>'


def _case_html(case: Case) -> str:
    return (
        f'<article class="case"><div class="query">{_item_html(case.item)}</div>'
        + "".join(_answer_html(answer) for answer in case.answers)
        + "</article>"
    )


def _answer_html(answer: Answer) -> str:
    entries = "".join(
        f'<li class="true">{_item_html(item)}<small>true partner</small></li>'
        if true
        else f"<li>{_item_html(item)}</li>"
        for item, true in zip(answer.best, answer.true, strict=True)
    )
    found = f"{sum(answer.true)} of {answer.partners} true partner{'' if answer.partners == 1 else 's'}"
    description = escape(cut(answer.description, MAX_DESCRIPTION))
    return (
        f'<div class="answer"><p><b>{escape(answer.relation_id)}</b> <small>{found}</small> '
        f'<span class="soft">{description}</span></p><ol>{entries}</ol></div>'
    )


def _item_html(item: ShownItem) -> str:
    title = escape(cut(item.title, MAX_TITLE))
    picture = thumbnail(item.picture, SIDE)
    if picture is None:
        return f'<div class="blank">no picture</div><span>{title}</span>'
    return f'<img src="{jpeg_uri(picture, JPEG_QUALITY)}" alt=""><span>{title}</span>'


def cut(text: str, most: int) -> str:
    """Return the first `most` characters of a text; spaces and line breaks count as one space."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def draw_case_sheet(cases: tuple[Case, ...], path: Path) -> None:
    """Draw the sheet as a picture: one row per query, on the left the query item, then the two answers."""
    figure = new_figure(1.95 * len(cases), SHEET_WIDTH)
    rows = figure.subfigures(len(cases), 1, squeeze=False)[:, 0]
    for row, case in zip(rows, cases, strict=True):
        query, first, second = row.subfigures(1, 3, width_ratios=(1, BEST, BEST))
        _draw_items(query, "query", "", (case.item,), (False,))
        for part, answer in ((first, case.answers[0]), (second, case.answers[1])):
            _draw_items(part, answer.relation_id, answer.description, answer.best, answer.true)
    save(figure, path)


def _draw_items(
    part: "SubFigure", heading: str, description: str, items: tuple[ShownItem, ...], true: tuple[bool, ...]
) -> None:
    part.suptitle(plain(cut(heading, 40)), fontsize=9, weight="bold", x=0.04, ha="left")
    if description:
        lines = wrap(description, 66, max_lines=2, placeholder=" …")
        part.text(0.04, 0.88, plain("\n".join(lines)), fontsize=6.5, color="#5c666e", va="top")
    panels = part.subplots(1, len(items), squeeze=False)[0]
    for axes, item, found in zip(panels, items, true, strict=True):
        _draw_item(axes, item, found)


def _draw_item(axes: "Axes", item: ShownItem, true: bool) -> None:
    picture = thumbnail(item.picture, SIDE)
    if picture is None:
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor="#f0eee9")
    else:
        axes.imshow(ImageOps.pad(picture, (SIDE, SIDE), color="white"))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=TRUE_COLOUR if true else "#dedbd4", linewidth=3.5 if true else 0.8)
    lines = wrap(item.title, 18, max_lines=2, placeholder=" …")
    axes.set_xlabel(plain("\n".join([*lines, ""][:2])), fontsize=7)
