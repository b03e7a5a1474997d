"""Training pictures, moved, zoomed and mirrored a little at random.

Split in two, so that a picture is moved alike whatever rank and micro-batch it falls into: the moves of a whole
batch are drawn on the CPU, and applied on the device.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model.network.inputs import PictureInput

MAX_SHIFT, MAX_ZOOM = 0.12, 0.1
"""Reach of a shift, in half pictures, and of a zoom, as a share of the size."""


def draw_moves(count: int, generator: torch.Generator) -> Float[Tensor, "count 2 3"]:
    """Affine maps from new to old coordinates: up to 6 % aside, up to 10 % larger or smaller, half of them mirrored."""

    def uniform(reach: float) -> Float[Tensor, "count"]:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    zoom = 1 + uniform(MAX_ZOOM)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    moves = torch.zeros(count, 2, 3)
    moves[:, 0, 0], moves[:, 1, 1] = zoom * mirror, zoom
    moves[:, 0, 2], moves[:, 1, 2] = uniform(MAX_SHIFT), uniform(MAX_SHIFT)
    return moves


def move_pictures(pictures: PictureInput, moves: Float[Tensor, "batch 2 3"]) -> PictureInput:
    """Apply `moves`; pictures kept as patches (NaFlex) have no common grid and stay as they are."""
    if pictures.pixels.ndim != 4:
        return pictures
    grid = F.affine_grid(moves, list(pictures.pixels.shape), align_corners=False)
    moved = F.grid_sample(pictures.pixels, grid, padding_mode="border", align_corners=False)
    return PictureInput(moved, pictures.grid)
