"""Tests of augmentation: small random changes that do not depend on the batch of a picture."""

import pytest
import torch
from torch import Tensor

from model.network.inputs import PictureInput
from model.training.augmentation import draw_moves, move_pictures


def moved_at_random(pixels: Tensor, seed: int) -> Tensor:
    moves = draw_moves(len(pixels), torch.Generator().manual_seed(seed))
    return move_pictures(PictureInput(pixels, torch.zeros(len(pixels), 2)), moves).pixels


def test_changes_every_picture_but_keeps_shape_and_range() -> None:
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = moved_at_random(pixels, seed=1)
    assert moved.shape == pixels.shape
    assert pixels.min() <= moved.min() <= moved.max() <= pixels.max()
    assert ((moved - pixels).abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_mirrors_half_of_pictures_and_limits_shift_and_zoom() -> None:
    pixels = torch.zeros(200, 3, 64, 64)
    pixels[:, :, 30:34, 10:14] = 1.0  # a spot on the left at half height
    moved = moved_at_random(pixels, seed=2).mean(dim=1)
    weight = moved / moved.sum(dim=(1, 2), keepdim=True)
    x = (weight.sum(dim=1) * torch.arange(64)).sum(dim=1)
    y = (weight.sum(dim=2) * torch.arange(64)).sum(dim=1)
    assert (x > 32).float().mean().item() == pytest.approx(0.5, abs=0.1)
    # a shift of 6 % of 64 pixels, a zoom of 10 % of the distance from the middle, and 1 pixel of tolerance
    assert (torch.minimum(x, 63 - x) - 11.5).abs().max() < 0.06 * 64 + 0.1 * 20.5 + 1
    assert (y - 31.5).abs().max() < 0.06 * 64 + 1


def test_augmentation_of_picture_does_not_depend_on_batch() -> None:
    pixels, moves = torch.rand(6, 3, 16, 16), draw_moves(6, torch.Generator().manual_seed(3))
    pictures = PictureInput(pixels, torch.zeros(6, 2))
    together = move_pictures(pictures, moves).pixels
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(move_pictures(pictures.take(rows), moves[rows]).pixels, together[rows])


def test_leaves_pictures_stored_as_patches_unchanged() -> None:
    patches = PictureInput(torch.rand(2, 9, 12), torch.tensor([[3, 3], [2, 4]]))
    assert move_pictures(patches, draw_moves(2, torch.Generator())) is patches
