"""Assortment of the sample shop: the groups differ, and every category, kind and facet is used."""

from itertools import combinations

import pytest

from model.config import ShopConfig
from model.sample_shop.assortment import CATEGORIES, CATEGORY_SHARES, GROUPS, STYLES, Good
from model.sample_shop.draw import ITEM_COLOURS, ITEM_EMBLEMS, ITEM_KINDS, ITEM_PATTERNS


def test_default_shop_has_promised_size() -> None:
    config = ShopConfig(out="unused")
    assert config.items >= 800
    assert config.shoppers >= 3000
    assert len(CATEGORIES) >= 12
    assert len({group.name for group in GROUPS}) >= 10


def test_every_kind_and_every_facet_value_has_a_drawing() -> None:
    assert sorted(kind for kinds in CATEGORIES.values() for kind in kinds) == sorted(ITEM_KINDS)
    for facet, drawn in (("colour", ITEM_COLOURS), ("pattern", ITEM_PATTERNS), ("emblem", ITEM_EMBLEMS)):
        assert sorted(value for values in STYLES[facet].values() for value in values) == sorted(drawn)  # type: ignore[index]


def test_no_two_groups_share_more_than_three_categories() -> None:
    for one, other in combinations(GROUPS, 2):
        assert len(set(one.categories) & set(other.categories)) <= 3, (one.name, other.name)


def test_every_category_has_a_group_and_no_group_repeats_a_category() -> None:
    assert {category for group in GROUPS for category in group.categories} == set(CATEGORIES)
    assert [len(set(group.categories)) for group in GROUPS] == [len(CATEGORY_SHARES)] * len(GROUPS)


def test_every_facet_matters_to_some_group() -> None:
    assert {group.facet for group in GROUPS} == {"colour", "pattern", "emblem"}


def test_category_shares_sum_to_one() -> None:
    assert sum(CATEGORY_SHARES) == pytest.approx(1.0)


def test_facet_value_of_item_determines_its_style() -> None:
    good = Good("i0", "Cycling", "jersey", "navy", "dotted", "leaf")
    assert [good.style(facet) for facet in ("colour", "pattern", "emblem")] == ["harbour", "merry", "garden"]
