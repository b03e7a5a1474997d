"""Sections of `report.md` that show networks and baselines side by side."""

from collections.abc import Mapping

from model.evaluation.figures import Comparison, Estimate, EvaluationReport
from model.evaluation.verdict import p_text
from model.markdown_table import table

KINDS = {
    "random": "both items new, random negatives",
    "hard": "both items new, hard negatives",
    "training": "query item from training, random negatives",
}
CATALOGUES = {"new": "both items new", "training": "query item from training"}

MEASURES = {
    "recall_at_5": "Recall@5",
    "recall_at_10": "Recall@10",
    "recall_at_50": "Recall@50",
    "ndcg_at_10": "nDCG@10",
    "mrr": "MRR",
}


def negatives_section(report: EvaluationReport) -> list[str]:
    """Return Hit@5 of all systems for each kind of sampled queries."""
    tables = report.retrieval
    systems = list(tables["random"].hit_at_5)
    fewer = [
        f"{KINDS[kind].capitalize()}: {own.negatives:.1f} negatives per query on average; {own.left_out:,} queries "
        "were left out for too few negatives."
        for kind, own in tables.items()
        if own.left_out or own.negatives < report.data.candidates - 1
    ]
    return [
        "## Retrieval by system: Hit@5, AVG similarity",
        "",
        "Hard negatives have a partner under the same relation, as the true partner does. With a query item from "
        "training, only the candidates are new. A tie counts as its expected value, so a system that knows nothing of "
        "new items is at chance level.",
        "",
        *table(
            ["queries", *systems],
            (
                [f"{KINDS[kind]} ({own.queries:,})", *(f"{own.hit_at_5[name].value:.3f}" for name in systems)]
                for kind, own in tables.items()
            ),
        ),
        "",
        *([*fewer, ""] if fewer else []),
        "![Retrieval of all systems. The bars are means, the lines 95 % intervals, the dashed line chance. Compare the "
        "panels: a system that is good only with random negatives knows which items take part in a relation, but not "
        "which belong together.](retrieval.png)",
        "",
        *differences(report.tested, "Hit@5", {KINDS[kind]: own.comparisons for kind, own in tables.items()}),
    ]


def catalogue_section(report: EvaluationReport) -> list[str]:
    """Return the measures on the full catalogue, by relation and by popularity."""
    lines = [
        "## Retrieval from the full catalogue, AVG similarity",
        "",
        "All test items are candidates, and all true partners of the query are relevant.",
        "",
    ]
    for kind, own in report.catalogue.items():
        systems = list(own.systems)
        lines += [
            f"**{CATALOGUES[kind].capitalize()}**: {own.queries:,} queries with {own.pairs:,} true "
            f"partners among {own.candidates:,} candidates.",
            "",
            *table(
                ["measure", *systems],
                (
                    [label, *(f"{getattr(own.systems[name], key).value:.3f}" for name in systems)]
                    for key, label in MEASURES.items()
                ),
            ),
            "",
            "Share of the true partners among the 10 best, by their number of users (or partners):",
            "",
            *table(
                ["popularity", "pairs", *systems],
                (
                    [
                        f"{bucket.least} to {bucket.most}",
                        f"{bucket.pairs:,}",
                        *(f"{bucket.found_at_10[name]:.3f}" for name in systems),
                    ]
                    for bucket in own.popularity
                ),
            ),
            "",
            "nDCG@10 by relation:",
            "",
            *table(
                ["relation", "queries", *systems],
                (
                    [
                        f"`{row.relation_id}`",
                        f"{row.queries:,}",
                        *(f"{row.ndcg_at_10[name]:.3f}" for name in systems),
                    ]
                    for row in own.relations
                ),
            ),
            "",
        ]
    compared = {CATALOGUES[kind]: own.comparisons for kind, own in report.catalogue.items()}
    return lines + differences(report.tested, "nDCG@10", compared)


def relation_type_table(report: EvaluationReport) -> list[str]:
    """Return the relation type of all systems."""
    own = report.relation_type
    return [
        "![Relation type of all systems. A network that reads the relation from the items is above the frequency of "
        "the relations, which looks at no item.](relation_type.png)",
        "",
        "All systems, networks by AVG similarity with calibrated probabilities:",
        "",
        *table(
            ["system", "Top-3 (95 % interval)", "log-loss", f"{report.tested} minus this system"],
            (
                [
                    name,
                    with_interval(top_3),
                    figure(own.log_loss[name]),
                    difference(own.comparisons[name]) if name in own.comparisons else "",
                ]
                for name, top_3 in own.top_3.items()
            ),
        ),
    ]


def validity_table(report: EvaluationReport) -> list[str]:
    """Return the differences in validity; nothing if there are no rivals."""
    if not report.validity.comparisons:
        return []
    return [*differences(report.tested, "Accuracy", {"all claims": report.validity.comparisons}), ""]


def sensitivity_section(report: EvaluationReport) -> list[str]:
    """Return how much the answers change with the relation."""
    own = report.sensitivity
    if own is None:
        return ["## Relation sensitivity", "", "There is only one relation.", *_attention_entropy(report)]
    systems = list(own.answers)
    cases = "all cases" if own.partners is None else "the cases with partners under both relations"
    return [
        "## Relation sensitivity",
        "",
        "Mean Jaccard overlap of the 10 best candidates of an item under two relations; 1 means that the relation "
        f"changes nothing. In {own.related:,} cases the item has true partners under both relations, and these overlap "
        f"by {figure(own.partners) or '(no case)'}. The known partners are few, so their overlap is only a rough guide "
        "to the best possible one.",
        "",
        f"![Overlap of the 10 best candidates under two relations, in {cases}. A bar that reaches 1 belongs to a "
        "system that ignores the relation; the green line is the overlap of the true partners.](sensitivity.png)",
        "",
        *table(
            ["cases", *systems],
            [
                [
                    "partners under both relations",
                    *(figure(own.answers[name].related) for name in systems),
                ],
                [f"all ({own.items:,} items)", *(figure(own.answers[name].all) for name in systems)],
            ],
        ),
        *_attention_entropy(report),
    ]


def _attention_entropy(report: EvaluationReport) -> list[str]:
    own = report.attention_entropy
    if own is None:
        return []
    shares = [
        f"{value:.3f} over {name}"
        for name, value in (("words", own.text), ("patches", own.image))
        if value is not None
    ]
    return [
        "",
        f"The entropy of the attention of `{report.tested}`, divided by log(number of tokens), is "
        f"{' and '.join(shares)}. It is 1 if the attention is uniform, and 0 if one token has all of it.",
    ]


def efficiency_section(report: EvaluationReport) -> list[str]:
    """Return size, time and memory of the networks and systems; nothing if they were not measured."""
    own = report.efficiency
    if own is None:
        return []
    counts = list(next(iter(own.systems.values())).ms_per_item)
    under = [f"{count} relation{'' if count == 1 else 's'}" for count in counts]
    return [
        "## Efficiency",
        "",
        f"Measured on {own.machine}. An item is encoded from its text and picture file; the time is the shortest "
        f"of several runs with up to {own.items} items of typical length. A query ranks all {own.candidates:,} test "
        "items on the CPU. Bytes are those of the different text and image vectors in half precision. Times and bytes "
        "are for one item.",
        "",
        *table(
            ["system", "parameters", *(f"ms, {words}" for words in under), "ms per query"],
            (
                [
                    name,
                    f"{one.parameters:,}",
                    *(f"{one.ms_per_item[count]:.2f}" for count in counts),
                    f"{one.ms_per_query:.3f}",
                ]
                for name, one in own.systems.items()
            ),
        ),
        "",
        *table(
            ["system", *(f"bytes, {words}" for words in under)],
            (
                [name, *(f"{one.bytes_per_item[count]:,}" for count in counts)]
                for name, one in own.systems.items()
            ),
        ),
    ]


def baselines_section(report: EvaluationReport) -> list[str]:
    """Return what each baseline does."""
    return [
        "## Baselines without a network",
        "",
        *(f"- **{name}**: {meaning}" for name, meaning in report.baselines.items()),
    ]


def differences(tested: str, measure: str, columns: Mapping[str, Mapping[str, Comparison]]) -> list[str]:
    """Return a table with one row per rival and one column per kind of cases; nothing if there are no rivals."""
    rivals = list(dict.fromkeys(name for own in columns.values() for name in own))
    if not rivals:
        return []
    return [
        f"{measure} of {tested} minus that of each rival, with 95 % interval and p (sign-flip test over items, "
        "adjusted for the number of rivals):",
        "",
        *table(
            ["rival", *columns],
            ([name, *(difference(own[name]) for own in columns.values())] for name in rivals),
        ),
    ]


def difference(comparison: Comparison) -> str:
    """Return a difference with its interval and p."""
    own = comparison.difference
    return f"{own.value:+.3f} ({own.low:+.3f} to {own.high:+.3f}), {p_text(comparison.p_holm)}"


def figure(value: float | None) -> str:
    """Return a figure with three decimals; nothing for None."""
    return "" if value is None else f"{value:.3f}"


def with_interval(estimate: Estimate) -> str:
    """Return a figure with its 95 % interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
