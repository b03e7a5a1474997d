"""Comparison of two items, from the catalogue or new: relation scores, validity and vectors."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy import ndarray

from indexes.index import Index
from indexes.search.pairs import PairItem, Verdict
from model.checkpoint.calibration import Calibration, PlattScaling, VectorScaling
from model.embeddings.encoding import Encoding
from model.errors import (
    InputError,
    IntraRelationError,
    NoPictureError,
    UnknownItemError,
    UnknownRelationError,
)
from model.similarity import Similarity, View
from tests.indexes.fakes import RELATIONS, FakeShop, ids, write_shop

BETWEEN = [relation.relation_id for relation in RELATIONS[1:]]

CALIBRATION = Calibration(
    validity=PlattScaling(scale=2.0, bias=0.5, lapses=0.05),
    relation_types={
        similarity: VectorScaling(scale=5.0 + number, biases=(1.0, -2.0, 1.0))
        for number, similarity in enumerate(Similarity)
    },
    claims=100,
    edges=50,
)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = Index.open(write_shop(tmp_path_factory.mktemp("calibrated"), calibration=CALIBRATION).index)
    yield index
    index.close()


def newcomer(shop: FakeShop, item_id: str) -> Encoding:
    """Return a new item with the vectors of a catalogue item."""
    row = ids().index(item_id)
    text, image = (
        np.stack([shop.vectors(relation.relation_id, view)[row] for relation in RELATIONS])[None]
        for view in (View.TEXT, View.IMAGE)
    )
    return Encoding(text, image)


def softmax(scores: ndarray) -> ndarray:
    return np.asarray(np.exp(scores) / np.exp(scores).sum())


# Relation scores.


@pytest.mark.parametrize("similarity", Similarity)
def test_relation_probability_is_calibrated_softmax_of_cosines(
    calibrated: Index, shop: FakeShop, similarity: Similarity
) -> None:
    own = CALIBRATION.relation_types[similarity]
    cosines = np.array([shop.cosine("bib", "cot", one, similarity) for one in BETWEEN])
    expected = dict(zip(BETWEEN, softmax(own.scale * cosines + np.array(own.biases)), strict=True))
    found = calibrated.reader().relation_scores("bib", "cot", similarity)
    assert {one.relation.relation_id: one.probability for one in found} == pytest.approx(expected, abs=1e-4)
    assert sum(one.probability for one in found) == pytest.approx(1.0, abs=1e-6)


def test_most_probable_relation_comes_first_even_if_another_has_greater_cosine(
    calibrated: Index,
) -> None:
    turned = 0
    for a, b in product(ids(), ids()):
        found = calibrated.reader().relation_scores(a, b, Similarity.AVG)
        probabilities = [one.probability for one in found]
        assert probabilities == sorted(probabilities, reverse=True)
        turned += found[0].score < max(one.score for one in found)
    assert turned > 0


def test_uncalibrated_relation_probability_is_softmax_of_cosines(index: Index) -> None:
    found = index.reader().relation_scores("bib", "cot", Similarity.TT)
    expected = softmax(np.array([one.score for one in found]))
    assert [one.probability for one in found] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("similarity", Similarity)
def test_new_item_has_relation_scores_of_identical_catalogue_item(
    calibrated: Index, shop: FakeShop, similarity: Similarity
) -> None:
    new_a, new_b = newcomer(shop, "bib"), newcomer(shop, "cot")
    expected = {
        one.relation.relation_id: (one.score, one.probability)
        for one in calibrated.reader().relation_scores("bib", "cot", similarity)
    }
    for a, b in ((new_a, "cot"), ("bib", new_b), (new_a, new_b)):
        for one in calibrated.reader().relation_scores(a, b, similarity):
            # The index stores a rounded average; the encoding averages its two vectors without rounding.
            assert (one.score, one.probability) == pytest.approx(expected[one.relation.relation_id], abs=2e-3)


def test_compares_new_item_without_picture_by_text_only(index: Index, shop: FakeShop) -> None:
    words = replace(newcomer(shop, "bib"), image=np.zeros_like(newcomer(shop, "bib").image))
    by_words = index.reader().relation_scores(words, "cot", Similarity.TT)
    assert by_words == index.reader().relation_scores(newcomer(shop, "bib"), "cot", Similarity.TT)
    for a, b, similarity in ((words, "cot", Similarity.II), ("cot", words, Similarity.TI)):
        with pytest.raises(NoPictureError, match="The new item has no picture"):
            index.reader().relation_scores(a, b, similarity)


def test_compares_new_item_without_text_by_picture_only(index: Index, shop: FakeShop) -> None:
    picture = replace(newcomer(shop, "bib"), text=np.zeros_like(newcomer(shop, "bib").text))
    by_picture = index.reader().relation_scores("cot", picture, Similarity.TI)
    assert by_picture == index.reader().relation_scores("cot", newcomer(shop, "bib"), Similarity.TI)
    with pytest.raises(InputError, match="The new item has no text"):
        index.reader().relation_scores(picture, "cot", Similarity.TT)


# Validity.


def probabilities(index: Index, claims: Sequence[tuple[PairItem, PairItem, str]]) -> list[float]:
    verdicts = index.reader().validities(claims)
    return [one.probability for one in verdicts if isinstance(one, Verdict)]


@pytest.mark.parametrize("relation_id", BETWEEN)
def test_validity_is_calibrated_sigmoid_of_head_log_odds(
    calibrated: Index, shop: FakeShop, relation_id: str
) -> None:
    head = shop.probability("bib", "cot", relation_id)
    log_odds = 2.0 * np.log(head / (1 - head)) + 0.5
    expected = 0.05 + 0.9 / (1 + np.exp(-log_odds))
    assert calibrated.reader().validity("bib", "cot", relation_id).probability == pytest.approx(
        expected, abs=1e-5
    )


def test_probabilities_of_many_claims_match_head_in_order(index: Index, shop: FakeShop) -> None:
    claims = list(product(ids(), ids(), BETWEEN))
    np.random.default_rng(0).shuffle(claims)
    claims = claims[:60]
    expected = [shop.probability(*claim) for claim in claims]
    np.testing.assert_allclose(probabilities(index, claims), expected, atol=1e-6)


def test_new_item_has_validity_of_identical_catalogue_item(index: Index, shop: FakeShop) -> None:
    new = newcomer(shop, "bib")
    claims: list[tuple[PairItem, PairItem, str]] = [
        ("bib", "cot", "gardeners"),
        (new, "cot", "gardeners"),
        ("cot", new, "gardeners"),
        (new, new, "gardeners"),
    ]
    first, second, third, same = probabilities(index, claims)
    assert first == pytest.approx(second, abs=1e-6) == pytest.approx(third, abs=1e-6)
    assert same == pytest.approx(index.reader().validity("bib", "bib", "gardeners").probability, abs=1e-6)


def test_no_claims_give_no_verdicts(index: Index) -> None:
    assert index.reader().validities([]) == []


def test_error_names_unknown_item_or_relation_of_claim(index: Index) -> None:
    with pytest.raises(UnknownItemError, match="'unicorn'"):
        index.reader().validity("bib", "unicorn", "gardeners")
    with pytest.raises(UnknownRelationError, match="'sailors'"):
        index.reader().validity("bib", "cot", "sailors")


def test_judges_each_claim_independently_on_one_snapshot(index: Index, shop: FakeShop) -> None:
    claims: list[tuple[PairItem, PairItem, str]] = [
        ("bib", "cot", "gardeners"),
        ("bib", "unicorn", "gardeners"),
        ("bib", "cot", "sailors"),
        ("bib", "cot", "same-item"),
        ("tie", newcomer(shop, "bib"), "gardeners"),
    ]
    reader = index.reader()
    assert reader.snapshot is index.snapshot
    found = reader.validities(claims)
    assert [type(one) for one in found] == [
        Verdict,
        UnknownItemError,
        UnknownRelationError,
        IntraRelationError,
        Verdict,
    ]
    alone = [reader.validity(*claims[number]).probability for number in (0, 4)]
    judged = [one.probability for one in found if isinstance(one, Verdict)]
    assert judged == pytest.approx(alone, abs=1e-6)


# Vectors.


@pytest.mark.parametrize("relation", BETWEEN)
def test_vectors_are_in_requested_order(index: Index, shop: FakeShop, relation: str) -> None:
    wanted = ["tie", "bib", "tie"]
    found = index.reader().vectors([*wanted, newcomer(shop, "cot")], relation, list(View))
    for view in View:
        expected = shop.vectors(relation, view)
        for place, item_id in enumerate([*wanted, "cot"]):
            row = expected[ids().index(item_id)]
            np.testing.assert_allclose(found[view][place], row, atol=0 if place < 3 else 1e-3)


def test_text_vector_of_item_without_text_is_zero(index: Index, shop: FakeShop) -> None:
    new = newcomer(shop, "bib").without_text()
    found = index.reader().vectors([new], "gardeners", list(View))
    assert not found[View.TEXT].any()
    np.testing.assert_allclose(found[View.AVERAGE], found[View.IMAGE], atol=1e-3)


def test_rejects_vectors_of_unknown_item_or_relation(index: Index) -> None:
    with pytest.raises(UnknownItemError, match="'unicorn'"):
        index.reader().vectors(["bib", "unicorn"], "gardeners", [View.TEXT])
    with pytest.raises(UnknownRelationError, match="'sailors'"):
        index.reader().vectors(["bib"], "sailors", [View.TEXT])


# Metadata.


def test_reader_reports_calibration_version(calibrated: Index, index: Index) -> None:
    assert (calibrated.reader().calibration, index.reader().calibration) == (CALIBRATION.version, "none")


def test_relations_report_number_of_paired_items(index: Index) -> None:
    known = index.snapshot.generation.relations
    assert {one.relation_id: one.paired_items for one in known} == {
        "same-item": None, "gardeners": 2, "worn together / office": 0, "new-parents": 3
    }  # fmt: skip
