"""Pictures of the sample shop: visible attributes, measured on the pixels at 64x64, the size that the model sees."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.sample_shop.draw import ITEM_COLOURS, ITEM_EMBLEMS, ITEM_KINDS, ITEM_PATTERNS, contact_sheet, draw

Pixels = NDArray[np.float32]

VISIBLE = 1.0
"""Minimum mean absolute difference, in grey levels, between pictures that differ only in one attribute.

A badge covers about 4 % of a picture. Two emblems differ in about a fifth of the badge, by 150 levels, so the mean
difference is 1.2. The minimum is slightly lower. If an attribute is not visible at all, the difference is 0."""


def seen(kind: str, colour: str, pattern: str, emblem: str, pose: int = 0) -> Pixels:
    """Draw a picture and reduce it to 64x64, float32 `[64, 64, 3]`."""
    picture = draw(kind, colour, pattern, emblem, pose=pose, size=128)
    return np.asarray(picture.resize((64, 64), Image.Resampling.BOX), dtype=np.float32)


def hues(colours: Pixels) -> Pixels:
    """Return the unit vectors perpendicular to the grey axis, `[colours, 3]`.

    Gloss (white) and shade (black) do not change them.
    """
    off_grey: Pixels = colours - colours.mean(axis=1, keepdims=True)
    off_grey /= np.linalg.norm(off_grey, axis=1, keepdims=True)
    return off_grey


def least_difference(values: list[str], picture: Callable[[str], Pixels]) -> float:
    pictures = [picture(value) for value in values]
    return min(float(np.abs(a - b).mean()) for a, b in combinations(pictures, 2))


def test_shop_has_42_kinds_8_colours_6_patterns_and_6_emblems() -> None:
    assert (len(ITEM_KINDS), len(ITEM_COLOURS), len(ITEM_PATTERNS), len(ITEM_EMBLEMS)) == (42, 8, 6, 6)


def test_same_arguments_give_same_pixels() -> None:
    first, second = (draw("guitar", "navy", "wavy", "moon", pose=3) for _ in range(2))
    assert (first.mode, first.size) == ("RGB", (256, 256))
    assert first.tobytes() == second.tobytes()


def test_different_pose_moves_item() -> None:
    first, second = (seen("mug", "red", "plain", "star", pose) for pose in (0, 1))
    assert np.abs(first - second).mean() > 2


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_saturated_pixels_of_plain_item_have_hue_of_its_colour(kind: str) -> None:
    palette = hues(np.array(list(ITEM_COLOURS.values()), dtype=np.float32))
    for index, colour in enumerate(ITEM_COLOURS):
        pixels = seen(kind, colour, "plain", "star").reshape(-1, 3)
        saturated = pixels[np.ptp(pixels, axis=1) > 60]
        nearest = (hues(saturated) @ palette.T).argmax(axis=1)
        assert len(saturated) > 0.05 * len(pixels)
        assert (nearest == index).mean() > 0.85, colour  # the rest is the flame of the candle and the lantern


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_any_two_emblems_differ_visibly(kind: str) -> None:
    assert (
        least_difference(list(ITEM_EMBLEMS), lambda emblem: seen(kind, "green", "dotted", emblem)) > VISIBLE
    )


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_any_two_patterns_differ_visibly(kind: str) -> None:
    assert (
        least_difference(list(ITEM_PATTERNS), lambda pattern: seen(kind, "yellow", pattern, "fish")) > VISIBLE
    )


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_any_two_colours_differ_visibly(kind: str) -> None:
    assert (
        least_difference(list(ITEM_COLOURS), lambda colour: seen(kind, colour, "checked", "leaf")) > VISIBLE
    )


def test_any_two_kinds_differ_visibly() -> None:
    assert least_difference(list(ITEM_KINDS), lambda kind: seen(kind, "teal", "plain", "crown")) > 4 * VISIBLE


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_item_stays_inside_picture_in_every_pose(kind: str) -> None:
    for pose in range(8):
        pixels = np.asarray(draw(kind, "navy", "plain", "star", pose=pose, size=64))
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert border.min() > 150, pose  # the backdrop and its soft shadows are lighter


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("anvil", "red", "plain", "star"), "kind named 'anvil'.*mug"),
        (("mug", "mauve", "plain", "star"), "colour named 'mauve'.*navy"),
        (("mug", "red", "paisley", "star"), "pattern named 'paisley'.*zigzag"),
        (("mug", "red", "plain", "anchor"), "emblem named 'anchor'.*crown"),
    ],
)
def test_unknown_name_raises_error_that_lists_allowed_names(
    names: tuple[str, str, str, str], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        draw(*names)


def test_contact_sheet_places_pictures_row_by_row() -> None:
    tiles = [("red", Image.new("RGB", (8, 8), "red")), ("lime", Image.new("RGB", (8, 8), "lime"))]
    sheet = contact_sheet([*tiles, *tiles], columns=3, cell=32)
    assert sheet.size == (96, 108)
    assert [sheet.getpixel(at) for at in ((16, 16), (48, 16), (16, 70))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 255, 0),
    ]
