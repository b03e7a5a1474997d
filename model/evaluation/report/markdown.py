"""`report.md` of an evaluation, made from the figures in `report.json`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import log

from model.evaluation.figures import ChanceFigures, EvaluationReport, NetworkFigures, Role
from model.evaluation.verdict import p_text
from model.markdown_table import table
from model.similarity import Similarity

from .all_systems import (
    baselines_section,
    catalogue_section,
    efficiency_section,
    figure,
    negatives_section,
    relation_type_table,
    sensitivity_section,
    validity_table,
    with_interval,
)

NETWORK_ORDER: tuple[Role, ...] = ("rcml", "blind", "clip", "siglip", "unicl", "declip", "against")
NETWORK_MEANINGS: dict[Role, str] = {
    "rcml": "RCML, conditioned on the relation",
    "blind": "unconditioned ablation: the same pairs, one constant relation text",
    "clip": "CLIP baseline: self-pairs, cross-modal terms only",
    "siglip": "CLIP baseline with SigLIP's loss",
    "unicl": "CLIP baseline with UniCL's loss, all related items as positives",
    "declip": "CLIP baseline with DeCLIP's loss",
    "against": "checkpoint to compare with",
}


EXAMPLES = {
    "cases.png": "Case study: query items, and the three best candidates of each among all test items under two "
    "relations. True partners are framed in green. The queries were drawn at random from the items that have partners "
    "under two relations, different ones if possible.",
    "attention.png": "Attention: the first items of the case study under the same two relations, side by side. The "
    "patches of the picture and the words of the text are shaded by their weight in the pooling (A of eq. 5). A shade "
    "means the same in both halves; even is the shade of all words or patches if they had equal weights. The "
    "percentages are the shares of the attention on words and on patches; the rest is on special tokens such as CLS.",
    "item_map.png": "Map of test items (t-SNE of the AVG vectors), coloured by their first category: on the left "
    "without a relation, on the right under the relation with the most test pairs. If the relation matters, groups "
    "that are apart on the left mix on the right, or the reverse.",
    "picture_map.png": "The same map with pictures: above without a relation, below under the relation. Look at which "
    "pictures become neighbours.",
}
"""Captions of the figures that show examples, by their file."""


def evaluation_markdown(report: EvaluationReport, examples: Collection[str] = ()) -> str:
    """Return the content of `report.md`; `examples` contains the files of the figures with examples."""
    networks = networks_in_order(report)
    sections = (
        _verdict_section(report),
        _retrieval_section(report, networks),
        negatives_section(report),
        catalogue_section(report),
        _relation_type_section(report, networks),
        _validity_section(report, networks),
        sensitivity_section(report),
        *([_examples_section(examples, report.tested)] if examples else []),
        _calibration_section(report, networks),
        _relations_section(report),
        _networks_section(report, networks),
        efficiency_section(report),
        baselines_section(report),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _examples_section(files: Collection[str], tested: Role) -> list[str]:
    figures = [f"![{caption}]({file})" for file, caption in EXAMPLES.items() if file in files]
    if tested != "rcml":
        figures.append(
            f"There is no figure of the attention, because that of `{tested}` is the same under every relation."
        )
    return ["## Examples", "", *"\n\n".join(figures).splitlines()]


def networks_in_order(report: EvaluationReport) -> dict[Role, NetworkFigures]:
    """Return the networks in the order of the report."""
    return {name: report.networks[name] for name in NETWORK_ORDER if name in report.networks}


def _verdict_section(report: EvaluationReport) -> list[str]:
    data, verdict = report.data, report.verdict
    lines = ["# Evaluation", "", f"**{verdict.sentence}**", ""]
    if verdict.warnings:
        lines += [*(f"- Warning: {warning}" for warning in verdict.warnings), ""]
    return [
        *lines,
        f"The test data contains {data.items} items that training never saw, {data.edges} related pairs and "
        f"{data.relations} relations. Retrieval uses {data.queries} queries with {data.candidates} "
        f"candidates each: one true partner, the others random. {_checkpoints(report)}",
    ]


def _checkpoints(report: EvaluationReport) -> str:
    if max(len(own) for own in report.checkpoints.values()) == 1:
        return (
            "Every network was trained once. The intervals and p-values do not cover the differences between "
            "trainings."
        )
    counts = ", ".join(f"{role}: {len(own)}" for role, own in report.checkpoints.items())
    return (
        f"Figures of networks are means over checkpoints ({counts}). The intervals and p-values are over items and do "
        "not cover the differences between trainings, which the last table shows."
    )


def _retrieval_section(report: EvaluationReport, networks: Mapping[Role, NetworkFigures]) -> list[str]:
    def hits(name: Role, similarity: Similarity) -> str:
        value = with_interval(networks[name].hit_at_5[similarity])
        if name != report.tested:
            return value
        return f"{value}, {p_text(report.against_chance[similarity].p_holm)}"

    return [
        "## Retrieval by similarity: Hit@5 with 95 % interval",
        "",
        *_similarity_table(networks, hits, report.chance.hit_at_5),
        "",
        f"p: {report.tested} against chance, by a two-sided sign-flip test over query items, adjusted for the "
        f"{len(report.against_chance)} similarities.",
        "",
        "![Hit@5 of the five similarities: text with text (TT), image with image (II), across (TI, IT), and the "
        "average of both views (AVG). The lines on the bars are 95 % intervals, the dashed line chance.](hit_at_5.png)",
    ]


def _relation_type_section(report: EvaluationReport, networks: Mapping[Role, NetworkFigures]) -> list[str]:
    return [
        "## Relation type: Top-3 accuracy",
        "",
        *_similarity_table(
            networks,
            lambda name, similarity: f"{networks[name].relation_type_top_3[similarity]:.3f}",
            report.chance.relation_type_top_3,
        ),
        "",
        *relation_type_table(report),
    ]


def _similarity_table(
    networks: Collection[Role],
    cell: Callable[[Role, Similarity], str],
    chance: float,
) -> list[str]:
    """Return a table with one row per similarity and one column per network."""
    return table(
        ["similarity", *networks, "chance"],
        (
            [similarity, *(cell(name, similarity) for name in networks), f"{chance:.3f}"]
            for similarity in Similarity
        ),
    )


def _validity_section(report: EvaluationReport, networks: Mapping[Role, NetworkFigures]) -> list[str]:
    return [
        f"## Relation validity: accuracy on {report.data.claims} claims, about half of them true",
        "",
        *table(
            ["measure", *networks, "chance"],
            [
                [
                    "accuracy",
                    *(f"{network.validity_accuracy:.3f}" for network in networks.values()),
                    f"{report.chance.validity_accuracy:.3f}",
                ]
            ],
        ),
        "",
        *validity_table(report),
        "![Accuracy of the claims. The dashed line is a random guess.](validity.png)",
        "",
        "![The three tasks of the paper side by side, AVG similarity.](tasks.png)",
    ]


def _calibration_section(report: EvaluationReport, networks: Mapping[Role, NetworkFigures]) -> list[str]:
    return [
        "## Calibration",
        "",
        "Probabilities are calibrated if, for example, 80 % of the claims with a probability of 0.8 are true. ECE "
        "(expected calibration error) is the mean deviation from this. Log-loss is the mean of -log(probability of "
        "the true answer), in nats. For both, lower is better.",
        "",
        *table(["measure", *networks, "chance"], _calibration_rows(list(networks.values()), report.chance)),
        "",
        "![Reliability of the validity probabilities. Calibrated probabilities lie on the dashed diagonal; the bars "
        "below count the claims.](reliability.png)",
    ]


def _relations_section(report: EvaluationReport) -> list[str]:
    return [
        "## By relation",
        "",
        "Hit@5 uses AVG similarity. AUC and ECE use the calibrated validity probabilities. Figures from few queries or "
        "claims are imprecise, and few claims also increase ECE.",
        "",
        *table(
            ["relation", "queries", "Hit@5", "claims", "AUC", "ECE"],
            (
                [
                    f"`{row.relation_id}`",
                    str(row.queries),
                    figure(row.hit_at_5),
                    str(row.claims),
                    figure(row.validity_auc),
                    figure(row.validity_ece),
                ]
                for row in report.relations
            ),
        ),
    ]


def _networks_section(report: EvaluationReport, networks: Mapping[Role, NetworkFigures]) -> list[str]:
    return [
        "## Networks",
        "",
        *(
            f"- **{name}** ({NETWORK_MEANINGS[name]}): {network.parameters:,} parameters, "
            f"{network.steps} steps, trained in {network.seconds:.0f} s"
            for name, network in networks.items()
        ),
        "",
        *(
            f"AVG Hit@5 of `{report.tested}` is {ratio:.2f} times that of `{rival}`."
            for rival, ratio in report.ratios.items()
        ),
        "",
        *table(
            [
                "checkpoint",
                "seed",
                "AVG Hit@5",
                "nDCG@10, full catalogue",
                "relation type Top-3",
                "validity",
            ],
            (
                [
                    f"{role} `{one.path}`",
                    "" if one.seed is None else str(one.seed),
                    f"{one.hit_at_5:.3f}",
                    f"{one.ndcg_at_10:.3f}",
                    f"{one.relation_type_top_3:.3f}",
                    f"{one.validity_accuracy:.3f}",
                ]
                for role, own in report.checkpoints.items()
                for one in own
            ),
        ),
    ]


def _calibration_rows(networks: Sequence[NetworkFigures], chance: ChanceFigures) -> list[list[str]]:
    def row(name: str, figures: list[str], of_chance: float | None) -> list[str]:
        return [name, *figures, figure(of_chance)]

    def both(before: float | None, after: float | None) -> str:
        return f"{figure(before)}, calibrated {figure(after)}"

    errors = [network.validity_ece for network in networks]
    losses = [network.validity_log_loss for network in networks]
    type_losses = [network.relation_type_log_loss[Similarity.AVG] for network in networks]
    return [
        row("validity AUC", [figure(network.validity_auc) for network in networks], chance.validity_auc),
        row("validity ECE", [both(error.before, error.after) for error in errors], None),
        row("validity log-loss", [both(loss.before, loss.after) for loss in losses], log(2)),
        row(
            "relation-type log-loss, AVG",
            [both(loss.before, loss.after) for loss in type_losses],
            chance.relation_type_log_loss,
        ),
        row(
            "relation-type Top-3, AVG",
            [
                both(
                    network.relation_type_top_3[Similarity.AVG],
                    network.relation_type_top_3_calibrated[Similarity.AVG],
                )
                for network in networks
            ],
            chance.relation_type_top_3,
        ),
    ]
