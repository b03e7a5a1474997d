"""Verdict of an evaluation: whether relation conditioning helps on these data, and what is best without a network."""

from collections.abc import Iterable, Mapping
from typing import Literal

from model.embeddings.attention_entropy import AttentionEntropy

from .figures import (
    Comparison,
    Negatives,
    RelationTypeFigures,
    RetrievalFigures,
    Role,
    Verdict,
)

SIGNIFICANT = 0.05
"""Maximum adjusted p of a difference that is called measurable."""

BASELINE_NAMES = {
    "random": "a random order",
    "popularity": "popularity",
    "membership": "the membership prior",
    "text": "the TF-IDF cosine",
    "co-occurrence": "co-occurrence",
    "factors": "matrix factorisation",
}

RELATION_TYPE_RIVALS = {
    "frequency": "the frequency of the relations",
    "frequency x membership": "the frequency of the relations and the membership of both items, judged by their text",
}
"""Baselines of relation type, the weakest first."""


def verdict(
    tested: Role,
    retrieval: Mapping[Negatives, RetrievalFigures],
    relation_type: RelationTypeFigures,
    entropy: AttentionEntropy | None = None,
) -> Verdict:
    """Judge the tested network by AVG Hit@5 with random negatives, and by relation type.

    A difference is measurable if its adjusted p is at most `SIGNIFICANT`. `entropy` is that of the attention, if it
    depends on the relation.
    """
    table = retrieval["random"]
    best = _best(table, BASELINE_NAMES)
    best_of_new = _best(table, BASELINE_NAMES.keys() - {"popularity"})
    effect, sentence = _effect(tested, table)
    warnings = []
    if effect in ("none", "costs"):
        warnings.append(
            "The network is not better than the same network without relations, so relations do not help retrieval "
            "on these data."
        )
    warnings += [
        f"The network is not better than {BASELINE_NAMES[name]}, which needs no network."
        for name in dict.fromkeys((best, best_of_new))
        if _outcome(table.comparisons[name]) != "adds"
    ]
    hard = retrieval.get("hard")
    if (
        hard is not None
        and "membership" in hard.comparisons
        and _outcome(hard.comparisons["membership"]) != "adds"
    ):
        warnings.append(
            "Among items that all belong to the relation, the network is not better than the membership prior, which "
            "ignores the query."
        )
    if relation_type.top_3["frequency"].value < 1.0:  # with at most three relations, every system is right
        for name, words in RELATION_TYPE_RIVALS.items():
            if _outcome(relation_type.comparisons[name]) != "adds":
                warnings.append(f"The network predicts the relation of a pair no better than {words}.")
                break
    if entropy is not None:
        warnings += entropy.warnings()
    reached = f"{BASELINE_NAMES[best]}, reaches {table.hit_at_5[best].value:.3f}"
    if best != best_of_new:
        reached += (
            f". An item new to the shop has no popularity yet; there the best is {BASELINE_NAMES[best_of_new]} with "
            f"{table.hit_at_5[best_of_new].value:.3f}"
        )
    return Verdict(
        effect=effect,
        sentence=f"{sentence} The best of what needs no network, {reached} (network: "
        f"{table.hit_at_5[tested].value:.3f}).",
        warnings=tuple(warnings),
    )


def _best(table: RetrievalFigures, names: Iterable[str]) -> str:
    """Return the baseline with the highest Hit@5 of those in `names`."""
    return max(sorted(set(names) & table.hit_at_5.keys()), key=lambda name: table.hit_at_5[name].value)


def _effect(tested: Role, table: RetrievalFigures) -> tuple[Literal["adds", "none", "costs"] | None, str]:
    if tested != "rcml":
        return None, (
            f"The tested network was trained with --objective {tested}, so this report does not say whether relation "
            "conditioning helps."
        )
    if "blind" not in table.comparisons:
        return None, "Without --blind, this report does not say whether relation conditioning helps."
    comparison = table.comparisons["blind"]
    difference, outcome = comparison.difference, _outcome(comparison)
    details = f"95 % interval {difference.low:.3f} to {difference.high:.3f}, {p_text(comparison.p_holm)}"
    if outcome == "none":
        return outcome, (
            "On your data relation conditioning makes no measurable difference to AVG Hit@5 over the same network "
            f"without it ({difference.value:+.3f}, {details})."
        )
    verb, to = ("adds", "to") if outcome == "adds" else ("costs", "of")
    return outcome, (
        f"On your data relation conditioning {verb} {abs(difference.value):.3f} ({details}) {to} AVG Hit@5 over the "
        "same network without it."
    )


def _outcome(comparison: Comparison) -> Literal["adds", "none", "costs"]:
    if comparison.p_holm > SIGNIFICANT:
        return "none"
    return "adds" if comparison.difference.value > 0 else "costs"


def p_text(p: float) -> str:
    """Return p with three decimals, as in `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
