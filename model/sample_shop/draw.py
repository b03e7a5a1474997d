"""Pictures of the sample shop: each shows one kind of item in one colour, with a pattern and an emblem.

The pictures are drawn instead of downloaded. The demo therefore needs no network access and no licence, and the content
of each picture is known exactly. Kind, colour, pattern and emblem are all recognisable at 64x64 pixels, the input size
of a small vision transformer.

The generator of the shop calls `draw` for every item. `canvas` implements the painting, and `drawings` defines the
shapes of each kind.
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

    `pose` seeds small differences such as those between photographs of one item: position, scale, rotation and
    backdrop.

    Raises:
        ValueError: a name is not in `ITEM_KINDS`, `ITEM_COLOURS`, `ITEM_PATTERNS` or `ITEM_EMBLEMS`.
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
        raise ValueError(f"There is no {what} named {name!r}. Choose one of: {', '.join(allowed)}.")


def contact_sheet(
    pictures: Sequence[tuple[str, Image.Image]], *, columns: int = 7, cell: int = 256
) -> Image.Image:
    """Arrange captioned pictures row by row in a grid of square cells with a side of `cell` pixels.

    Smaller pictures are enlarged without smoothing, so the grid shows the same pixels that a model sees at 64x64.
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
