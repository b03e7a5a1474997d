"""Heat map of the attention over a picture: a PNG for people, from `PatchWeights`.

Where a drawing must choose, this one chooses not to lie: the scale is the same for every picture, so that even
attention looks even; the paint over a patch adds up to its weight; and what an image processor cropped away is dark.
"""

from io import BytesIO

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from numpy import ndarray
from PIL import Image
from scipy.interpolate import PchipInterpolator

from .attention_map import PatchWeights

HEAT_MAP_SIDE = 512
"""Pixels of the longer side of a heat map."""

HALFWAY_MULTIPLE = 2.0
"""Attention, in multiples of an even one, in the middle of the scale, whose end is never reached."""

HEAT_COLOURS = colormaps["inferno"]
"""Equal steps look equal, to the colour-blind and in print as well."""

CROPPED_BRIGHTNESS = 0.15
"""Brightness of what the network was not shown."""


def heat_map(picture: Image.Image, weights: PatchWeights, side: int = HEAT_MAP_SIDE) -> bytes:
    """Paint the weights of patches over `picture`, in grey: a PNG whose longer side has `side` pixels.

    The colour tells by how many times a place has its even share of what the patches have together: black for none,
    purple for once, red for twice, orange for four times, yellow for ten. What they have of all the attention
    (1 - `summary`) it does not tell.
    """
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    grey = picture.convert("RGB").convert("L").resize((width, height), Image.Resampling.BICUBIC)
    canvas = np.repeat(np.asarray(grey)[:, :, None] / 255, 3, axis=2)
    box, (rows, columns) = weights.box, weights.grid.shape
    left, right = _pixels(box.left, box.right, width)
    top, bottom = _pixels(box.top, box.bottom, height)
    seen = canvas[top:bottom, left:right].copy()
    canvas *= CROPPED_BRIGHTNESS
    # Where the edges of those pixels lie, in patches.
    across = (np.arange(left, right + 1) / width - box.left) / (box.right - box.left) * columns
    down = (np.arange(top, bottom + 1) / height - box.top) / (box.bottom - box.top) * rows
    grid = weights.grid.astype(np.float64)
    multiples = interpolate_patches(grid / max(grid.mean(), np.finfo(np.float64).tiny), down, across)
    heat = multiples / (multiples + HALFWAY_MULTIPLE)
    paint = HEAT_COLOURS(heat)[:, :, :3] * (0.45 + 0.55 * seen)  # the picture's own light and shade
    opacity = (0.5 + 0.5 * heat)[:, :, None]
    canvas[top:bottom, left:right] = opacity * paint + (1 - opacity) * seen
    file = BytesIO()
    Image.fromarray((canvas * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _pixels(start: float, end: float, length: int) -> tuple[int, int]:
    """Find the pixels between two shares of a side; at least one."""
    first = min(max(round(start * length), 0), length - 1)
    return first, max(min(round(end * length), length), first + 1)


def interpolate_patches(
    grid: Float[ndarray, "rows columns"],
    down: Float[ndarray, " edges"],
    across: Float[ndarray, " other_edges"],
) -> Float[ndarray, "height width"]:
    """Turn values of patches into values of pixels: smooth, never negative, and over each patch of the same mean.

    `down` and `across` are the edges of the pixels, in patches. Along either side in turn, the running sums of the
    patches are interpolated, not their values: that keeps the sums; and by a monotone cubic (Fritsch and Carlson,
    SIAM J. Numer. Anal. 17, 1980), which keeps every difference of them from falling below zero.
    """
    return _interpolate_axis(_interpolate_axis(grid, down).T, across).T


def _interpolate_axis(
    grid: Float[ndarray, "cells others"], edges: Float[ndarray, " edges"]
) -> Float[ndarray, "pixels others"]:
    sums = np.concatenate([np.zeros((1, grid.shape[1])), grid.cumsum(axis=0)])
    edges = np.clip(edges, 0, len(grid))  # the rim of a box is rounded to whole pixels
    upto = PchipInterpolator(np.arange(len(sums)), sums)(edges)
    widths = np.maximum(np.diff(edges), 1e-9)
    values: ndarray = np.maximum(np.diff(upto, axis=0), 0) / widths[:, None]
    return values
