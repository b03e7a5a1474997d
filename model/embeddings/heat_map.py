"""Heat map of the attention over a picture: a PNG rendered from `PatchWeights`.

The rendering is designed not to mislead. The colour scale is the same for every picture, so uniform attention looks
uniform. Interpolation preserves the mean value of each patch. The part that the image processor cut off is dark.
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
"""Length in pixels of the longer side of a heat map."""

HALFWAY_MULTIPLE = 2.0
"""Attention at the middle of the colour scale, in multiples of the mean; the end of the scale is never reached."""

HEAT_COLOURS = colormaps["inferno"]
"""Colour map whose equal steps look equal, even to colour-blind readers and in greyscale print."""

CROPPED_BRIGHTNESS = 0.15
"""Brightness factor of the part of the picture that was cut off, which the network does not receive."""


def heat_map(
    picture: Image.Image, weights: PatchWeights, side: int = HEAT_MAP_SIDE, mean: float | None = None
) -> bytes:
    """Render the patch weights over a greyscale copy of `picture`, as a PNG whose longer side has `side` pixels.

    The colour shows the attention relative to the mean over all patches: black is none, purple is the mean, red is
    twice the mean, orange is four times the mean and yellow is ten times the mean. The heat map does not show the
    patches' share of the total attention (1 - `summary`). To show it, give the weight that counts as `mean`, the same
    for all pictures that are compared.
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
    # Edges of these pixels, in units of patches.
    across = (np.arange(left, right + 1) / width - box.left) / (box.right - box.left) * columns
    down = (np.arange(top, bottom + 1) / height - box.top) / (box.bottom - box.top) * rows
    grid = weights.grid.astype(np.float64)
    mean = float(grid.mean()) if mean is None else mean
    multiples = interpolate_patches(grid / max(mean, np.finfo(np.float64).tiny), down, across)
    heat = multiples / (multiples + HALFWAY_MULTIPLE)
    paint = HEAT_COLOURS(heat)[:, :, :3] * (0.45 + 0.55 * seen)  # darker where the picture is darker
    opacity = (0.5 + 0.5 * heat)[:, :, None]
    canvas[top:bottom, left:right] = opacity * paint + (1 - opacity) * seen
    file = BytesIO()
    Image.fromarray((canvas * 255).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _pixels(start: float, end: float, length: int) -> tuple[int, int]:
    """Convert two fractions of a side into a range of at least one pixel (end exclusive)."""
    first = min(max(round(start * length), 0), length - 1)
    return first, max(min(round(end * length), length), first + 1)


def interpolate_patches(
    grid: Float[ndarray, "rows columns"],
    down: Float[ndarray, " edges"],
    across: Float[ndarray, " other_edges"],
) -> Float[ndarray, "height width"]:
    """Interpolate patch values to smooth, non-negative pixel values that preserve the mean of each patch.

    `down` and `across` are the edges of the pixels, in units of patches. The two axes are interpolated one after the
    other. The interpolation uses the cumulative sums of the patches and not their values, which preserves the mean of
    each patch. The interpolant is a monotone cubic (Fritsch and Carlson, SIAM J. Numer. Anal. 17, 1980), so the
    cumulative sums never decrease and no pixel value is negative.
    """
    return _interpolate_axis(_interpolate_axis(grid, down).T, across).T


def _interpolate_axis(
    grid: Float[ndarray, "cells others"], edges: Float[ndarray, " edges"]
) -> Float[ndarray, "pixels others"]:
    sums = np.concatenate([np.zeros((1, grid.shape[1])), grid.cumsum(axis=0)])
    edges = np.clip(edges, 0, len(grid))  # a box is rounded to whole pixels, so its edges may exceed the grid
    upto = PchipInterpolator(np.arange(len(sums)), sums)(edges)
    widths = np.maximum(np.diff(edges), 1e-9)
    values: ndarray = np.maximum(np.diff(upto, axis=0), 0) / widths[:, None]
    return values
