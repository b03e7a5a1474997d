"""`report.md` of an evaluation and its plots, made from the figures in `report.json`."""

from collections.abc import Callable, Mapping, Sequence
from math import log
from pathlib import Path

from model.config import Objective
from model.similarity import Similarity

from .figures import ChanceFigures, Estimate, EvaluationReport, NetworkFigures

NETWORK_ORDER: tuple[Objective, ...] = ("rcml", "blind", "clip")
NETWORK_COLOURS: dict[Objective, str] = {"rcml": "#2a6f97", "blind": "#e9a03b", "clip": "#a3a3a3"}
NETWORK_MEANINGS: dict[Objective, str] = {
    "rcml": "RCML, conditioned on the relation",
    "blind": "unconditioned ablation: the same pairs, one constant relation text",
    "clip": "CLIP baseline: self-pairs, cross-modal terms only",
}


def evaluation_markdown(report: EvaluationReport) -> str:
    """Return the content of `report.md`."""
    networks = _in_order(report)
    sections = (
        _retrieval_section(report, networks),
        _relation_type_section(report, networks),
        _validity_section(report, networks),
        _calibration_section(report, networks),
        _relations_section(report),
        _networks_section(report, networks),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _in_order(report: EvaluationReport) -> dict[Objective, NetworkFigures]:
    return {name: report.networks[name] for name in NETWORK_ORDER if name in report.networks}


def _retrieval_section(report: EvaluationReport, networks: Mapping[Objective, NetworkFigures]) -> list[str]:
    data = report.data
    return [
        "# Evaluation",
        "",
        f"The test data contains {data.items} items that training never saw, {data.edges} related pairs and "
        f"{data.relations} relations. Retrieval uses {data.queries} queries with {data.candidates} "
        f"candidates each: one true partner, the others random.",
        "",
        "## Retrieval: Hit@5 with 95 % interval",
        "",
        *_similarity_table(
            networks,
            lambda network, similarity: _with_interval(network.hit_at_5[similarity]),
            report.chance.hit_at_5,
        ),
        "",
        "![Hit@5 of the five similarities](hit_at_5.png)",
    ]


def _relation_type_section(
    report: EvaluationReport, networks: Mapping[Objective, NetworkFigures]
) -> list[str]:
    return [
        "## Relation type: Top-3 accuracy",
        "",
        *_similarity_table(
            networks,
            lambda network, similarity: f"{network.relation_type_top_3[similarity]:.3f}",
            report.chance.relation_type_top_3,
        ),
    ]


def _similarity_table(
    networks: Mapping[Objective, NetworkFigures],
    figure: Callable[[NetworkFigures, Similarity], str],
    chance: float,
) -> list[str]:
    """Return a table with one row per similarity and one column per network."""
    return [
        f"| similarity | {' | '.join(networks)} | chance |",
        f"|---|{'---:|' * (len(networks) + 1)}",
        *(
            f"| {similarity} | "
            + " | ".join(figure(network, similarity) for network in networks.values())
            + f" | {chance:.3f} |"
            for similarity in Similarity
        ),
    ]


def _validity_section(report: EvaluationReport, networks: Mapping[Objective, NetworkFigures]) -> list[str]:
    return [
        f"## Relation validity: accuracy on {report.data.claims} claims, about half of them true",
        "",
        f"| {' | '.join(networks)} | chance |",
        f"|{'---:|' * (len(networks) + 1)}",
        "| "
        + " | ".join(f"{network.validity_accuracy:.3f}" for network in networks.values())
        + f" | {report.chance.validity_accuracy:.3f} |",
        "",
        "![Three tasks, AVG similarity](tasks.png)",
    ]


def _calibration_section(report: EvaluationReport, networks: Mapping[Objective, NetworkFigures]) -> list[str]:
    return [
        "## Calibration",
        "",
        "Probabilities are calibrated if, for example, 80 % of the claims with a probability of 0.8 are true. ECE "
        "(expected calibration error) is the mean deviation from this. Log-loss is the mean of -log(probability of "
        "the true answer), in nats. For both, lower is better.",
        "",
        f"| | {' | '.join(networks)} | chance |",
        f"|---|{'---:|' * (len(networks) + 1)}",
        *_calibration_rows(list(networks.values()), report.chance),
        "",
        "![Reliability of validity probabilities](reliability.png)",
    ]


def _relations_section(report: EvaluationReport) -> list[str]:
    return [
        "## By relation",
        "",
        "Hit@5 uses AVG similarity. AUC and ECE use the calibrated validity probabilities. Figures from few queries or "
        "claims are imprecise, and few claims also increase ECE.",
        "",
        "| relation | queries | Hit@5 | claims | AUC | ECE |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| `{row.relation_id}` | {row.queries} | {_figure(row.hit_at_5)} | {row.claims} | "
            f"{_figure(row.validity_auc)} | {_figure(row.validity_ece)} |"
            for row in report.relations
        ),
    ]


def _networks_section(report: EvaluationReport, networks: Mapping[Objective, NetworkFigures]) -> list[str]:
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
            f"RCML's AVG Hit@5 is {ratio:.2f} times that of `{baseline}`."
            for baseline, ratio in report.ratios.items()
        ),
    ]


def draw_plots(report: EvaluationReport, folder: Path) -> None:
    """Write hit_at_5.png, tasks.png and reliability.png into `folder`."""
    networks, chance = _in_order(report), report.chance
    hits = {
        name: [network.hit_at_5[similarity] for similarity in Similarity]
        for name, network in networks.items()
    }
    _bars(
        folder / "hit_at_5.png",
        title=f"Hit@5 among {report.data.candidates} candidates, unseen items (95 % interval)",
        groups=[similarity.value for similarity in Similarity],
        values={name: [hit.value for hit in row] for name, row in hits.items()},
        errors={
            name: [(hit.value - hit.low, hit.high - hit.value) for hit in row] for name, row in hits.items()
        },
        chance=[chance.hit_at_5] * len(Similarity),
    )
    _bars(
        folder / "tasks.png",
        title="Three tasks on unseen items (AVG similarity)",
        groups=["retrieval\nHit@5", "relation type\nTop-3", "validity\naccuracy"],
        values={
            name: [
                network.hit_at_5[Similarity.AVG].value,
                network.relation_type_top_3[Similarity.AVG],
                network.validity_accuracy,
            ]
            for name, network in networks.items()
        },
        errors={},
        chance=[chance.hit_at_5, chance.relation_type_top_3, chance.validity_accuracy],
    )
    _reliability(folder / "reliability.png", networks)


def _bars(
    path: Path,
    title: str,
    groups: list[str],
    values: dict[Objective, list[float]],
    errors: dict[Objective, list[tuple[float, float]]],
    chance: list[float],
) -> None:
    """Draw groups of bars with one bar per network, and a line at the chance level of each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(values)
    for number, (name, row) in enumerate(values.items()):
        left = [group - 0.4 + width * (number + 0.5) for group in range(len(groups))]
        spread = [list(side) for side in zip(*errors[name], strict=True)] if name in errors else None
        axes.bar(
            left,
            row,
            width * 0.92,
            yerr=spread,
            color=NETWORK_COLOURS[name],
            label=name,
            capsize=2.5,
            ecolor="#333333",
        )
        for x, value in zip(left, row, strict=True):
            axes.text(
                x, 0.02, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color="white", weight="bold"
            )
    for group, level in enumerate(chance):
        axes.hlines(
            level, group - 0.45, group + 0.45, color="#b00020", linestyle="--", linewidth=1.4,
            label="chance" if group == 0 else "",
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 1)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=len(values) + 1, frameon=False, loc="outside lower center", fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def _reliability(path: Path, networks: Mapping[Objective, NetworkFigures]) -> None:
    """Draw a reliability diagram for each network, and below it the number of claims in each bin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 3.0 * len(networks), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        2, len(networks), sharex=True, sharey="row", squeeze=False, height_ratios=(3.4, 1)
    )
    for column, (name, network) in enumerate(networks.items()):
        above, below = panels[:, column]
        above.plot([0, 1], [0, 1], color="#b00020", linestyle="--", linewidth=1.2, label="exact")
        bins, error = network.reliability, network.validity_ece
        curves = (
            ("before", bins.before, error.before, "#444444", ":", "v"),
            ("after", bins.after, error.after, NETWORK_COLOURS[name], "-", "o"),
        )
        for stage, points, ece, colour, line, marker in curves:
            above.plot(
                [point.probability for point in points],
                [point.share for point in points],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=f"{stage}: ECE {ece:.3f}",
            )
        below.bar(
            [point.probability for point in bins.after],
            [point.claims for point in bins.after],
            width=0.05,
            color=NETWORK_COLOURS[name],
        )
        above.set_title(name, loc="left", fontsize=10)
        above.legend(frameon=False, fontsize=8, loc="upper left")
        below.set_xlabel("predicted probability", fontsize=9)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    panels[0, 0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panels[0, 0].set_ylabel("share of true claims", fontsize=9)
    panels[1, 0].set_ylabel("claims", fontsize=9)
    figure.suptitle(
        "Relation validity before and after calibration, unseen items", x=0.01, ha="left", fontsize=11
    )
    figure.savefig(path, metadata={"Software": None})


def _calibration_rows(networks: Sequence[NetworkFigures], chance: ChanceFigures) -> list[str]:
    def row(name: str, figures: list[str], of_chance: float | None) -> str:
        return f"| {name} | {' | '.join(figures)} | {_figure(of_chance)} |"

    def both(before: float | None, after: float | None) -> str:
        return f"{_figure(before)}, calibrated {_figure(after)}"

    errors = [network.validity_ece for network in networks]
    losses = [network.validity_log_loss for network in networks]
    type_losses = [network.relation_type_log_loss[Similarity.AVG] for network in networks]
    return [
        row("validity AUC", [_figure(network.validity_auc) for network in networks], chance.validity_auc),
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


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _with_interval(hit: Estimate) -> str:
    return f"{hit.value:.3f} ({hit.low:.3f} to {hit.high:.3f})"
