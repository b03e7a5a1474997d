"""Random vectors and pairs of a batch, and training of free vectors, for the tests of the losses."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.loss import PairBatch
from model.training.objectives.batch_loss import BatchLoss, BatchVectors

ITEMS, DIM = 7, 5
LINKS = ((0, 4), (0, 1), (5, 6))
"""Links of the training graph among the items of the tests."""


def unit(seed: int, views: int = 1, items: int = ITEMS) -> Tensor:
    """Return random unit vectors in float64, with one relation."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, views, 1, DIM, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=-1).requires_grad_()


def self_pairs(links: Iterable[tuple[int, int]] = (), items: int = ITEMS) -> PairBatch:
    """Return a batch in which each item is its own positive; `links` lists the related items."""
    everyone, related = torch.arange(items), torch.eye(items, dtype=torch.bool)
    for a, b in links:
        related[a, b] = related[b, a] = True
    return PairBatch(everyone, everyone, torch.zeros_like(everyone), related, items, 0)


def vectors_of(text: Tensor, image: Tensor, first: int = 0) -> BatchVectors:
    """Return vectors of the items `first`, `first` + 1, ... of the training data."""
    return BatchVectors(text, image, torch.arange(first, first + len(text)))


def assert_same_loss_and_gradients(
    loss: Tensor, ours: Iterable[Tensor], expected: Tensor, theirs: Iterable[Tensor]
) -> None:
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    ours, theirs = list(ours), list(theirs)
    for got, want in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def train_freely(loss: BatchLoss, pairs: PairBatch, steps: int = 150) -> tuple[list[float], Tensor]:
    """Train free vectors of the items in `pairs`, and return the losses and the text-image similarities."""
    items = len(pairs.related)
    text, image = (unit(seed, loss.views, items).detach().requires_grad_() for seed in (20, 21))
    optimizer = torch.optim.Adam([text, image, *loss.parameters()], lr=0.05)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        vectors = vectors_of(F.normalize(text, dim=-1), F.normalize(image, dim=-1))
        value: Tensor = loss(vectors, pairs)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    x, y = (F.normalize(one[:, 0, 0].detach(), dim=-1) for one in (text, image))
    return losses, x @ y.T
