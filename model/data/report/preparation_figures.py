"""Figures of the page of prepared data as HTML: filters and shares as bars, histograms, and pairs with pictures.

They are drawn with the page's own colours, so they follow the light or dark scheme and need no file.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from model.data.pictures.thumbnails import thumbnail
from model.page.data_uris import jpeg_uri
from model.page.markdown_text import shown_text

from .preparation_report import (
    CategoryShare,
    Distribution,
    FilterStep,
    PairedItem,
    RelationCounts,
    SamplePair,
)

SIDE = 128
"""Longer side of a picture in pixels."""

JPEG_QUALITY = 72

MAX_PICTURE_BYTES = 1_800_000
"""Maximum size of all embedded pictures together, so that the page stays below 3 MB."""

PairPictures = dict[tuple[str, int], tuple[str, str]]
"""Data URIs of the two pictures of a sample pair, by relation and position; a picture that is not shown is empty."""

MAX_TITLE = 90
"""Maximum number of characters of a title."""

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 260, 170, 10, 34, 42
"""Size of a histogram and its margins, in units of its view box."""


def filter_bars(steps: Sequence[FilterStep]) -> str:
    """Return the interactions after each step as bars, the log as the full width."""
    full = max(steps[0].interactions, 1)
    rows = []
    for step in steps:
        people = (
            "" if step.users is None else f"<small>{step.users:,} users, {step.items or 0:,} items</small>"
        )
        rows.append(
            f"<li><span>{_text(step.step)}</span>"
            f"<b>{step.interactions:,}<small>{100 * step.interactions / full:.0f} %</small></b>"
            f'<i style="width:{100 * step.interactions / full:.1f}%"></i>{people}</li>'
        )
    return f'<ol class="bars">{"".join(rows)}</ol>'


def category_bars(categories: Sequence[CategoryShare]) -> str:
    """Return the share of each category as a bar, with its lift."""
    full = max(own.share for own in categories)
    rows = (
        f"<li><span>{_text(own.category)}</span><b>{100 * own.share:.1f} %<small>lift {own.lift:.2f}</small></b>"
        f'<i style="width:{100 * own.share / full:.1f}%"></i></li>'
        for own in categories
    )
    return f'<ol class="bars">{"".join(rows)}</ol>'


def histograms(found: Sequence[Distribution]) -> str:
    """Return the histograms side by side."""
    return f'<div class="histograms">{"".join(map(_histogram, found))}</div>'


def _histogram(own: Distribution) -> str:
    """Draw one histogram as SVG; each bar is marked with its count, and its left edge with the first value."""
    counts = [bin_.count for bin_ in own.bins]
    step = (WIDTH - 2 * LEFT) / len(counts)
    floor = HEIGHT - BOTTOM
    marks = []
    for number, (bin_, count) in enumerate(zip(own.bins, counts, strict=True)):
        x, height = LEFT + number * step, (floor - TOP) * count / max(counts)
        marks += [
            f'<rect x="{x + 1:.1f}" y="{floor - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}"/>',
            f'<text class="count" x="{x + step / 2:.1f}" y="{floor - height - 4:.1f}">{_compact(count)}</text>',
            f'<text x="{x:.1f}" y="{floor + 13}">{_compact(bin_.least)}</text>',
        ]
    title = f"{own.name}: median {own.median:g}, at most {own.most:,}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<path d="M{LEFT} {floor + 0.5}H{WIDTH - LEFT}"/>{"".join(marks)}'
        f'<text class="axis" x="{WIDTH / 2}" y="{HEIGHT - 8}">{escape(own.name)}</text>'
        f'<text class="axis start" x="{LEFT}" y="11">number of {escape(own.counted)}</text></svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _compact(count: int) -> str:
    """Return a count with at most three digits, in thousands (k) or millions (M)."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0")[:4].removesuffix(".") + unit
    return str(count)


def pair_pictures(relations: Sequence[RelationCounts], folder: Path) -> PairPictures:
    """Return small copies of the pictures of the sample pairs; `folder` contains the pictures.

    First come the first pairs of all relations, then the second ones, and so on, until `MAX_PICTURE_BYTES` are used up.
    """
    found: PairPictures = {}
    used = 0
    for rank in range(max((len(row.samples) for row in relations), default=0)):
        for row in (row for row in relations if rank < len(row.samples)):
            pair = row.samples[rank]
            uris = (_picture(pair.first, folder), _picture(pair.second, folder))
            used += sum(map(len, uris))
            if used > MAX_PICTURE_BYTES:
                return found
            found[row.relation, rank] = uris
    return found


def _picture(item: PairedItem, folder: Path) -> str:
    picture = thumbnail(folder / item.picture, SIDE) if item.picture else None
    return "" if picture is None else jpeg_uri(picture, JPEG_QUALITY)


def pair_cards(row: RelationCounts, pictures: PairPictures) -> str:
    """Return the categories of a relation, and its sample pairs as cards: two pictures side by side with titles."""
    categories = category_bars(row.categories) if row.categories else ""
    cards = (
        _card(pair, pictures.get((row.relation, rank), ("", ""))) for rank, pair in enumerate(row.samples)
    )
    return f'<div class="profile">{categories}<div class="pairs">{"".join(cards)}</div></div>'


def _card(pair: SamplePair, uris: tuple[str, str]) -> str:
    strength = "" if pair.support is None else f"<p>{pair.support:,} users, NPMI {pair.npmi:.2f}</p>"
    return f"<article>{_side(pair.first, uris[0])}{_side(pair.second, uris[1])}{strength}</article>"


def _side(item: PairedItem, uri: str) -> str:
    missing = '<span class="blank">picture not shown</span>' if item.picture else ""
    shown = f'<img src="{uri}" alt="">' if uri else missing
    return f'<div>{shown}<span dir="auto">{_text(item.title or item.item_id)}</span></div>'


def _text(text: str) -> str:
    return escape(shown_text(text, MAX_TITLE))
