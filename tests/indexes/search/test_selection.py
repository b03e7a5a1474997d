"""Filters, grouping and diversity, compared with plain loops."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes.index import Index
from indexes.journal.change import Change
from indexes.search.diversity import mmr_order
from indexes.search.selection import Selection
from indexes.storage.filters import Condition, OfQuery
from model.errors import AttributeTypeError, UnknownAttributeError
from model.records import Item
from model.similarity import Similarity, View
from tests.indexes.changes import Expected, copied, made
from tests.indexes.fakes import FakeShop, ids

CHANGES = [made("new-1", 1), Change("cot"), made("bib", 2), made("new-2", 3)]
KNOWN = st.frozensets(st.sampled_from([*ids(), "new-1", "new-2", "no such item"]))


@pytest.fixture(scope="module", params=["changes in the overlay", "changes compacted"])
def changed(
    request: pytest.FixtureRequest, shop: FakeShop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Index, Expected]]:
    """Yield an index with original, added, replaced and deleted items, and its expected contents."""
    index = Index.open(copied(shop, Path(tmp_path_factory.mktemp("selection"))))
    expected = Expected(shop)
    index.apply(CHANGES)
    expected.apply(*CHANGES)
    if request.param == "changes compacted":
        index.compact()
    yield index, expected
    index.close()


@given(
    include=st.none() | KNOWN,
    exclude=KNOWN,
    k=st.integers(1, 20),
    similarity=st.sampled_from(Similarity),
    asked=st.sampled_from(["red-mug", "new-1", "bib", "twin-2"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_finds_best_allowed_items_in_order(
    changed: tuple[Index, Expected],
    include: frozenset[str] | None,
    exclude: frozenset[str],
    k: int,
    similarity: Similarity,
    asked: str,
) -> None:
    index, expected = changed
    hits = index.reader().neighbours(asked, "gardeners", similarity, k, Selection(include, exclude))
    wanted = [
        (item_id, score)
        for item_id, score in expected.ranking(asked, "gardeners", similarity)
        if (include is None or item_id in include) and item_id not in exclude
    ]
    assert [(hit.item.item_id, hit.score) for hit in hits] == wanted[:k]


def test_filter_applies_to_search_by_vector(changed: tuple[Index, Expected]) -> None:
    index, _ = changed
    row = index.snapshot.row("twin-1")
    query = index.snapshot.vectors(1, View.TEXT, [row])[0]
    found = index.reader().search(
        query, "gardeners", View.TEXT, 5, Selection(frozenset({"twin-2", "tie", "cot"}))
    )
    assert [hit.item.item_id for hit in found] == ["twin-2", "tie"]
    assert found[0].score == pytest.approx(1, abs=1e-3)


@given(st.integers(1, 12), st.integers(1, 15), st.floats(0.01, 0.99), st.integers(0, 10_000))
def test_mmr_matches_plain_loops(n: int, k: int, diversity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    scores = np.sort(rng.uniform(-1, 1, n).astype(np.float32))[::-1].copy()
    chosen: list[int] = []
    while len(chosen) < min(n, k):
        gains = {}
        for one in set(range(n)) - set(chosen):
            alike = max((float(vectors[one] @ vectors[other]) for other in chosen), default=0.0)
            gains[one] = (1 - diversity) * float(scores[one]) - diversity * alike
        best = max(gains, key=lambda one: (gains[one], -one))
        chosen.append(best)
    found = mmr_order(scores, vectors, k, diversity)
    if found != chosen:  # two gains may be equal except for rounding
        at = next(place for place, (one, other) in enumerate(zip(found, chosen, strict=True)) if one != other)
        assert gain_of(found[at], found[:at], scores, vectors, diversity) == pytest.approx(
            gain_of(chosen[at], chosen[:at], scores, vectors, diversity), abs=1e-5
        )


def gain_of(one: int, chosen: list[int], scores: np.ndarray, vectors: np.ndarray, diversity: float) -> float:
    alike = max((float(vectors[one] @ vectors[other]) for other in chosen), default=0.0)
    return (1 - diversity) * float(scores[one]) - diversity * alike


def test_diversity_keeps_only_one_of_several_twins(changed: tuple[Index, Expected]) -> None:
    index, _ = changed
    plain = index.reader().neighbours("trowel", "gardeners", Similarity.TT, 4)
    spaced = index.reader().neighbours("trowel", "gardeners", Similarity.TT, 4, Selection(diversity=0.5))
    twins = {"twin-1", "twin-2", "twin-3"}
    assert len(twins & {hit.item.item_id for hit in plain}) == 3
    assert spaced[0].item.item_id == plain[0].item.item_id
    assert len(twins & {hit.item.item_id for hit in spaced}) == 1


VALUES = st.sampled_from([8.5, 25, 24.99, "on request", "Ton", "mug", "can", "red", True, 0, 1, 2, 3])
BOUNDS = st.none() | st.sampled_from([0, 1, 2, 8.5, 24.99, 25, 200])
CONDITIONS = st.builds(Condition, st.none() | st.frozensets(VALUES, min_size=1), BOUNDS, BOUNDS)
NAMES = st.sampled_from(["price", "stock", "brand", "model", "sale"])
CATEGORIES = st.builds(Condition, st.frozensets(st.sampled_from(["Kitchen", "Tools", "red", "blue"])))


def holds(item: Item, name: str, condition: Condition) -> bool:
    """Return whether one item meets a condition."""
    for value in item.categories if name == "categories" else [item.attributes.get(name)]:
        if value is None or (condition.any_of is not None and value not in condition.any_of):
            continue
        low, high = condition.least, condition.most
        assert not isinstance(low, OfQuery)
        assert not isinstance(high, OfQuery)
        if (low is None and high is None) or (
            not isinstance(value, str) and (low is None or value >= low) and (high is None or value <= high)
        ):
            return True
    return False


@given(
    where=st.dictionaries(NAMES, CONDITIONS, max_size=2),
    categories=st.none() | CATEGORIES,
    k=st.integers(1, 20),
)
def test_finds_exactly_the_items_that_meet_all_conditions(
    changed: tuple[Index, Expected], where: dict[str, Condition], categories: Condition | None, k: int
) -> None:
    index, expected = changed
    conditions = where if categories is None else {**where, "categories": categories}
    wanted = []
    for item_id, score in expected.ranking("new-1", "gardeners", Similarity.AVG):
        item = expected.items[item_id].item
        assert item is not None
        if all(holds(item, name, condition) for name, condition in conditions.items()):
            wanted.append((item_id, score))
    try:
        hits = index.reader().neighbours("new-1", "gardeners", Similarity.AVG, k, Selection(where=conditions))
    except AttributeTypeError:  # only if no item can meet a condition because of its type
        assert wanted == []
        return
    assert [(hit.item.item_id, hit.score) for hit in hits] == wanted[:k]


@pytest.mark.parametrize("compacted", [False, True])
def test_conditions_hold_before_and_after_compaction(shop: FakeShop, tmp_path: Path, compacted: bool) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply([*CHANGES, made("dear", 500)])
    if compacted:
        index.compact()
    dear = index.reader().neighbours(
        "tie", "gardeners", Similarity.AVG, 9, Selection(where={"price": Condition(least=30)})
    )
    assert {hit.item.item_id for hit in dear} == {"dear"}
    named = Selection(where={"price": Condition(frozenset({"on request"}))})
    found = index.reader().neighbours("tie", "gardeners", Similarity.AVG, 9, named)
    assert [(hit.item.item_id, hit.item.attributes["price"]) for hit in found] == [("twin-3", "on request")]
    index.close()


def test_finds_only_best_of_each_group_of_variants(changed: tuple[Index, Expected]) -> None:
    index, expected = changed
    plain = expected.ranking("trowel", "gardeners", Similarity.AVG)
    seen, wanted = set(), []
    for item_id, score in plain:
        item = expected.items[item_id].item
        assert item is not None
        model = item.attributes.get("model")
        if model is None or model not in seen:
            wanted.append((item_id, score))
        seen.add(model)
    assert len(wanted) < len(plain)
    for k in (1, 3, 50):
        hits = index.reader().neighbours(
            "trowel", "gardeners", Similarity.AVG, k, Selection(group_by="model")
        )
        assert [(hit.item.item_id, hit.score) for hit in hits] == wanted[:k]


def test_omits_variants_of_query_item(changed: tuple[Index, Expected]) -> None:
    index, _ = changed
    hits = index.reader().neighbours("twin-1", "gardeners", Similarity.AVG, 50, Selection(group_by="model"))
    assert not {"twin-1", "twin-2", "twin-3"} & {hit.item.item_id for hit in hits}
    assert "trowel" in {hit.item.item_id for hit in hits}


@pytest.mark.parametrize(
    "selection", [Selection(where={"colour": Condition(least=1)}), Selection(group_by="colour")]
)
def test_error_names_unknown_attribute(changed: tuple[Index, Expected], selection: Selection) -> None:
    index, _ = changed
    with pytest.raises(UnknownAttributeError, match=r"'colour'.*brand, model, price, sale, stock"):
        index.reader().neighbours("tie", "gardeners", Similarity.AVG, 3, selection)


@pytest.mark.parametrize(
    ("name", "condition", "said"),
    [
        ("brand", Condition(least=1), "'brand' holds only texts, but its filter condition has a bound"),
        (
            "brand",
            Condition(frozenset({"Ton"}), below=9.5),
            "'brand' holds only texts, but its filter condition has",
        ),
        (
            "brand",
            Condition(frozenset({1})),
            "'brand' holds only texts, but its filter condition lists only num",
        ),
        (
            "stock",
            Condition(frozenset({"7"})),
            "'stock' holds only numbers, but its filter condition lists only texts",
        ),
        (
            "categories",
            Condition(most=3),
            "'categories' holds only texts, but its filter condition has a bound",
        ),
    ],
)
def test_condition_that_can_never_match_because_of_the_type_is_refused(
    index: Index, name: str, condition: Condition, said: str
) -> None:
    with pytest.raises(AttributeTypeError, match=said):
        index.reader().neighbours("tie", "gardeners", Similarity.AVG, 3, Selection(where={name: condition}))
