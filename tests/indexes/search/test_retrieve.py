"""Retrieval requests with all options, compared with plain arithmetic over the stored vectors."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from PIL import Image

from indexes.index import Index
from indexes.journal.change import Change
from indexes.search import diversity as ranking
from indexes.search.retrieve import Found, KnownItems, NewItem, Promotion, Question, Weighted
from indexes.search.selection import Selection
from indexes.storage.filters import Condition, OfQuery
from indexes.vectors.contract import FilterMethod, Neighbours
from indexes.vectors.faiss_backend import FaissVectors
from model.errors import MissingAttributeError, UnknownItemError, UnknownRelationError
from model.similarity import Similarity, View
from tests.indexes.changes import made
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, ids, write_shop

BETWEEN = ("gardeners", "worn together / office", "new-parents")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"), token_store=True)


@pytest.fixture(scope="module")
def index(shop: FakeShop) -> Iterator[Index]:
    index = Index.open(shop.index)
    yield index
    index.close()


def asked(
    *item_ids: str, relations: Sequence[str | Weighted] = ("gardeners",), k: int = 5, **more: object
) -> Question:
    named = tuple(one if isinstance(one, Weighted) else Weighted(one) for one in relations)
    return Question(KnownItems(item_ids), named, Similarity.AVG, k, **more)  # type: ignore[arg-type]


def answer(index: Index, question: Question) -> list[tuple[str, float]]:
    return [(ids()[one.row], round(one.score, 5)) for one in found(index, question)]


def found(index: Index, question: Question) -> list[Found]:
    return index.reader().retrieve(question).found


def best(scores: ndarray, k: int, without: Sequence[str]) -> list[tuple[str, float]]:
    """Return the reference results: the `k` best of all scores, sorted."""
    rows = [row for row in range(len(ITEMS)) if ids()[row] not in without]
    rows.sort(key=lambda row: (-np.round(scores[row], 5), row))
    return [(ids()[row], round(float(scores[row]), 5)) for row in rows[:k]]


def scores_of(shop: FakeShop, item_id: str, relation: str) -> ndarray:
    vectors = shop.vectors(relation, View.AVERAGE)
    return np.asarray(vectors @ vectors[ids().index(item_id)])


def test_scores_several_relations_by_weighted_mean(shop: FakeShop, index: Index) -> None:
    question = asked("bib", relations=[Weighted("gardeners", 3.0), Weighted("new-parents", 1.0)])
    wanted = 0.75 * scores_of(shop, "bib", "gardeners") + 0.25 * scores_of(shop, "bib", "new-parents")
    assert answer(index, question) == best(wanted, 5, ["bib"])


def test_only_ratios_of_weights_matter(index: Index) -> None:
    one, other = ([Weighted("gardeners", 3 * by), Weighted("new-parents", by)] for by in (1.0, 0.01))
    assert answer(index, asked("bib", relations=one)) == answer(index, asked("bib", relations=other))


def test_without_relations_scores_each_item_under_its_best_relation(shop: FakeShop, index: Index) -> None:
    each = np.stack([scores_of(shop, "red-mug", relation) for relation in BETWEEN])
    results = found(index, asked("red-mug", relations=(), k=11))
    assert [(ids()[one.row], round(one.score, 5)) for one in results] == best(
        each.max(axis=0), 11, ["red-mug"]
    )
    assert [one.relation for one in results] == [BETWEEN[int(each[:, one.row].argmax())] for one in results]


def test_several_query_items_are_averaged(shop: FakeShop, index: Index) -> None:
    vectors = shop.vectors("gardeners", View.AVERAGE)
    mean = vectors[[ids().index("bib"), ids().index("cot")]].mean(axis=0)
    wanted = vectors @ (mean / np.linalg.norm(mean))
    assert answer(index, asked("bib", "cot")) == best(wanted, 5, ["bib", "cot"])


def test_new_item_finds_identical_catalogue_item_first(index: Index, shop: FakeShop) -> None:
    picture = Image.open(shop.prepared / ITEMS[0].picture)
    encoding = FakeEncoder().read_items([ITEMS[0].text], [picture], tokens=True)()
    for similarity in Similarity:
        question = Question(NewItem(encoding), (Weighted("gardeners"),), similarity, 1)
        if similarity in (Similarity.TT, Similarity.II, Similarity.AVG):
            assert [ids()[one.row] for one in found(index, question)] == ["red-mug"], similarity


def test_filter_of_a_catalogue_without_items_allows_none(tmp_path: Path) -> None:
    index = Index.open(write_shop(tmp_path).index)
    index.apply([Change(item_id) for item_id in ids()])
    encoding = FakeEncoder().read_items([ITEMS[0].text], [None])()
    kitchen = Selection(where={"categories": Condition(frozenset(["Kitchen"]))})
    question = Question(NewItem(encoding), (Weighted("gardeners"),), Similarity.TT, 3, selection=kitchen)
    assert index.reader().retrieve(question) == ([], (0.0, ("scan",)))
    index.close()


def test_blends_indexed_and_free_text_relations(index: Index, shop: FakeShop) -> None:
    worded = FakeEncoder().read_relation("Worn together at the office.")
    question = asked("bib", relations=[Weighted("gardeners", 1.0), Weighted(worded, 1.0)])
    tokens = index.snapshot.vectors(worded, View.AVERAGE, range(len(ITEMS)))
    wanted = (scores_of(shop, "bib", "gardeners") + tokens @ tokens[ids().index("bib")]) / 2
    assert [one for one, _ in answer(index, question)] == [one for one, _ in best(wanted, 5, ["bib"])]


def test_pages_are_slices_of_full_result(index: Index) -> None:
    whole = found(index, asked("bib", k=11))
    pages = [found(index, asked("bib", k=3, offset=offset)) for offset in (0, 3, 6, 9)]
    assert [one for page in pages for one in page] == whole
    assert [len(page) for page in pages] == [3, 3, 3, 2]


def test_omits_items_below_min_score(index: Index) -> None:
    whole = found(index, asked("bib", k=11))
    least = whole[4].score
    assert found(index, asked("bib", k=11, min_score=least)) == whole[:5]


def test_fallback_adds_best_items_under_other_relations(shop: FakeShop, index: Index) -> None:
    least = found(index, asked("bib"))[0].score
    results = found(index, asked("bib", k=4, min_score=least, fallback=True))
    assert [one.fallback for one in results[:1]] == [False]
    others = np.stack([scores_of(shop, "bib", relation) for relation in BETWEEN[1:]]).max(axis=0)
    without = ["bib", ids()[results[0].row]]
    wanted = [one for one in best(others, 3, without) if one[1] >= least]
    assert [(ids()[one.row], round(one.score, 5)) for one in results[1:]] == wanted
    assert all(one.fallback and one.relation in BETWEEN[1:] for one in results[1:])
    assert wanted


def test_promoted_items_receive_their_share_of_positions(index: Index) -> None:
    plain = [ids()[one.row] for one in found(index, asked("bib", k=11))]
    last = plain[-3:]
    results = found(index, asked("bib", k=6, promotion=Promotion(frozenset(last), 1 / 3)))
    assert [one.promoted for one in results] == [False, False, True, False, False, True]
    assert [ids()[one.row] for one in results if one.promoted] == last[:2]
    assert [ids()[one.row] for one in results if not one.promoted] == plain[:4]


def test_omits_promoted_item_that_fails_filter(index: Index) -> None:
    selection = Selection(exclude=frozenset(["cot"]), where={"price": Condition(least=1)})
    question = asked("bib", k=3, selection=selection, promotion=Promotion(frozenset(["cot", "bottle"]), 1.0))
    assert not [one for one in found(index, question) if one.promoted]


@given(
    promoted=st.lists(st.integers(0, 50), max_size=8, unique=True),
    others=st.lists(st.integers(51, 99), max_size=8, unique=True),
    share=st.floats(0.05, 1),
    depth=st.integers(0, 20),
)
def test_promoted_items_never_exceed_their_share_while_others_remain(
    promoted: list[int], others: list[int], share: float, depth: int
) -> None:
    promotion = Promotion(frozenset(), share)
    merged = promotion.merged(
        [Found(row, 0, "", promoted=True) for row in promoted], [Found(row, 0, "") for row in others], depth
    )
    assert len(merged) == min(depth, len(promoted) + len(others))
    assert [one.row for one in merged if one.promoted] == promoted[: sum(one.promoted for one in merged)]
    left = len(others)
    for place in range(len(merged)):
        if left:
            taken = sum(one.promoted for one in merged[: place + 1])
            assert taken <= share * (place + 1) + 1e-6
        left -= not merged[place].promoted


def test_condition_can_refer_to_query_item(index: Index) -> None:
    cheaper = Selection(where={"price": Condition(below=OfQuery("price"))})
    results = found(index, asked("twin-1", k=11, selection=cheaper))
    assert sorted(ids()[one.row] for one in results) == ["blue-mug", "red-mug", "twin-2"]
    at_most = Selection(where={"price": Condition(most=OfQuery("price", 1.4))})
    assert "tie" in [ids()[one.row] for one in found(index, asked("twin-1", k=11, selection=at_most))]


def test_filter_use_counts_generation_and_overlay(tmp_path: Path) -> None:
    index = Index.open(write_shop(tmp_path).index)
    priced = Selection(where={"price": Condition(below=25)})
    assert index.reader().retrieve(asked("bib", selection=priced)).filter_use == (3 / 12, ("scan",))
    index.apply([made("cheap", 1), made("dear", 500), made("red-mug", 300), made("blue-mug", 2)])
    assert len(index.reader()) == 14
    assert index.reader().retrieve(asked("bib", selection=priced)).filter_use == (3 / 14, ("scan",))
    assert index.reader().retrieve(asked("cheap", selection=priced)).filter_use == (2 / 14, ("scan",))
    assert index.reader().retrieve(asked("bib")).filter_use is None
    index.close()


def test_filter_use_names_each_way_in_which_the_relations_were_searched(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of the relation at an odd position have an ANN index that answers the filter."""
    search = FaissVectors.search

    def other_way(self: FaissVectors, relation: int, *given: Any) -> Neighbours:
        found = search(self, relation, *given)
        assert found.filtered is not None
        way: FilterMethod = "ann" if relation % 2 else "scan"
        return replace(found, filtered=replace(found.filtered, methods=(way,)))

    monkeypatch.setattr(FaissVectors, "search", other_way)
    priced = Selection(where={"price": Condition(below=25)})
    position = index.reader().position
    for relations in (("gardeners",), ("new-parents",), BETWEEN, ()):
        ways = [("scan", "ann")[position(one) % 2] for one in relations or BETWEEN]
        ranking = index.reader().retrieve(asked("bib", relations=relations, selection=priced))
        assert ranking.filter_use == (3 / 12, tuple(dict.fromkeys(ways)))


@pytest.mark.parametrize("item_id", ["bib", "twin-3"])
def test_rejects_condition_on_attribute_that_query_item_lacks(index: Index, item_id: str) -> None:
    cheaper = Selection(where={"price": Condition(below=OfQuery("price"))})
    with pytest.raises(MissingAttributeError, match=r"query\.price"):
        found(index, asked(item_id, selection=cheaper))


def test_error_names_unknown_item_or_relation(index: Index) -> None:
    with pytest.raises(UnknownItemError, match="unicorn"):
        found(index, asked("bib", "unicorn"))
    with pytest.raises(UnknownRelationError, match="sailors"):
        found(index, asked("bib", relations=["gardeners", "sailors"]))


def test_omits_variants_of_promoted_item(index: Index) -> None:
    selection = Selection(group_by="model")
    question = asked("bib", k=11, selection=selection, promotion=Promotion(frozenset(["twin-2"]), 0.5))
    rows = [ids()[one.row] for one in found(index, question)]
    assert rows[1] == "twin-2"
    assert not {"twin-1", "twin-3"} & set(rows)


@pytest.mark.parametrize("group_by", [None, "model"])
def test_pages_with_promoted_items_are_slices_of_full_result(index: Index, group_by: str | None) -> None:
    plain = [ids()[one.row] for one in found(index, asked("bib", k=11))]
    question = asked(
        "bib",
        k=11,
        promotion=Promotion(frozenset(plain[2:8]), 0.25),
        selection=Selection(group_by=group_by),
    )
    whole = found(index, question)
    pages = [found(index, replace(question, k=3, offset=offset)) for offset in (0, 3, 6, 9)]
    assert [one for page in pages for one in page] == whole
    assert len({one.row for one in whole}) == len(whole)


def test_promotion_does_not_delay_item_that_ranks_earlier(index: Index) -> None:
    plain = [ids()[one.row] for one in found(index, asked("bib", k=11))]
    results = found(index, asked("bib", k=4, promotion=Promotion(frozenset([plain[0], plain[-1]]), 1 / 3)))
    assert [ids()[one.row] for one in results] == [plain[0], plain[1], plain[-1], plain[2]]
    assert [one.promoted for one in results] == [False, False, True, False]


def test_diversity_does_not_choose_items_below_min_score(index: Index) -> None:
    least = found(index, asked("bib", k=6))[-1].score
    diverse = Selection(diversity=0.99)
    results = found(index, asked("bib", k=5, selection=diverse, min_score=least))
    assert len(results) == 5
    several = found(index, asked("bib", relations=BETWEEN[:2], k=5, selection=diverse, min_score=0.0))
    assert len(several) == min(5, len(found(index, asked("bib", relations=BETWEEN[:2], k=11, min_score=0.0))))


def test_lookup_of_precomputed_answers_allows_at_most_100_excluded_items(index: Index) -> None:
    def without(count: int) -> Question:
        gone = frozenset(["cot", *(f"gone-{number}" for number in range(1, count))])
        return asked("bib", selection=Selection(exclude=gone))

    at_once = index.reader().precomputed(without(100))
    assert at_once is not None
    assert index.reader().precomputed(without(101)) is None
    assert found(index, without(101)) == at_once


def test_fallback_without_relations_runs_no_second_search(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []

    def counted(*given: Any) -> Neighbours:
        searches.append(given)
        return ranking.choose(*given)

    monkeypatch.setattr("indexes.search.retrieve.choose", counted)
    assert len(found(index, asked("bib", relations=(), k=20, fallback=True))) == 11
    assert len(searches) == 1


@pytest.mark.parametrize("relations", [("gardeners", "new-parents"), ()])
def test_equal_scores_are_in_catalogue_order_for_every_k(index: Index, relations: tuple[str, ...]) -> None:
    """Three items are identical, so some cutoff falls between them."""
    for item_id in ids():
        whole = found(index, asked(item_id, relations=relations, k=11))
        for k in range(1, 11):
            assert found(index, asked(item_id, relations=relations, k=k)) == whole[:k], (item_id, k)


def test_groups_variants_among_nearest_items_only(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = {"twin-1", "twin-2", "twin-3"}
    plain = {one: found(index, asked(one, k=2)) for one in ids()}
    item_id = next(
        one for one in ids() if {ids()[hit.row] for hit in plain[one]} < twins and one not in twins
    )
    question = asked(item_id, k=2, selection=Selection(group_by="model"))
    assert len(found(index, question)) == 2
    monkeypatch.setattr("indexes.search.diversity.MAX_GROUPED_ITEMS", 2)
    assert found(index, question) == plain[item_id][:1]
