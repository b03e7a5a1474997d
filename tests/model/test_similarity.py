"""The five similarities: which views each compares, and which is preferred."""

from itertools import product

from model.similarity import PREFERRED_SIMILARITIES, Similarity, View


def test_a_similarity_is_named_after_the_views_it_compares() -> None:
    letters = {View.TEXT: "T", View.IMAGE: "I"}
    for query, target in product(letters, repeat=2):
        assert Similarity(letters[query] + letters[target]).views == (query, target)
    assert Similarity.AVG.views == (View.AVERAGE, View.AVERAGE)


def test_every_similarity_has_its_place_in_the_order_of_preference() -> None:
    assert sorted(PREFERRED_SIMILARITIES) == sorted(Similarity)
    assert PREFERRED_SIMILARITIES[0] is Similarity.AVG
