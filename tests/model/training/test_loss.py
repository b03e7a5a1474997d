"""Tests of the loss against the formulas of the paper, evaluated pair by pair in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.training.loss import PairBatch, contrast, rcml_loss

ITEMS, RELATIONS, DIM = 7, 3, 5


def unit(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(ITEMS, RELATIONS, DIM, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=-1).requires_grad_()


def batch(edges: list[tuple[int, int, int]], related: list[tuple[int, int]]) -> PairBatch:
    """Return a batch with the pairs `edges`; `related` lists additional related items."""
    matrix = torch.eye(ITEMS, dtype=torch.bool)
    for a, b in related + [(a, b) for a, b, _ in edges]:
        matrix[a, b] = matrix[b, a] = True
    anchor, positive, relation = torch.tensor(edges).T
    return PairBatch(anchor, positive, relation, matrix, len(edges), sum(a != b for a, b, _ in edges))


PAIRS = batch(
    # Self-pairs under relation 0. Item 0 has partners under relations 1 and 2, and item 1 is a partner under both.
    [(0, 0, 0), (3, 3, 0), (0, 1, 1), (1, 0, 1), (0, 1, 2), (0, 2, 2), (2, 0, 2), (5, 6, 2), (6, 5, 2)],
    related=[(0, 4)],
)


def as_printed(x: Tensor, y: Tensor, pairs: PairBatch, temperature: float) -> list[Tensor]:
    """Compute eq. 2 for each pair, under its relation; the denominator contains the positive and N(i)."""
    losses = []
    for i, j, e in zip(
        *(axis.tolist() for axis in (pairs.anchor, pairs.positive, pairs.relation)), strict=True
    ):
        negatives = [k for k in range(len(x)) if not pairs.related[i, k]]
        logits = torch.stack([x[i, e] @ y[k, e] for k in (j, *negatives)]) / temperature
        losses.append(-torch.log(logits[0].exp() / logits.exp().sum()))
    return losses


def equation_1(text: Tensor, image: Tensor, pairs: PairBatch, temperature: float, weight: float) -> Tensor:
    def mean(x: Tensor, y: Tensor, inter_only: bool) -> Tensor:
        losses = as_printed(x, y, pairs, temperature)
        inter = (pairs.anchor != pairs.positive).tolist()
        return torch.stack(
            [one for one, keep in zip(losses, inter, strict=True) if keep or not inter_only]
        ).mean()

    cross = (mean(text, image, False) + mean(image, text, False)) / 2
    return cross + weight * (mean(text, text, True) + mean(image, image, True))


def test_loss_of_each_pair_matches_equation_2() -> None:
    x, y = unit(0), unit(1)
    expected = torch.stack(as_printed(x, y, PAIRS, 0.1))
    torch.testing.assert_close(contrast(x, y, PAIRS, 0.1), expected, rtol=1e-9, atol=1e-9)


def test_loss_and_gradients_match_equation_1() -> None:
    ours, theirs = (unit(2), unit(3)), (unit(2), unit(3))
    loss = rcml_loss(*ours, PAIRS, 0.1, 0.5)
    expected = equation_1(*theirs, PAIRS, 0.1, 0.5)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for got, want in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@given(st.permutations(range(9)), st.floats(0.05, 2.0))
def test_loss_of_pair_does_not_depend_on_order_of_pairs(order: list[int], temperature: float) -> None:
    x, y = unit(4), unit(5)
    shuffled = replace(
        PAIRS, anchor=PAIRS.anchor[order], positive=PAIRS.positive[order], relation=PAIRS.relation[order]
    )
    expected = contrast(x, y, PAIRS, temperature)[order]
    torch.testing.assert_close(contrast(x, y, shuffled, temperature), expected)


def test_related_item_is_not_negative_even_if_batch_lacks_that_pair() -> None:
    x, y = unit(6), unit(7)
    moved = y.detach().clone()
    moved[4] = -moved[4]  # related to item 0 by an edge that is not a pair of the batch
    before, after = contrast(x, y, PAIRS, 0.1), contrast(x, moved, PAIRS, 0.1)
    changed = (before != after).tolist()
    anchors = PAIRS.anchor.tolist()
    assert [anchor for anchor, change in zip(anchors, changed, strict=True) if change] == [
        anchor for anchor in anchors if anchor != 0
    ]


def test_other_positive_of_anchor_does_not_affect_loss() -> None:
    x, y = unit(8), unit(9)
    moved = y.detach().clone()
    moved[2] = -moved[2]
    row = 2  # the pair (0, 1) under relation 1; item 2 is a positive of item 0 under relation 2
    assert contrast(x, y, PAIRS, 0.1)[row] == contrast(x, moved, PAIRS, 0.1)[row]


def test_loss_of_self_pairs_is_clip_cross_entropy() -> None:
    text, image = unit(10), unit(11)
    everyone = torch.arange(ITEMS)
    pairs = PairBatch(
        everyone, everyone, torch.zeros_like(everyone), torch.eye(ITEMS, dtype=torch.bool), ITEMS, 0
    )
    logits = text[:, 0] @ image[:, 0].T / 0.07
    clip = (F.cross_entropy(logits, everyone) + F.cross_entropy(logits.T, everyone)) / 2
    torch.testing.assert_close(rcml_loss(text, image, pairs, 0.07, 0.0), clip, rtol=1e-9, atol=1e-9)


def test_intra_modal_terms_skip_self_pairs() -> None:
    text, image = unit(12), unit(13)
    selves = batch([(0, 0, 0), (3, 3, 0)], related=[])
    assert rcml_loss(text, image, selves, 0.1, 0.5) == rcml_loss(text, image, selves, 0.1, 0.0)


def test_batch_without_negatives_has_zero_loss_and_gradient() -> None:
    text, image = unit(14), unit(15)
    edges = [(0, 1, 1), (1, 0, 1), (2, 2, 0)]
    pairs = replace(batch(edges, related=[]), related=torch.ones(ITEMS, ITEMS, dtype=torch.bool))
    loss = rcml_loss(text, image, pairs, 0.1, 0.5)
    gradients = torch.autograd.grad(loss, [text, image])
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert [float(gradient.abs().max()) for gradient in gradients] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_tiny_temperature_does_not_overflow() -> None:
    loss = contrast(unit(16), unit(17), PAIRS, 1e-3)
    assert np.isfinite(loss.detach().numpy()).all()


def test_losses_and_gradients_of_parts_of_batch_add_up() -> None:
    whole, parts = (unit(18), unit(19)), (unit(18), unit(19))
    loss = rcml_loss(*whole, PAIRS, 0.1, 0.5)
    shares = [
        rcml_loss(
            *parts,
            replace(
                PAIRS, **{name: getattr(PAIRS, name)[rows] for name in ("anchor", "positive", "relation")}
            ),
            0.1,
            0.5,
        )
        for rows in (slice(0, 2), slice(2, 7), slice(7, 9), slice(9, 9))
    ]
    total = sum(shares, torch.zeros_like(loss))
    torch.testing.assert_close(total, loss, rtol=1e-9, atol=1e-9)
    expected = torch.autograd.grad(loss, whole)
    for got, want in zip(torch.autograd.grad(total, parts), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
