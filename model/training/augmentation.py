"""Augmentation of training pictures by small random shifts, zooms and mirroring.

The affine maps of a whole batch are drawn on the CPU and applied on the device. The augmentation of a picture therefore
does not depend on the rank and micro-batch that process it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model.network.inputs import PictureInput

MAX_SHIFT, MAX_ZOOM = 0.12, 0.1
"""Maximum shift in the coordinates of `affine_grid`, which run from -1 to 1, and maximum relative zoom."""


def draw_moves(count: int, generator: torch.Generator) -> Float[Tensor, "count 2 3"]:
    """Draw random affine maps from output to input coordinates.

    A map shifts a picture by up to 6 % of its side in each direction, scales it by up to 10 %, and mirrors it with a
    probability of 0.5.
    """

    def uniform(reach: float) -> Float[Tensor, "count"]:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    zoom = 1 + uniform(MAX_ZOOM)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    moves = torch.zeros(count, 2, 3)
    moves[:, 0, 0], moves[:, 1, 1] = zoom * mirror, zoom
    moves[:, 0, 2], moves[:, 1, 2] = uniform(MAX_SHIFT), uniform(MAX_SHIFT)
    return moves


def move_pictures(pictures: PictureInput, moves: Float[Tensor, "batch 2 3"]) -> PictureInput:
    """Apply the affine maps `moves`; pictures stored as patches (NaFlex) have no common grid and stay unchanged."""
    if pictures.pixels.ndim != 4:
        return pictures
    grid = F.affine_grid(moves, list(pictures.pixels.shape), align_corners=False)
    moved = F.grid_sample(pictures.pixels, grid, padding_mode="border", align_corners=False)
    return PictureInput(moved, pictures.grid)
