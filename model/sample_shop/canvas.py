"""The drawing surface of the sample shop: shapes as closed paths, and one way of painting every item.

A shop made of 42 different things looks like one shop only when every thing is lit, outlined and patterned
by the same hand, so that hand is here and `drawings` merely says which shapes a thing is made of. Everything
is a `Path` in percent of the picture's side (x to the right, y down, 0 to 100): ovals, rounded polygons,
Bézier outlines and strokes alike, so that any of them can be a body, a detail or a shadow. The canvas is
`OVERSAMPLING` times larger than the picture and is averaged down at the end, because Pillow's own drawing
is not anti-aliased.

Called by `drawings` (which draws on a `Canvas`) and `draw` (which makes one and finishes it).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Path = tuple[Point, ...]
Rgb = tuple[int, int, int]
Affine = tuple[float, float, float, float, float, float]
Form = Literal["flat", "cylinder", "ball"]

OVERSAMPLING = 3
"""Canvas pixels a picture pixel, each way."""
OUTLINE_WIDTH = 1.1
"""The width of the line around a shape."""
KIND_SCALE = 0.92
"""What kinds are shrunk by, so that no pose pushes one that fills 0 to 100 out of the picture."""

LIGHT_CELLS = 32
"""The side of the small masks that hold light and shade."""

INK: Rgb = (34, 33, 46)
WHITE: Rgb = (251, 250, 248)
CREAM: Rgb = (240, 233, 220)
SILVER: Rgb = (200, 204, 210)
STEEL: Rgb = (146, 152, 162)
GRAPHITE: Rgb = (70, 73, 84)
WOOD: Rgb = (192, 168, 140)
SAGE: Rgb = (146, 166, 146)
SOIL: Rgb = (98, 86, 78)
GLOW: Rgb = (255, 243, 212)


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Mix the colour `share` of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@cache
def curve(outline: str) -> Path:
    """Parse an SVG-like outline with absolute `M`, `L`, `Q`, `C` commands, spaces between tokens."""
    tokens = iter(outline.split())
    points: list[Point] = []
    for command in tokens:
        count = {"M": 1, "L": 1, "Q": 2, "C": 3}[command]
        knots = [(float(next(tokens)), float(next(tokens))) for _ in range(count)]
        if count > 1:
            knots.insert(0, points[-1])
            steps = min(32, max(10, round(sum(math.dist(a, b) for a, b in pairwise(knots)) / 2)))
            points.extend(_bezier(knots, step / steps) for step in range(1, steps + 1))
        else:
            points.extend(knots)
    return tuple(points)


def _bezier(knots: list[Point], t: float) -> Point:
    """Find the point at `t` of a Bézier curve of any degree, by de Casteljau's construction."""
    while len(knots) > 1:
        knots = [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in pairwise(knots)]
    return knots[0]


def mirrored(half: Path) -> Path:
    """Close the path whose right half is `half` (top to bottom) and whose left half is its mirror image."""
    return half + tuple((100 - x, y) for x, y in reversed(half))


def flipped(path: Path) -> Path:
    """Mirror `path` about the picture's vertical middle."""
    return tuple((100 - x, y) for x, y in path)


def shifted(path: Path, dx: float, dy: float) -> Path:
    """`path` moved by (`dx`, `dy`)."""
    return tuple((x + dx, y + dy) for x, y in path)


def oval(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360) -> Path:
    """Make the ellipse about (x, y), or its arc from `start` to `stop` degrees (0 is right, 90 is down)."""
    ry = rx if ry is None else ry
    count = max(6, round(abs(stop - start) / (6 if max(rx, ry) > 8 else 12)))
    turns = (math.radians(start + (stop - start) * i / count) for i in range(count + 1))
    return tuple((x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns)


def box(x0: float, y0: float, x1: float, y1: float, r: float = 0) -> Path:
    """Make the rectangle between two corners, its corners rounded by radius `r`."""
    return rounded(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), r)


def rounded(path: Path, r: float) -> Path:
    """`path` with every corner replaced by a curve that starts `r` before it and ends `r` after it."""
    if r == 0:
        return path
    points: list[Point] = []
    for index, corner in enumerate(path):
        before = _towards(corner, path[index - 1], r)
        after = _towards(corner, path[(index + 1) % len(path)], r)
        points.extend(_bezier([before, corner, after], step / 6) for step in range(7))
    return tuple(points)


def _towards(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1.0
    share = min(distance / length, 0.5)
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def ribbon(spine: Path, width: float, end: float | None = None, *, round_ends: bool = True) -> Path:
    """Outline a stroke along `spine`, `width` wide at its start and `end` (or `width`) at its end."""
    end = width if end is None else end
    left: list[Point] = []
    right: list[Point] = []
    for index, (x, y) in enumerate(spine):
        (ax, ay), (bx, by) = spine[max(index - 1, 0)], spine[min(index + 1, len(spine) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        half = (width + (end - width) * index / (len(spine) - 1)) / 2
        dx, dy = (by - ay) / length * half, -(bx - ax) / length * half
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    right.reverse()
    if not round_ends:
        return tuple(left + right)
    return tuple(left + _cap(spine[-1], left[-1]) + right + _cap(spine[0], right[-1]))


def _cap(centre: Point, edge: Point) -> list[Point]:
    """Make the half circle about `centre` that starts after `edge`."""
    radius, start = math.dist(centre, edge), math.atan2(edge[1] - centre[1], edge[0] - centre[0])
    turns = (start + math.pi * step / 8 for step in range(1, 8))
    return [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]


class Canvas:
    """One picture in the making: the item's colour, pattern and emblem, and the pose it is drawn in.

    Shapes cover what was painted before them. The pose moves the item by up to 3 % of the side, scales it by
    up to 6 % and turns it by up to 5 degrees; the backdrop's tint comes from it too.
    """

    def __init__(self, colour: Rgb, pattern: str, emblem: str, *, pose: int, size: int) -> None:
        chance = random.Random(pose)
        self.colour = colour
        self.pattern = pattern
        self.emblem = emblem
        self.size = size
        self.side = size * OVERSAMPLING
        warmth, light = chance.uniform(-4, 4), chance.uniform(-3, 3)
        self.backdrop: Rgb = (round(243 + light + warmth), round(242 + light), round(240 + light - warmth))
        self.image = Image.new("RGB", (self.side, self.side), self.backdrop)
        self.pen = ImageDraw.Draw(self.image)
        scale = self.side / 100 * KIND_SCALE * chance.uniform(0.94, 1.06)
        shift = (chance.uniform(-3, 3), chance.uniform(-3, 3))
        turn = math.radians(chance.uniform(-5, 5))
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        middle = self.side / 2
        self.upright = (cos, sin)
        self.affine: Affine = (
            cos,
            -sin,
            middle + self.side / 100 * shift[0] - 50 * cos + 50 * sin,
            sin,
            cos,
            middle + self.side / 100 * shift[1] - 50 * sin - 50 * cos,
        )
        self.unit = scale

    @contextmanager
    def turned(self, degrees: float, x: float = 50, y: float = 50) -> Iterator[None]:
        """Within it every shape is turned clockwise about (x, y)."""
        outer = self.affine
        a, b, c, d, e, f = outer
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        dx, dy = x - x * cos + y * sin, y - x * sin - y * cos
        self.affine = (
            a * cos + b * sin,
            b * cos - a * sin,
            a * dx + b * dy + c,
            d * cos + e * sin,
            e * cos - d * sin,
            d * dx + e * dy + f,
        )
        try:
            yield
        finally:
            self.affine = outer

    def body(self, path: Path, *, form: Form = "flat") -> None:
        """Paints `path` in the item's colour with its pattern."""
        self._shape(path, self.colour, form, self.pattern, OUTLINE_WIDTH)

    def paint(
        self, path: Path, colour: Rgb | None = None, *, form: Form | None = None, edge: float = OUTLINE_WIDTH
    ) -> None:
        """Paints `path` in `colour` (or the item's own) without a pattern; `edge` is the outline's width."""
        self._shape(path, colour or self.colour, form, "plain", edge)

    def line(self, path: Path, width: float, colour: Rgb) -> None:
        """Strokes `path` with a bare line, without an outline."""
        self._stroke(self._pixels(path), width, colour)

    def piping(self, path: Path, colour: Rgb, width: float = 1.6) -> None:
        """Strokes `path` with a thin outlined cord, as on a hem or a seam."""
        pixels = self._pixels(path)
        self._stroke(pixels, width + OUTLINE_WIDTH * 1.4, mix(colour, INK, 0.55))
        self._stroke(pixels, width, colour)

    def glaze(self, path: Path, colour: Rgb, opacity: float) -> None:
        """Lays a translucent film over `path`: a gloss, a shade, a beam of light."""
        pixels = self._pixels(path)
        x0, y0, x1, y1 = _bounds(pixels)
        film = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(film).polygon([(x - x0, y - y0) for x, y in pixels], fill=round(255 * opacity))
        self.image.paste(colour, (x0, y0), film)

    def shadow(self, path: Path, *, blur: float = 2.6, opacity: float = 0.26, colour: Rgb = INK) -> None:
        """Lays a soft shadow of `path` (or a glow), made at a coarse size because nothing in it is sharp."""
        coarse = 128 / self.side
        pixels = [(x * coarse, y * coarse) for x, y in self._pixels(path)]
        film = Image.new("L", (128, 128))
        ImageDraw.Draw(film).polygon(pixels, fill=round(255 * opacity))
        film = film.filter(ImageFilter.GaussianBlur(blur))
        region = film.getbbox()
        if region is None:
            return
        x0, y0, x1, y1 = (round(edge / coarse) for edge in region)
        mask = film.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, region)
        self.image.paste(colour, (x0, y0), mask)

    def ground(self, x0: float, x1: float, y: float = 86) -> None:
        """Lays the shadow of something that stands on the ground between `x0` and `x1`."""
        self.shadow(oval((x0 + x1) / 2, y, (x1 - x0) / 2 + 3, 3.6), opacity=0.36)

    def badge(self, x: float, y: float, r: float = 12) -> None:
        """Put the emblem at (x, y), dark on a white disc of radius `r`, upright however the item is turned."""
        self.paint(oval(x, y, r), WHITE)
        centre = self._pixels(((x, y),))[0]
        cos, sin = (part * r * 0.74 for part in self.upright)
        for colour, path in EMBLEM_SHAPES[self.emblem]():
            self.pen.polygon(
                [(centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos) for u, v in path], fill=colour
            )

    def finish(self) -> Image.Image:
        """Finish the picture `[size, size]`: average the canvas down, and darken its corners a little."""
        return ImageChops.multiply(self.image.reduce(OVERSAMPLING), _vignette(self.size))

    def _pixels(self, path: Path) -> list[Point]:
        a, b, c, d, e, f = self.affine
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in path]

    def _shape(self, path: Path, colour: Rgb, form: Form | None, pattern: str, edge: float) -> None:
        pixels = self._pixels(path)
        if form is None:
            self.pen.polygon(pixels, fill=colour)
        else:
            x0, y0, x1, y1 = _bounds(pixels)
            cloth = Image.new("RGB", (x1 - x0, y1 - y0), colour)
            self._weave(cloth, (x0, y0), path, colour, pattern)
            self._light(cloth, colour, form)
            mask = Image.new("L", cloth.size)
            ImageDraw.Draw(mask).polygon([(x - x0, y - y0) for x, y in pixels], fill=255)
            self.image.paste(cloth, (x0, y0), mask)
        if edge:
            self._stroke([*pixels, pixels[0]], edge, mix(colour, INK, 0.62))

    def _weave(self, cloth: Image.Image, corner: Point, path: Path, colour: Rgb, pattern: str) -> None:
        """Draws the pattern's lighter patches on `cloth`, laid out from the middle of `path`."""
        xs, ys = [x for x, _ in path], [y for _, y in path]
        x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        patches = PATTERN_PATCHES[pattern](math.ceil(max(xs) - x), math.ceil(max(ys) - y))
        pen = ImageDraw.Draw(cloth)
        for share, patch in patches:
            pixels = [(u - corner[0], v - corner[1]) for u, v in self._pixels(shifted(patch, x, y))]
            pen.polygon(pixels, fill=mix(colour, WHITE, share))

    def _light(self, cloth: Image.Image, colour: Rgb, form: Form) -> None:
        """Lays the form's shade and gloss on `cloth`, each only where it has any."""
        width, height = cloth.size
        shade, gloss = _lighting(form)
        dark = mix(mix(colour, (0, 0, 0), 0.45), INK, 0.2)  # mostly its own hue: yellow in shade is not olive
        for film, paint in ((shade, dark), (gloss, WHITE)):
            if paint == WHITE and min(colour) > 225:  # white on white is not worth the time
                continue
            left, top, right, bottom = film.getbbox() or (0, 0, 1, 1)
            x0, x1 = left * width // LIGHT_CELLS, -(-right * width // LIGHT_CELLS)
            y0, y1 = top * height // LIGHT_CELLS, -(-bottom * height // LIGHT_CELLS)
            scale = (LIGHT_CELLS / width, LIGHT_CELLS / height)
            part = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
            cloth.paste(paint, (x0, y0), film.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, part))

    def _stroke(self, pixels: list[Point], width: float, colour: Rgb) -> None:
        """Strokes a line run by run between its sharp corners, with a dot on every corner and end."""
        thick = max(1.0, width * self.unit)
        runs = [[pixels[0]]]
        for before, (x, y), after in zip(pixels, pixels[1:], [*pixels[2:], pixels[-1]], strict=False):
            runs[-1].append((x, y))
            ux, uy, vx, vy = x - before[0], y - before[1], after[0] - x, after[1] - y
            if abs(ux * vy - uy * vx) > 0.4 * (ux * vx + uy * vy) and after != (x, y):
                runs.append([(x, y)])
        for run in runs:
            self.pen.polygon(ribbon(tuple(run), thick, round_ends=False), fill=colour)
        if thick > 2:
            for x, y in (runs[0][0], *(run[-1] for run in runs)):
                self.pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)


def _bounds(pixels: list[Point]) -> tuple[int, int, int, int]:
    xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
    return math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)) + 1, math.ceil(max(ys)) + 1


@cache
def _lighting(form: Form) -> tuple[Image.Image, Image.Image]:
    """Make the shade and the gloss of a form: small masks to stretch over a shape, lit from top left."""
    side = LIGHT_CELLS
    shade, gloss = Image.new("L", (side, side)), Image.new("L", (side, side))
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5) / side * 2 - 1, (row + 0.5) / side * 2 - 1
            if form == "cylinder":
                dark = max(0.0, x + 0.1) ** 2 * 0.85 + max(0.0, -x - 0.7) * 0.7 + max(0.0, y) * 0.12
                bright = math.exp(-(((x + 0.45) / 0.22) ** 2)) * 0.3
            elif form == "ball":
                away = math.hypot(x + 0.3, y + 0.35)
                dark = max(0.0, away - 0.55) ** 1.5 * 0.62
                bright = math.exp(-((math.hypot(x + 0.38, y + 0.45) / 0.4) ** 2)) * 0.42
            else:
                dark = max(0.0, (x * 0.4 + y) * 0.5 + 0.1) * 0.36
                bright = max(0.0, -(x * 0.5 + y) * 0.5 + 0.1) * 0.2
            shade.putpixel((column, row), min(255, int(255 * dark)))
            gloss.putpixel((column, row), min(255, int(255 * bright)))
    return shade, gloss


@cache
def _vignette(size: int) -> Image.Image:
    side = 32
    corner = Image.new("L", (side, side))
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5) / side * 2 - 1, (row + 0.5) / side * 2 - 1
            corner.putpixel((column, row), round(255 - 14 * max(0.0, math.hypot(x, y + 0.15) - 0.5) ** 1.4))
    return corner.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")


Patch = tuple[float, Path]


@cache
def _plain(_half_width: int, _half_height: int) -> tuple[Patch, ...]:
    return ()


def _rows(half: int, period: float) -> list[float]:
    """List the places `period` apart, symmetric about 0, half a period off it, that reach `half`."""
    count = math.ceil(half / period) + 1
    return [(index + 0.5) * period for index in range(-count, count)]


@cache
def _striped(half_width: int, half_height: int) -> tuple[Patch, ...]:
    return tuple((0.84, box(-half_width, y - 2.5, half_width, y + 2.5)) for y in _rows(half_height, 11.5))


@cache
def _dotted(half_width: int, half_height: int) -> tuple[Patch, ...]:
    rows = enumerate(_rows(half_height, 10.5))
    return tuple(
        (0.88, oval(x + (row % 2) * 6, y, 3.1)) for row, y in rows for x in _rows(half_width + 6, 12)
    )


@cache
def _checked(half_width: int, half_height: int) -> tuple[Patch, ...]:
    """Gingham: half-light bands both ways, light where they cross."""
    columns, rows = _rows(half_width, 11.5), _rows(half_height, 11.5)
    across = [(0.52, box(-half_width, y - 2.7, half_width, y + 2.7)) for y in rows]
    down = [(0.52, box(x - 2.7, -half_height, x + 2.7, half_height)) for x in columns]
    crossings = [(0.95, box(x - 2.7, y - 2.7, x + 2.7, y + 2.7)) for x in columns for y in rows]
    return (*across, *down, *crossings)


@cache
def _zigzag(half_width: int, half_height: int) -> tuple[Patch, ...]:
    peaks = [
        ((index * 5.5), 3.4 if index % 2 else -3.4) for index in range(-half_width // 5, half_width // 5 + 2)
    ]
    return _bands(peaks, half_height, 12.5, 2.1)


@cache
def _wavy(half_width: int, half_height: int) -> tuple[Patch, ...]:
    wave = [(x, 2.7 * math.sin(x * math.tau / 21)) for x in range(-half_width - 1, half_width + 2)]
    return _bands(wave, half_height, 11.5, 2.1)


def _bands(spine: Sequence[Point], half_height: int, period: float, half_band: float) -> tuple[Patch, ...]:
    """Rows of one crooked line, thickened up and down rather than sideways, which keeps its peaks sharp."""
    above = tuple((x, y - half_band) for x, y in spine)
    below = tuple((x, y + half_band) for x, y in reversed(spine))
    return tuple((0.84, shifted(above + below, 0, y)) for y in _rows(half_height, period))


PATTERN_PATCHES = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "zigzag": _zigzag,
    "wavy": _wavy,
}
"""What is drawn over the item's colour: patches about (0, 0), each with its share of white."""


Emblem = tuple[tuple[Rgb, Path], ...]


@cache
def _star() -> Emblem:
    radii = (1.16 if point % 2 == 0 else 0.52 for point in range(10))
    turns = (math.radians(point * 36 - 90) for point in range(10))
    points = ((r * math.cos(t), r * math.sin(t) + 0.06) for r, t in zip(radii, turns, strict=True))
    return ((INK, tuple(points)),)


@cache
def _heart() -> Emblem:
    half = curve("M 0 -0.42 C 0.2 -0.95 0.98 -0.9 0.95 -0.2 C 0.92 0.3 0.4 0.6 0 0.98")
    return ((INK, half + tuple((-x, y) for x, y in reversed(half))),)


@cache
def _leaf() -> Emblem:
    blade = curve("M 0.86 -0.88 C 1.02 0.3 0.45 0.95 -0.52 0.56 C -1 -0.3 -0.2 -0.85 0.86 -0.88")
    vein = ribbon(((-0.52, 0.56), (0.46, -0.46)), 0.17)
    stem = ribbon(((-0.42, 0.46), (-0.88, 0.92)), 0.24)
    return ((INK, stem), (INK, blade), (WHITE, vein))


@cache
def _fish() -> Emblem:
    trunk = curve("M -1.08 0 C -0.75 -0.62 0.1 -0.72 0.5 -0.06 L 0.5 0.06 C 0.1 0.72 -0.75 0.62 -1.08 0")
    tail = curve("M 0.32 0 L 1.08 -0.62 Q 0.84 0 1.08 0.62")
    return ((INK, trunk), (INK, tail), (WHITE, oval(-0.58, -0.12, 0.15)))


@cache
def _moon() -> Emblem:
    outer = oval(-0.02, 0, 1, 1, 50, 310)
    inner = oval(0.42, 0, 0.8, 0.8, 285, 75)
    return ((INK, outer + inner),)


@cache
def _crown() -> Emblem:
    points = curve("M -0.8 0.5 L -1 -0.42 L -0.48 0 L 0 -0.72 L 0.48 0 L 1 -0.42 L 0.8 0.5")
    band = curve("M -0.8 0.58 L 0.8 0.58 L 0.8 0.84 L -0.8 0.84")
    return (
        (INK, points),
        (INK, band),
        *((INK, oval(x, y, 0.15)) for x, y in ((-1, -0.5), (0, -0.8), (1, -0.5))),
    )


EMBLEM_SHAPES = {"star": _star, "heart": _heart, "leaf": _leaf, "fish": _fish, "moon": _moon, "crown": _crown}
"""The symbols, filled shapes about (0, 0) that reach about 1 away from it."""
