"""Sample shop: the output is deterministic, and neither titles nor pictures reveal the planted truth."""

import json
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from numpy import ndarray
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from model.artifact import open_artifact
from model.config import ShopConfig
from model.data.edge_table import EdgeTable
from model.data.relations.clusters import InteractionLog, user_clusters
from model.evaluation.metrics import hit_at
from model.evaluation.sampling import Queries, sample_queries
from model.sample_shop.assortment import CATEGORIES, GROUPS, Good
from model.sample_shop.generate import cells, describe, draw_pictures, make_shop, stock

CHANCE = 5 / 21


@dataclass(frozen=True)
class Shop:
    """Shop of 420 items and 800 shoppers, read from its files."""

    folder: Path
    items: list[dict[str, Any]]
    log: pl.DataFrame
    truth: dict[str, Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("sample") / "shop"
    make_shop(ShopConfig(out=folder, items=420, shoppers=800))
    return Shop(
        folder,
        [json.loads(row) for row in (folder / "items.jsonl").read_text().splitlines()],
        pl.read_csv(folder / "interactions.csv"),
        json.loads((folder / "truth.json").read_text()),
    )


def some_goods(count: int = 960) -> list[Good]:
    return stock(count, np.random.default_rng(0))


def test_same_seed_gives_identical_files_and_other_seed_does_not(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        make_shop(ShopConfig(out=tmp_path / "shop", items=42, shoppers=30, seed=seed))
        digests.append(open_artifact(tmp_path / "shop", "shop").files)
    assert digests[0] == digests[1]
    assert all(
        digests[0][name] != digests[2][name] for name in ("items.jsonl", "interactions.csv", "truth.json")
    )


def test_stock_has_distinct_goods_and_equal_numbers_of_every_kind() -> None:
    goods = some_goods()
    assert len({(g.kind, g.colour, g.pattern, g.emblem) for g in goods}) == len(goods) == 960
    kinds = Counter(good.kind for good in goods)
    assert set(kinds) == {kind for kinds in CATEGORIES.values() for kind in kinds}
    assert max(kinds.values()) - min(kinds.values()) <= 1


def test_largest_shop_sells_every_possible_item_once() -> None:
    goods = some_goods(12_096)
    assert len({(g.kind, g.colour, g.pattern, g.emblem) for g in goods}) == 12_096


def test_title_and_description_name_every_attribute() -> None:
    rng = np.random.default_rng(0)
    for good in some_goods(84):
        title, description = describe(good, rng)
        assert title[0].isupper()
        for word in (good.kind, good.colour, good.pattern, good.emblem):
            assert word in title.lower()
            assert word in description


def test_titles_have_several_wordings() -> None:
    rng = np.random.default_rng(0)
    good = Good("i0", "Garden", "plant pot", "orange", "plain", "moon")
    titles = {describe(good, rng)[0] for _ in range(60)}
    assert len(titles) == 4
    assert describe(good, rng)[1].startswith(
        "An orange plant pot for garden, plain, with a little moon on it."
    )


def test_cell_of_true_partners_contains_all_items_of_its_group_and_style() -> None:
    goods = {good.item_id: good for good in some_goods()}
    groups = {group.name: group for group in GROUPS}
    for cell in cells(goods.values()):
        group = groups[cell["group"]]
        members = {
            item
            for item, good in goods.items()
            if good.category in group.categories and good.style(group.facet) == cell["style"]
        }
        assert set(cell["items"]) == members
        assert len(members) > 20


def test_partners_differ_in_category_and_looks() -> None:
    goods = {good.item_id: good for good in some_goods()}
    pairs = [
        (goods[a], goods[b]) for cell in cells(goods.values()) for a, b in combinations(cell["items"], 2)
    ]
    facets = ("colour", "pattern", "emblem")
    assert np.mean([a.category != b.category for a, b in pairs]) > 0.75
    # About half of the pairs have the same value of the facet that matters to their group. They have the same value of
    # another facet only by chance.
    assert np.mean([sum(getattr(a, f) == getattr(b, f) for f in facets) for a, b in pairs]) < 1.0


def test_item_has_different_partners_under_different_groups() -> None:
    partners: dict[str, dict[str, set[str]]] = {}
    for cell in cells(some_goods()):
        for item in cell["items"]:
            partners.setdefault(item, {})[cell["group"]] = set(cell["items"]) - {item}
    overlaps = [
        len(one & other) / len(one | other)
        for groups in partners.values()
        for one, other in combinations(groups.values(), 2)
    ]
    assert len(overlaps) > 960
    assert max(overlaps) < 0.7
    assert np.mean(overlaps) < 0.2


def test_shoppers_buy_by_group_and_style(shop: Shop) -> None:
    cell_of = {(cell["group"], cell["style"]): set(cell["items"]) for cell in shop.truth["cells"]}
    own = {user: cell_of[who["group"], who["style"]] for user, who in shop.truth["shoppers"].items()}
    followed = np.mean([item in own[user] for user, item, _ in shop.log.iter_rows()])
    chance = np.mean([len(cell) for cell in own.values()]) / len(shop.items)
    assert followed > 0.75
    assert chance < 0.15


def test_groups_have_equal_sizes_and_shoppers_buy_about_26_distinct_items(shop: Shop) -> None:
    groups = Counter(who["group"] for who in shop.truth["shoppers"].values())
    assert groups == {group.name: 80 for group in GROUPS}
    counts = shop.log.group_by("user_id").len()["len"]
    assert len(counts) == 800
    assert cast(float, counts.mean()) == pytest.approx(26, abs=1)
    assert not shop.log.select("user_id", "item_id").is_duplicated().any()


@pytest.mark.parametrize("clusters", [len(GROUPS), "auto"])
def test_clustering_of_log_recovers_planted_groups(shop: Shop, clusters: int | Literal["auto"]) -> None:
    names = tuple(CATEGORIES)
    rows = {item["item_id"]: row for row, item in enumerate(shop.items)}
    categories = sp.csr_array(
        np.array([[name in item["categories"] for name in names] for item in shop.items], dtype=float)
    )
    users = shop.log["user_id"].unique(maintain_order=True)
    places = {user: row for row, user in enumerate(users)}
    pairs = [(places[user], rows[item]) for user, item, _ in shop.log.iter_rows()]
    taken = sp.csr_array((np.ones(len(pairs)), tuple(np.array(pairs).T)), shape=(len(users), len(rows)))
    found = user_clusters(InteractionLog(taken, categories, names), clusters, seed=0)
    planted = [shop.truth["shoppers"][user]["group"] for user in users]
    assert adjusted_rand_score(planted, found) >= 0.9


def true_queries(shop: Shop) -> Queries:
    rows = {item["item_id"]: row for row, item in enumerate(shop.items)}
    groups = [group.name for group in GROUPS]
    edges = [
        (rows[a], rows[b], groups.index(cell["group"]))
        for cell in shop.truth["cells"]
        for a, b in combinations(cell["items"], 2)
    ]
    return sample_queries(EdgeTable(*np.array(edges).T), 21, 3000, np.random.default_rng(0))


def hit_at_5(vectors: ndarray, queries: Queries) -> float:
    unit = normalize(vectors)
    scores = np.einsum("qd,qcd->qc", unit[queries.item], unit[queries.candidates])
    return float(hit_at(5, scores, np.zeros(len(scores), dtype=np.int64)).mean())


def test_titles_and_pixels_do_not_identify_partners(shop: Shop) -> None:
    queries = true_queries(shop)
    words = CountVectorizer().fit_transform([item["title"] for item in shop.items]).toarray().astype(float)
    pictures = [Image.open(shop.folder / item["image"]).reduce(8) for item in shop.items]
    pixels = np.stack([np.asarray(picture, dtype=float).ravel() - 128 for picture in pictures])
    assert CHANCE - 0.05 < hit_at_5(words, queries) < 0.45
    assert CHANCE - 0.05 < hit_at_5(pixels, queries) < 0.45


def test_category_and_style_identify_every_partner(shop: Shop) -> None:
    queries = true_queries(shop)
    rows = {item["item_id"]: row for row, item in enumerate(shop.items)}
    member = np.zeros((len(rows), len(GROUPS)), dtype=int)
    styles = ["no style", *sorted({cell["style"] for cell in shop.truth["cells"]})]
    for cell in shop.truth["cells"]:
        column = [group.name for group in GROUPS].index(cell["group"])
        member[[rows[item] for item in cell["items"]], column] = styles.index(cell["style"])
    asked = member[queries.item, queries.relation]
    scores = (member[queries.candidates, queries.relation[:, None]] == asked[:, None]).astype(float)
    assert hit_at(5, scores, np.zeros(len(scores), dtype=np.int64)).min() == 1.0


def test_data_files_do_not_contain_planted_truth(shop: Shop) -> None:
    assert set(shop.truth) == {"groups", "cells", "shoppers", "goods"}
    assert {item["item_id"] for item in shop.items} == set(shop.truth["goods"])
    assert set(shop.items[0]) == {"item_id", "title", "description", "categories", "image"}
    assert shop.log.columns == ["user_id", "item_id", "timestamp"]


def test_pictures_drawn_by_processes_are_those_drawn_by_one(tmp_path: Path) -> None:
    goods = stock(60, np.random.default_rng(0))
    drawn = []
    for name, workers in (("one", 1), ("two", 2)):
        (tmp_path / name / "images").mkdir(parents=True)
        paths = list(draw_pictures(tmp_path / name, goods, workers))
        assert paths == [f"images/{good.item_id}.png" for good in goods]
        drawn.append([(tmp_path / name / path).read_bytes() for path in paths])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == len(goods)


def test_an_error_of_a_drawing_process_reaches_the_caller(tmp_path: Path) -> None:
    goods = stock(40, np.random.default_rng(0))
    with pytest.raises(FileNotFoundError):
        list(draw_pictures(tmp_path / "missing", goods, 2))
