"""Questions: the paper's come first and are unchanged, and only query items may be training items."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.config import EvaluateConfig
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.evaluation.baselines.evidence import Evidence
from model.evaluation.evaluation_set import EvaluationSet, make_evaluation_set
from model.evaluation.metrics import interval, relation_type_scores, retrieval_hits
from model.records import Split
from model.similarity import Similarity
from tests.model.evaluation.logged import USERS_OF_A_GROUP, with_log


@pytest.fixture(scope="module")
def logged(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return with_log(prepared, tmp_path_factory.mktemp("logged") / "prepared")


def questions_of(prepared: Prepared, most: int = 20_000) -> EvaluationSet:
    config = EvaluateConfig(
        checkpoint=Path("unused"), prepared=prepared.path, out=Path("unused"), max_queries=most
    )
    return make_evaluation_set(prepared, config)


def without_log(prepared: Path) -> Prepared:
    return replace(Prepared.open(prepared), edges_across=())


def digest(*arrays: np.ndarray) -> str:
    content = b"".join(np.ascontiguousarray(array, dtype="<i8").tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()[:16]


def test_questions_of_the_paper_and_their_figures_are_unchanged(prepared: Path) -> None:
    # Recorded with the split by a hash of the item IDs.
    questions = questions_of(Prepared.open(prepared))
    queries, claims = questions.queries, questions.claims
    assert digest(queries.item, queries.relation, queries.candidates) == "21b075883fcb771b"
    assert digest(claims.pairs.a, claims.pairs.b, claims.pairs.relation, claims.valid) == "be2a14eb2a04177a"
    rng = np.random.default_rng(0)
    text, image = rng.normal(size=(2, len(questions.texts), 3, 8)).astype(np.float32)
    hits = retrieval_hits(Encoding(text, image), queries, Similarity.AVG)
    types = relation_type_scores(Encoding(text, image), questions.edges, Similarity.TI, questions.known)
    assert hits.mean() == pytest.approx(0.2644230769)
    assert interval(hits, queries.item, np.random.default_rng(0)) == pytest.approx(
        (0.2232431390, 0.3097089753)
    )
    assert types.mean(axis=0) == pytest.approx([-0.1854999065, 0.0576858595], abs=1e-6)


def test_other_questions_do_not_change_those_of_the_paper(prepared: Path, logged: Prepared) -> None:
    plain, more = questions_of(without_log(prepared)), questions_of(logged)
    np.testing.assert_array_equal(plain.queries.candidates, more.queries.candidates)
    np.testing.assert_array_equal(plain.claims.pairs.b, more.claims.pairs.b)
    assert list(plain.retrieval) == ["random", "hard"]
    assert list(more.retrieval) == ["random", "hard", "training"]
    assert list(plain.catalogues) == ["new"]
    assert list(more.catalogues) == ["new", "training"]


def test_query_items_from_training_are_linked_to_new_items(logged: Prepared) -> None:
    questions = questions_of(logged)
    known = {
        (edge.item_a, edge.item_b, edge.relation_id)
        for edge in logged.edges_across
        if edge.split == Split.TEST
    }
    queries = questions.retrieval["training"]
    assert len(queries.item) == questions.asked["training"] == len(known)
    for item, relation, partner in zip(
        questions.rows[queries.item], queries.relation, questions.rows[queries.candidates[:, 0]], strict=True
    ):
        assert (logged.splits[item], logged.splits[partner]) == (Split.TRAIN, Split.TEST)
        a, b = sorted(logged.items[row].item_id for row in (item, partner))
        assert (a, b, logged.relations[relation].relation_id) in known
    assert queries.candidates.max() < len(questions.texts)


def test_training_items_follow_the_test_items(logged: Prepared) -> None:
    questions = questions_of(logged)
    texts = [logged.items[row].text for row in questions.rows]
    assert texts == questions.texts + questions.training_texts
    assert {logged.splits[row] for row in questions.rows[len(questions.texts) :]} == {Split.TRAIN}
    assert len(questions.training_pictures) == len(questions.training_texts) > 0


def test_full_catalogue_asks_for_all_partners(logged: Prepared) -> None:
    questions = questions_of(logged)
    queries = questions.catalogues["new"]
    assert len(queries.partner) == 2 * len(questions.edges)
    assert queries.catalogue.tolist() == list(range(len(questions.texts)))
    across = questions.catalogues["training"]
    assert len(across.partner) == questions.asked["training"]
    assert across.item.min() >= len(questions.texts) > across.partner.max()


def test_limit_of_queries_also_limits_training_items_and_compared_items(logged: Prepared) -> None:
    questions = questions_of(logged, most=40)
    assert len(questions.queries.item) == len(questions.catalogues["new"]) == 40
    assert 0 < questions.asked["training"] <= 40
    assert len(questions.training_texts) < len(questions_of(logged).training_texts)
    assert len(questions.pairs.items) == 40 // len(questions.known)


def test_popularity_is_the_number_of_users_or_of_partners(prepared: Path, logged: Prepared) -> None:
    # Three users take all items of the item's colour, and three all items of its shape.
    assert set(questions_of(logged).popularity.tolist()) == {2 * USERS_OF_A_GROUP}
    plain = without_log(prepared)
    partners = plain.partners()
    questions = questions_of(plain)
    assert questions.popularity.tolist() == [
        len(partners[plain.items[row].item_id]) for row in questions.rows
    ]


def test_without_partners_across_splits_nothing_is_asked_about_them(logged: Prepared) -> None:
    validation = tuple(replace(edge, split=Split.VALIDATION) for edge in logged.edges_across)
    questions = questions_of(replace(logged, edges_across=validation))
    assert "training" not in questions.retrieval
    assert questions.training_texts == []


def test_evidence_contains_only_training_items_but_for_the_popularity(logged: Prepared) -> None:
    found = Evidence.of(logged)
    assert found.taken is not None
    assert found.users is not None
    training = set(logged.rows(Split.TRAIN))
    for taken, relation in zip(found.taken, logged.relations, strict=True):
        assert set(taken.indices.tolist()) == (set() if relation.intra else training)
        assert taken.shape[0] == (0 if relation.intra else 6 * USERS_OF_A_GROUP)
    assert set(found.users.tolist()) == {2 * USERS_OF_A_GROUP}
    assert set(found.edges.a.tolist()) | set(found.edges.b.tolist()) <= training
    first = found.taken[1].toarray()[0]
    colours = {logged.items[row].title.split()[0] for row in np.flatnonzero(first)}
    assert len(colours) == 1
