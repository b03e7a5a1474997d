"""Drawing surface of the sample shop: shapes as closed paths, and one painting style for all items.

A shop of 42 kinds looks consistent only if all kinds have the same lighting, outlines and patterns. This module
implements them, and `drawings` only defines the shapes of each kind.

Every shape is a `Path` in percent of the picture's side (x to the right, y down, 0 to 100). Ovals, rounded polygons,
Bézier outlines and strokes are all paths, so any of them can be a body, a detail or a shadow. The canvas is
`OVERSAMPLING` times larger than the picture and is downsampled at the end, because Pillow draws without anti-aliasing.

`draw` creates and finishes a `Canvas`, and `drawings` draws on it.
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
"""Canvas pixels per picture pixel, in each direction."""
OUTLINE_WIDTH = 1.1
"""Width of the outline of a shape."""
KIND_SCALE = 0.92
"""Scale factor of all drawings; with it, a drawing that spans 0 to 100 stays inside the picture in every pose."""

LIGHT_CELLS = 32
"""Side in pixels of the small masks for light and shade."""

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
    """Return the colour at `share` of the way from `first` (0) to `second` (1)."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@cache
def curve(outline: str) -> Path:
    """Parse an SVG-like outline of absolute `M`, `L`, `Q` and `C` commands; spaces separate all tokens."""
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
    """Return the point at `t` of a Bézier curve of any degree, computed by de Casteljau's algorithm."""
    while len(knots) > 1:
        knots = [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in pairwise(knots)]
    return knots[0]


def mirrored(half: Path) -> Path:
    """Return the closed path whose right half is `half` (top to bottom) and whose left half is its mirror image."""
    return half + tuple((100 - x, y) for x, y in reversed(half))


def flipped(path: Path) -> Path:
    """Mirror `path` about the vertical centre line of the picture."""
    return tuple((100 - x, y) for x, y in path)


def shifted(path: Path, dx: float, dy: float) -> Path:
    """Move `path` by (`dx`, `dy`)."""
    return tuple((x + dx, y + dy) for x, y in path)


def oval(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360) -> Path:
    """Return the ellipse centred at (x, y), or its arc from `start` to `stop` degrees (0 is right, 90 is down)."""
    ry = rx if ry is None else ry
    count = max(6, round(abs(stop - start) / (6 if max(rx, ry) > 8 else 12)))
    turns = (math.radians(start + (stop - start) * i / count) for i in range(count + 1))
    return tuple((x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns)


def box(x0: float, y0: float, x1: float, y1: float, r: float = 0) -> Path:
    """Return the rectangle between two corners, with its corners rounded by `r`."""
    return rounded(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), r)


def rounded(path: Path, r: float) -> Path:
    """Replace each corner of `path` by a curve that starts `r` before the corner and ends `r` after it."""
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
    """Return the outline of a stroke along `spine`; its width changes from `width` to `end` (default: `width`)."""
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
    """Return the half circle around `centre` that starts at `edge`, without its two end points."""
    radius, start = math.dist(centre, edge), math.atan2(edge[1] - centre[1], edge[0] - centre[0])
    turns = (start + math.pi * step / 8 for step in range(1, 8))
    return [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]


class Canvas:
    """Canvas for the picture of one item, with the item's colour, pattern, emblem and pose.

    A shape covers the shapes painted before it. The pose moves the item by up to 3 % of the side, scales it by up to
    6 % and rotates it by up to 5 degrees. It also determines the tint of the backdrop.
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
        """Rotate every shape drawn within the context clockwise about (x, y)."""
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
        """Paint `path` in the item's colour and pattern."""
        self._shape(path, self.colour, form, self.pattern, OUTLINE_WIDTH)

    def paint(
        self, path: Path, colour: Rgb | None = None, *, form: Form | None = None, edge: float = OUTLINE_WIDTH
    ) -> None:
        """Paint `path` in `colour` (default: the item's colour) without a pattern; `edge` is the outline width."""
        self._shape(path, colour or self.colour, form, "plain", edge)

    def line(self, path: Path, width: float, colour: Rgb) -> None:
        """Draw a line along `path`, without an outline."""
        self._stroke(self._pixels(path), width, colour)

    def piping(self, path: Path, colour: Rgb, width: float = 1.6) -> None:
        """Draw a thin outlined cord along `path`, for a hem or a seam."""
        pixels = self._pixels(path)
        self._stroke(pixels, width + OUTLINE_WIDTH * 1.4, mix(colour, INK, 0.55))
        self._stroke(pixels, width, colour)

    def glaze(self, path: Path, colour: Rgb, opacity: float) -> None:
        """Paint `path` with a translucent colour, for gloss, shade or a beam of light."""
        pixels = self._pixels(path)
        x0, y0, x1, y1 = _bounds(pixels)
        film = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(film).polygon([(x - x0, y - y0) for x, y in pixels], fill=round(255 * opacity))
        self.image.paste(colour, (x0, y0), film)

    def shadow(self, path: Path, *, blur: float = 2.6, opacity: float = 0.26, colour: Rgb = INK) -> None:
        """Paint a soft shadow (or glow) of `path`; a low resolution suffices, because the shadow has no sharp edges."""
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
        """Paint the shadow of an item that stands on the ground between `x0` and `x1`."""
        self.shadow(oval((x0 + x1) / 2, y, (x1 - x0) / 2 + 3, 3.6), opacity=0.36)

    def badge(self, x: float, y: float, r: float = 12) -> None:
        """Draw the emblem, dark on a white disc of radius `r` at (x, y).

        Within `turned`, the badge moves, but the emblem is not rotated.
        """
        self.paint(oval(x, y, r), WHITE)
        centre = self._pixels(((x, y),))[0]
        cos, sin = (part * r * 0.74 for part in self.upright)
        for colour, path in EMBLEM_SHAPES[self.emblem]():
            self.pen.polygon(
                [(centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos) for u, v in path], fill=colour
            )

    def finish(self) -> Image.Image:
        """Return the finished picture `[size, size]`: the downsampled canvas with slightly darkened corners."""
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
        """Draw the lighter patches of the pattern on `cloth`, centred on `path`."""
        xs, ys = [x for x, _ in path], [y for _, y in path]
        x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        patches = PATTERN_PATCHES[pattern](math.ceil(max(xs) - x), math.ceil(max(ys) - y))
        pen = ImageDraw.Draw(cloth)
        for share, patch in patches:
            pixels = [(u - corner[0], v - corner[1]) for u, v in self._pixels(shifted(patch, x, y))]
            pen.polygon(pixels, fill=mix(colour, WHITE, share))

    def _light(self, cloth: Image.Image, colour: Rgb, form: Form) -> None:
        """Apply the shade and gloss of `form` to `cloth`, each only within the bounding box of its mask."""
        width, height = cloth.size
        shade, gloss = _lighting(form)
        # Mix mostly with black, which keeps the hue. A larger share of the bluish `INK` would turn yellow into olive.
        dark = mix(mix(colour, (0, 0, 0), 0.45), INK, 0.2)
        for film, paint in ((shade, dark), (gloss, WHITE)):
            if paint == WHITE and min(colour) > 225:  # gloss on near-white is not visible
                continue
            left, top, right, bottom = film.getbbox() or (0, 0, 1, 1)
            x0, x1 = left * width // LIGHT_CELLS, -(-right * width // LIGHT_CELLS)
            y0, y1 = top * height // LIGHT_CELLS, -(-bottom * height // LIGHT_CELLS)
            scale = (LIGHT_CELLS / width, LIGHT_CELLS / height)
            part = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
            cloth.paste(paint, (x0, y0), film.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, part))

    def _stroke(self, pixels: list[Point], width: float, colour: Rgb) -> None:
        """Draw a line as separate runs between its sharp corners, with a dot on each corner and end."""
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
    """Return the shade and gloss masks of `form`, lit from the top left, to be stretched over a shape."""
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
    """Return positions `period` apart that cover -`half` to `half`; the two closest to 0 are half a period away."""
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
    """Return a gingham pattern: half-white bands in both directions, and almost white squares where they cross."""
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
    """Return parallel bands along `spine`, one per row, widened only vertically to keep its peaks sharp."""
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
"""Functions that return the patches of each pattern: shapes around (0, 0), each with its share of white."""


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
"""Functions that return the filled shapes of each emblem, around (0, 0) with a radius of about 1."""
