"""Sheet of the attention of two relations over the same items, side by side: one picture, and the same as HTML.

Words and patches are shaded on one scale, that of `model/embeddings/heat_map.py`: by their weight in multiples of the
weight that they would have if the attention were spread evenly over all words, or over all patches.
"""

from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.data.pictures.thumbnails import thumbnail
from model.embeddings.attention_map import Box, PatchWeights, TextWeights
from model.embeddings.heat_map import HALFWAY_MULTIPLE, heat_map
from model.page.data_uris import jpeg_uri

from .case_sheet import JPEG_QUALITY, MAX_TITLE, cut
from .examples import AttendedItem, AttentionHalf

SCALE = {"none": 0.0, "even": 1.0, "2 x": 2.0, "4 x": 4.0, "10 x": 10.0}
"""Steps of the legend, in multiples of even attention."""

MAX_WORDS = 40
"""Maximum number of words shown of a text."""

MAX_DESCRIPTION = 260
"""Maximum number of characters of a description."""

SIDE = 256
"""Longer side of a picture in pixels."""

WIDTH, MARGIN, GAP = 1400, 28, 48
"""Width of the sheet, its margin, and the gap between the halves in pixels."""

HALF = (WIDTH - 2 * MARGIN - GAP) // 2
"""Width of a half in pixels."""

INK, SOFT, LINE, BLANK, LEGEND_GREY = "#1d2226", "#5c666e", "#dedbd4", "#f0eee9", "#d0d0d0"

SHADE = (240, 140, 0)
"""Colour of a word with all of the attention; a word without attention is white."""

Piece = tuple[str, float | None]
"""Part of a text and its shade from 0 to 1; None for what lies between words."""


def shade(weight: float, count: int) -> float:
    """Return the shade of one of `count` words or patches, from 0 to below 1; even attention has a third."""
    multiple = weight * count
    return multiple / (multiple + HALFWAY_MULTIPLE)


def pieces(text: str, weights: TextWeights) -> Iterator[Piece]:
    """Divide a text into its first `MAX_WORDS` words and what lies between them; a run of spaces is one space."""
    at = 0
    for word in weights.words[:MAX_WORDS]:
        between = text[at : word.start]
        if between:
            yield " " if between.isspace() else f" {' '.join(between.split())} ", None
        yield word.text, shade(word.weight, len(weights.words))
        at = word.end
    if text[at:].strip():
        yield " …", None


def shares(half: AttentionHalf) -> str:
    """Return the shares of the attention on words and on patches in words."""
    found = {"words": half.attention.text, "patches": half.attention.image}
    return ", ".join(
        f"{name} {100 * (1 - own.summary):.0f} %" for name, own in found.items() if own is not None
    )


def heading(items: tuple[AttendedItem, ...], seed: int) -> str:
    """Say which items are shown."""
    return f"Attention over {len(items)} test items, drawn at random (seed {seed}), under two relations each"


def _missing(item: AttendedItem) -> str:
    """Say why there is no heat map."""
    return "no picture" if item.item.picture is None else "positions of patches unknown"


def _heat(item: AttendedItem, half: AttentionHalf) -> Image.Image | None:
    """Return the picture under its heat map; None without a picture."""
    picture, weights = thumbnail(item.item.picture, SIDE), half.attention.image
    if picture is None or weights is None:
        return None
    drawn = heat_map(picture, weights, SIDE, mean=1 / weights.grid.size)
    return Image.open(BytesIO(drawn)).convert("RGB")


def attention_html(items: tuple[AttendedItem, ...], seed: int) -> str:
    """Return the sheet as HTML, in which all pictures are data URIs."""
    steps = "".join(
        f'<li><i style="background:{_heat_colour(multiple)}"></i>{_mark("word", shade(multiple, 1))}{label}</li>'
        for label, multiple in SCALE.items()
    )
    return (
        f'<div class="attention"><p>{heading(items, seed)}</p><ul class="scale">{steps}</ul>'
        + "".join(_item_html(item) for item in items)
        + "</div>"
    )


def _item_html(item: AttendedItem) -> str:
    halves = "".join(_half_html(item, half) for half in item.halves)
    return f"<article><h3>{escape(cut(item.item.title, MAX_TITLE))}</h3>{halves}</article>"


def _half_html(item: AttendedItem, half: AttentionHalf) -> str:
    picture = _heat(item, half)
    shown = (
        f'<div class="blank">{_missing(item)}</div>'
        if picture is None
        else f'<img src="{jpeg_uri(picture, JPEG_QUALITY)}" alt="heat map under {escape(half.relation_id)}">'
    )
    text = "".join(
        escape(piece) if value is None else _mark(piece, value) for piece, value in _pieces_of(item, half)
    )
    return (
        f'<div><p><b>{escape(half.relation_id)}</b> <span class="soft">'
        f"{escape(cut(half.description, MAX_DESCRIPTION))}</span></p>{shown}"
        f'<p class="words">{text} <small>{shares(half)}</small></p></div>'
    )


def _pieces_of(item: AttendedItem, half: AttentionHalf) -> Iterator[Piece]:
    weights = half.attention.text
    return iter(()) if weights is None else pieces(item.text, weights)


def _mark(word: str, value: float) -> str:
    return f'<mark style="--share:{value:.0%}">{escape(word)}</mark>'


def _heat_colour(multiple: float) -> str:
    """Return the colour of a light grey patch with the given multiple of even attention."""
    patch = PatchWeights(np.full((1, 1), multiple, np.float32), 0.0, Box(0.0, 0.0, 1.0, 1.0))
    drawn = heat_map(Image.new("RGB", (1, 1), LEGEND_GREY), patch, 1, mean=1.0)
    return "rgb({},{},{})".format(*np.asarray(Image.open(BytesIO(drawn)))[0, 0])


def draw_attention_sheet(items: tuple[AttendedItem, ...], seed: int, path: Path) -> None:
    """Draw the sheet as a picture: a legend, and one row per item with the halves side by side."""
    canvas = Image.new("RGB", (WIDTH, 200 + 1200 * len(items)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), heading(items, seed), INK, _font(22, bold=True))
    top = _draw_legend(draw, MARGIN + 44)
    for item in items:
        draw.line((MARGIN, top, WIDTH - MARGIN, top), LINE, 2)
        draw.text((MARGIN, top + 18), cut(item.item.title, MAX_TITLE), INK, _font(24, bold=True))
        descriptions = [wrap(cut(half.description, MAX_DESCRIPTION), 68) for half in item.halves]
        below = top + 96 + 24 * max(len(lines) for lines in descriptions)
        ends = []
        for half, lines, left in zip(item.halves, descriptions, (MARGIN, MARGIN + HALF + GAP), strict=True):
            draw.text((left, top + 58), cut(half.relation_id, 40), INK, _font(20, bold=True))
            draw.multiline_text((left, top + 86), "\n".join(lines), SOFT, _font(17), spacing=5)
            ends.append(_draw_half(canvas, item, half, left, below))
        top = max(ends) + 30
    canvas.crop((0, 0, WIDTH, top)).save(path)


def _draw_legend(draw: ImageDraw.ImageDraw, top: int) -> int:
    """Draw the scale of patches and words, and return where the legend ends."""
    left = MARGIN
    for label, multiple in SCALE.items():
        draw.rectangle((left, top, left + 34, top + 30), _heat_colour(multiple))
        draw.rectangle((left + 38, top, left + 96, top + 30), _word_colour(shade(multiple, 1)))
        draw.text((left + 67, top + 15), "word", INK, _font(17), anchor="mm")
        draw.text((left + 106, top + 15), label, INK, _font(17), anchor="lm")
        left += 186
    return top + 54


def _draw_half(canvas: Image.Image, item: AttendedItem, half: AttentionHalf, left: int, top: int) -> int:
    """Draw the heat map and beside it the words, and return where they end."""
    draw = ImageDraw.Draw(canvas)
    picture = _heat(item, half)
    if picture is None:
        draw.rectangle((left, top, left + SIDE, top + SIDE), BLANK)
        draw.text((left + SIDE / 2, top + SIDE / 2), _missing(item), SOFT, _font(17), anchor="mm")
    else:
        canvas.paste(picture, (left + (SIDE - picture.width) // 2, top))
    end = _draw_words(draw, list(_pieces_of(item, half)), left + SIDE + 24, left + HALF, top)
    draw.text((left + SIDE + 24, end + 8), shares(half), SOFT, _font(17))
    return max(top + SIDE, end + 34)


def _draw_words(draw: ImageDraw.ImageDraw, text: list[Piece], left: int, right: int, top: int) -> int:
    """Draw shaded words in lines between `left` and `right`, and return where they end."""
    font, line = _font(21), 36
    x, y = float(left), top
    for piece, value in text:
        length = draw.textlength(piece, font)
        if x + length > right and x > left:
            x, y = float(left), y + line
            if piece.isspace():
                continue
        if value is not None:
            draw.rectangle((x - 2, y, min(x + length + 1, right), y + line - 6), _word_colour(value))
        draw.text((x, y + 3), piece, INK, font)
        x += length
    return y + line


def _word_colour(value: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (part - 255) * value) for part in SHADE)
    return red, green, blue


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font that matplotlib brings along."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)
