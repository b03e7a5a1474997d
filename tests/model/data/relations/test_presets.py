"""Presets: the texts of the paper, their profiles, and the clusters that they are matched to."""

import json
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from model.data.prepare_config import PresetName
from model.data.relations.presets import FOLDER, PresetRelation, match_preset, read_preset
from model.errors import InputError

PRESETS = get_args(PresetName)

TEA = PresetRelation("tea", "Tea.", {"Tea & Coffee": 0.8, "Cake": 0.2})
CAKE = PresetRelation("cake", "Cake.", {"Cake": 0.9, "Tea & Coffee": 0.1})


def test_every_preset_is_an_option_and_every_option_a_preset() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_unique_texts_and_the_primary_interest_leads(name: str) -> None:
    preset = read_preset(name)
    assert len(preset) == (8 if name == "goodreads" else 10)
    for values in zip(*((one.relation_id, one.description) for one in preset), strict=True):
        assert len(set(values)) == len(values)
    raw = json.loads((FOLDER / f"{name}.json").read_text())
    assert raw["source"].startswith("arXiv 2508.17497, appendix A.2.")
    for relation, written in zip(preset, raw["relations"], strict=True):
        assert sum(relation.profile.values()) == pytest.approx(1)
        assert max(relation.profile, key=lambda part: relation.profile[part]) == written["primary"][0]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "goodreads"])
def test_a_text_names_exactly_the_categories_of_its_profile(name: str) -> None:
    preset = read_preset(name)
    every = set(preset[0].profile)
    for relation in preset:
        assert set(relation.profile) == every
        assert all(category in relation.description for category in relation.profile)


def test_levels_follow_the_words_of_the_paper() -> None:
    levels = {raw["relation_id"]: raw for raw in json.loads((FOLDER / "baby.json").read_text())["relations"]}
    # "heavily favor Diapering, with secondary but lower preference for Nursery and Feeding, minor engagement in Baby
    # Care and Safety, and almost no interest in ..."
    assert {level: levels["diapering"][level] for level in ("primary", "secondary", "moderate")} == {
        "primary": ["Diapering"],
        "secondary": ["Nursery", "Feeding"],
        "moderate": ["Baby Care", "Safety"],
    }
    assert len(levels["diapering"]["minimal"]) == 5


def test_clusters_get_the_relations_that_fit_with_the_distance_stated() -> None:
    names = ("cake", "Tea and coffee", "Soap")
    counts = np.array([[90.0, 10.0, 0.0], [10.0, 60.0, 30.0]])
    first, second = match_preset([TEA, CAKE], counts, names)
    assert (first.cluster, first.relation) == (0, CAKE)
    assert first.distance == pytest.approx(0)
    assert (second.cluster, second.relation) == (1, TEA)
    assert second.distance == pytest.approx(jensenshannon([0.8, 0.2, 0], [0.6, 0.1, 0.3], base=2))


def test_the_best_fit_of_all_clusters_counts_rather_than_the_first() -> None:
    # Both clusters are nearest to the relation of tea. The second gives way, because cake costs it least.
    counts = np.array([[1.0, 99.0], [45.0, 55.0]])
    matches = match_preset([CAKE, TEA], counts, ("Cake", "Tea & Coffee"))
    assert [match.relation.relation_id for match in matches] == ["tea", "cake"]


@given(st.permutations(range(10)))
def test_clusters_with_the_profiles_of_a_preset_get_exactly_its_relations(order: list[int]) -> None:
    preset = read_preset("sports")
    names = sorted(preset[0].profile)
    counts = np.array([[1000 * preset[row].profile[name] for name in names] for row in order])
    matches = match_preset(preset, counts, names)
    assert [match.relation for match in matches] == [preset[row] for row in order]
    assert [match.distance for match in matches] == pytest.approx([0.0] * 10, abs=1e-6)


def test_fewer_clusters_than_relations_and_more_are_matched_once_each() -> None:
    one = match_preset([TEA, CAKE], np.array([[9.0, 1.0]]), ("Cake", "Tea & Coffee"))
    assert [(match.cluster, match.relation) for match in one] == [(0, CAKE)]
    three = match_preset([TEA], np.array([[5.0, 5.0], [0.0, 9.0], [2.0, 8.0]]), ("Cake", "Tea & Coffee"))
    assert [(match.cluster, match.relation) for match in three] == [(2, TEA)]


def test_rejects_a_preset_of_another_domain_and_names_its_categories() -> None:
    with pytest.raises(InputError, match=r"by the categories Cake, Tea & Coffee\. No item has any of them"):
        match_preset([TEA, CAKE], np.array([[1.0]]), ("Books",))
