"""Drawings of the 42 kinds of items in the sample shop, one short function per kind.

Each function paints the body of the item in the item's colour and pattern. Everything else (handles, straps, lids,
wheels, leaves) is grey, white, cream or wood, so that each picture has only one colour to name. A `badge` shows the
emblem. Coordinates are in percent of the picture's side, with y pointing down. Most items stand on the ground at about
y = 88.

`draw.draw` looks up a kind in `DRAWINGS`, whose order is the order of `draw.ITEM_KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .canvas import (
    CREAM,
    GLOW,
    GRAPHITE,
    INK,
    SAGE,
    SILVER,
    SOIL,
    STEEL,
    WHITE,
    WOOD,
    Canvas,
    Path,
    Rgb,
    box,
    curve,
    flipped,
    mirrored,
    mix,
    oval,
    ribbon,
    rounded,
    shifted,
)

FLAME: Rgb = (255, 214, 138)
SAND: Rgb = (228, 213, 186)


def baby_bottle(c: Canvas) -> None:
    """Draw a baby bottle."""
    c.ground(30, 70, 89)
    c.paint(mirrored(curve("M 50 5 C 54.5 5 55.5 8 54.5 12 C 54 17 63 18 64 26 L 50 26")), CREAM, form="ball")
    c.body(
        mirrored(curve("M 50 33 L 62 33 C 71 36 75 41 75 48 L 75 81 Q 75 89 67 89 L 50 89")), form="cylinder"
    )
    c.paint(box(33, 24, 67, 35, 2.5), WHITE, form="cylinder")
    for x in (39, 46, 54, 61):
        c.line(((x, 26.5), (x, 32.5)), 0.9, SILVER)
    for y in (49, 57, 65, 73, 81):
        c.line(((69.5, y), (74.4, y)), 1.1, INK)
    c.badge(49, 62, 13.5)


def bib(c: Canvas) -> None:
    """Draw a bib."""
    tie = curve("M 31 16 C 24 8 13 4 9 8 C 5 13 12 18 17 13")
    for side in (tie, flipped(tie)):
        c.paint(ribbon(side, 2.6), WHITE)
    half = curve(
        "M 50 42 C 59 42 64 35 62 26 C 60 19 62 12 69 12 "
        "C 79 13 81 24 79 34 C 79 40 87 44 87 56 C 87 76 70 90 50 90"
    )
    outline = mirrored(half)
    c.shadow(shifted(outline, 1, 3))
    c.body(outline)
    c.piping((*outline, half[0]), WHITE, 2.4)
    c.badge(50, 66, 14)


def sippy_cup(c: Canvas) -> None:
    """Draw a sippy cup."""
    c.ground(28, 72, 88)
    handle = curve("M 26 45 C 2 43 2 77 30 74")
    for side in (handle, flipped(handle)):
        c.paint(ribbon(side, 6.5), WHITE, form="flat")
    c.body(rounded(((22, 36), (78, 36), (72, 89), (28, 89)), 6), form="cylinder")
    c.paint(curve("M 54 26 L 56 13 Q 57 8 63 9 Q 70 10 69 16 L 69 28"), WHITE, form="cylinder")
    c.paint(curve("M 22 34 C 22 26 34 23 50 23 C 66 23 78 26 78 34"), WHITE, form="ball")
    c.paint(box(19, 32, 81, 39.5, 3), WHITE, form="cylinder")
    c.line(((60, 12), (65.5, 12.7)), 1.3, STEEL)
    c.badge(50, 63, 14)


def teddy_bear(c: Canvas) -> None:
    """Draw a teddy bear."""
    c.ground(22, 78, 89)
    for x in (29.5, 70.5):
        c.body(oval(x, 17, 9.5), form="ball")
        c.paint(oval(x, 18, 5.2), CREAM)
    for x, turn in ((24, 28), (76, -28)):
        with c.turned(turn, x, 62):
            c.body(oval(x, 60, 8, 14), form="ball")
    c.body(oval(50, 66, 24, 22), form="ball")
    for x in (28, 72):
        c.body(oval(x, 80, 12, 10.5), form="ball")
        c.paint(oval(x, 81, 6.6, 5.8), CREAM)
    c.body(oval(50, 31, 24, 20), form="ball")
    c.paint(oval(50, 38, 10.5, 8.5), CREAM, form="ball")
    c.paint(oval(50, 34.5, 3.8, 2.7), INK, edge=0)
    c.line(curve("M 45.5 40 Q 48.5 43.5 50 40 Q 51.5 43.5 54.5 40"), 1.1, INK)
    for x in (39, 61):
        c.paint(oval(x, 28, 2.6, 3), INK, edge=0)
        c.paint(oval(x - 0.8, 27, 0.9), WHITE, edge=0)
    c.badge(50, 66, 13)


def rattle(c: Canvas) -> None:
    """Draw a rattle."""
    with c.turned(32, 45, 40):
        c.shadow(shifted(oval(50, 32, 26), 1.5, 3))
        c.shadow(shifted(ribbon(((50, 50), (50, 94)), 10), 1.5, 3))
        c.paint(ribbon(((50, 50), (50, 74)), 7.5), WHITE, form="cylinder")
        for turn in range(0, 360, 45):
            x, y = 50 + 10.5 * math.cos(math.radians(turn)), 84 + 10.5 * math.sin(math.radians(turn))
            c.paint(oval(x, y, 4.7), WHITE if turn % 90 else STEEL, form="ball")
        c.body(oval(50, 30, 25), form="ball")
        c.paint(oval(50, 56.5, 8, 3.6), WHITE, form="flat")
        c.paint(oval(50, 4.5, 6, 3.4), WHITE, form="flat")
        for x in (16, 9):
            arc = oval(50, 30, 47 - x, 47 - x, 160, 200)
            c.line(arc, 1.7, STEEL)
            c.line(flipped(arc), 1.7, STEEL)
        c.badge(50, 30, 13.5)


def bodysuit(c: Canvas) -> None:
    """Draw a bodysuit."""
    outline = mirrored(
        curve(
            "M 50 26 C 57 26 61 21 62 13 L 70 15 C 77 17 81 21 84 26 L 93 43 L 80 50 L 73 40 "
            "C 72 52 73 60 76 70 C 66 71 60 79 59 90 L 50 90"
        )
    )
    c.shadow(shifted(outline, 1, 3))
    c.body(outline)
    c.piping(curve("M 38 13 C 39 21 43 26 50 26 C 57 26 61 21 62 13"), WHITE, 2.6)
    for half in (
        curve("M 93 43 L 80 50"),
        curve("M 76 70 C 66 71 60 79 59 90"),
        curve("M 62 13 C 66 20 72 24 79 23"),
    ):
        c.piping(half, WHITE, 2.2)
        c.piping(flipped(half), WHITE, 2.2)
    c.paint(box(41, 83.5, 59, 91, 2), WHITE)
    for x in (45, 50, 55):
        c.paint(oval(x, 87.2, 1.5), SILVER, edge=0.7)
    c.badge(50, 49, 13)


def mug(c: Canvas) -> None:
    """Draw a mug."""
    c.ground(20, 68, 87)
    c.paint(ribbon(curve("M 64 40 C 92 32 94 76 64 73"), 7.5), form="flat")
    c.body(curve("M 18 24 L 18.5 78 Q 19 88 30 88 L 56 88 Q 67 88 67.5 78 L 68 24"), form="cylinder")
    c.paint(oval(43, 24, 25, 6), WHITE)
    c.paint(oval(43, 25, 21.5, 4.2), SOIL)
    c.badge(43, 58, 14)


def teapot(c: Canvas) -> None:
    """Draw a teapot."""
    c.ground(24, 72, 87)
    c.paint(curve("M 66 70 C 80 68 78 46 88 38 L 96 41 C 92 48 90 76 68 80"), form="flat")
    c.paint(ribbon(curve("M 28 42 C 0 34 2 78 28 74"), 6.5), form="flat")
    c.paint(box(34, 82, 62, 88, 2), WHITE, form="cylinder")
    c.body(oval(48, 60, 29, 25.5), form="ball")
    c.paint(curve("M 30 39 C 32 29 40 26 48 26 C 56 26 64 29 66 39"), WHITE, form="ball")
    c.paint(box(28.5, 37, 67.5, 41.5, 2), WHITE, form="cylinder")
    c.paint(oval(48, 22, 5), form="ball")
    c.badge(48, 63, 14)


def saucepan(c: Canvas) -> None:
    """Draw a saucepan."""
    c.ground(10, 62, 86)
    c.paint(ribbon(curve("M 60 58 Q 76 52 92 49"), 6, 8), GRAPHITE, form="flat")
    c.paint(oval(91, 49.2, 1.6), WHITE, edge=0.6)
    c.body(curve("M 8 46 L 9 78 Q 10 87 20 87 L 52 87 Q 62 87 63 78 L 64 46"), form="cylinder")
    c.paint(curve("M 9 44 C 12 33 24 29 36 29 C 48 29 60 33 63 44"), SILVER, form="ball")
    c.paint(box(5.5, 42.5, 66.5, 48, 2.5), STEEL, form="cylinder")
    c.paint(box(34, 24, 38, 30), STEEL)
    c.paint(oval(36, 22, 6, 3.6), GRAPHITE, form="ball")
    c.badge(36, 67.5, 13)


def plant_pot(c: Canvas) -> None:
    """Draw a plant pot."""
    c.ground(30, 70, 90)
    blade = curve("M 50 48 C 41 34 43 14 50 4 C 57 14 59 34 50 48")
    for turn in (-58, 58, -30, 30, 0):
        with c.turned(turn, 50, 50):
            c.paint(blade, SAGE, form="flat")
            c.line(((50, 46), (50, 12)), 0.9, mix(SAGE, INK, 0.4))
    c.body(rounded(((22, 46), (78, 46), (69, 91), (31, 91)), 3), form="cylinder")
    c.body(box(17, 40, 83, 52, 2.5), form="cylinder")
    c.badge(50, 71, 12.5)


def watering_can(c: Canvas) -> None:
    """Draw a watering can."""
    c.ground(34, 80, 87)
    c.paint(ribbon(curve("M 48 38 C 50 4 100 10 78 74"), 5), STEEL, form="flat")
    c.paint(ribbon(((40, 77), (19, 42)), 10, 5.5, round_ends=False), form="flat")
    with c.turned(-32, 18, 41):
        c.paint(rounded(((12.5, 42), (23.5, 42), (27, 34), (9, 34)), 1.5), STEEL, form="flat")
        c.paint(oval(18, 34, 9, 2.8), SILVER)
        for x in (12.6, 16.2, 19.8, 23.4):
            c.paint(oval(x, 34, 0.8), INK, edge=0)
    c.body(rounded(((35, 42), (79, 42), (82, 88), (32, 88)), 5), form="cylinder")
    c.paint(curve("M 35 42 C 36 34 50 32 58 32 L 60 42"), SILVER, form="flat")
    c.paint(oval(57, 42, 22, 3.4), STEEL)
    c.paint(oval(64, 42, 14, 2.4), INK, edge=0)
    c.badge(57, 66, 13.5)


def rubber_boot(c: Canvas) -> None:
    """Draw a rubber boot."""
    c.ground(26, 88, 89)
    c.body(
        curve("M 24 14 L 60 14 L 59 50 C 60 60 68 62 78 66 C 88 69 91 76 90 84 L 26 84 C 26 74 28 66 26 54"),
        form="flat",
    )
    c.paint(curve("M 24 82 L 91 82 L 90 88 L 54 88 L 52 91 L 26 91 Q 24 88 24 82"), GRAPHITE, form="flat")
    c.paint(curve("M 78 66 C 88 69 91 76 90 82 L 74 82 C 72 76 73 70 78 66"), GRAPHITE, form="flat")
    c.paint(box(22, 11, 62, 19, 2.5), WHITE, form="cylinder")
    c.paint(oval(42, 11.5, 19, 3), INK)
    c.badge(42, 39, 13)


def cycling_helmet(c: Canvas) -> None:
    """Draw a cycling helmet."""
    c.shadow(oval(50, 70, 36, 5), opacity=0.25)
    for strap in (curve("M 34 62 L 50 88"), curve("M 72 60 L 50 88")):
        c.line(strap, 4.2, INK)
        c.line(strap, 2.6, GRAPHITE)
    c.paint(box(44.5, 84, 55.5, 91, 1.5), INK)
    c.paint(curve("M 10 62 C 22 72 74 72 88 60 L 80 52 L 16 54"), INK, form="flat")
    c.body(
        curve(
            "M 6 60 C 4 36 26 14 54 14 C 80 14 96 34 94 54 C 93 62 86 66 78 64 "
            "C 62 58 40 58 26 65 C 16 69 8 68 6 60"
        ),
        form="ball",
    )
    for vent in (
        "M 16 46 C 20 34 30 26 42 25 C 40 30 26 36 16 46",
        "M 48 24 C 58 20 70 22 77 29 C 68 31 58 30 48 24",
        "M 84 34 C 89 39 91 46 90 52 C 85 48 83 41 84 34",
        "M 16 57 C 22 46 30 41 42 38 C 40 44 28 48 16 57",
    ):
        c.paint(curve(vent), INK, edge=1.6)
    c.badge(62, 45, 12)


def jersey(c: Canvas) -> None:
    """Draw a jersey."""
    outline = mirrored(
        curve(
            "M 50 16 L 60 14 C 68 16 74 17 79 21 C 85 27 90 38 94 50 L 79 57 L 73 44 "
            "C 72 58 73 74 74 88 L 50 88"
        )
    )
    c.shadow(shifted(outline, 1, 3))
    c.body(outline)
    cuff = curve("M 91.5 43 L 94.5 51 L 79.5 58 L 76.5 50")
    for side in (cuff, flipped(cuff)):
        c.paint(side, WHITE, form="flat")
    c.paint(box(25.5, 83, 74.5, 90, 2), WHITE, form="cylinder")
    for seam in (curve("M 62 16 Q 68 32 73 44"), flipped(curve("M 62 16 Q 68 32 73 44"))):
        c.line(seam, 0.9, INK)
    c.paint(curve("M 38 10 L 62 10 L 63 17 C 58 24 54 26 50 29 C 46 26 42 24 37 17"), WHITE, form="flat")
    c.paint(oval(50, 10.5, 12, 2.6), INK, edge=0.8)
    c.paint(ribbon(((50, 15), (50, 44)), 2.6), STEEL, edge=0.8)
    c.paint(ribbon(((50, 44), (50, 48)), 2.2), INK, edge=0)
    c.badge(50, 65, 13)


def drinks_flask(c: Canvas) -> None:
    """Draw a drinks flask."""
    c.ground(33, 67, 91)
    c.paint(ribbon(curve("M 39 16 C 39 0 61 0 61 16"), 3.4), GRAPHITE)
    c.body(
        mirrored(curve("M 50 27 L 59 27 C 67 29 71 34 71 41 L 71 87 Q 71 91 67 91 L 50 91")), form="cylinder"
    )
    c.paint(box(37, 23, 63, 30, 1.5), SILVER, form="cylinder")
    c.paint(box(34, 10, 66, 24, 3), GRAPHITE, form="cylinder")
    for x in (41, 47, 53, 59):
        c.line(((x, 13), (x, 21)), 0.9, INK)
    c.paint(box(29, 86, 71, 92, 2), SILVER, form="cylinder")
    c.badge(50, 58, 13.5)


def tent(c: Canvas) -> None:
    """Draw a tent."""
    c.ground(8, 92, 84)
    for rope in (((36, 20), (7, 84)), ((78, 24), (95, 82))):
        c.line(rope, 0.9, STEEL)
    for x, y in ((7, 84), (95, 82)):
        c.line(((x - 0.6, y - 3), (x + 0.6, y + 3)), 1.8, GRAPHITE)
    c.body(curve("M 36 18 Q 58 24 78 22 L 94 82 Q 78 86 57 86"), form="flat")
    c.paint(curve("M 36 18 L 57 86 L 9 86"), form="flat")
    c.paint(curve("M 36 26 L 47 86 L 20 86"), INK)
    c.paint(curve("M 36 26 C 36 46 33 60 18 66 L 14 86 L 21 86 C 30 70 36 50 36 26"), CREAM, form="flat")
    c.paint(curve("M 36 26 C 37 46 40 60 51 65 L 54 86 L 46 86 C 40 70 37 50 36 26"), CREAM, form="flat")
    c.line(((36, 14), (36, 20)), 1.8, GRAPHITE)
    c.badge(67, 55, 13)


def lantern(c: Canvas) -> None:
    """Draw a lantern."""
    c.ground(26, 74, 89)
    c.line(curve("M 31 40 C 18 -4 82 -4 69 40"), 2.6, INK)
    c.line(curve("M 31 40 C 18 -4 82 -4 69 40"), 1.4, STEEL)
    c.paint(curve("M 34 28 C 28 36 28 46 34 54 L 66 54 C 72 46 72 36 66 28"), GLOW, form="ball")
    c.paint(curve("M 50 30 C 54 37 58 42 56 47 C 54 52 46 52 44 47 C 42 42 46 37 50 30"), FLAME, form="flat")
    for wire in (curve("M 35 28 C 24 36 24 46 35 54"), flipped(curve("M 35 28 C 24 36 24 46 35 54"))):
        c.line(wire, 1.6, GRAPHITE)
    c.paint(box(46, 8, 54, 15, 2), STEEL, form="cylinder")
    c.body(rounded(((40, 14), (60, 14), (70, 29), (30, 29)), 2.5), form="cylinder")
    c.paint(box(31, 53, 69, 58, 1.5), STEEL, form="cylinder")
    c.body(rounded(((31, 57), (69, 57), (77, 89), (23, 89)), 4), form="cylinder")
    c.badge(50, 73, 12.5)


def sleeping_bag(c: Canvas) -> None:
    """Draw a sleeping bag."""
    with c.turned(24, 50, 49):
        outline = mirrored(curve("M 50 1 C 66 1 75 13 75 28 C 75 50 68 70 65 86 Q 64 94 56 94 L 50 94"))
        c.shadow(shifted(outline, 2, 2))
        c.body(outline, form="cylinder")
        for y, half in ((44, 24), (79, 17)):
            c.line(curve(f"M {50 - half} {y} Q 50 {y + 4} {50 + half} {y}"), 1, INK)
        c.paint(
            curve("M 50 6 C 62 6 70 14 70 26 C 70 36 62 40 50 40 C 38 40 30 36 30 26 C 30 14 38 6 50 6"),
            CREAM,
        )
        c.paint(rounded(((36, 11), (64, 11), (66, 25), (34, 25)), 6), WHITE, form="ball")
        c.body(curve("M 30 30 C 42 38 58 38 70 30 L 73 40 C 58 48 42 48 27 40"), form="cylinder")
        c.paint(curve("M 70 29 L 74 41 L 56 44 Q 62 36 70 29"), CREAM, form="flat")
        c.line(curve("M 70 41 C 70 56 66 74 62 90"), 2.2, GRAPHITE)
        c.line(curve("M 70 41 C 70 56 66 74 62 90"), 1, SILVER)
        c.badge(48, 60, 13)


def suitcase(c: Canvas) -> None:
    """Draw a suitcase."""
    c.ground(24, 76, 91)
    for x in (39, 61):
        c.paint(box(x - 1.6, 8, x + 1.6, 30), SILVER)
    c.paint(box(34, 5, 66, 11, 3), GRAPHITE, form="cylinder")
    for x in (32, 68):
        c.paint(box(x - 3, 83, x + 3, 87), STEEL)
        c.paint(oval(x, 88, 4.2), GRAPHITE, form="ball")
    c.body(box(22, 27, 78, 85, 7), form="flat")
    for x, y in ((22, 27), (78, 27), (22, 85), (78, 85)):
        dx, dy = (4 if x < 50 else -4), (4 if y < 50 else -4)
        corner = curve(f"M {x} {y + 2 * dy} Q {x} {y} {x + 2 * dx} {y} L {x + 2 * dx} {y + dy}")
        corner += curve(f"M {x + 2 * dx} {y + dy} Q {x + dx} {y + dy} {x + dx} {y + 2 * dy}")
        c.paint(corner, GRAPHITE, form="flat")
    c.line(curve("M 42 30 C 42 36 58 36 58 30"), 3.6, INK)
    c.line(curve("M 42 30 C 42 36 58 36 58 30"), 2, STEEL)
    c.badge(50, 57, 14.5)


def backpack(c: Canvas) -> None:
    """Draw a backpack."""
    c.ground(22, 78, 90)
    c.line(curve("M 42 16 C 42 5 58 5 58 16"), 4.6, INK)
    c.line(curve("M 42 16 C 42 5 58 5 58 16"), 2.6, STEEL)
    for strap in (curve("M 28 26 C 10 32 12 70 22 82"), flipped(curve("M 28 26 C 10 32 12 70 22 82"))):
        c.paint(ribbon(strap, 5), GRAPHITE, form="flat")
    for x in (19, 81):
        c.paint(box(x - 6, 58, x + 6, 84, 4), form="flat")
    c.body(mirrored(curve("M 50 12 C 68 12 76 20 77 36 L 78 82 Q 78 90 70 90 L 50 90")), form="flat")
    c.piping(curve("M 27 52 L 27 36 C 28 24 36 18 50 18 C 64 18 72 24 73 36 L 73 52"), SILVER, 1.2)
    c.paint(box(28, 60, 72, 86, 5), form="flat")
    c.piping(((31, 66), (69, 66)), SILVER, 1.2)
    c.paint(ribbon(((65, 66.5), (65, 72)), 2.4), SILVER)
    c.badge(50, 42, 13.5)


def umbrella(c: Canvas) -> None:
    """Draw an umbrella."""
    c.shadow(oval(50, 88, 20, 3), opacity=0.3)
    c.paint(ribbon(curve("M 50 50 L 50 84 C 50 95 34 95 34 84"), 4), WOOD, form="flat")
    c.line(((50, 6), (50, 14)), 2.8, GRAPHITE)
    c.body(
        curve(
            "M 4 58 C 6 30 26 11 50 11 C 74 11 94 30 96 58 "
            "Q 85 50 73 57 Q 62 50 50 57 Q 38 50 27 57 Q 15 50 4 58"
        ),
        form="ball",
    )
    for rib in ("M 50 11 C 34 22 28 40 27 57", "M 50 11 C 66 22 72 40 73 57"):
        c.line(curve(rib), 1, INK)
    c.paint(oval(50, 11, 3, 2), GRAPHITE)
    c.badge(50, 36, 13)


def notebook(c: Canvas) -> None:
    """Draw a notebook."""
    c.shadow(box(24, 14, 82, 92, 4), opacity=0.35)
    c.paint(curve("M 60 84 L 60 97 L 63.5 93 L 67 97 L 67 84"), GRAPHITE)
    c.paint(box(24, 13, 82, 91, 3), WHITE)
    for y in (88.6, 90):
        c.line(((27, y), (80, y)), 0.5, SILVER)
    c.body(box(22, 9, 80, 87, 3.5), form="flat")
    c.glaze(box(22, 9, 31, 87, 2), INK, 0.22)
    for y in range(15, 86, 8):
        c.paint(oval(28, y, 1.5), INK, edge=0)
        c.paint(ribbon(curve(f"M 28 {y} C 25 {y - 4} 17 {y - 3} 18 {y}"), 1.6), SILVER, edge=0.8)
    c.paint(box(70, 8, 74, 88), GRAPHITE, edge=0.8)
    c.badge(51, 42, 14.5)


def desk_lamp(c: Canvas) -> None:
    """Draw a desk lamp."""
    c.ground(12, 56, 89)
    c.shadow(curve("M 50 62 L 84 44 L 96 84 L 60 88"), blur=6, opacity=0.8, colour=GLOW)
    c.paint(ribbon(((34, 83), (16, 48)), 3.8), STEEL, form="flat")
    c.paint(ribbon(((16, 48), (50, 20)), 3.8), STEEL, form="flat")
    c.paint(oval(16, 48, 4.2), GRAPHITE, form="ball")
    c.paint(
        curve("M 12 86 C 14 77 24 75 34 75 C 44 75 54 77 56 86 Q 56 90 52 90 L 16 90 Q 12 90 12 86"),
        form="flat",
    )
    with c.turned(-32, 60, 36):
        c.paint(box(51, 2, 69, 15, 4), GRAPHITE, form="cylinder")
        c.body(curve("M 47 14 Q 48 11 52 11 L 68 11 Q 72 11 73 14 L 91 54 L 29 54"), form="cylinder")
        c.paint(oval(60, 54, 31, 6.5), WHITE)
        c.paint(oval(60, 54.5, 27, 4.6), GLOW, edge=0)
        c.badge(60, 33, 12.5)


def pencil(c: Canvas) -> None:
    """Draw a pencil."""
    with c.turned(42, 41, 46):
        c.shadow(shifted(box(36, -6, 64, 84), 2, 2.5))
        c.paint(curve("M 36 74 L 64 74 L 52 97 L 48 97"), WOOD, form="cylinder")
        c.paint(curve("M 44.4 89 Q 50 87 55.6 89 L 51 99 Q 50 100 49 99"), INK)
        c.body(curve("M 36 6 L 64 6 L 64 75 Q 60 80 57 75 Q 50 82 43 75 Q 40 80 36 75"), form="cylinder")
        for x in (43, 57):
            c.line(((x, 7), (x, 75)), 0.7, INK)
        c.paint(box(36, -7, 64, 4, 6), CREAM, form="cylinder")
        c.paint(box(35, 0, 65, 10, 1), SILVER, form="cylinder")
        for y in (3, 7):
            c.line(((36, y), (64, y)), 1, STEEL)
        c.badge(50, 42, 12.5)


def cushion(c: Canvas) -> None:
    """Draw a cushion."""
    outline = curve("M 10 12 Q 50 22 90 12 Q 80 50 90 88 Q 50 78 10 88 Q 20 50 10 12")
    c.shadow(shifted(outline, 1, 4))
    for x, y in ((10, 12), (90, 12), (90, 88), (10, 88)):
        dx, dy = (-1 if x < 50 else 1), (-1 if y < 50 else 1)
        for spread in (-2.5, 0, 2.5):
            c.line(((x, y), (x + dx * 3 + spread * dy, y + dy * 3 - spread * dx)), 1.6, STEEL)
        c.paint(oval(x, y, 2.4), WHITE)
    c.body(outline, form="ball")
    c.piping((*outline, outline[0]), WHITE, 1.4)
    for x, y in ((17, 19), (83, 19), (83, 81), (17, 81)):
        c.glaze(ribbon(((x, y), (x + (50 - x) * 0.38, y + (50 - y) * 0.3)), 2.2, 0.4), INK, 0.28)
    c.badge(50, 50, 15)


def vase(c: Canvas) -> None:
    """Draw a vase."""
    c.ground(34, 66, 90)
    for x, y, lean in ((36, 15, 47), (64, 17, 53), (50, 9.5, 50)):
        c.line(curve(f"M {lean} 40 Q {lean} 26 {x} {y}"), 1.8, SAGE)
        for turn in range(0, 360, 60):
            dx, dy = 4.4 * math.cos(math.radians(turn)), 4.4 * math.sin(math.radians(turn))
            c.paint(oval(x + dx, y + dy, 3.3), WHITE, edge=0.8)
        c.paint(oval(x, y, 2.8), GLOW, edge=0.8)
    c.body(
        mirrored(
            curve("M 50 34 L 61 34 C 62 38 57 40 57 46 C 58 52 76 54 76 66 C 76 78 64 82 63 90 L 50 90")
        ),
        form="ball",
    )
    c.paint(oval(50, 34, 11, 2.6), INK)
    c.paint(box(36, 87, 64, 92, 2), form="cylinder")
    c.badge(50, 67, 13.5)


def candle(c: Canvas) -> None:
    """Draw a candle."""
    c.ground(18, 82, 90)
    c.shadow(oval(50, 16, 16), blur=7, opacity=0.9, colour=GLOW)
    c.paint(curve("M 11 82 L 89 82 Q 87 91 75 91 L 25 91 Q 13 91 11 82"), SILVER, form="cylinder")
    c.paint(oval(50, 82, 39, 5), STEEL)
    c.body(curve("M 27 32 L 27 80 Q 27 85.5 50 85.5 Q 73 85.5 73 80 L 73 32"), form="cylinder")
    wax = (
        "M 26 32 Q 26 27 50 27 Q 74 27 74 32 L 74 42 Q 71 47 69 42 Q 68 37 64 37 Q 60 37 60 40 "
        "Q 57 43 54 39 Q 50 36 45 37 Q 42 38 41 46 Q 38 51 36 46 Q 35 40 31 40 Q 27 42 26 39"
    )
    c.paint(curve(wax), WHITE, form="cylinder")
    c.line(((50, 30), (50, 22)), 1.8, INK)
    c.paint(curve("M 50 2 C 55 10 59 15 57 21 C 55 27 45 27 43 21 C 41 15 45 10 50 2"), FLAME, form="flat")
    c.paint(curve("M 50 12 C 53 16 54 19 53 22 C 52 25 48 25 47 22 C 46 19 47 16 50 12"), WHITE, edge=0)
    c.badge(50, 65, 13.5)


def football(c: Canvas) -> None:
    """Draw a football."""
    c.ground(28, 72, 88)
    c.body(oval(50, 51, 38), form="ball")

    def rim(angle: float, radius: float) -> tuple[float, float]:
        return 50 + radius * math.cos(math.radians(angle)), 51 + radius * math.sin(math.radians(angle))

    for spoke in range(-90, 270, 72):
        c.line((rim(spoke, 16), rim(spoke, 28)), 1.3, INK)
        for side in (-1, 1):
            c.line((rim(spoke + side * 17, 31), rim(spoke + side * 36, 33.5)), 1.3, INK)
        edge = tuple(rim(spoke + step * 3.2, 38) for step in range(-5, 6))
        c.paint((rim(spoke + 17, 31), rim(spoke, 26), rim(spoke - 17, 31), *edge), GRAPHITE)
        c.line((rim(spoke + 36, 33.5), rim(spoke + 36, 38)), 1.3, INK)
    c.paint(tuple(rim(spoke, 19.5) for spoke in range(-90, 270, 72)), GRAPHITE, form="flat")
    c.badge(50, 51, 12.5)


def kettlebell(c: Canvas) -> None:
    """Draw a kettlebell."""
    c.ground(24, 76, 89)
    c.paint(
        ribbon(
            curve("M 34 50 C 27 36 27 26 30 20 Q 32 13 40 13 L 60 13 Q 68 13 70 20 C 73 26 73 36 66 50"), 9.5
        ),
        GRAPHITE,
        form="flat",
    )
    c.body(
        mirrored(curve("M 50 37 C 68 37 79 49 79 63 C 79 76 73 84 66 90 L 50 90")),
        form="ball",
    )
    c.paint(curve("M 30 46 C 36 34 64 34 70 46 C 62 40 38 40 30 46"), GRAPHITE)
    c.badge(50, 64, 15)


def skateboard(c: Canvas) -> None:
    """Draw a skateboard."""
    with c.turned(40):
        c.shadow(shifted(box(33, -1, 67, 101, 15), 2.5, 2.5))
        for y in (19, 81):
            for x in (32, 68):
                c.paint(box(x - 4.5, y - 6, x + 4.5, y + 6, 3), CREAM, form="cylinder")
        c.body(box(33, -2, 67, 102, 16.5), form="cylinder")
        for y in (19, 81):
            c.paint(box(30, y - 2.2, 70, y + 2.2, 1.5), SILVER, form="flat")
            c.paint(box(43, y - 7, 57, y + 7, 2.5), STEEL, form="flat")
            for x in (46, 54):
                for dy in (-4.4, 4.4):
                    c.paint(oval(x, y + dy, 1.1), INK, edge=0)
        c.badge(50, 50, 13.5)


def pet_bowl(c: Canvas) -> None:
    """Draw a pet bowl."""
    c.ground(10, 90, 84)
    with c.turned(-28, 66, 34):
        c.paint(_bone(66, 34, 17, 4), WHITE, form="flat")
    c.paint(oval(50, 46, 35, 9), STEEL)
    for x, y in (
        (27, 44),
        (35, 40),
        (44, 43),
        (52, 38),
        (60, 42),
        (69, 44),
        (40, 47),
        (55, 47),
        (64, 48),
        (33, 48),
    ):
        c.paint(oval(x, y, 5.2, 4), SOIL if (x + y) % 2 else (122, 106, 94), form="ball", edge=0.8)
    c.body(curve("M 15 46 C 20 58 80 58 85 46 L 94 80 Q 95 86 88 86 L 12 86 Q 5 86 6 80"), form="cylinder")
    c.piping(curve("M 15 46 C 20 58 80 58 85 46"), WHITE, 2.2)
    c.badge(50, 70, 12.5)


def _bone(x: float, y: float, half: float, r: float) -> Path:
    """Return the outline of a horizontal bone centred at (x, y)."""
    knobs = (
        oval(x + half, y + r, r * 1.15, r * 1.15, 160, -60),
        oval(x + half, y - r, r * 1.15, r * 1.15, 60, -160),
        oval(x - half, y - r, r * 1.15, r * 1.15, -20, -240),
        oval(x - half, y + r, r * 1.15, r * 1.15, 240, 20),
    )
    return tuple(point for knob in knobs for point in knob)


def kennel(c: Canvas) -> None:
    """Draw a kennel."""
    c.ground(16, 84, 88)
    c.body(curve("M 50 16 L 82 46 L 82 88 L 18 88 L 18 46"), form="flat")
    c.paint(curve("M 36 88 L 36 72 C 36 54 64 54 64 72 L 64 88"), INK)
    c.piping(curve("M 36 88 L 36 72 C 36 54 64 54 64 72 L 64 88"), WHITE, 2)
    roof = ribbon(curve("M 50 13 L 90 49"), 8, round_ends=False)
    for side in (flipped(roof), roof):
        c.paint(side, GRAPHITE, form="flat")
    c.paint(rounded(((50, 5), (58, 13), (50, 20), (42, 13)), 2), GRAPHITE)
    c.paint(box(14, 86, 86, 91, 1.5), WOOD)
    with c.turned(-10, 78, 92):
        c.paint(_bone(79, 91, 8, 2.6), WHITE, form="flat")
    c.badge(50, 41, 12)


def collar(c: Canvas) -> None:
    """Draw a collar."""
    c.shadow(oval(50, 56, 40, 26), opacity=0.22)
    back = oval(50, 36, 40, 20, 180, 360) + oval(50, 50, 40, 20, 360, 180)
    c.paint(back, form="flat")
    c.glaze(back, INK, 0.45)
    front = oval(50, 36, 41, 21, 0, 180) + oval(50, 56, 41, 21, 180, 0)
    c.body(front, form="cylinder")
    for x, y in ((64, 65), (72, 62), (80, 57)):
        c.paint(oval(x, y, 1.6, 2), INK, edge=0)
    with c.turned(12, 27, 63):
        c.line(((18, 52), (36, 52), (36, 76), (18, 76), (18, 52)), 5, INK)
        c.line(((18, 52), (36, 52), (36, 76), (18, 76), (18, 52)), 3, SILVER)
        c.line(((18, 64), (38, 64)), 3.4, INK)
        c.line(((18, 64), (38, 64)), 1.8, SILVER)
    c.line(oval(50, 78, 4, 4), 3, INK)
    c.line(oval(50, 78, 4, 4), 1.6, SILVER)
    c.badge(50, 87, 12)


def kite(c: Canvas) -> None:
    """Draw a kite."""
    with c.turned(26):
        c.line(curve("M 50 66 C 60 74 38 84 48 96"), 1.5, GRAPHITE)
        for x, y, lean in ((53, 74, 10), (46.5, 85, -10), (47.5, 95, 12)):
            with c.turned(lean, x, y):
                for way in (-1, 1):
                    c.paint(((x, y), (x + way * 7, y - 4.4), (x + way * 7, y + 4.4)), STEEL, form="flat")
        c.shadow(curve("M 53 3 L 87 32 L 53 73 L 19 32"), opacity=0.2)
        c.body(curve("M 50 -3 L 85 27 L 50 68 L 15 27"), form="flat")
        for spar in (((50, -3), (50, 68)), ((15, 27), (85, 27))):
            c.line(spar, 2.4, INK)
            c.line(spar, 1.3, WOOD)
        c.badge(50, 28, 14)


def toy_car(c: Canvas) -> None:
    """Draw a toy car."""
    c.ground(8, 92, 84)
    c.paint(oval(46, 16, 5.2), SILVER)
    c.paint(oval(56, 16, 5.2), SILVER)
    c.paint(box(49, 15, 53, 27), SILVER)
    c.body(
        curve(
            "M 5 70 C 5 56 10 52 20 50 C 26 34 32 25 44 25 L 58 25 C 70 25 76 36 80 49 "
            "C 92 51 96 56 95 72 Q 95 77 90 77 L 10 77 Q 5 77 5 70"
        ),
        form="flat",
    )
    c.paint(curve("M 28 48 C 31 38 36 31 44 31 L 48 31 L 48 48"), SILVER, form="flat")
    c.paint(curve("M 53 48 L 53 31 L 58 31 C 66 31 70 38 73 48"), SILVER, form="flat")
    c.paint(oval(91, 58, 3.4, 4.4), GLOW)
    c.paint(box(2, 70, 98, 77, 3), WHITE, form="cylinder")
    for x in (24, 76):
        c.paint(oval(x, 77, 12.5), GRAPHITE, form="ball")
        c.paint(oval(x, 77, 6), WHITE)
        c.paint(oval(x, 77, 1.8), STEEL, edge=0)
    c.badge(50, 61, 12)


def spinning_top(c: Canvas) -> None:
    """Draw a spinning top."""
    c.shadow(oval(50, 93, 16, 2.6), opacity=0.45)
    for arc in (
        oval(50, 88, 24, 5, 20, 75),
        oval(50, 88, 24, 5, 105, 160),
        oval(50, 89, 34, 8, 35, 70),
        oval(50, 89, 34, 8, 110, 145),
    ):
        c.line(arc, 1.3, STEEL)
    with c.turned(10, 50, 92):
        c.paint(curve("M 44 80 L 56 80 L 51.5 93 L 48.5 93"), STEEL, form="cylinder")
        c.body(mirrored(curve("M 50 30 C 72 30 88 36 88 46 C 88 60 66 70 57 82 L 50 82")), form="ball")
        c.paint(mirrored(curve("M 50 22 L 55 22 C 56 28 66 29 70 34 L 50 34")), WHITE, form="cylinder")
        c.paint(box(46.5, 7, 53.5, 24, 1), WOOD, form="cylinder")
        c.paint(oval(50, 7, 6.2, 4.6), WOOD, form="ball")
        c.badge(50, 53, 13)


def guitar(c: Canvas) -> None:
    """Draw a guitar."""
    with c.turned(32, 53, 57):
        outline = mirrored(
            curve("M 50 39 C 61 34 71 40 71 49 C 71 56 66 58 69 63 C 76 67 79 74 78 81 C 77 93 65 99 50 99")
        )
        c.shadow(shifted(outline, 2, 2.5))
        c.shadow(shifted(box(46, 3, 54, 44), 2, 2.5))
        c.body(outline, form="ball")
        for y in (4, 8, 12):
            c.line(((41, y), (59, y)), 2.4, STEEL)
        c.paint(rounded(((43.5, 0), (56.5, 0), (54.5, 16), (45.5, 16)), 2), WOOD, form="flat")
        c.paint(oval(50, 54, 8.5), WHITE)
        c.paint(oval(50, 54, 6.6), INK, edge=0)
        c.paint(box(46, 15, 54, 48), SOIL, form="cylinder")
        for y in range(20, 46, 5):
            c.line(((46.6, y), (53.4, y)), 0.6, SILVER)
        c.paint(box(40, 68, 60, 72, 1.5), SOIL)
        for x in (47.8, 50, 52.2):
            c.line(((x, 4), (x, 70)), 0.45, WHITE)
        c.badge(50, 84.5, 12)


def drum(c: Canvas) -> None:
    """Draw a drum."""
    c.ground(18, 82, 88)
    c.body(curve("M 15 40 L 15 78 C 15 92 85 92 85 78 L 85 40"), form="cylinder")
    for path in (oval(50, 80, 36, 9.5, 0, 180), oval(50, 42, 36, 9.5, 0, 180)):
        c.piping(path, SILVER, 4)
    for x, dy in ((24, -2.6), (76, -2.6)):
        c.paint(ribbon(((x, 49 + dy + 2), (x, 86 + dy)), 2.6), SILVER, form="cylinder")
    c.paint(oval(50, 39, 36.5, 11), SILVER)
    c.paint(oval(50, 38.4, 33, 9), WHITE, form="flat")
    for stick in (((22, 12), (60, 38)), ((80, 10), (40, 37))):
        c.paint(ribbon(stick, 4, 2.6), WOOD, form="flat")
        c.paint(oval(*stick[1], 3.4, 2.8), WOOD, form="ball")
    c.badge(50, 68, 13.5)


def headphones(c: Canvas) -> None:
    """Draw a pair of headphones."""
    c.shadow(oval(50, 86, 40, 4), opacity=0.25)
    c.body(ribbon(curve("M 22 62 C 10 -8 90 -8 78 62"), 10.5), form="flat")
    for side in (-1, 1):
        x = 50 + side * 27
        with c.turned(side * -8, x, 64):
            c.paint(oval(x - side * 5, 64, 17, 22), GRAPHITE, form="ball")
            c.body(oval(x + side, 64, 18, 21.5), form="ball")
            c.badge(x + side, 64, 12)


def surfboard(c: Canvas) -> None:
    """Draw a surfboard."""
    c.shadow(oval(50, 91, 40, 5), opacity=0.3)
    with c.turned(9, 50, 90):
        c.paint(curve("M 62 62 C 72 64 81 72 83 84 C 76 80 68 80 60 82"), GRAPHITE, form="flat")
        half = curve("M 50 2 C 60 9 72 24 72 46 C 72 64 68 78 63 86 L 50 86")
        c.body(mirrored(half), form="cylinder")
        c.line(((50, 4), (50, 86)), 2, INK)
        c.line(((50, 4), (50, 86)), 1.1, WOOD)
        c.badge(50, 44, 13.5)
    c.paint(
        curve("M 8 93 C 18 86 24 89 32 84 C 40 79 48 85 56 83 C 66 79 74 88 82 87 Q 90 88 93 93"),
        SAND,
        form="flat",
    )
    for x, y in ((27, 90), (38, 87), (50, 89.5), (62, 86.5), (74, 90.5)):
        c.paint(oval(x, y, 0.8), WOOD, edge=0)


def bucket(c: Canvas) -> None:
    """Draw a bucket."""
    c.ground(32, 68, 90)
    c.paint(ribbon(((66, 40), (77, 12)), 4), WOOD, form="flat")
    with c.turned(21, 77, 12):
        c.paint(box(69, 5, 85, 11, 3), GRAPHITE, form="cylinder")
    c.line(curve("M 20 42 C 18 -8 82 -8 80 42"), 3.4, INK)
    c.line(curve("M 20 42 C 18 -8 82 -8 80 42"), 1.9, WHITE)
    c.paint(curve("M 20 42 C 28 28 38 22 48 24 C 60 24 72 30 80 42"), SAND, form="ball")
    for x, y in ((36, 33), (46, 29), (55, 33), (63, 35), (44, 37)):
        c.paint(oval(x, y, 0.8), WOOD, edge=0)
    c.body(rounded(((18, 42), (82, 42), (71, 91), (29, 91)), 4), form="cylinder")
    c.paint(box(15, 39, 85, 46.5, 3), WHITE, form="cylinder")
    for x in (20, 80):
        c.paint(oval(x, 42.5, 2.6), SILVER)
    c.badge(50, 68, 14)


def flip_flop(c: Canvas) -> None:
    """Draw a pair of flip-flops."""
    sole = curve(
        "M 29 5 C 43 5 47 18 46 34 C 45 46 43 54 44 68 C 45 84 40 94 29 94 C 17 94 13 84 14 70 "
        "C 15 56 10 46 10 32 C 10 16 16 5 29 5"
    )
    strap = curve("M 11 50 C 14 40 20 32 27 24 C 36 30 42 38 45 50")
    for side in (sole, flipped(sole)):
        c.shadow(shifted(side, 1.5, 3.5))
        c.paint(shifted(side, 0, 2.4), WHITE)
        c.body(side)
    for side in (strap, flipped(strap)):
        c.paint(ribbon(side, 4.8), GRAPHITE, form="flat")
    for x in (27, 73):
        c.paint(oval(x, 24, 3), GRAPHITE)
    for x in (29, 71):
        c.badge(x, 73, 12)


Drawing = Callable[[Canvas], None]

DRAWINGS: dict[str, Drawing] = {
    "baby bottle": baby_bottle,
    "bib": bib,
    "sippy cup": sippy_cup,
    "teddy bear": teddy_bear,
    "rattle": rattle,
    "bodysuit": bodysuit,
    "mug": mug,
    "teapot": teapot,
    "saucepan": saucepan,
    "plant pot": plant_pot,
    "watering can": watering_can,
    "rubber boot": rubber_boot,
    "cycling helmet": cycling_helmet,
    "jersey": jersey,
    "drinks flask": drinks_flask,
    "tent": tent,
    "lantern": lantern,
    "sleeping bag": sleeping_bag,
    "suitcase": suitcase,
    "backpack": backpack,
    "umbrella": umbrella,
    "notebook": notebook,
    "desk lamp": desk_lamp,
    "pencil": pencil,
    "cushion": cushion,
    "vase": vase,
    "candle": candle,
    "football": football,
    "kettlebell": kettlebell,
    "skateboard": skateboard,
    "pet bowl": pet_bowl,
    "kennel": kennel,
    "collar": collar,
    "kite": kite,
    "toy car": toy_car,
    "spinning top": spinning_top,
    "guitar": guitar,
    "drum": drum,
    "headphones": headphones,
    "surfboard": surfboard,
    "bucket": bucket,
    "flip-flop": flip_flop,
}
