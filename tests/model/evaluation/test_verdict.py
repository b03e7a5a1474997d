"""The verdict says what conditioning adds, or honestly that it adds nothing."""

import pytest

from model.embeddings.attention_entropy import AttentionEntropy
from model.evaluation.figures import (
    Comparison,
    Estimate,
    Negatives,
    RelationTypeFigures,
    RetrievalFigures,
    Role,
    Verdict,
)
from model.evaluation.verdict import verdict

NONE = "makes no measurable difference to AVG Hit@5 over the same network without it (+0.004, "


def estimate(value: float, margin: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - margin, high=value + margin)


def compared(value: float, p: float) -> Comparison:
    return Comparison(difference=estimate(value), p=p / 2, p_holm=p)


def retrieval(own: float, p: float = 0.0001, **rivals: float) -> RetrievalFigures:
    return RetrievalFigures(
        queries=100,
        left_out=0,
        negatives=20,
        hit_at_5={name: estimate(value) for name, value in {"rcml": own, "blind": own, **rivals}.items()},
        comparisons={name: compared(own - value, p) for name, value in rivals.items()},
    )


def types(
    difference: float = 0.2, p: float = 0.001, frequency: float = 0.5, membership: float = 0.1
) -> RelationTypeFigures:
    return RelationTypeFigures(
        edges=10,
        top_3={"frequency": estimate(frequency)},
        log_loss={},
        comparisons={
            "frequency": compared(difference, p),
            "frequency x membership": compared(membership, 0.001),
        },
    )


def judged(
    table: RetrievalFigures,
    relation_type: RelationTypeFigures | None = None,
    tested: Role = "rcml",
    hard: RetrievalFigures | None = None,
) -> Verdict:
    tables: dict[Negatives, RetrievalFigures] = {"random": table}
    if hard is not None:
        tables["hard"] = hard
    return verdict(tested, tables, relation_type or types())


def test_says_what_conditioning_adds_and_what_is_best_without_a_network() -> None:
    found = judged(retrieval(0.6, blind=0.56, random=0.238, membership=0.5, text=0.45))
    assert found.effect == "adds"
    assert found.sentence == (
        "On your data relation conditioning adds 0.040 (95 % interval 0.020 to 0.060, p < 0.001) to AVG Hit@5 over the "
        "same network without it. The best of what needs no network, the membership prior, reaches 0.500 "
        "(network: 0.600)."
    )
    assert found.warnings == ()


def test_says_that_conditioning_makes_no_difference() -> None:
    found = judged(retrieval(0.6, p=0.4, blind=0.596, random=0.238))
    assert found.effect == "none"
    assert NONE in found.sentence
    assert "p = 0.400" in found.sentence
    assert found.warnings[0].startswith("The network is not better than the same network without relations")


def test_says_what_conditioning_costs() -> None:
    found = judged(retrieval(0.6, blind=0.7, random=0.238))
    assert found.effect == "costs"
    assert "relation conditioning costs 0.100" in found.sentence
    assert "not better than the same network without relations" in found.warnings[0]


@pytest.mark.parametrize(("p", "effect"), [(0.05, "adds"), (0.051, "none")])
def test_differences_are_measurable_up_to_p_of_5_percent(p: float, effect: str) -> None:
    assert judged(retrieval(0.6, p=p, blind=0.596, random=0.238)).effect == effect


def test_without_blind_there_is_no_verdict_on_conditioning() -> None:
    found = judged(retrieval(0.6, random=0.238))
    assert found.effect is None
    assert found.sentence.startswith("Without --blind")


def test_another_objective_says_nothing_about_conditioning() -> None:
    found = judged(retrieval(0.6, random=0.238), tested="blind")
    assert found.effect is None
    assert found.sentence.startswith("The tested network was trained with --objective blind")


def test_warns_if_a_baseline_is_as_good() -> None:
    found = judged(retrieval(0.4, blind=0.3, random=0.238, popularity=0.41))
    assert found.warnings == ("The network is not better than popularity, which needs no network.",)


def test_popularity_does_not_hide_the_best_baseline_of_new_items() -> None:
    found = judged(retrieval(0.4, blind=0.3, random=0.238, popularity=0.5, text=0.41))
    assert found.sentence.endswith(
        "The best of what needs no network, popularity, reaches 0.500. An item new to the shop has no popularity yet; "
        "there the best is the TF-IDF cosine with 0.410 (network: 0.400)."
    )
    assert [warning.partition(",")[0] for warning in found.warnings] == [
        "The network is not better than popularity", "The network is not better than the TF-IDF cosine"
    ]  # fmt: skip


def test_warns_if_the_membership_prior_is_as_good_on_hard_negatives() -> None:
    table = retrieval(0.6, blind=0.3, random=0.238, membership=0.5)
    found = judged(table, hard=retrieval(0.3, p=0.5, membership=0.3))
    assert [one.partition(",")[0] for one in found.warnings] == [
        "Among items that all belong to the relation"
    ]
    assert judged(table, hard=retrieval(0.4, membership=0.3)).warnings == ()


def test_warns_if_relation_types_are_no_better_than_frequency() -> None:
    table = retrieval(0.6, blind=0.3, random=0.238)
    for relation_type in (types(0.01, 0.3), types(-0.1, 0.001)):
        assert "no better than the frequency" in judged(table, relation_type).warnings[0]
    [stronger] = judged(table, types(membership=-0.05)).warnings
    assert stronger.endswith("the membership of both items, judged by their text.")
    assert judged(table, types(0.0, 1.0, frequency=1.0)).warnings == ()  # three relations: everyone is right


def test_warns_about_uniform_attention() -> None:
    table = retrieval(0.6, blind=0.3, random=0.238)
    found = verdict("rcml", {"random": table}, types(), AttentionEntropy(text=0.9, image=0.9951))
    [warning] = found.warnings
    assert warning.startswith(
        "The attention over the patches is almost uniform: its entropy is 0.9951 of log("
    )
    assert "another --conditioning, a higher --attention-gain or a lower --beta" in warning
