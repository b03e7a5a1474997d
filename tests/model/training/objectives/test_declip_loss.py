"""Tests of DeCLIP's loss against the terms of its paper, evaluated anchor by anchor in float64, and of its queue."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.training.loss import PairBatch
from model.training.objectives.declip_loss import DeclipLoss, TextQueue

from .batches_of_vectors import (
    DIM,
    ITEMS,
    LINKS,
    assert_same_loss_and_gradients,
    self_pairs,
    train_freely,
    unit,
    vectors_of,
)

TEMPERATURE = 0.2


def one_way(x: Tensor, y: Tensor, pairs: PairBatch) -> Tensor:
    """Compute InfoNCE: each row of `x` has the same row of `y` as its positive; related items are no negatives."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(x)):
        others = [k for k in range(len(y)) if k == i or not pairs.related[i, k]]
        logits = torch.stack([x[i].dot(y[k]) / TEMPERATURE for k in others])
        total = total - torch.log(logits[others.index(i)].exp() / logits.exp().sum())
    return total / len(x)


def both_ways(x: Tensor, y: Tensor, pairs: PairBatch) -> Tensor:
    return (one_way(x, y, pairs) + one_way(y, x, pairs)) / 2


def as_described(text: Tensor, image: Tensor, pairs: PairBatch, queue: Tensor | None) -> Tensor:
    """Compute 0.4 CLIP + 0.2 (within modalities) + 0.2 (other views) + 0.2 (nearest neighbours in `queue`)."""
    (t1, t2), (i1, i2) = (one[:, :, 0].unbind(dim=1) for one in (text, image))
    loss = 0.4 * both_ways(t1, i1, pairs)
    loss = loss + 0.2 * (both_ways(t1, t2, pairs) + both_ways(i1, i2, pairs))
    loss = loss + 0.2 * sum(both_ways(t, i, pairs) for t, i in ((t2, i1), (t1, i2), (t2, i2))) / 3
    if queue is None:
        return loss
    found = []
    for view in (t1, t2):
        rows = [min(range(len(queue)), key=lambda k: float((queue[k] - one).norm())) for one in view.detach()]
        found.append(queue[rows])
    return loss + 0.2 * sum(one_way(i, n, pairs) for i in (i1, i2) for n in found) / 4


def declip(size: int = 20) -> DeclipLoss:
    return DeclipLoss(TEMPERATURE, TextQueue(size, DIM)).double()


def test_first_loss_has_no_neighbours_and_matches_description() -> None:
    ours, theirs, pairs = (unit(0, 2), unit(1, 2)), (unit(0, 2), unit(1, 2)), self_pairs(LINKS)
    loss = declip()(vectors_of(*ours), pairs)
    assert_same_loss_and_gradients(loss, ours, as_described(*theirs, pairs, None), theirs)


def test_second_loss_and_gradients_match_description_with_neighbours() -> None:
    loss, pairs = declip(), self_pairs(LINKS)
    earlier = unit(2, 2)
    loss(vectors_of(earlier, unit(3, 2)), pairs)
    ours, theirs = (unit(4, 2), unit(5, 2)), (unit(4, 2), unit(5, 2))
    expected = as_described(*theirs, pairs, earlier[:, 0, 0].detach())
    assert_same_loss_and_gradients(loss(vectors_of(*ours, first=ITEMS), pairs), ours, expected, theirs)


def test_single_item_has_no_neighbour_in_a_queue_of_itself() -> None:
    queue = TextQueue(size=3, dim=2)
    queue.push(torch.tensor([[1.0, 0.0]]), torch.tensor([4]))
    assert queue.nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([4])) is None


def test_batch_of_all_items_has_neighbours() -> None:
    queue, vectors = TextQueue(size=3, dim=2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    queue.push(vectors, torch.tensor([0, 1, 2]))
    found = queue.nearest(vectors, torch.tensor([0, 1, 2]))
    assert found is not None
    torch.testing.assert_close(found, vectors[[2, 2, 1]])


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), max_size=8))
def test_queue_holds_newest_vector_of_latest_items(batches: list[list[int]]) -> None:
    queue, latest = TextQueue(size=5, dim=1), list[tuple[int, float]]()
    for step, items in enumerate(batches):
        vectors = torch.tensor([[100.0 * step + item] for item in items])
        queue.push(vectors, torch.tensor(items))
        new = [(item, 100.0 * step + item) for item in items]
        latest = (new + [one for one in latest if one[0] not in items])[:5]
    held = queue.items.tolist()
    assert held == [item for item, _ in latest] + [-1] * (5 - len(latest))
    assert queue.vectors[: len(latest), 0].tolist() == [value for _, value in latest]


def test_queue_returns_nearest_vector_of_other_items() -> None:
    queue = TextQueue(size=4, dim=2)
    assert queue.nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) is None
    queue.push(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([0, 1, 2]))
    asked = torch.tensor([[1.0, 0.0], [0.1, 1.0]])
    for items, expected in (
        ([7, 8], [[1.0, 0.0], [0.0, 1.0]]),
        ([0, 8], [[0.6, 0.8], [0.0, 1.0]]),
    ):
        found = queue.nearest(asked, torch.tensor(items))
        assert found is not None
        torch.testing.assert_close(found, torch.tensor(expected))


def test_overfits_eight_pairs() -> None:
    losses, similarity = train_freely(declip(), self_pairs(items=8))
    assert losses[-1] < losses[0] / 2
    assert similarity.argmax(dim=1).tolist() == list(range(8))
