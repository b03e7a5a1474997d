"""The verdict says whether training is worth its time, and names an option with a value."""

from typing import Any

import pytest

from model.data.report.preparation_report import (
    FileCounts,
    FilterStep,
    ItemCounts,
    PreparationReport,
    RelationCounts,
    SplitCounts,
)
from model.data.report.preparation_verdict import judge

from .shop import options

GOOD_LOG = {
    "interactions": 9000, "of_unknown_items": 0, "without_repeats": 9000, "of_latest_items": 9000,
    "kept_interactions": 8000, "kept_users": 400, "kept_items": 900,
}  # fmt: skip


def relation(name: str, train: int = 700, users: int | None = 200) -> RelationCounts:
    return RelationCounts(
        relation=name,
        description=name,
        users=users,
        items=300,
        pairs=SplitCounts(train=train, validation=60, test=120),
    )


def good(**changes: Any) -> PreparationReport:
    """Return a report of which nothing is to be said."""
    content: dict[str, Any] = {
        "items": ItemCounts(kept=1000, text_only=0, train=700, validation=100, test=200),
        "log": GOOD_LOG,
        "pairs": 1700,
        "pairs_of_one_relation": 1500,
        "edges_across_kept": 900,
        "edges_across_dropped": 10,
        "relations": (relation("read"), relation("cook")),
        "set_aside": {},
        "trained_items": 600,
        "filters": (FilterStep(step="in the log", interactions=9000),),
    }
    return PreparationReport(**{**content, **changes})


def test_good_data_is_worth_the_time() -> None:
    verdict = judge(good(), options())
    assert (verdict.training, verdict.notes) == ("worth", ())
    assert verdict.sentence == (
        "Training is worth its time: it has 1,400 pairs under 2 relations, and at least 700 under each."
    )


def test_notes_on_pairs_and_on_users_advise_the_same_number_of_clusters() -> None:
    rows = (*map(relation, ("read", "cook", "swim")), relation("sew", 40), relation("dig", users=12))
    remedies = [note.remedy for note in judge(good(relations=rows), options()).notes]
    assert [remedy.partition(" or ")[0].rstrip(",") for remedy in remedies] == 2 * ["Try --clusters 3"]


@pytest.mark.parametrize(
    ("changes", "chosen", "text", "remedy"),
    [
        (
            {"relations": (relation("read"), relation("cook"), relation("swim", 40))},
            {},
            "Too few pairs for training (below 100) to learn 1 of 3 relations: swim (40).",
            "Try --clusters 2 or --min-support 2 (now 3), or give a longer log.",
        ),
        (
            {"relations": (relation("read"), relation("cook", 90))},
            {"min_support": 2},
            "Too few pairs for training (below 100) to learn 1 of 2 relations: cook (90).",
            "Try --partners 20 (now 10), or give a longer log.",
        ),
        (
            {"relations": (relation("read"), relation("swim"), relation("cook", users=12))},
            {},
            "Fewer than 20 users stand behind 1 of 3 relations: cook (12).",
            "Try --clusters 2, or give a longer log.",
        ),
        (
            {"relations": (relation("read"), relation("cook", users=12))},
            {},
            "Fewer than 20 users stand behind 1 of 2 relations: cook (12).",
            "Give a longer log.",
        ),
        (
            {"relations": (relation("read"),)},
            {},
            "There is only one relation, so the network cannot learn what differs between relations.",
            "Give the items more categories, from which the groups of users are found.",
        ),
        (
            {"items": ItemCounts(kept=1000, text_only=400, train=400, validation=60, test=140)},
            {},
            "400 of 1,000 items (40 %) have no picture: they are indexed, but not trained on.",
            "Give their pictures in the column image, or the folder of the pictures with --images.",
        ),
        (
            {"trained_items": 70},
            {},
            "Only 70 of 700 training items (10 %) have a pair. The network learns the others from their own text and "
            "picture alone.",
            "Try --min-support 2 (now 3), or give a longer log.",
        ),
        (
            {"pairs_of_one_relation": 300},
            {},
            "82 % of the pairs belong to several relations, which therefore differ little.",
            "Try --clusters 2, or a higher --min-npmi than 0.",
        ),
        (
            {"log": {**GOOD_LOG, "kept_interactions": 900}},
            {},
            "The filters keep 900 of 9,000 interactions (10 %).",
            "Try --min-user-items 2 --min-item-users 2, or give a longer log.",
        ),
        (
            {"set_aside": {f"i{number}": "no picture" for number in range(200)}},
            {},
            "200 of 1,200 items were skipped (17 %).",
            "The reasons are listed under Skipped items.",
        ),
        (
            {"files": (FileCounts(file="log.csv", rows=1000, kept=600, skipped=(), notes=()),)},
            {},
            "400 of 1,000 rows of log.csv were set aside (40 %).",
            "The reasons are listed under Files.",
        ),
        (
            {"log": {**GOOD_LOG, "of_unknown_items": 21_000}},
            {},
            "21,000 interactions name no kept item, and only 9,000 do.",
            "Give the items that the log names, with the same IDs. --repair-ids joins IDs that differ only in blanks, "
            "case, leading zeros or a final .0.",
        ),
    ],
)
def test_one_doubt_names_its_remedy(
    changes: dict[str, Any], chosen: dict[str, Any], text: str, remedy: str
) -> None:
    verdict = judge(good(**changes), options(**chosen))
    assert [(note.text, note.remedy) for note in verdict.notes] == [(text, remedy)]
    assert verdict.training == "doubtful"
    assert verdict.sentence.startswith("Training can be worth its time, after a look at one point.")


def held_out(validation: int, test: int) -> tuple[RelationCounts, ...]:
    pairs = SplitCounts(train=700, validation=validation, test=test)
    return tuple(relation(name).model_copy(update={"pairs": pairs}) for name in ("read", "cook"))


def test_few_validation_and_test_pairs_name_a_larger_share() -> None:
    verdict = judge(good(relations=held_out(9, 30)), options(validation_share=0.1, test_share=0.1))
    assert [note.text for note in verdict.notes] == [
        "Only 18 pairs with a validation item; early stopping needs about 50 to be more than chance.",
        "Only 60 pairs with a test item; rcml evaluate needs about 100 to be more than chance.",
    ]
    assert [note.remedy for note in verdict.notes] == [
        "Try --validation-share 0.2 (now 0.1).",
        "Try --test-share 0.2 (now 0.1).",
    ]


def test_pairs_across_the_splits_count_for_validation() -> None:
    across = SplitCounts(train=0, validation=40, test=60)
    assert judge(good(relations=held_out(9, 30), pairs_across=across), options()).notes == ()


def test_too_few_pairs_are_not_worth_the_time_and_come_first() -> None:
    few = (relation("read", 200), relation("cook", 60))
    verdict = judge(good(relations=few, trained_items=90), options())
    assert verdict.training == "not yet"
    assert verdict.sentence == "Training is not worth its time yet: it has 260 pairs under 2 relations."
    assert [note.serious for note in verdict.notes] == [True, False, False]
    assert (
        verdict.notes[0].text == "There are only 260 pairs for training; fewer than 500 are learnt by heart."
    )


def test_data_without_pictures_cannot_be_trained_on() -> None:
    bare = ItemCounts(kept=1000, text_only=1000, train=0, validation=0, test=0)
    verdict = judge(good(items=bare), options())
    assert verdict.training == "not yet"
    assert verdict.sentence == (
        "Nothing can be trained yet, because no item has a picture. There are 1,400 pairs under 2 relations."
    )
    assert verdict.notes == ()


def test_ready_made_edges_ask_for_more_edges_and_not_for_options_of_logs() -> None:
    few = (relation("read", 90, None), relation("cook", 60, None))
    verdict = judge(good(relations=few, filters=(), log={}), options())
    assert [note.remedy for note in verdict.notes] == ["Give more edges.", "Give more edges."]
