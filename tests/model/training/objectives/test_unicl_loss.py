"""Tests of UniCL's loss against the formula of its paper, evaluated anchor by anchor in float64."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.training.loss import PairBatch, rcml_loss
from model.training.objectives.unicl_loss import UniclLoss

from .batches_of_vectors import (
    ITEMS,
    LINKS,
    assert_same_loss_and_gradients,
    self_pairs,
    train_freely,
    unit,
    vectors_of,
)

TEMPERATURE = 0.2


def as_printed(text: Tensor, image: Tensor, pairs: PairBatch) -> Tensor:
    """Compute the mean of both directions; each anchor averages over its positives P(i)."""
    total = torch.zeros((), dtype=torch.float64)
    for x, y in ((text[:, 0, 0], image[:, 0, 0]), (image[:, 0, 0], text[:, 0, 0])):
        for i in range(len(x)):
            positives = [k for k in range(len(y)) if pairs.related[i, k]]
            everything = sum(torch.exp(x[i].dot(y[j]) / TEMPERATURE) for j in range(len(y)))
            for k in positives:
                share = torch.exp(x[i].dot(y[k]) / TEMPERATURE) / everything
                total = total - torch.log(share) / len(positives)
    return total / (2 * len(text))


def test_loss_and_gradients_match_formula() -> None:
    ours, theirs, pairs = (unit(0), unit(1)), (unit(0), unit(1)), self_pairs(LINKS)
    loss = UniclLoss(TEMPERATURE)(vectors_of(*ours), pairs)
    assert_same_loss_and_gradients(loss, ours, as_printed(*theirs, pairs), theirs)


@given(seed=st.integers(0, 1000), temperature=st.floats(0.05, 2.0))
def test_without_links_it_is_the_loss_of_clip(seed: int, temperature: float) -> None:
    text, image, pairs = unit(seed), unit(seed + 1), self_pairs()
    clip = rcml_loss(text[:, 0], image[:, 0], pairs, temperature, 0.0)
    torch.testing.assert_close(UniclLoss(temperature)(vectors_of(text, image), pairs), clip)


@given(order=st.permutations(range(ITEMS)))
def test_loss_does_not_depend_on_order_of_items(order: list[int]) -> None:
    text, image, pairs = unit(4), unit(5), self_pairs(LINKS)
    place = {item: row for row, item in enumerate(order)}
    moved = self_pairs([(place[a], place[b]) for a, b in LINKS])
    loss = UniclLoss(TEMPERATURE)
    torch.testing.assert_close(
        loss(vectors_of(text[order], image[order]), moved), loss(vectors_of(text, image), pairs)
    )


def test_overfits_eight_pairs_and_brings_linked_items_together() -> None:
    links = [(0, 1), (2, 3), (4, 5), (6, 7)]
    losses, similarity = train_freely(UniclLoss(TEMPERATURE), self_pairs(links, items=8))
    assert losses[-1] < losses[0] / 2
    best = similarity.topk(2, dim=1).indices.sort(dim=1).values
    assert best.tolist() == [[i - i % 2, i - i % 2 + 1] for i in range(8)]
