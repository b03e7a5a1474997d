"""The pictures of a generated sample shop: a kind of thing in a colour, with a pattern and an emblem.

Drawn rather than downloaded, so that a demonstration needs no network and no licence, and so that what a
picture shows is known exactly. Kind, colour, pattern and emblem all survive at 64x64 pixels, where a small
vision transformer sees them.

Called by the shop's generator for every item; `canvas` paints, `drawings` says what each kind looks like.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from PIL import Image, ImageDraw, ImageFont

from .canvas import EMBLEM_SHAPES, INK, PATTERN_PATCHES, WHITE, Canvas, Rgb
from .drawings import DRAWINGS

ITEM_KINDS: tuple[str, ...] = tuple(DRAWINGS)
ITEM_COLOURS: dict[str, Rgb] = {
    "red": (211, 42, 48),
    "navy": (36, 58, 128),
    "green": (48, 150, 72),
    "pink": (242, 122, 172),
    "orange": (244, 126, 28),
    "teal": (16, 160, 168),
    "purple": (126, 70, 180),
    "yellow": (246, 194, 24),
}
ITEM_PATTERNS: tuple[str, ...] = tuple(PATTERN_PATCHES)
ITEM_EMBLEMS: tuple[str, ...] = tuple(EMBLEM_SHAPES)


def draw(kind: str, colour: str, pattern: str, emblem: str, *, pose: int = 0, size: int = 256) -> Image.Image:
    """Draw the RGB picture `[size, size]` of one item; the same arguments give the same pixels.

    `pose` seeds the small differences between photographs of one thing: its place, scale, turn and backdrop.
    Raises `ValueError` for a name that is not among `ITEM_KINDS`, `ITEM_COLOURS`, `ITEM_PATTERNS` or `ITEM_EMBLEMS`.
    """
    _require("kind", kind, ITEM_KINDS)
    _require("colour", colour, ITEM_COLOURS)
    _require("pattern", pattern, ITEM_PATTERNS)
    _require("emblem", emblem, ITEM_EMBLEMS)
    canvas = Canvas(ITEM_COLOURS[colour], pattern, emblem, pose=pose, size=size)
    DRAWINGS[kind](canvas)
    return canvas.finish()


def _require(what: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ValueError(f"There is no {what} named {name!r}; choose one of: {', '.join(allowed)}.")


def contact_sheet(
    pictures: Sequence[tuple[str, Image.Image]], *, columns: int = 7, cell: int = 256
) -> Image.Image:
    """Arrange captioned pictures in a grid for looking at, `cell` pixels each, row by row.

    Smaller pictures are enlarged without smoothing, so that what a model sees at 64x64 can be seen.
    """
    caption = 22
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + caption)), WHITE)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for index, (text, picture) in enumerate(pictures):
        x, y = index % columns * cell, index // columns * (cell + caption)
        sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        pen.text((x + cell / 2, y + cell + caption / 2), text, fill=INK, font=font, anchor="mm")
    return sheet
