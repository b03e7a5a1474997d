"""Names and texts of the relations of a log: generated, from a preset, or edited by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scipy.sparse as sp

from model.data.prepare_config import PresetName
from model.data.relations.clusters import InteractionLog
from model.data.relations.presets import read_preset
from model.data.relations.relation_names import name_clusters
from model.errors import InputError

BOOKS = "Co-purchased by people who overwhelmingly buy Books, while showing minimal engagement in Pans."
PANS = "Co-purchased by people who overwhelmingly buy Pans, while showing minimal engagement in Books."


def named(
    counts: Sequence[Sequence[int]] = ((9, 0), (0, 9)),
    categories: Sequence[str] = ("Books", "Pans"),
    preset: PresetName | None = None,
    texts: Mapping[str, str] | None = None,
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Name the clusters of users of whom each is a cluster, with the given numbers of items of each category."""
    taken = sp.csr_array(np.array(counts, dtype=float))
    log = InteractionLog(taken, sp.csr_array(np.eye(len(categories))), tuple(categories))
    found, told = name_clusters(log, np.arange(len(counts)), "buy", preset, texts)
    return [(relation.relation_id, relation.description) for relation in found], told


def test_generated_names_are_told_nothing_about() -> None:
    assert named() == ([("books", BOOKS), ("pans", PANS)], ())


def test_a_text_edited_by_hand_is_kept_and_a_missing_one_told() -> None:
    found, told = named(texts={"pans": "Bought by cooks."})
    assert found == [("books", BOOKS), ("pans", "Bought by cooks.")]
    assert told == (
        "1 of 2 relations have the texts of --relation-texts.",
        "--relation-texts lacks relations, which keep their generated texts: books.",
    )


def test_a_text_of_an_unknown_relation_is_told() -> None:
    found, told = named(texts={"pans": "Cooks.", "books": "Readers.", "tents": "Campers."})
    assert [text for _, text in found] == ["Readers.", "Cooks."]
    assert told[1:] == ("--relation-texts describes relations that the log does not have: tents.",)


def test_rejects_texts_of_which_none_belongs_to_the_log() -> None:
    with pytest.raises(
        InputError, match=r"describes the relations tents, but the log has the relations books, pans"
    ):
        named(texts={"tents": "Campers."})


def test_rejects_a_hand_text_that_two_relations_would_share() -> None:
    with pytest.raises(InputError, match="the relations 'books' and 'pans' have the same text"):
        named(texts={"pans": BOOKS})


def test_a_preset_gives_its_relations_names_for_people() -> None:
    taken = sp.csr_array(np.array([[90.0, 5, 5], [5, 90, 5], [10, 10, 80]]))
    log = InteractionLog(taken, sp.csr_array(np.eye(3)), ("Feeding", "Nursery", "Safety"))
    found, _ = name_clusters(log, np.arange(3), "buy", "baby")
    assert [relation.name for relation in found] == [
        "Feeding",
        "Nursery, then Feeding",
        "Safety, then Nursery",
    ]


def test_a_preset_names_its_clusters_and_the_others_keep_their_descriptions() -> None:
    categories = ("Feeding", "Nursery", "Safety")
    counts = [[90, 5, 5], [5, 90, 5], [10, 10, 80]]
    found, told = named(counts, categories, "baby")
    texts = {relation.relation_id: relation.description for relation in read_preset("baby")}
    assert found == [(name, texts[name]) for name in ("feeding", "nursery", "safety")]
    assert told[0].startswith(
        "Preset 'baby': 'feeding' describes the cluster 'feeding-safety' (Jensen-Shannon distance 0."
    )
    assert told[3].startswith(
        "Preset 'baby': 7 of 10 relations are unused, because there are only 3 clusters: car-seats"
    )


def test_more_clusters_than_relations_of_a_preset_are_told() -> None:
    categories = [*(next(iter(relation.profile)) for relation in read_preset("goodreads")), "maps"]
    found, told = named((100 * np.eye(9, dtype=int) + 1).tolist(), categories, "goodreads")
    assert [name for name, _ in found][-1].startswith("maps")
    assert found[-1][1].startswith("Co-purchased by people who overwhelmingly buy maps")
    assert told[-1] == (
        "Preset 'goodreads' has 8 relations for 9 clusters; the others keep their generated descriptions. "
        "Use --clusters 8."
    )
    assert len({name for name, _ in found}) == 9


def test_hand_texts_replace_those_of_a_preset() -> None:
    found, _ = named([[90, 10], [10, 90]], ("Feeding", "Nursery"), "baby", {"nursery": "Rooms."})
    assert dict(found)["nursery"] == "Rooms."
    assert dict(found)["feeding"].startswith("Co-purchased by people who overwhelmingly favor Feeding")
