"""Profiles of relations: categories by share and lift, and sample pairs from strong to weak."""

import polars as pl
import pytest

from model.data.report.relation_profiles import ends, numbered, sample_pairs, top_categories
from model.records import Item

from .shop import counted, goods, graph

KINDS = pl.Enum(["read", "cook"])


def test_share_and_lift_are_those_of_what_users_took() -> None:
    log = graph().log
    assert log is not None
    found = top_categories(goods(), log)
    # read: a twice (Books), b (half Books, half Maps), c (Maps); cook: d, e (Pans), b.
    read = {own.category: (own.share, own.lift) for own in found["read"]}
    assert read["Books"] == pytest.approx((2.5 / 4, (2.5 / 4) / (3 / 7)), abs=1e-6)
    assert read["Maps"] == pytest.approx((1.5 / 4, (1.5 / 4) / (2 / 7)), abs=1e-6)
    assert [own.category for own in found["cook"]] == ["Pans", "Maps", "Books"]
    assert found["cook"][0].share == pytest.approx(2 / 3, abs=1e-6)


def test_ready_made_edges_count_the_items_of_their_pairs() -> None:
    edges = numbered(graph().edges, goods(), KINDS)
    # read: a twice, b twice, c twice.
    shares = {own.category: own.share for own in top_categories(goods(), ends(edges))["read"]}
    assert shares == pytest.approx({"Books": 3 / 6, "Maps": 3 / 6})


def test_items_without_categories_give_no_profile() -> None:
    plain = [Item(item.item_id, item.title, "", (), "text", item.picture) for item in goods()]
    assert top_categories(plain, ends(numbered(graph().edges, plain, KINDS))) == {}


def test_samples_are_the_middles_of_fifths_by_npmi() -> None:
    names = [f"i{number:02d}" for number in range(41)]
    items = [Item(name, name.upper(), "", (), "text", "") for name in names]
    edges = pl.DataFrame(
        {
            "item_a": names[:40],
            "item_b": names[1:],
            "relation_id": ["read"] * 40,
            "support": list(range(40)),
            "npmi": [number / 100 for number in range(40)],
            "split": ["train"] * 40,
        }
    )
    pairs = sample_pairs(
        items, numbered(edges.sample(fraction=1, shuffle=True, seed=3), items, KINDS), counted=True
    )
    assert [pair.support for pair in pairs["read"]] == [35, 27, 19, 11, 3]
    assert (pairs["read"][0].first.item_id, pairs["read"][0].second.title) == ("i35", "I36")
    assert [pair.npmi for pair in pairs["read"]] == pytest.approx([0.35, 0.27, 0.19, 0.11, 0.03])


def test_few_pairs_are_all_shown_once() -> None:
    read, cook = counted().relations
    assert [(pair.first.item_id, pair.second.item_id) for pair in read.samples] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert [pair.npmi for pair in cook.samples] == [0.7, 0.4]
