"""Tests of augmentation: small random changes that do not depend on the batch of an item, and second views."""

import pytest
import torch
from torch import Tensor

from model.network.inputs import PictureInput, TextInput, Tokens
from model.training.augmentation import (
    DROPPED_SHARE,
    draw_kept,
    draw_moves,
    move_pictures,
    two_pictures,
    two_texts,
)


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


def test_dropped_token_of_second_view_is_overwritten_by_token_before_it() -> None:
    ids = torch.tensor([[10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 0, 0]])
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    kept = torch.tensor([[False, True, False, False, True, False], [True, False, True, False, False, False]])
    found = two_texts(TextInput(ids, mask, torch.zeros_like(ids)), kept)
    assert isinstance(found, TextInput)
    assert found.ids[:2].tolist() == ids.tolist()
    # The first and the last token are always kept, and so is the padding.
    assert found.ids[2:].tolist() == [[10, 11, 11, 11, 14, 15], [20, 20, 22, 23, 0, 0]]
    assert found.mask.tolist() == mask.tolist() * 2


def test_last_token_before_padding_is_kept_if_the_padding_holds_the_summary() -> None:
    fields = torch.tensor([[0, 1, 1, 1, 1]])
    text = TextInput(torch.tensor([[5, 6, 1, 0, 0]]), torch.tensor([[True, True, True, False, True]]), fields)
    second = two_texts(text, torch.zeros(1, 5, dtype=torch.bool))
    assert isinstance(second, TextInput)
    assert second.ids.tolist() == [[5, 6, 1, 0, 0], [5, 5, 1, 0, 0]]
    assert second.fields.tolist() == fields.tolist() * 2


def test_second_view_of_encoded_tokens_lacks_the_same_components_in_all_tokens() -> None:
    states = torch.ones(2, 3, 4)
    tokens = Tokens(states, torch.ones(2, 3, dtype=torch.bool), torch.tensor([0, 2]))
    kept = torch.tensor([[True, False, True, True], [False, True, True, False]])
    for found in (two_texts(tokens, kept), two_pictures(tokens, kept)):
        assert isinstance(found, Tokens)
        assert torch.equal(found.states[:2], states)
        assert found.states[2:, 1].tolist() == found.states[2:, 0].tolist() == [[1, 0, 1, 1], [0, 1, 1, 0]]
        assert found.summary.tolist() == [0, 2, 0, 2]


def test_second_view_of_picture_is_moved_differently_or_lacks_patches() -> None:
    pixels, grid = torch.rand(2, 3, 16, 16), torch.zeros(2, 2)
    found = two_pictures(PictureInput(pixels, grid), torch.zeros(2, 3, dtype=torch.bool))
    assert isinstance(found, PictureInput)
    assert torch.equal(found.pixels, torch.cat([pixels, pixels]))
    patches = PictureInput(torch.ones(1, 3, 2), torch.tensor([[1, 3]]))
    found = two_pictures(patches, torch.tensor([[True, False, True]]))
    assert isinstance(found, PictureInput)
    assert found.pixels[1].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert found.grid.tolist() == [[1, 3], [1, 3]]


def test_second_view_lacks_the_stated_share_of_parts() -> None:
    kept = draw_kept(100, 100, torch.Generator().manual_seed(4))
    assert kept.float().mean().item() == pytest.approx(1 - DROPPED_SHARE, abs=0.02)
