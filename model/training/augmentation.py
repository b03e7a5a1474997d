"""Augmentation of training pictures by small random shifts, zooms and mirroring, and second views of items.

The affine maps of a whole batch are drawn on the CPU and applied on the device. The augmentation of a picture therefore
does not depend on the rank and micro-batch that process it. The same holds for the parts that a second view lacks.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from model.network.inputs import PictureInput, TextInput, Tokens

MAX_SHIFT, MAX_ZOOM = 0.12, 0.1
"""Maximum shift in the coordinates of `affine_grid`, which run from -1 to 1, and maximum relative zoom."""

DROPPED_SHARE = 0.2
"""Share of the parts of an item that its second view lacks."""


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


def parts_of(inputs: TextInput | Tokens | PictureInput) -> int:
    """Return the number of parts of which a second view may lack some.

    They are the tokens of a text, the components of encoded tokens, and the patches of a picture of any shape (NaFlex).
    """
    match inputs:
        case TextInput():
            return inputs.ids.shape[1]
        case Tokens():
            return inputs.states.shape[2]
        case PictureInput():
            return inputs.pixels.shape[1]


def draw_kept(count: int, parts: int, generator: torch.Generator) -> Bool[Tensor, "count parts"]:
    """Draw the parts that the second views of `count` items keep."""
    return torch.rand(count, parts, generator=generator) >= DROPPED_SHARE


def two_texts(text: TextInput | Tokens, kept: Bool[Tensor, "batch parts"]) -> TextInput | Tokens:
    """Append the second view of each text, which lacks the tokens (encoded tokens: components) not in `kept`.

    A dropped token is overwritten by the token before it, because not every tower reads the mask. The first and the
    last token are never dropped, because they may be special. In SigLIP the last one is padding, so the last token
    before the padding is kept too.
    """
    if isinstance(text, Tokens):
        return _two_tokens(text, kept)
    ids, mask = text.ids.numpy(), text.mask.numpy()
    places = np.arange(ids.shape[1])
    last = (places * mask).max(axis=1, keepdims=True)
    end = mask.cumprod(axis=1).sum(axis=1, keepdims=True) - 1
    source = places * (kept.numpy()[:, : len(places)] | ~mask | (places == last) | (places == end))
    second = np.take_along_axis(ids, np.maximum.accumulate(source, axis=1), axis=1)
    fields = text.fields.numpy()
    return TextInput(_joined(ids, second), _joined(mask, mask), _joined(fields, fields))


def two_pictures(pictures: PictureInput | Tokens, kept: Bool[Tensor, "batch parts"]) -> PictureInput | Tokens:
    """Append the second view of each picture, which lacks the patches (encoded tokens: components) not in `kept`.

    A picture of a fixed size has no patches yet and is only copied; `move_pictures` moves the two copies differently.
    """
    if isinstance(pictures, Tokens):
        return _two_tokens(pictures, kept)
    pixels, grid = pictures.pixels.numpy(), pictures.grid.numpy()
    second = pixels if pixels.ndim == 4 else pixels * kept.numpy()[:, :, None]
    return PictureInput(_joined(pixels, second), _joined(grid, grid))


def _two_tokens(tokens: Tokens, kept: Bool[Tensor, "batch width"]) -> Tokens:
    # The summary was computed from all tokens, so a view that lacked other tokens would have the same vector.
    states, mask, summary = tokens.states.numpy(), tokens.mask.numpy(), tokens.summary.numpy()
    second = states * kept.numpy()[:, None]
    return Tokens(_joined(states, second), _joined(mask, mask), _joined(summary, summary))


def _joined(first: ndarray, second: ndarray) -> Tensor:
    # NumPy, because several threads prepare batches, and torch would start an OpenMP pool in each.
    return torch.from_numpy(np.concatenate([first, second]))
