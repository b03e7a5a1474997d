"""Tests of SigLIP's loss against the formula of its paper, evaluated pair by pair in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.training.loss import PairBatch
from model.training.objectives.siglip_loss import SiglipLoss

from .batches_of_vectors import (
    LINKS,
    assert_same_loss_and_gradients,
    self_pairs,
    train_freely,
    unit,
    vectors_of,
)


def as_printed(
    text: Tensor, image: Tensor, log_temperature: Tensor, bias: Tensor, pairs: PairBatch
) -> Tensor:
    """Compute -1/n sum over i, j of log sigmoid(z (t x.y + b)), without the pairs of related items."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(text)):
        for j in range(len(image)):
            if i != j and pairs.related[i, j]:
                continue
            z = 1 if i == j else -1
            logit = log_temperature.exp() * text[i, 0, 0].dot(image[j, 0, 0]) + bias
            total = total - torch.log(1 / (1 + torch.exp(-z * logit)))
    return total / len(text)


@pytest.mark.parametrize("links", [(), LINKS])
def test_loss_and_gradients_match_formula(links: tuple[tuple[int, int], ...]) -> None:
    loss, pairs = SiglipLoss().double(), self_pairs(links)
    ours = (unit(0), unit(1), loss.log_temperature, loss.bias)
    text, image, log_temperature, bias = theirs = [one.detach().clone().requires_grad_() for one in ours]
    expected = as_printed(text, image, log_temperature, bias, pairs)
    assert_same_loss_and_gradients(loss(vectors_of(ours[0], ours[1]), pairs), ours, expected, theirs)


def test_temperature_and_bias_start_as_in_paper() -> None:
    loss = SiglipLoss()
    assert loss.log_temperature.item() == pytest.approx(math.log(10))
    assert loss.bias.item() == -10.0


@given(seed=st.integers(0, 1000), bias=st.floats(-3, 3), logit=st.floats(0.1, 3))
def test_positives_and_negatives_swap_sign(seed: int, bias: float, logit: float) -> None:
    # If two of two items swap their pictures, positives become negatives. If the signs of all logits are then turned,
    # the loss is unchanged.
    loss = SiglipLoss().double()
    pairs = self_pairs(items=2)
    text, image = unit(seed, items=2), unit(seed + 1, items=2)
    with torch.no_grad():
        loss.log_temperature.fill_(math.log(logit))
        loss.bias.fill_(bias)
        before = loss(vectors_of(text, image), pairs)
        loss.bias.fill_(-bias)
        after = loss(vectors_of(text, -image.flip(0)), pairs)
    torch.testing.assert_close(before, after)


def test_overfits_eight_pairs() -> None:
    losses, similarity = train_freely(SiglipLoss().double(), self_pairs(items=8))
    assert losses[-1] < losses[0] / 3
    assert similarity.argmax(dim=1).tolist() == list(range(8))
