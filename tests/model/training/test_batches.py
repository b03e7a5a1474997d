"""Tests of training batches: an epoch contains every pair, and a batch depends only on the seed and the step."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.config import Objective
from model.data.edge_table import EdgeTable
from model.errors import InputError
from model.network.inputs import PictureInput, TextInput
from model.training.batches import Batch, Batches, Part, pairs_among, related_items, training_pairs
from model.training.distributed import ProcessGroup

EVERY = slice(0, 10**6)
CPU = torch.device("cpu")
ALONE = ProcessGroup(0, 1, CPU)


def part(count: int, a: list[int], b: list[int], relation: list[int]) -> Part:
    """Return items whose only token is their own position and whose pixels all have that value."""
    ids = torch.arange(count)[:, None]
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 2, 2)
    return Part(
        TextInput(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids)),
        PictureInput(pixels, torch.zeros(count, 2)),
        EdgeTable(np.array(a), np.array(b), np.array(relation)),
    )


SHOP = part(8, a=[0, 2, 0, 5, 1], b=[1, 3, 1, 6, 4], relation=[1, 2, 3, 3, 1])


def batches(shop: Part = SHOP, group: ProcessGroup = ALONE, **options: Any) -> Batches:
    chosen = {"objective": "rcml", "batch_size": 4, "augment": True, "seed": 0, **options}
    return Batches(shop, group=group, **chosen)


def moves_of(batch: Batch) -> Tensor:
    assert batch.moves is not None
    return batch.moves


def triples(batch: Batch) -> set[tuple[int, int, int]]:
    """Return the (anchor, positive, relation) triples of a batch.

    Items are given by their position in the `Part`, and relations by their position among all relations.
    """
    pairs = batch.pairs
    return set(
        zip(
            batch.items[pairs.anchor.numpy()].tolist(),
            batch.items[pairs.positive.numpy()].tolist(),
            batch.relations[pairs.relation.numpy()].tolist(),
            strict=True,
        )
    )


def test_training_pairs_are_all_edges_and_all_self_pairs() -> None:
    pairs = training_pairs(SHOP, "rcml")
    selves = pairs.a == pairs.b
    assert pairs.a[selves].tolist() == list(range(8))
    assert set(pairs.relation[selves].tolist()) == {0}
    assert pairs.take(np.flatnonzero(~selves)).relation.tolist() == SHOP.edges.relation.tolist()


@pytest.mark.parametrize("objective", ["clip", "siglip", "declip"])
def test_clip_siglip_and_declip_train_only_on_self_pairs(objective: Objective) -> None:
    pairs = training_pairs(SHOP, objective)
    assert pairs.a.tolist() == pairs.b.tolist() == list(range(8))


def test_unicl_trains_on_all_edges_without_their_relations() -> None:
    pairs, expected = training_pairs(SHOP, "unicl"), training_pairs(SHOP, "rcml")
    assert (pairs.a.tolist(), pairs.b.tolist()) == (expected.a.tolist(), expected.b.tolist())
    assert set(pairs.relation.tolist()) == {0}


def test_epoch_contains_every_pair_once_except_incomplete_last_batch() -> None:
    # Each batch is made from 4 of the 13 pairs, so an epoch has three batches and leaves one pair out. A batch contains
    # these 4 pairs, and all other pairs between their items.
    source = batches()
    orders = [source.epoch_order(epoch).tolist() for epoch in range(2)]
    assert [sorted(order) for order in orders] == [list(range(13))] * 2
    assert orders[0] != orders[1]
    pairs = training_pairs(SHOP, "rcml")
    for step in range(1, 7):
        epoch, place = divmod(step - 1, 3)
        drawn = pairs.take(source.epoch_order(epoch)[place * 4 : place * 4 + 4])
        assert set(zip(drawn.a.tolist(), drawn.b.tolist(), drawn.relation.tolist(), strict=True)) <= triples(
            source.at(step)
        )


def test_batch_contains_edges_in_both_orders_and_self_pairs_once() -> None:
    items = np.array([0, 1, 3])
    relations, pairs = pairs_among(training_pairs(SHOP, "rcml"), items, related_items(SHOP), EVERY)
    assert relations.tolist() == [0, 1, 3]
    found = zip(
        pairs.anchor.tolist(), pairs.positive.tolist(), relations[pairs.relation].tolist(), strict=True
    )
    assert sorted(found) == [(0, 0, 0), (0, 1, 1), (0, 1, 3), (1, 0, 1), (1, 0, 3), (1, 1, 0), (2, 2, 0)]
    assert pairs.related.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert (pairs.count, pairs.inter_count) == (7, 4)


def ids_of(batch: Batch) -> Tensor:
    assert isinstance(batch.text, TextInput)
    return batch.text.ids


def test_text_and_pictures_belong_to_items_of_batch() -> None:
    batch = batches().at(2)
    assert isinstance(batch.text, TextInput)
    assert isinstance(batch.pictures, PictureInput)
    assert batch.text.ids[:, 0].tolist() == batch.items.tolist()
    assert batch.pictures.pixels[:, 0, 0, 0].tolist() == batch.items.tolist()


@given(step=st.integers(1, 200), size=st.integers(2, 4))
def test_shares_of_ranks_add_up_to_whole_batch(step: int, size: int) -> None:
    whole = batches(batch_size=6).at(step)
    parts = [batches(batch_size=6, group=ProcessGroup(rank, size, CPU)).at(step) for rank in range(size)]
    assert torch.equal(torch.cat([ids_of(one) for one in parts]), ids_of(whole))
    assert torch.equal(torch.cat([moves_of(one) for one in parts]), moves_of(whole))
    assert set.union(*(triples(one) for one in parts)) == triples(whole)
    assert sum(len(one.pairs.anchor) for one in parts) == len(whole.pairs.anchor) == whole.pairs.count
    assert {(one.pairs.count, one.pairs.inter_count) for one in parts} == {
        (whole.pairs.count, whole.pairs.inter_count)
    }
    for one in parts:
        assert ((one.own.start <= one.pairs.anchor) & (one.pairs.anchor < one.own.stop)).all()


@given(step=st.integers(1, 50), size=st.integers(2, 4))
def test_second_views_follow_first_ones_and_do_not_depend_on_rank(step: int, size: int) -> None:
    ids = torch.arange(72).reshape(8, 9)
    text = TextInput(ids, torch.ones(8, 9, dtype=torch.bool), torch.zeros_like(ids))
    shop = replace(SHOP, text=text)
    whole = batches(shop, batch_size=6, views=2).at(step)
    single = batches(shop, batch_size=6).at(step)
    parts = [
        batches(shop, batch_size=6, views=2, group=ProcessGroup(rank, size, CPU)).at(step)
        for rank in range(size)
    ]
    assert torch.equal(ids_of(whole)[: len(whole.items)], ids_of(single))
    assert torch.equal(moves_of(whole)[: len(whole.items)], moves_of(single))
    assert not torch.equal(ids_of(whole)[len(whole.items) :], ids_of(single))
    for tensor in (ids_of, moves_of):
        views = [tensor(one).chunk(2) for one in parts]
        joined = torch.cat([torch.cat([one[view] for one in views]) for view in (0, 1)])
        assert torch.equal(joined, tensor(whole))


def test_rejects_more_ranks_than_items() -> None:
    with pytest.raises(InputError, match=r"has only [2-8] items for 9 processes\. Raise --batch-size"):
        batches(group=ProcessGroup(8, 9, CPU)).at(1)


def test_batch_depends_only_on_seed_and_step() -> None:
    first, again, later, other = (
        batches(seed=seed).at(step) for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5))
    )
    assert torch.equal(first.moves, again.moves)  # type: ignore[arg-type]
    assert first.items.tolist() == again.items.tolist()
    assert not torch.equal(first.moves[:3], later.moves[:3])  # type: ignore[index]
    assert not torch.equal(first.moves[:3], other.moves[:3])  # type: ignore[index]


@pytest.mark.parametrize("workers", [1, 4])
def test_queue_returns_batches_in_order_of_steps(workers: int) -> None:
    source = batches()
    with source.ahead(range(3, 12), workers) as queue:
        made = [queue.take() for _ in range(9)]
    assert [one.items.tolist() for one in made] == [source.at(step).items.tolist() for step in range(3, 12)]


def test_queue_raises_error_of_worker(tmp_path: Path) -> None:
    class Missing:
        def __len__(self) -> int:
            return 8

        def take(self, rows: object) -> PictureInput:
            raise FileNotFoundError(f"picture of {threading.current_thread().name}")

    shop = Part(SHOP.text, Missing(), SHOP.edges)
    with (
        batches(shop).ahead(range(1, 4), workers=1) as queue,
        pytest.raises(FileNotFoundError, match="picture of batches"),
    ):
        queue.take()
