"""The five similarities: the views that each compares, and their order of preference."""

from itertools import product

from model.similarity import PREFERRED_SIMILARITIES, Similarity, View


def test_similarity_is_named_after_its_views() -> None:
    letters = {View.TEXT: "T", View.IMAGE: "I"}
    for query, target in product(letters, repeat=2):
        assert Similarity(letters[query] + letters[target]).views == (query, target)
    assert Similarity.AVG.views == (View.AVERAGE, View.AVERAGE)


def test_order_of_preference_contains_every_similarity() -> None:
    assert sorted(PREFERRED_SIMILARITIES) == sorted(Similarity)
    assert PREFERRED_SIMILARITIES[0] is Similarity.AVG
